//! From the start of an edge until it serves, or until it gives up: in which order it takes its places, and that it gives
//! back what it took.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing here takes longer, on however slow a machine. Passing it is a failure, not a way to wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stream mode binds at the base spec `ipc://zhttp`.
const IPC_FILES: [&str; 3] = ["zhttp-in", "zhttp-out", "zhttp-out-stream"];

/// A running edge. Killed when dropped.
struct Edge(Child);

impl Edge {
    fn spawn(dir: &TempDir, options: &[&str]) -> Edge {
        Edge(command(dir, options).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Starts an edge and waits until it serves.
    fn start(dir: &TempDir, options: &[&str]) -> Edge {
        let mut edge = Edge::spawn(dir, options);
        let mut lines = BufReader::new(edge.0.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("] started")), "it does not start");
        edge
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An edge whose relative paths are in that directory.
fn command(dir: &TempDir, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-connmgr"));
    command.args(options).current_dir(dir.path());
    command
}

/// Runs an edge that cannot start. The last line of its log, which is an error.
fn failure(dir: &TempDir, options: &[&str]) -> String {
    let output = command(dir, options).output().unwrap();
    let log = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("[ERR] "), "{log}");
    last.to_owned()
}

/// An address that nobody has. Each test has a loopback address of its own, so that none is given the port of another.
fn free_address(ip: [u8; 4]) -> SocketAddr {
    TcpListener::bind(SocketAddr::from((ip, 0))).unwrap().local_addr().unwrap()
}

/// The files in a directory, with their inodes.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let file = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino())
    };
    entries.map(file).collect()
}

/// Connects until that succeeds, without a pause. The files that are not there in that moment.
fn missing_when_accepted<S>(dir: &Path, connect: impl Fn() -> io::Result<S>) -> Vec<&'static str> {
    let until = Instant::now() + PATIENCE;
    loop {
        if connect().is_ok() {
            return IPC_FILES.into_iter().filter(|name| !dir.join(name).exists()).collect();
        }
        assert!(Instant::now() < until, "nobody listens");
    }
}

#[test]
fn who_is_accepted_finds_the_handlers_sockets_open() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address([127, 84, 2, 1]);
        let path = dir.path().join("clients");
        std::thread::scope(|scope| {
            let over_tcp = || missing_when_accepted(dir.path(), || TcpStream::connect(address));
            let over_unix = || missing_when_accepted(dir.path(), || UnixStream::connect(&path));
            let clients = [scope.spawn(over_tcp), scope.spawn(over_unix)];
            let options = ["--listen", &address.to_string(), "clients,local"];
            let _edge =
                Edge::spawn(&dir, &[&options[..], &["--zclient-stream=ipc://zhttp"]].concat());
            for client in clients {
                assert_eq!(client.join().unwrap(), [""; 0]);
            }
        });
    }
}

#[test]
fn an_edge_that_finds_its_place_taken_takes_nothing_from_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address([127, 84, 2, 2]).to_string();
    let zclient = "--zclient-stream=ipc://zhttp";
    let _edge = Edge::start(&dir, &["--listen", &address, "clients,local", zclient]);
    let before = files(dir.path());
    assert_eq!(before.len(), IPC_FILES.len() + 1);
    for place in [&*address, "clients,local"] {
        // What can be bound before that is given back.
        let last = failure(&dir, &["--listen", "other,local", place, zclient]);
        let name = place.trim_end_matches(",local");
        assert!(last.ends_with(&format!("] cannot listen on {name}: address in use")), "{last}");
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn whatever_fails_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address([127, 84, 2, 3]).to_string();
    let listen = ["--listen", &address, "clients,local"];
    let table: [(&[&str], &str); 4] = [
        (
            &["--zclient-stream", "ipc://zhttp", "ipc://no/such/z"],
            "] cannot bind ipc://no/such/z-out: io error: No such file or directory (os error 2)",
        ),
        (
            &["--listen=req,local,req", "--zclient-stream=ipc://zhttp", "--zclient-req=ipc://no/r"],
            "] cannot bind ipc://no/r: io error: No such file or directory (os error 2)",
        ),
        // Two places of one edge that are the same are found as it begins to listen, when all else is open.
        (&["--listen", &address], "address in use"),
        (&["--listen=./clients,local"], "cannot listen on clients: address in use"),
    ];
    for (options, text) in table {
        let last = failure(&dir, &[&listen[..], options].concat());
        assert!(last.ends_with(text), "{last}");
        assert_eq!(files(dir.path()), BTreeMap::new(), "{options:?}");
        TcpListener::bind(&address).unwrap();
    }
}
