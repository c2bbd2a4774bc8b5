//! `forebay load` against a real `forebay up`, and against servers that do what no server should: what it counts must be true.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use forebay_handlers::auth::Role;
use serde_json::Value;
use support::Up;
use support::process::{Ended, Process, forebay};
use support::up::{ORG, reserved_port};

/// `forebay load`, with these words.
fn load(words: &[&str]) -> Process {
    Process::spawn(forebay().arg("load").args(words))
}

/// The report of a measurement that has ended.
#[track_caller]
fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The report of one that went well.
#[track_caller]
fn good(words: &[&str]) -> Value {
    let ended = load(words).wait();
    assert_eq!((ended.code(), &*ended.stderr), (0, ""), "{ended:?}");
    report(&ended)
}

#[track_caller]
fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// Asks one that goes step by step for reports, until what they have counted is as it must be. Ends it then.
#[track_caller]
fn watch(mut idle: Process, dropped: u64, events: u64) -> Ended {
    let mut report: Value = serde_json::from_str(&idle.line()).unwrap();
    let mut seen = number(&report, "events") as u64;
    support::eventually("all has been counted", || {
        if report["dropped"] == dropped && seen == events {
            return Some(());
        }
        assert!(seen <= events, "{report}");
        idle.write("stats\n");
        report = serde_json::from_str(&idle.line()).unwrap();
        seen += number(&report, "events") as u64;
        None
    });
    idle.close_stdin();
    idle.wait()
}

/// A header with a token for every channel.
fn authorization(up: &Up, role: Role) -> String {
    format!("Authorization: Bearer {}", up.dir.token(role, ORG, &["*"]))
}

#[test]
fn connections_are_held_step_by_step() {
    let up = Up::start();
    let path = format!("/events/{ORG}?channel_id=own-{{n}}");
    let (token, pid) = (authorization(&up, Role::Subscriber), up.process.pid().to_string());
    let mut idle = load(&[
        "idle",
        "--connect",
        &up.address,
        "--path",
        &path,
        "--header",
        &token,
        "--count",
        "20,50",
        "--threads",
        "3",
        "--steps",
        "--json",
        "--pid",
        &pid,
    ]);
    let first: Value = serde_json::from_str(&idle.line()).unwrap();
    assert_eq!(
        (&first["report"], &first["open"], &first["opened"]),
        (&"step".into(), &20.into(), &20.into())
    );
    assert!(
        number(&first, "server_rss_bytes") > 0.0 && number(&first, "open_latency_p99_us") > 0.0
    );
    assert!(number(&first, "server_cpu_us_per_connection") > 0.0);

    // Each has its own channel: connection 7 alone gets this.
    up.delta("own-7", "hello");
    let stats = support::eventually("the event is counted", || {
        idle.write("stats\n");
        let stats: Value = serde_json::from_str(&idle.line()).unwrap();
        assert_eq!((&stats["report"], &stats["opened"]), (&"stats".into(), &0.into()));
        (stats["events"] == 1).then_some(stats)
    });
    assert!(number(&stats, "read_bytes") > 100.0);
    idle.write("go on\n");
    let second: Value = serde_json::from_str(&idle.line()).unwrap();
    assert_eq!(
        (&second["open"], &second["opened"], &second["events"]),
        (&50.into(), &30.into(), &0.into())
    );
    idle.close_stdin();
    assert_eq!(idle.wait().code(), 0);
}

#[test]
fn connections_of_every_kind_are_held() {
    let up = Up::start();
    let token = authorization(&up, Role::Subscriber);
    let common = ["idle", "--connect", &up.address, "--count", "30", "--hold", "0.2", "--json"];
    let socket = format!("/ws/{ORG}");
    let message = r#"{"id":{n},"type":"subscribe","channel":"own-{n}"}"#;
    let kinds: [&[&str]; 4] = [
        &["--silent"],
        &["--keep-alive", "--path", "/healthz", "--rate", "0"],
        &["--websocket", "--path", &socket, "--header", &token],
        &[
            "--websocket",
            "--path",
            &socket,
            "--header",
            &token,
            "--message",
            message,
            "--expect",
            r#""type":"answer""#,
            "--sources",
            "3",
        ],
    ];
    for kind in kinds {
        let report = good(&[&common[..], kind].concat());
        assert_eq!(
            (&report["open"], &report["failed"], &report["hold_dropped"]),
            (&30.into(), &0.into(), &0.into()),
            "{kind:?}"
        );
        assert_eq!(report["hold_open"], 30);
        assert!(number(&report, "generator_rss_bytes") > 0.0);
    }
}

#[test]
fn steps_that_are_asked_for_at_once_are_all_done() {
    let up = Up::start();
    let words = ["load", "idle", "--connect", &up.address, "--silent", "--count", "3,9", "--steps"];
    let lines = Process::run_with(forebay().args(words), "go on\nstats\n").good();
    let opened: Vec<_> = lines.lines().map(|line| line.split(" · ").nth(3).unwrap()).collect();
    assert_eq!(opened, ["opened 3", "opened 6", "opened 0"]);
}

#[test]
fn ctrl_c_ends_it_with_a_report() {
    let up = Up::start();
    let idle = load(&[
        "idle",
        "--connect",
        &up.address,
        "--silent",
        "--count",
        "5",
        "--hold",
        "3600",
        "--json",
    ]);
    // It holds them when the process has as many sockets.
    let directory = format!("/proc/{}/task", idle.pid());
    support::eventually("all are open", || {
        let tasks = std::fs::read_dir(&directory).ok()?.flatten();
        let sockets =
            tasks.flat_map(|task| std::fs::read_dir(task.path().join("fd")).ok()).map(|fds| {
                let links = fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
                links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
            });
        (sockets.max()? >= 5).then_some(())
    });
    idle.signal("INT");
    let ended = idle.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let report = report(&ended);
    assert_eq!((&report["open"], &report["interrupted"]), (&5.into(), &true.into()));
}

#[test]
fn every_subscriber_gets_every_event() {
    let up = Up::start();
    let (keys, pid) = (up.dir.path().to_str().unwrap(), up.process.pid().to_string());
    let common = [
        "fan",
        "--connect",
        &up.address,
        "--org",
        ORG,
        "--keys",
        keys,
        "--pid",
        &pid,
        "--seconds",
        "0.5",
        "--warmup",
        "0.1",
        "--json",
    ];
    let ways: [&[&str]; 4] = [
        &["--subscribers", "20", "--one-at-a-time"],
        &["--subscribers", "60", "--channels", "3", "--window", "6", "--payload", "2000"],
        &["--subscribers", "30", "--channels", "30", "--rate", "300", "--threads", "2"],
        &["--subscribers", "20", "--channels", "4", "--window", "4", "--websocket"],
    ];
    for way in ways {
        let report = good(&[&common[..], way].concat());
        for nothing in
            ["lost", "repeated", "strayed", "damaged", "dropped", "unfinished_events", "failed"]
        {
            assert_eq!(report[nothing], 0, "{nothing} {way:?} {report}");
        }
        assert_eq!(report["statuses"]["200"], report["published"], "{report}");
        assert!(number(&report, "deliveries") > 0.0 && number(&report, "deliveries_per_s") > 0.0);
        let (p50, p99) = (number(&report, "latency_p50_us"), number(&report, "latency_p99_us"));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= number(&report, "latency_max_us"), "{report}");
        assert!(number(&report, "last_delivery_max_us") <= number(&report, "latency_max_us"));
        assert!(number(&report, "server_cpu_us_per_delivery") > 0.0);
        assert!(number(&report, "generator_cpu_s") > 0.0);
        assert!(report["limited_by_generator"].is_boolean());
    }
}

#[test]
fn events_are_published_alone_and_in_batches() {
    let up = Up::start();
    let keys = up.dir.path().to_str().unwrap();
    let common = [
        "publish",
        "--connect",
        &up.address,
        "--org",
        ORG,
        "--keys",
        keys,
        "--seconds",
        "1",
        "--warmup",
        "0.1",
        "--json",
        "--channel-prefix",
        "p",
        "--channels",
        "3",
        "--connections",
        "4",
    ];
    let alone = good(&common);
    assert_eq!((&alone["events"], &alone["statuses"]["200"]), (&alone["events"], &alone["events"]));
    assert!(number(&alone, "events_per_s") > 0.0 && number(&alone, "latency_p50_us") > 0.0);
    for channel in ["p0", "p1", "p2"] {
        assert!(!up.all_events(channel).is_empty(), "{channel}");
    }
    let batches =
        good(&[&common[..], &["--batch", "7", "--threads", "2", "--rate", "700"]].concat());
    assert_eq!(number(&batches, "events"), 7.0 * number(&batches["statuses"], "200"));

    let table = load(&common.iter().copied().filter(|word| *word != "--json").collect::<Vec<_>>())
        .wait()
        .good();
    assert!(table.contains("\nevents per s  ") && table.contains("\nlatency  "), "{table}");
}

#[test]
fn requests_are_answered() {
    let up = Up::start();
    let common =
        ["requests", "--connect", &up.address, "--path", "/healthz", "--seconds", "0.3", "--json"];
    for way in [
        &["--connections", "8"][..],
        &["--connections", "2", "--threads", "2", "--rate", "200", "--pipeline", "3"],
    ] {
        let report = good(&[&common[..], way].concat());
        assert_eq!(report["requests"], report["statuses"]["200"]);
        assert!(
            number(&report, "requests") > 0.0 && number(&report, "latency_max_us") > 0.0,
            "{report}"
        );
    }
}

#[test]
fn what_a_server_refuses_is_told() {
    let up = Up::start_with(&["--channel-rate", "1"]);
    let keys = up.dir.path().to_str().unwrap();
    let ended = load(&[
        "publish",
        "--connect",
        &up.address,
        "--org",
        ORG,
        "--keys",
        keys,
        "--seconds",
        "1",
        "--json",
    ])
    .wait();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.starts_with("error: status 429 for "), "{ended:?}");
    assert!(report(&ended)["statuses"]["429"].as_u64().unwrap() > 0);
    let batch = ["--batch", "5", "--channels", "10", "--rate", "50"];
    let ended = load(
        &[
            &[
                "publish",
                "--connect",
                &up.address,
                "--org",
                ORG,
                "--keys",
                keys,
                "--seconds",
                "0.5",
                "--json",
            ][..],
            &batch,
        ]
        .concat(),
    )
    .wait();
    assert!(ended.stderr.contains(" events of batches were refused"), "{ended:?}");
    let ended =
        load(&["idle", "--connect", &up.address, "--path", "/nowhere", "--count", "7", "--json"])
            .wait();
    assert_eq!((ended.code(), &*ended.stderr), (1, "error: status 404 for 7 of 7 connections\n"));
    let ended = load(&[
        "fan",
        "--connect",
        &up.address,
        "--rate",
        "1",
        "--subscribe",
        "/a",
        "--publish",
        "/b",
        "--subscribers",
        "4",
    ])
    .wait();
    assert_eq!((ended.code(), &*ended.stderr), (1, "error: status 404 for 4 of 4 subscribers\n"));
}

#[test]
fn what_makes_no_sense_names_itself() {
    let rows = [
        ("load", "Usage: forebay load"),
        ("load fly", "'fly'"),
        ("load idle --count 1", "--path <TEMPLATE>"),
        ("load idle --path / --count 0", "0 is not in 1.."),
        ("load idle --path / --count 5,5", "--count: each step is larger"),
        ("load idle --path x --count 1", "a path begins with /"),
        ("load idle --path / --count 1 --header x", "'x' for '--header"),
        ("load idle --path / --count 1 --connect 127.0.0.1", "not HOST:PORT"),
        ("load idle --path / --count 1 --silent --websocket", "'--websocket'"),
        ("load idle --path / --count 100000 --sources 1", "100,000 connections: from 1 source"),
        (
            "load idle --path / --count 1 --pid 4000000000",
            "--pid 4000000000: there is no such process",
        ),
        ("load fan --subscribe /a --publish /b", "--rate <EVENTS/S>"),
        ("load fan --subscribe /a --publish /b --rate 1 --window 2", "'--rate"),
        ("load fan --subscribe /a --publish /b --rate 1 --payload 10", "10 is not in 48.."),
        ("load fan --subscribe /a --publish /b --rate 1 --body yaml", "nor a text with {payload}"),
        ("load fan --publish /b --rate 1", "--subscribe or --org is needed"),
        ("load fan --rate 1 --org 1 --keys /proc/none", "--keys: there are no development keys"),
        ("load publish", "--org is needed"),
        ("load requests --seconds 0", "'0' for '--seconds"),
    ];
    for (line, expected) in rows {
        let ended = Process::run(forebay().args(line.split(' ')));
        assert_eq!(ended.code(), 2, "{line}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{line}: {ended:?}");
    }
    let port = reserved_port();
    for line in [
        "idle --path / --count 3",
        "requests",
        "fan --subscribe /a --publish /b --rate 1 --subscribers 3",
    ] {
        let words: Vec<_> = line.split(' ').chain(["--connect", port.address()]).collect();
        let ended = load(&words).wait();
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.stderr.contains("connection refused"), "{ended:?}");
    }
}

/// A server on a free port: what it does with each connection, whose number it is told. It ends with the test.
fn serve(behave: impl Fn(usize, BufReader<TcpStream>) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let behave = Arc::new(behave);
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().flatten().enumerate() {
            let behave = Arc::clone(&behave);
            std::thread::spawn(move || behave(number, BufReader::new(socket)));
        }
    });
    address
}

/// Reads a request: its first line, and its body.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok().filter(|len| *len > 0)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, body))
}

const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn what_goes_wrong_with_connections_is_counted() {
    // Of ten: two are refused, one is cut in its head, one loses its stream, one's stream ends.
    let address = serve(|number, mut reader| {
        read_request(&mut reader).unwrap();
        let mut socket = reader.get_ref();
        let answer: &[&[u8]] = match number {
            0 | 1 => &[b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"],
            2 => &[b"HTTP/1.1 20"],
            3 => &[STREAM, b"5\r\n: hi\n\r\n"],
            4 => &[STREAM, b"0\r\n\r\n"],
            _ => &[STREAM, b"7\r\ndata: a", b"\r\n2\r\n\n\n\r\n"],
        };
        for piece in answer {
            socket.write_all(piece).unwrap();
        }
        if number > 4 {
            // Until the client goes.
            let _ = socket.read(&mut [0]);
        }
    });
    let idle =
        load(&["idle", "--connect", &address, "--path", "/", "--count", "10", "--steps", "--json"]);
    let ended = watch(idle, 2, 5);
    assert_eq!(ended.code(), 1);
    for reason in [
        "status 503 for 2 of 10 connections",
        "closed by the server before the answer for 1 of 10 connections",
        "closed by the server for 1 of 7 open connections",
        "the response ended for 1 of 7 open connections",
    ] {
        assert!(ended.stderr.contains(reason), "{reason}: {ended:?}");
    }
}

#[test]
fn what_is_lost_or_comes_twice_is_counted() {
    // The first subscriber does not get event 3, and the second gets event 5 twice.
    let subscribers: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let address = serve(move |_, mut reader| {
        while let Some((first, body)) = read_request(&mut reader) {
            if first.starts_with("GET") {
                let mut socket = reader.get_ref().try_clone().unwrap();
                // Its place is taken before it is told that it has one.
                let mut all = subscribers.lock().unwrap();
                socket.write_all(STREAM).unwrap();
                all.push(socket);
                continue;
            }
            let text = String::from_utf8(body).unwrap();
            let event: usize = text.split_once("E=").unwrap().1[..10].parse().unwrap();
            let chunk = format!("{:x}\r\ndata: {text}\n\n\r\n", text.len() + 8);
            for (number, mut socket) in subscribers.lock().unwrap().iter().enumerate() {
                let times = match (number, event) {
                    (0, 3) => 0,
                    (1, 5) => 2,
                    _ => 1,
                };
                socket.write_all(chunk.repeat(times).as_bytes()).unwrap();
            }
            reader.get_ref().write_all(b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let ended = load(&[
        "fan",
        "--connect",
        &address,
        "--subscribe",
        "/{c}",
        "--publish",
        "/{c}",
        "--body",
        "raw",
        "--subscribers",
        "3",
        "--rate",
        "100",
        "--seconds",
        "0.5",
        "--warmup",
        "0",
        "--json",
    ])
    .wait();
    let report = report(&ended);
    let counts =
        ["lost", "repeated", "strayed", "damaged", "unfinished_events"].map(|name| &report[name]);
    assert_eq!(counts, [1, 1, 0, 0, 1], "{report}");
    assert_eq!(ended.code(), 1);
    let text = "error: 1 deliveries were lost; 1 deliveries were delivered twice\n";
    assert_eq!(ended.stderr, text);
}

#[test]
fn a_socket_answers_pings_and_checks_what_it_is_told() {
    let pongs = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&pongs);
    let address = serve(move |number, mut reader| {
        let mut key = String::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("Sec-WebSocket-Key: ") {
                value.trim().clone_into(&mut key);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let accept = if number == 0 { "wrong".to_owned() } else { accept };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let mut socket = reader.get_ref();
        socket.write_all(head.as_bytes()).unwrap();
        if number == 0 {
            return;
        }
        // A message in two frames, with a ping between them that is cut in two.
        socket.write_all(b"\x01\x02he\x89\x02h").unwrap();
        socket.write_all(b"i\x80\x03llo").unwrap();
        let mut pong = [0; 8];
        reader.read_exact(&mut pong).unwrap();
        assert_eq!(pong[..2], [0x8a, 0x82]);
        assert_eq!([pong[6] ^ pong[2], pong[7] ^ pong[3]], *b"hi");
        *counted.lock().unwrap() += 1;
        if number == 1 {
            reader.get_ref().write_all(b"\x88\x02\x03\xe9").unwrap();
        }
        // Until the client goes.
        let _ = reader.read(&mut [0]);
    });
    let idle = load(&[
        "idle",
        "--connect",
        &address,
        "--websocket",
        "--path",
        "/",
        "--count",
        "4",
        "--steps",
        "--json",
    ]);
    let ended = watch(idle, 1, 3);
    support::eventually("all pings are answered", || (*pongs.lock().unwrap() == 3).then_some(()));
    let reasons = "error: Sec-WebSocket-Accept is wrong for 1 of 4 connections; closed by the server with 1001 for 1 of 3 open connections\n";
    assert_eq!(ended.stderr, reasons);
}
