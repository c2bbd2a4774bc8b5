//! The example as its reader would run it: behind an edge, asked by an HTTP client, stopped and started.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::Parser;
use forebay_connmgr::Edge;
use forebay_connmgr::config::{Config, ConnmgrCommand};

/// The example; killed when dropped.
struct Hello(Child);

impl Hello {
    fn start(spec: &str, id: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hello"));
        let arguments = ["--edge", spec, "--id", id];
        Hello(command.args(arguments).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn edge(dir: &Path) -> (Edge, String, String) {
    let spec = format!("ipc://{}/client", dir.display());
    let zclient = format!("--zclient-stream={spec}");
    let arguments = ["edge", "--listen=127.0.0.1:0", "--handler-wait=60", &zclient];
    let config = Config::resolve(&ConnmgrCommand::parse_from(arguments).args).unwrap();
    let edge = Edge::start(&config).unwrap();
    let url = format!("http://{}", edge.addresses()[0]);
    (edge, spec, url)
}

#[test]
fn it_answers_streams_and_may_be_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (edge, spec, url) = edge(dir.path());
    let first = Hello::start(&spec, "first");
    let body = vec![b'x'; 100_000];
    let mut answer = ureq::post(format!("{url}/some/path?query")).send(&body).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    assert_eq!(text, "Hello! POST /some/path, 100000 bytes\n");

    let mut stream = ureq::get(format!("{url}/stream")).call().unwrap();
    assert_eq!(stream.headers()["transfer-encoding"], "chunked");
    assert_eq!(stream.body_mut().read_to_string().unwrap().lines().count(), 3);

    // Nobody is there: the request waits for whoever comes.
    drop(first);
    let asked = std::thread::spawn(move || ureq::get(url).call().unwrap().status());
    let _second = Hello::start(&spec, "second");
    assert_eq!(asked.join().unwrap(), 200);
    edge.drain().unwrap();
}
