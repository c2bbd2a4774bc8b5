//! `forebay up` as its users meet it: it starts, its printed lines work, and readers get the bytes of
//! `docs/channels.md`.
//!
//! Publishing is in `publish.rs`, what is wrong with a request in `status.rs`, what survives a `kill -9` in
//! `durability.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use forebay_handlers::auth::Role;
use serde_json::{Value, json};
use support::up::{DataDir, ORG};
use support::{Event, EventStream, Next, Process, Up, eventually};

/// The values of events, in their order.
fn values(events: &[Event]) -> Vec<Value> {
    events.iter().map(Event::value).collect()
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| &*event.id).collect()
}

/// A shell that runs a line as a user would paste it.
fn bash(line: &str) -> Process {
    Process::spawn(Command::new("bash").args(["-c", line]))
}

#[test]
fn the_printed_lines_work_as_they_are() {
    let up = Up::start();
    assert_eq!(up.process.line(), "");
    assert_eq!(up.process.line(), "subscribe:");
    let subscribe = up.process.line();
    assert_eq!(up.process.line(), "publish:");
    let publish = up.process.line();

    let reader = bash(&subscribe);
    assert_eq!(reader.line(), "retry: 500");
    assert_eq!(reader.line(), "");
    let id = bash(&publish).wait().good();
    assert_eq!(reader.line(), "event: stream");
    assert_eq!(reader.line(), format!("id: {id}"));
    let data: Value = serde_json::from_str(&reader.line_with("data: ")).unwrap();
    assert_eq!(data["payload"], json!({"value": "hello"}));
    assert_eq!(data["channel_id"], "demo");
    assert_eq!(reader.line(), "");
}

#[test]
fn who_gets_nothing_hears_that_the_connection_lives() {
    let up = Up::start_with(&["--keep-alive", "1s"]);
    let token = up.dir.token(Role::Subscriber, ORG, &["quiet"]);
    let url = format!("{}/events/{ORG}?channel_id=quiet&token={token}", up.url());
    let reader = bash(&format!("exec curl -sN '{url}'"));
    let lines: Vec<String> = (0..6).map(|_| reader.line()).collect();
    assert_eq!(lines, ["retry: 500", "", ":", "", ":", ""]);
}

#[test]
fn starts_in_a_directory_that_is_not_there_and_ends_well() {
    let dir = DataDir::new();
    let inner = dir.join("a/b");
    let mut command = support::process::forebay();
    command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&inner);
    let process = Process::spawn(&mut command);
    let address = process.line_with("ready http://");
    eventually("its parts are found to be there", || {
        (support::get("/readyz").send(&address).status() == 200).then_some(())
    });
    let health = support::get("/healthz").send(&address).json();
    assert_eq!(health["status"], "ok");
    let ended = process.terminate();
    assert_eq!((ended.code(), &*ended.stderr), (0, ""));
    // Keys are what makes tokens: nobody else may read them.
    let secret = std::fs::metadata(inner.join("keys/publish.secret")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o777, 0o600);
}

#[test]
fn a_stream_is_these_bytes() {
    let up = Up::start();
    let message = json!({"message_id": "97f58c19-ce38-4c6b-8a5b-47f3405691f0", "phase": "PHASE_DELTA", "sequence": 2,
        "payload": {"value": "a\n\u{1}\"ü", "n": 42.0, "half": 0.5, "b": [true, null, {}]}});
    let id = up.publish("news", &message);
    let mut stream = up.read(&up.reading(&["news"]));
    let mut head = stream.head.headers.clone();
    head.retain(|(name, _)| name != "Date");
    let expected = [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-cache"),
        ("X-Accel-Buffering", "no"),
        ("Access-Control-Allow-Origin", "*"),
        ("Transfer-Encoding", "chunked"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(head, expected);
    let block = [
        "event: stream\nid: ",
        &id,
        "\ndata: {\"event_type\":\"stream\",\"message_id\":\"97f58c19-ce38-4c6b-8a5b-47f3405691f0\",\
         \"channel_id\":\"news\",\"phase\":\"PHASE_DELTA\",\"sequence\":2,\"payload\":\
         {\"b\":[true,null,{}],\"half\":0.5,\"n\":42,\"value\":\"a\\n\\u0001\\\"ü\"}}\n",
    ];
    assert_eq!(stream.next(), Next::Block(block.concat()));
    assert!(id.ends_with("-1"), "{id}");
}

#[test]
fn live_events_come_in_order_and_end_closes() {
    let up = Up::start();
    let mut stream = up.read(&up.reading(&["news"]));
    let mut published = Vec::new();
    for number in 0..20 {
        published.push(up.delta("news", number));
    }
    published.push(up.end("news"));
    let events = stream.events_to_end();
    assert_eq!(ids(&events), published);
    assert_eq!(values(&events[..20]), (0..20).map(Value::from).collect::<Vec<_>>());
    assert_eq!(events[20].json()["phase"], "PHASE_END");
    assert_eq!(events[20].json()["payload"], Value::Null);
}

#[test]
fn a_reader_resumes_without_hole_or_repeat() {
    let up = Up::start();
    let published: Vec<_> = (0..6).map(|number| up.delta("news", number)).collect();
    let reading = up.reading(&["news"]);
    let next = |reading| up.read(&reading).event().id;

    // From the oldest; after an id in the header, in the query, in both; empty is absent.
    assert_eq!(next(reading.clone()), published[0]);
    assert_eq!(next(reading.clone().after(&published[2])), published[3]);
    let in_query = |id: &str| reading.clone().with(&format!("last_event_id={id}"));
    assert_eq!(next(in_query(&published[1])), published[2]);
    assert_eq!(next(in_query(&published[1]).after(&published[3])), published[4]);
    assert_eq!(next(in_query(&published[1]).after("")), published[2]);
    assert_eq!(next(in_query("").after("")), published[0]);
    assert_eq!(next(in_query("0-0")), published[0]);

    // From now on: two readers, each with its own way to say it.
    let mut now = [up.read(&in_query("$")), up.read(&reading.clone().after("$"))];
    let seventh = up.delta("news", 6);
    for stream in &mut now {
        assert_eq!(stream.event().id, seventh);
    }

    // A reader that breaks off after each event gets each once.
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < 7 {
        let last = seen.last().cloned().unwrap_or_default();
        seen.push(next(reading.clone().after(last)));
    }
    assert_eq!(seen[..6], published);
    assert_eq!(seen[6], seventh);
}

#[test]
fn after_the_end_there_is_nothing_until_the_channel_goes_on() {
    let up = Up::start();
    let reading = up.reading(&["news"]);
    let first = up.delta("news", "first");
    let end = up.end("news");

    // It has everything: this stops an EventSource.
    let over = up.send(&reading.clone().after(&end).request());
    assert_eq!(over.answer(), (204, ""));
    assert_eq!(over.header("Access-Control-Allow-Origin"), Some("*"));
    // It has not: it gets the rest, and the end of the response.
    let mut late = up.read(&reading.clone().after(&first));
    assert_eq!(ids(&late.events_to_end()), [&end]);

    // The channel goes on in a new epoch, in the same log: nothing is missing.
    let mut waiting = up.read(&reading.clone().after("$"));
    let again = up.delta("news", "again");
    assert!(again.ends_with("-1") && again.split('-').next() > end.split('-').next(), "{again}");
    assert_eq!(waiting.event().id, again);
    let mut resumed = up.read(&reading.clone().after(&end));
    assert_eq!(resumed.event().id, again);
    let last = up.end("news");
    assert_eq!(ids(&resumed.events_to_end()), [&last]);
    assert_eq!(up.send(&reading.after(&last).request()).status(), 204);
}

/// Reads the channels of one connection until it ends, and checks that each is whole.
fn read_both(stream: &mut EventStream, ends: &mut HashMap<String, Vec<Value>>) -> String {
    let mut last = String::new();
    for event in stream.events_to_end() {
        if event.json()["phase"] != "PHASE_END" {
            ends.entry(event.channel()).or_default().push(event.value());
        }
        last = event.id;
    }
    last
}

#[test]
fn one_connection_reads_several_channels_and_resumes_each() {
    let up = Up::start();
    let (a, b) = ("a", "b.2:~-");
    for number in 0..10 {
        up.delta(a, number);
        up.delta(b, 100 + number);
    }
    let reading = up.reading(&[a, b]);

    // Breaks off after each event, and goes on with the id that it got.
    let mut seen: HashMap<String, Vec<Value>> = HashMap::new();
    let mut cursor = String::new();
    for _ in 0..13 {
        let mut stream = up.read(&reading.clone().after(&cursor));
        let event = stream.event();
        seen.entry(event.channel()).or_default().push(event.value());
        cursor = event.id;
    }

    // One channel ends, the other goes on; only when both have ended the response does.
    let mut stream = up.read(&reading.clone().after(&cursor));
    up.end(a);
    up.delta(b, 110);
    up.end(b);
    let last = read_both(&mut stream, &mut seen);
    assert_eq!(seen[a], (0..10).map(Value::from).collect::<Vec<_>>());
    assert_eq!(seen[b], (100..111).map(Value::from).collect::<Vec<_>>());
    assert_eq!(up.send(&reading.clone().after(&last).request()).status(), 204);

    // A composite id says where one of its channels stands, too.
    let one = up.reading(&[b]);
    assert_eq!(up.send(&one.after(&last).request()).status(), 204);
    // And one of the two goes on, from where it was.
    let again = up.delta(a, "again");
    let event = up.read(&reading.after(&last)).event();
    assert_eq!((event.channel(), event.value()), (a.to_owned(), json!("again")));
    assert_eq!(up.read(&up.reading(&[a]).after(&event.id).with("x")).head.status, 200);
    assert_eq!(up.all_events(a).last().unwrap().0, again);
}

#[test]
fn a_channel_whose_end_is_known_does_not_keep_the_response_open() {
    let up = Up::start();
    up.delta("b", 1);
    up.end("a");
    let reading = up.reading(&["a", "b"]);
    let mut stream = up.read(&reading);
    stream.event();
    let cursor = stream.event().id;
    let mut stream = up.read(&reading.after(&cursor));
    up.delta("b", 2);
    up.end("b");
    let events = stream.events_to_end();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.channel() == "b"));
}

#[test]
fn history_long_poll_and_head_have_the_same_cursors() {
    let up = Up::start();
    let head = |expected: Value| {
        assert_eq!(up.send(&up.history("news", "/head")).json(), expected);
    };
    head(json!({"head": "0-0", "ended": false}));

    let published: Vec<_> = (0..5).map(|number| up.delta("news", number)).collect();
    head(json!({"head": published[4], "ended": false}));
    let events = up.read(&up.reading(&["news"])).events(5);
    let data: Vec<_> = events.iter().map(|event| (event.id.clone(), event.json())).collect();
    assert_eq!(up.all_events("news"), data);

    // Pages, each after the last.
    let page = up.send(&up.history("news", "?limit=2")).json();
    assert_eq!((&page["next"], &page["channel"]), (&json!(published[1]), &json!("news")));
    let query = format!("?limit=10&after={}", page["next"].as_str().unwrap());
    let page = up.send(&up.history("news", &query)).json();
    let rest: Vec<_> =
        page["events"].as_array().unwrap().iter().map(|event| &event["id"]).collect();
    assert_eq!(rest, published[2..].iter().collect::<Vec<_>>());
    assert_eq!((&page["gap"], &page["ended"]), (&Value::Null, &json!(false)));

    // A long poll waits for what comes, and is answered with it. The stream tells when it is there.
    let long_poll = up.history("news", &format!("?wait=30&after={}", published[4]));
    let mut stream = up.read(&up.reading(&["news"]).after(&published[4]));
    let address = up.address.clone();
    let poll = std::thread::spawn(move || long_poll.send(&address).json());
    let sixth = up.delta("news", "sixth");
    let page = poll.join().unwrap();
    assert_eq!((&page["next"], &page["events"][0]["id"]), (&json!(sixth), &json!(sixth)));
    assert_eq!(page["events"][0]["data"], stream.event().json());

    // An end is worth an answer, and after it nobody waits.
    let end = up.end("news");
    let query = format!("?wait=30&after={end}");
    let page = up.send(&up.history("news", &query)).json();
    assert_eq!((&page["events"], &page["ended"]), (&json!([]), &json!(true)));
    head(json!({"head": end, "ended": true}));
}

#[test]
fn a_trimmed_history_is_told_as_a_gap() {
    let up = Up::start_with(&["--channel-rate=0", "--history-max=3"]);
    let published: Vec<_> = (0..6).map(|number| up.delta("news", number)).collect();
    let mut stream = up.read(&up.reading(&["news"]).after(&published[0]));
    let gap = stream.event();
    assert_eq!(gap.kind, "control");
    let data = gap.json();
    assert_eq!((&data["event_type"], &data["control_type"]), (&json!("control"), &json!("gap")));
    let told = [&data["channel"], &data["from"], &data["to"], &data["reason"]];
    assert_eq!(
        told,
        [&json!("news"), &json!(published[0]), &json!(published[3]), &json!("trimmed")]
    );
    // The gap's id is a place to go on from.
    assert_eq!(ids(&stream.events(3)), published[3..]);
    assert_eq!(up.read(&up.reading(&["news"]).after(&gap.id)).event().id, published[3]);

    let query = format!("?after={}", published[0]);
    let page = up.send(&up.history("news", &query)).json();
    assert_eq!(page["gap"], json!({"from": published[0], "to": published[3], "reason": "trimmed"}));
    // Without a cursor nothing is missing.
    assert_eq!(up.read(&up.reading(&["news"])).event().id, published[3]);
}

#[test]
fn a_deleted_channel_tells_its_readers_and_is_gone() {
    let up = Up::start();
    let first = up.delta("news", 1);
    let mut stream = up.read(&up.reading(&["news"]).after(&first));
    let delete = || {
        let token = up.dir.token(Role::Publisher, ORG, &["news"]);
        support::Request::new("DELETE", format!("/channels/{ORG}/news")).bearer(&token)
    };
    assert_eq!(up.send(&delete()).answer(), (204, ""));
    let events = stream.events_to_end();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&*events[0].kind, &events[0].json()["control_type"]),
        ("control", &json!("deleted"))
    );
    assert_eq!(up.send(&up.reading(&["news"]).after(&events[0].id).request()).status(), 204);
}

#[test]
fn an_idle_channel_expires_and_its_readers_are_closed() {
    let up = Up::start_with(&["--channel-rate=0", "--idle-ttl=1s"]);
    let first = up.delta("news", 1);
    let mut stream = up.read(&up.reading(&["news"]).after(&first));
    let events = stream.events_to_end();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&*events[0].kind, &events[0].json()["control_type"]),
        ("control", &json!("expired"))
    );
}

#[test]
fn stopping_closes_streams_at_an_event_boundary() {
    let up = Up::start();
    let mut stream = up.read(&up.reading(&["news"]));
    let first = up.delta("news", 1);
    assert_eq!(stream.event().id, first);
    up.process.signal("TERM");
    let ended = up.process.wait();
    assert_eq!(ended.code(), 0);
    let mut rest = Vec::new();
    loop {
        match stream.next() {
            Next::Block(block) => rest.push(Event::parse(&block)),
            Next::End => break,
            Next::Cut => panic!("cut off after {rest:?}"),
        }
    }
    let types: Vec<_> = rest.iter().map(|event| event.json()["control_type"].clone()).collect();
    assert_eq!(types, ["server_draining"]);
}

#[test]
fn a_second_signal_does_not_wait() {
    let dir = DataDir::new();
    let mut command = support::process::forebay();
    command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    let process = Process::spawn(command.env("FOREBAY_DRAIN_TIMEOUT", "600"));
    let address = process.line_with("ready http://");
    // A request that never gets whole holds up the first one.
    let token = dir.token(Role::Publisher, ORG, &["c"]);
    let mut slow = TcpStream::connect(&address).unwrap();
    let head =
        format!("POST /publish/1/c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    slow.write_all(format!("{head}Content-Length: 9\r\n\r\n{{").as_bytes()).unwrap();
    process.signal("TERM");
    eventually("it stops", || process.line().ends_with("stopping...").then_some(()));
    process.signal("INT");
    assert_eq!(process.wait().code(), 1);
}
