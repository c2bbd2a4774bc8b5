//! The programs of `examples/python`, each run as its reader would: behind our edge, and behind Debian's `condure`.
//!
//! They are plain ZHTTP handlers (but for `hold.py`), so neither they nor the tests may be able to tell the two edges
//! apart. Where Condure is not installed, its half of the tests passes and says so.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/client.rs"]
mod client;
#[path = "examples_python/edges.rs"]
mod edges;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/process.rs"]
mod process;
#[path = "peers/websocket.rs"]
mod websocket;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use client::Client;
use edges::{Edge, Kind, Mode};
use peers::within;
use websocket::WebSocket;

/// An edge sends the first keep-alive of a session within 45 seconds. Passing this is a failure.
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(150);

/// A program that runs, or two of them in a pipeline. Killed when dropped.
struct Program {
    children: Vec<Child>,
    /// What the last one prints.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(edge: &Edge, name: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new(peers::python());
        command.arg(example(name)).args(["--spec", &edge.spec]).args(arguments);
        let (child, stdout) = spawn(command, Stdio::null());
        Program { children: vec![child], lines: BufReader::new(stdout).lines() }
    }

    /// `python FIRST --spec SPEC | xargs XARGS python SECOND --spec SPEC SECOND_ARGUMENTS`
    fn pipe(edge: &Edge, first: &str, xargs: &[&str], second: (&str, &[&str])) -> Program {
        let mut from = Command::new(peers::python());
        from.arg(example(first)).args(["--spec", &edge.spec]);
        // What it prints there is for people.
        from.stderr(Stdio::null());
        let (from, pipe) = spawn(from, Stdio::null());
        let mut to = Command::new("xargs");
        to.args(xargs).arg(peers::python()).arg(example(second.0));
        to.args(["--spec", &edge.spec]).args(second.1);
        let (to, stdout) = spawn(to, pipe.try_into().unwrap());
        Program { children: vec![from, to], lines: BufReader::new(stdout).lines() }
    }

    async fn line(&mut self) -> String {
        within(self.lines.next_line()).await.unwrap().expect("the program has ended")
    }

    async fn kill(mut self) {
        for child in &mut self.children {
            child.kill().await.unwrap();
        }
    }

    /// The line that comes when the edge has sent a keep-alive.
    async fn line_in_a_minute(&mut self) -> String {
        let line = tokio::time::timeout(KEEP_ALIVE_PATIENCE, self.lines.next_line()).await;
        line.expect("no keep-alive comes").unwrap().expect("the program has ended")
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python").join(name)
}

fn spawn(mut command: Command, stdin: Stdio) -> (Child, ChildStdout) {
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    (child, stdout)
}

/// Runs a test behind Condure, where it is installed; again, if Condure has died of a fault of its own meanwhile.
async fn behind_condure<F: Future<Output = ()> + Send + 'static>(mode: Mode, test: fn(Edge) -> F) {
    for _ in 0..CONDURE_ATTEMPTS_MAX {
        let Some(edge) = Edge::start(Kind::Condure, mode).await else { return };
        let panicked = edge.panicked();
        let Err(failure) = tokio::spawn(test(edge)).await else { return };
        if !panicked.load(Ordering::Acquire) {
            std::panic::resume_unwind(failure.into_panic());
        }
    }
    panic!("condure dies each time");
}

/// How often a test is run again because Condure has died.
const CONDURE_ATTEMPTS_MAX: usize = 5;

/// Makes two tests of each function, for either edge.
macro_rules! behind_each_edge {
    ($($name:ident: $mode:ident),+ $(,)?) => {
        mod behind_forebay {
            use super::{Edge, Kind, Mode};
            $(
                #[tokio::test]
                async fn $name() {
                    let edge = Edge::start(Kind::Forebay, Mode::$mode).await;
                    super::$name(edge.unwrap()).await;
                }
            )+
        }
        mod behind_condure {
            use super::Mode;
            $(
                #[tokio::test]
                async fn $name() {
                    super::behind_condure(Mode::$mode, super::$name).await;
                }
            )+
        }
    };
}

behind_each_edge! {
    hello: Stream,
    stream: Stream,
    print_requests_and_send_response: Stream,
    keep_alive_forgets_clients_of_a_dead_edge: Stream,
    handoff: Stream,
    websocket_echo: Stream,
    req: Req,
}

async fn hello(edge: Edge) {
    let mut program = Program::start(&edge, "hello.py", &["--edge", "edge"]);
    let mut client = Client::get(edge.address, "/a").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "hello, world\n"));
    assert_eq!(program.line().await, "GET http://x.com/a");
}

async fn stream(edge: Edge) {
    let _program = Program::start(&edge, "stream.py", &["--bytes", "100000"]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::get(edge.address, "/").await);
    }
    for mut client in clients {
        let response = client.response().await;
        assert_eq!((response.status, response.body.len()), (200, 100_000));
    }
}

async fn print_requests_and_send_response(edge: Edge) {
    let second: (&str, &[&str]) = ("send_response.py", &["--body", "from me"]);
    let _programs = Program::pipe(&edge, "print_requests.py", &["-n2"], second);
    for path in ["/a", "/b"] {
        let mut client = Client::get(edge.address, path).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "from me"));
    }
}

/// Each takes most of a minute, so both edges are waited for at the same time.
#[tokio::test]
async fn keep_alive() {
    tokio::join!(keep_alive_behind(Kind::Forebay), keep_alive_behind(Kind::Condure));
}

async fn keep_alive_behind(kind: Kind) {
    let Some(edge) = Edge::start(kind, Mode::Stream).await else { return };
    let mut program = Program::start(&edge, "keep_alive.py", &[]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::get(edge.address, "/").await;
        client.until(": held\n\n").await;
        assert!(program.line().await.starts_with("held "));
        clients.push(client);
    }

    // One packet or several: each session is named.
    let mut named = 0;
    while named < clients.len() {
        let line = program.line_in_a_minute().await;
        let ids = line.strip_prefix("alive ").unwrap_or_else(|| panic!("{kind:?}: {line}"));
        named += ids.split(' ').count();
    }
    for client in &mut clients {
        client.until("event: alive\ndata: 3\n\n").await;
    }

    drop(clients);
    for _ in 0..3 {
        let line = program.line().await;
        assert!(line.starts_with("left "), "{kind:?}: {line}");
    }
}

async fn keep_alive_forgets_clients_of_a_dead_edge(edge: Edge) {
    let mut program = Program::start(&edge, "keep_alive.py", &["--expiry", "0.5"]);
    let mut client = Client::get(edge.address, "/").await;
    client.until(": held\n\n").await;
    edge.kill();
    let held = program.line().await;
    assert_eq!(program.line().await, held.replace("held", "expired"));
}

async fn handoff(edge: Edge) {
    let second: (&str, &[&str]) = ("handoff.py", &["--interval", "0", "--take"]);
    let mut programs = Program::pipe(&edge, "handoff.py", &["-n4", "-P0"], second);
    let mut client = Client::get(edge.address, "/").await;
    client.until("line 1, by process ").await;
    let first = client.until("\n").await;
    client.until("line 2, by process ").await;
    let second = client.until("\n").await;
    assert_ne!(first, second, "another process");
    // More than the credits that it was handed: it gets more, at its own address.
    for number in 3..500 {
        client.until(&format!("line {number}, by process {second}")).await;
    }
    drop(client);
    assert_eq!(programs.line().await, "the client has left");
}

async fn websocket_echo(edge: Edge) {
    let _program = Program::start(&edge, "websocket_echo.py", &[]);
    let mut client = websocket::connect(&format!("ws://{}/echo", edge.address)).await;
    let large = "ä".repeat(400_000);
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![0, 255, 1]),
        Message::text(large),
        Message::binary(vec![7; 1_000_000]),
    ] {
        within(client.send(message.clone())).await.unwrap();
        assert_eq!(within(client.next()).await.unwrap().unwrap(), message);
    }
    let close = CloseFrame { code: CloseCode::Library(4001), reason: "that is all".into() };
    within(client.close(Some(close.clone()))).await.unwrap();
    let answer = within(client.next()).await.unwrap().unwrap();
    assert_eq!(answer, Message::Close(Some(close)));
    assert!(within(client.next()).await.is_none(), "the connection is closed");
}

async fn req(edge: Edge) {
    let mut program = Program::start(&edge, "req.py", &[]);
    let mut client = Client::get(edge.address, "/a").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "HELLO, WORLD\n"));
    assert_eq!(program.line().await, "GET http://x.com/a");

    // A body that comes in pieces is one for the handler.
    client.send("POST /b HTTP/1.1\r\nHost: x.com\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "ABC");
    assert_eq!(program.line().await, "POST http://x.com/b");
}

/// The id and the data of the next event of the counter.
async fn count(client: &mut Client) -> (String, String) {
    client.until("event: stream\nid: ").await;
    let id = client.until("\n").await.trim_end().to_owned();
    client.until("data: ").await;
    (id, client.until("\n\n").await.trim_end().to_owned())
}

fn data(id: &str) -> String {
    let (_, offset) = id.split_once('-').unwrap();
    format!("{{\"count\":{offset}}}")
}

/// The hold extension is Forebay's alone.
#[tokio::test]
async fn hold() {
    let edge = Edge::start(Kind::Forebay, Mode::Stream).await.unwrap();
    let arguments = ["--interval", "0.02"];
    let program = Program::start(&edge, "hold.py", &arguments);
    let mut client = Client::get(edge.address, "/").await;
    let (mut last, _) = count(&mut client).await;
    assert!(last.ends_with("-1"), "from the beginning on");
    for offset in 2..30 {
        let (id, text) = count(&mut client).await;
        assert!(id.ends_with(&format!("-{offset}")), "{id}");
        assert_eq!(text, data(&id));
        last = id;
    }

    // A reconnect goes on where it was.
    drop(client);
    let mut client = Client::connect(edge.address).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: x.com\r\nLast-Event-ID: {last}\r\n\r\n")).await;
    assert!(count(&mut client).await.0.ends_with("-30"));

    // What is made anew has another log: the client is told, and stays.
    program.kill().await;
    let _program = Program::start(&edge, "hold.py", &arguments);
    client.until("\"control_type\":\"gap\"").await;
    let gap = client.until("\n\n").await;
    assert!(gap.contains("\"reason\":\"recreated\""), "{gap}");
    let (id, text) = count(&mut client).await;
    assert_ne!(id.split('-').next(), last.split('-').next(), "another epoch");
    assert_eq!(text, data(&id));
}

/// A WebSocket gets the same, and what it says is answered, if need be by a program that was not there yet.
#[tokio::test]
async fn hold_websocket() {
    let edge = Edge::start(Kind::Forebay, Mode::Stream).await.unwrap();
    let arguments = ["--interval", "3600"];
    let program = Program::start(&edge, "hold.py", &arguments);
    let mut client = websocket::connect(&format!("ws://{}/", edge.address)).await;
    let next = async |client: &mut WebSocket| {
        within(client.next()).await.unwrap().unwrap().into_text().unwrap().to_string()
    };
    let event = next(&mut client).await;
    assert!(event.starts_with(r#"{"type":"event","channel":"counter","cursor":""#), "{event}");
    assert!(event.ends_with(r#"-1","event":"stream","data":{"count":1}}"#), "{event}");
    within(client.send(Message::text("how far?"))).await.unwrap();
    assert_eq!(next(&mut client).await, r#"{"said":"how far?","count":1}"#);

    program.kill().await;
    within(client.send(Message::text("still there?"))).await.unwrap();
    let _program = Program::start(&edge, "hold.py", &arguments);
    let mut got = [next(&mut client).await, next(&mut client).await, next(&mut client).await];
    got.sort();
    let [answer, gap, event] = &got;
    assert!(answer.starts_with(r#"{"said":"still there?","count":"#), "{got:?}");
    assert!(gap.contains(r#""control_type":"gap""#), "{got:?}");
    assert!(event.ends_with(r#""data":{"count":1}}"#), "{got:?}");
}
