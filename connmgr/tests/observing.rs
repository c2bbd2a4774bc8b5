//! What an edge tells of itself: its log, the debug socket and the metrics port, of the real binary.
//!
//! Nobody handles its requests here: with `--handler-wait=0` it answers them itself, and counts that.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing here takes longer, on however slow a machine. Passing it is a failure, not a way to wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running edge. Killed when dropped.
struct Edge {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// All lines up to `started`.
    start: Vec<String>,
    dir: TempDir,
}

impl Edge {
    fn start(options: &[&str]) -> Edge {
        let dir = tempfile::tempdir().unwrap();
        let mut child = command(&dir, options).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut edge = Edge { child, stdout, start: Vec::new(), dir };
        while !edge.start.last().is_some_and(|line| line.ends_with("] started")) {
            let line = edge.line().expect("the edge does not start");
            edge.start.push(line);
        }
        edge
    }

    /// The next line of the log, without its end; `None` when it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    /// The address that the log names behind this text.
    fn address(&self, text: &str) -> SocketAddr {
        let mut addresses = self.start.iter().filter_map(|line| line.split_once(text));
        addresses.next().unwrap().1.parse().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address("listening on ")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn debug_client(&self) -> BufReader<UnixStream> {
        let client = UnixStream::connect(self.path("debug")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(client)
    }

    /// Asks for the metrics until they have this line.
    fn wait_for_metric(&self, line: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = scrape(UnixStream::connect(self.path("metrics")).unwrap());
            if text.lines().any(|found| found == line) {
                return;
            }
            assert!(Instant::now() < until, "{line} is not in\n{text}");
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &TempDir, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-connmgr"));
    command.args(["--listen=127.0.0.1:0", "--zclient-stream=ipc://zhttp", "--handler-wait=0"]);
    // Relative paths in the options are in there.
    command.args(options).current_dir(dir.path());
    command
}

/// Reads what a server sends until it closes.
fn rest(mut client: impl Read) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    rest
}

/// The body of the metrics.
fn scrape(mut client: impl Read + Write) -> String {
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answer = rest(client);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

/// Sends a request and reads the status line of the answer.
fn ask(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn debug_line(client: &mut impl BufRead) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

/// Takes `[LEVEL] YYYY-MM-DD HH:MM:SS.mmm [module] text` apart: the level and the text.
fn parse(line: &str) -> (&str, &str) {
    let (level, rest) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
    let (time, rest) = rest.split_at("YYYY-MM-DD HH:MM:SS.mmm".len());
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00.000", "{line}");
    let (module, text) = rest.strip_prefix(" [").unwrap().split_once("] ").unwrap();
    assert!(module.starts_with("forebay_connmgr"), "{line}");
    (level, text)
}

#[test]
fn the_metrics_count_what_happens() {
    let edge = Edge::start(&["--prometheus=metrics,local,mode=600,prefix=t"]);
    let mode = std::fs::metadata(edge.path("metrics")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    edge.wait_for_metric("t_connmgr_requests_total 0");

    let mut client = edge.client();
    assert!(ask(&mut client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 503 "));
    edge.wait_for_metric("t_connmgr_requests_total 1");
    edge.wait_for_metric("t_connmgr_error_responses_total 1");

    // Two clients, one of which makes no sense: it is refused, and no request.
    let mut other = edge.client();
    assert!(ask(&mut other, "GET /b HTTP/1.1\nHost: x\n\n").starts_with("HTTP/1.1 400 "));
    drop(other);
    edge.wait_for_metric("t_connmgr_error_responses_total 2");
    edge.wait_for_metric("t_connmgr_requests_total 1");
    edge.wait_for_metric("t_connmgr_connections_accepted_total 2");
    drop(client);
    edge.wait_for_metric("t_connmgr_connections{state=\"other\"} 0");
    edge.wait_for_metric("t_connmgr_connections{state=\"held\"} 0");
}

#[test]
fn the_metrics_port_is_a_port() {
    let edge = Edge::start(&["--prometheus=127.0.0.1:0"]);
    let text = scrape(TcpStream::connect(edge.address("metrics on ")).unwrap());
    assert!(text.contains("\n# TYPE connmgr_requests_total counter\nconnmgr_requests_total 0\n"));
}

#[test]
fn the_debug_socket_gives_the_log_whatever_its_level() {
    let mut edge = Edge::start(&["--debug-socket=debug,mode=660"]);
    let mut first = edge.debug_client();
    let line = debug_line(&mut first);
    assert_eq!(parse(&line), ("DEBUG", "a client of the debug socket has come\n"));
    let mut second = edge.debug_client();
    // Each follows from where it came.
    assert_eq!(parse(&debug_line(&mut second)).0, "DEBUG");
    assert_eq!(parse(&debug_line(&mut first)).0, "DEBUG");

    edge.signal("-TERM");
    assert!(edge.wait().success());
    for client in [first, second] {
        let lines = rest(client);
        let texts: Vec<(&str, &str)> = lines.lines().map(parse).collect();
        assert_eq!(texts.last(), Some(&("INFO", "stopped")), "{texts:?}");
        assert!(texts.contains(&("INFO", "stopping...")), "{texts:?}");
    }
    assert!(!edge.path("debug").exists());
    while let Some(line) = edge.line() {
        assert_eq!(parse(&line).0, "INFO", "standard output has its own level: {line}");
    }
}

/// What an operator follows it for: what becomes of a connection and of its request.
#[test]
fn the_debug_socket_tells_what_becomes_of_a_request() {
    let edge = Edge::start(&["--debug-socket=debug", "--workers=1"]);
    let mut debug = edge.debug_client();
    debug_line(&mut debug);
    let mut client = edge.client();
    assert!(ask(&mut client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 503 "));
    drop(client);
    for expected in [
        "connection 0-0: accepted, in stream mode\n",
        "request 0-0-1: not pushed to group 0: there is no such peer\n",
    ] {
        assert_eq!(parse(&debug_line(&mut debug)), ("DEBUG", expected));
    }
    // Why depends on how much of the answer the client has read.
    assert!(debug_line(&mut debug).contains("] connection 0-0: closed, "));
}

#[test]
fn the_log_has_condures_lines() {
    let mut edge = Edge::start(&["--prometheus=127.0.0.1:0", "--debug-socket=debug"]);
    edge.signal("-INT");
    assert!(edge.wait().success());
    let mut lines = std::mem::take(&mut edge.start);
    lines.extend(std::iter::from_fn(|| edge.line()));
    let texts: Vec<(&str, &str)> = lines.iter().map(|line| parse(line)).collect();
    let listening = format!("listening on {}", edge_address(&texts));
    for expected in ["starting...", &listening, "started", "stopping...", "stopped"] {
        let count = texts.iter().filter(|&&text| text == ("INFO", expected)).count();
        assert_eq!(count, 1, "{expected}: {texts:?}");
    }
    assert_eq!(texts[0].1, "starting...");
    assert_eq!(texts.last().unwrap().1, "stopped");
}

fn edge_address<'t>(texts: &[(&str, &'t str)]) -> &'t str {
    texts.iter().find_map(|(_, text)| text.strip_prefix("listening on ")).unwrap()
}

#[test]
fn the_log_names_the_sockets_of_handlers() {
    for (options, verb) in [(&[][..], "bind"), (&["--zclient-connect"], "connect")] {
        let usual = ["--listen=127.0.0.1:0,req", "--zclient-req", "ipc://r1", "ipc://r2"];
        let edge = Edge::start(&[&usual[..], &["--route=/x=ipc://x"], options].concat());
        let texts = edge.start.iter().map(|line| parse(line));
        let before = texts.take_while(|(_, text)| !text.starts_with("listening on "));
        let expected = [
            "starting...".to_owned(),
            format!("zhttp client {verb} ipc://r1"),
            format!("zhttp client {verb} ipc://r2"),
            format!("zhttp client {verb} ipc://zhttp-out ipc://zhttp-out-stream ipc://zhttp-in"),
            format!("zhttp client {verb} ipc://x-out ipc://x-out-stream ipc://x-in"),
        ];
        assert!(before.eq(expected.iter().map(|text| ("INFO", text.as_str()))), "{:?}", edge.start);
    }
}

#[test]
fn what_cannot_be_listened_on_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (option, text) in [
        (format!("--prometheus={address}"), format!("cannot listen on {address}: address in use")),
        ("--debug-socket=no/such/d".to_owned(), "cannot listen on no/such/d".to_owned()),
    ] {
        let output = command(&dir, &[&option]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{option}");
        let log = String::from_utf8(output.stdout).unwrap();
        let (level, last) = parse(log.lines().last().unwrap());
        assert!(level == "ERR" && last.starts_with(&text), "{log}");
    }
}

#[test]
fn what_is_not_there_yet_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (option, text) in [
        ("--zserver-stream=ipc://x", "client mode (--zserver-stream) is not supported yet"),
        ("--zserver-req=ipc://x", "client mode (--zserver-req) is not supported yet"),
    ] {
        assert!(refusal(&dir, &[option]).ends_with(text), "{option}");
    }
}

#[test]
fn a_wrong_value_is_a_line_of_the_log_at_any_level() {
    let dir = tempfile::tempdir().unwrap();
    for level in ["0", "4"] {
        let text = refusal(&dir, &["--log-level", level, "--workers=0"]);
        assert_eq!(text, "--workers=0: must be 1 to 1024");
    }
    // What clap itself refuses is about the command line, which a person types.
    let output = command(&dir, &["--log-level=x"]).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
    assert!(output.stderr.starts_with(b"error: invalid value 'x'"));
}

/// Runs an edge whose configuration is refused: the text of the one line that it logs.
fn refusal(dir: &TempDir, options: &[&str]) -> String {
    let output = command(dir, options).output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(1), &b""[..]), "{options:?}");
    let log = String::from_utf8(output.stdout).unwrap();
    let (level, text) = parse(log.strip_suffix('\n').unwrap());
    assert!(level == "ERR" && !text.contains('\n'), "{log}");
    text.to_owned()
}
