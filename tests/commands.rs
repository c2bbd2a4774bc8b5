//! `token`, `publish` and `tail`: what they print, how they end, and what they do when the server is in trouble.
//!
//! How they are called is in `usage.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use forebay_handlers::auth::{DevKeys, Verifier};
use serde_json::{Value, json};
use support::process::{Process, forebay};
use support::up::{DataDir, NO_RATE, ORG, reserved_port};
use support::{Up, eventually};

/// Seconds since 1970.
fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A client command with what says where the server is.
fn client(up: &Up, command: &str, arguments: &[&str]) -> Command {
    let mut client = forebay();
    client.args([command, "--org", ORG, "--url", &up.url(), "--data-dir"]).arg(up.dir.path());
    client.args(arguments);
    client
}

fn publish(up: &Up, arguments: &[&str]) -> Command {
    client(up, "publish", arguments)
}

fn tail(up: &Up, arguments: &[&str]) -> Command {
    client(up, "tail", arguments)
}

/// The phase and the payload of each line that `tail` printed, and that its ids rise.
fn told(lines: &str) -> Vec<(String, Value)> {
    let line = |line: &str| -> (u64, (String, Value)) {
        let [id, phase, payload] = *line.splitn(3, ' ').collect::<Vec<_>>() else {
            panic!("{line}")
        };
        let offset = id.split_once('-').unwrap().1.parse().unwrap();
        (offset, (phase.to_owned(), serde_json::from_str(payload).unwrap()))
    };
    let lines: Vec<_> = lines.lines().map(line).collect();
    assert!(lines.windows(2).all(|two| two[0].0 < two[1].0), "{lines:?}");
    lines.into_iter().map(|(_, told)| told).collect()
}

fn delta(payload: Value) -> (String, Value) {
    ("DELTA".to_owned(), payload)
}

fn bare(phase: &str) -> (String, Value) {
    (phase.to_owned(), Value::Null)
}

#[test]
fn a_token_is_all_that_token_prints() {
    let dir = DataDir::new();
    let token = |arguments: &[&str]| {
        let mut command = forebay();
        command.args(["token", "--data-dir"]).arg(dir.path()).args(arguments);
        let ended = Process::run(&mut command);
        assert_eq!(ended.stderr, "");
        let line = ended.good();
        let token = line.strip_suffix('\n').unwrap().to_owned();
        assert!(token.split('.').count() == 3 && !token.contains(char::is_whitespace), "{token}");
        token
    };
    let before = now_s();
    let subscribe =
        token(&["subscribe", "--org", "1", "--channel", "a", "--channel", "b*", "--ttl", "90s"]);
    let all = token(&["subscribe", "--org", "acme"]);
    let publish = token(&["publish", "--org", "1", "--channel", "a"]);

    let keys = DevKeys::load_or_create(dir.path()).unwrap();
    let readers = Verifier::new(keys.subscriber_config()).unwrap();
    let claims = readers.verify(&subscribe, now_s()).unwrap();
    assert!((before + 90..=now_s() + 90).contains(&claims.expires_s), "{claims:?}");
    assert!(claims.authorize("1", &["a", "b", "bc"]).is_ok());
    assert!(claims.authorize("1", &["aa"]).is_err() && claims.authorize("2", &["a"]).is_err());
    let claims = readers.verify(&all, now_s()).unwrap();
    assert!((before + 3600..=now_s() + 3600).contains(&claims.expires_s), "{claims:?}");
    assert!(claims.authorize("acme", &["any"]).is_ok());
    let publishers = Verifier::new(keys.publisher_config()).unwrap();
    assert!(publishers.authorize(&publish, "1", &["a"], now_s()).is_ok());
    assert!(publishers.verify(&subscribe, now_s()).is_err());
}

#[test]
fn what_is_published_is_told() {
    let up = Up::start();
    let reader = Process::spawn(&mut tail(&up, &["--channel", "c"]));
    let input = "plain\n{\"an\":{\"object\":1}}\n[1]\n7\n\n{broken\nlast, without a line break";
    let published = Process::run_with(&mut publish(&up, &["--channel", "c"]), input);
    assert_eq!((published.stderr.clone(), published.good()), (String::new(), String::new()));
    let ended = reader.wait();
    assert_eq!(ended.stderr, "");
    let value = |text: &str| delta(json!({ "value": text }));
    let expected = [
        bare("START"),
        value("plain"),
        delta(json!({"an": {"object": 1}})),
        value("[1]"),
        value("7"),
        value(""),
        value("{broken"),
        value("last, without a line break"),
        bare("END"),
    ];
    assert_eq!(told(&ended.good()), expected);
    let stored = up.all_events("c");
    assert!(
        stored
            .iter()
            .map(|(_, data)| &data["sequence"])
            .eq((0..9).map(Value::from).collect::<Vec<_>>().iter())
    );

    // As JSON, and from the middle.
    let from = &stored[6].0;
    let lines = Process::run(&mut tail(&up, &["--channel", "c", "--json", "--from", from])).good();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = stored[7..].iter();
    let expected = expected.map(|(id, data)| json!({"id": id, "event": "stream", "data": data}));
    assert_eq!(lines, expected.collect::<Vec<_>>());
    // There is nothing behind the end, and that is no error.
    let end = &stored[8].0;
    assert_eq!(Process::run(&mut tail(&up, &["--channel", "c", "--from", end])).good(), "");
}

#[test]
fn an_open_channel_and_from_now_on() {
    let up = Up::start();
    Process::run_with(&mut publish(&up, &["--channel", "c", "--no-end"]), "old\n").good();
    let phases: Vec<_> =
        up.all_events("c").into_iter().map(|(_, data)| data["phase"].clone()).collect();
    assert_eq!(phases, ["PHASE_START", "PHASE_DELTA"]);
    let reader = Process::spawn(&mut tail(&up, &["--channel", "c", "--from", "$"]));
    // Until it is there; what it then tells first is none of the old.
    let first = eventually("an event is told", || {
        up.delta("c", "new");
        reader.line_now()
    });
    assert_eq!(told(&first), [delta(json!({"value": "new"}))]);
    up.end("c");
    assert!(told(&reader.wait().good()).ends_with(&[bare("END")]));
}

#[test]
fn several_channels_are_told_together() {
    let up = Up::start();
    let arguments = ["--channel", "a", "--channel", "b", "--json"];
    let events = |lines: String| -> Vec<Value> {
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let reader = Process::spawn(&mut tail(&up, &arguments));
    for channel in ["a", "b"] {
        let mut open = publish(&up, &["--channel", channel, "--no-end"]);
        Process::run_with(&mut open, "one\ntwo\n").good();
    }
    up.end("a");
    up.end("b");
    let told = events(reader.wait().good());
    for channel in ["a", "b"] {
        let own = told.iter().map(|event| &event["data"]);
        let own = own.filter(|data| data["channel_id"] == channel);
        let phases: Vec<_> = own.map(|data| data["phase"].as_str().unwrap()).collect();
        assert_eq!(phases, ["PHASE_START", "PHASE_DELTA", "PHASE_DELTA", "PHASE_END"]);
    }
    // From the middle of both, by the id that an event came with.
    let data = |events: &[Value]| {
        let mut data: Vec<_> = events.iter().map(|event| event["data"].to_string()).collect();
        data.sort();
        data
    };
    for at in 0..3 {
        let from = ["--from", told[at]["id"].as_str().unwrap()];
        let rest = Process::run(&mut tail(&up, &[&arguments[..], &from].concat())).good();
        assert_eq!(data(&events(rest)), data(&told[at + 1..]));
    }
}

#[test]
fn a_gap_is_said() {
    let up = Up::start_with(&[NO_RATE, "--history-max=2"]);
    let published: Vec<_> = (0..4).map(|number| up.delta("c", number)).collect();
    up.end("c");
    let ended = Process::run(&mut tail(&up, &["--channel", "c", "--from", &published[0]]));
    let (from, to) = (&published[0], &published[3]);
    let gap = format!("gap in c: what came after {from} and before {to} is gone (trimmed)\n");
    assert_eq!(ended.stderr, gap);
    assert_eq!(told(&ended.good()), [delta(json!({"value": 3})), bare("END")]);
}

#[test]
fn a_fast_publisher_is_slowed_down_and_loses_nothing() {
    let up = Up::start_with(&["--channel-rate=20"]);
    let input: String = (0..50).map(|number| format!("{number}\n")).collect();
    Process::run_with(&mut publish(&up, &["--channel", "c"]), &input).good();
    let stored = up.all_events("c").into_iter().map(|(_, data)| data["payload"]["value"].clone());
    let mut expected = vec![Value::Null];
    expected.extend((0..50).map(|number| json!(number.to_string())));
    expected.push(Value::Null);
    assert_eq!(stored.collect::<Vec<_>>(), expected);
}

#[test]
fn publish_and_tail_outlive_the_server() {
    let port = reserved_port();
    let mut up = Up::start_in(&DataDir::new(), port.address(), &[NO_RATE]);
    let reader = Process::spawn(&mut tail(&up, &["--channel", "c"]));
    let mut publisher = Process::spawn(&mut publish(&up, &["--channel", "c"]));
    publisher.write("0\n1\n");
    for expected in [bare("START"), delta(json!({"value": "0"})), delta(json!({"value": "1"}))] {
        assert_eq!(told(&reader.line()), [expected]);
    }
    // Killed, and there are lines before it is back.
    up.process.kill();
    publisher.write("2\n");
    up = Up::start_in(&up.dir, port.address(), &[NO_RATE]);
    assert_eq!(told(&reader.line()), [delta(json!({"value": "2"}))]);
    // Stopped in good order.
    up = up.stop_and_start(&[NO_RATE]);
    publisher.write("3\n");
    publisher.close_stdin();
    publisher.wait().good();
    let ended = reader.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let values: Vec<_> =
        told(&ended.stdout).into_iter().map(|(_, payload)| payload["value"].clone()).collect();
    assert_eq!(values, [json!(null), json!("0"), json!("1"), json!("2"), json!("3"), json!(null)]);
    assert_eq!(up.all_events("c").len(), 6);
}

#[test]
fn what_cannot_succeed_is_said_at_once() {
    let up = Up::start();
    let failure = |command: &mut Command, input: &str| {
        let ended = Process::run_with(command, input);
        assert_eq!((ended.code(), &*ended.stdout), (1, ""));
        ended.stderr
    };
    let token = ["--channel", "c", "--token", "a.b.c"];
    let refused = "error: event 0 was not published: 401 Unauthorized: Token validation failed\n";
    assert_eq!(failure(&mut publish(&up, &token), ""), refused);
    assert_eq!(failure(&mut tail(&up, &token), ""), "error: 401 Unauthorized: Invalid token\n");
    let cursor = failure(&mut tail(&up, &["--channel", "c", "--from", "x"]), "");
    assert!(cursor.starts_with("error: 400 Bad Request: Invalid last_event_id: "), "{cursor}");

    let long = format!("short\n{}\n", "x".repeat(20_000));
    let text = "error: line 2 of the input was not published: it is longer than 16384 bytes\n";
    assert_eq!(failure(&mut publish(&up, &["--channel", "c"]), &long), text);
    // The line fits, and the event around it does not.
    let text = failure(&mut publish(&up, &["--channel", "d"]), &"x".repeat(16_380));
    assert!(
        text.starts_with("error: event 1 was not published: 413 Payload Too Large: Message size "),
        "{text}"
    );
}

#[test]
fn who_has_seen_enough_ends_tail() {
    let up = Up::start();
    up.delta("c", 0);
    let mut tail = tail(&up, &["--channel", "c"]);
    let words = [tail.get_program()].into_iter().chain(tail.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let line = format!("set -o pipefail; {} | head -n 1", words.join(" "));
    tail = Command::new("bash");
    let mut pipeline = Process::spawn(tail.args(["-c", &line]));
    eventually("the pipeline ends", || {
        up.delta("c", 1);
        (!pipeline.is_running()).then_some(())
    });
    let ended = pipeline.wait();
    assert_eq!(ended.stderr, "");
    assert_eq!(told(&ended.good()), [delta(json!({"value": 0}))]);
}
