//! The programs of `examples/python`, each run as its reader would.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/process.rs"]
mod process;

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use client::Client;
use peers::within;
use process::EdgeProcess;

/// A program that runs. Killed when dropped.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(edge: &EdgeProcess, name: &str, arguments: &[&str]) -> Program {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut child = Command::new(peers::python())
            .arg(root.join("examples/python").join(name))
            .args(["--spec", &edge.spec("zhttp")])
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Program { child, lines }
    }

    async fn line(&mut self) -> String {
        within(self.lines.next_line()).await.unwrap().expect("the program has ended")
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn hello() {
    let edge = EdgeProcess::start(&[]).await;
    let mut program = Program::start(&edge, "hello.py", &["--edge", "edge"]);
    let mut client = Client::get(edge.address, "/a").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "hello, world\n"));
    assert_eq!(program.line().await, "GET http://x.com/a");
}

#[tokio::test]
async fn stream() {
    let edge = EdgeProcess::start(&[]).await;
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

#[tokio::test]
async fn print_requests_and_send_response() {
    let edge = EdgeProcess::start(&[]).await;
    let mut printer = Program::start(&edge, "print_requests.py", &[]);
    let mut client = Client::get(edge.address, "/a").await;
    let line = printer.line().await;
    let [id, from, method, uri] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!((from, method, uri), ("edge", "GET", "http://x.com/a"));
    let _responder = Program::start(&edge, "send_response.py", &["--edge", "edge", id, "from me"]);
    assert_eq!(client.response().await.text(), "from me");
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

#[tokio::test]
async fn hold() {
    let edge = EdgeProcess::start(&[]).await;
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
