//! An edge in a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::peers::within;

const BINARY: &str = env!("CARGO_BIN_EXE_forebay-connmgr");

/// A running edge, named `edge`. Killed when dropped.
pub struct EdgeProcess {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// Where clients connect.
    pub address: SocketAddr,
    /// The same, of each listener that has an address.
    pub addresses: Vec<SocketAddr>,
    /// Its base spec and its unix sockets are in here.
    pub dir: TempDir,
}

impl EdgeProcess {
    /// Starts an edge with these options besides the usual ones, and waits until it serves.
    pub async fn start(options: &[&str]) -> EdgeProcess {
        EdgeProcess::start_by(&[], options).await
    }

    /// The same, run by another program: its arguments come first.
    pub async fn start_by(runner: &[&str], options: &[&str]) -> EdgeProcess {
        EdgeProcess::try_start(runner, options).await.expect("the edge does not start")
    }

    /// The same, if it starts at all.
    pub async fn try_start(runner: &[&str], options: &[&str]) -> Option<EdgeProcess> {
        let dir = tempfile::tempdir().unwrap();
        let spec = format!("ipc://{}/zhttp", dir.path().display());
        // Relative paths in the options are in there, too.
        let usual = ["--listen=127.0.0.1:0", "--id=edge", "--workers=2"];
        let mut arguments: Vec<&str> = runner.to_vec();
        arguments.push(BINARY);
        arguments.push("--zclient-stream");
        arguments.push(&spec);
        let has = |option: &str| {
            let (name, _) = option.split_once('=').unwrap();
            options.iter().any(|given| given.starts_with(name))
        };
        arguments.extend(usual.iter().filter(|option| !has(option)));
        arguments.extend(options);
        let mut child = command(&arguments).current_dir(dir.path()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, mut lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut stdout = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = stdout.next_line().await {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut addresses: Vec<SocketAddr> = Vec::new();
        loop {
            let line = within(lines.recv()).await?;
            if let Some((_, text)) = line.split_once("listening on ") {
                addresses.extend(text.parse::<SocketAddr>());
            }
            if line.ends_with("started") {
                break;
            }
        }
        // A test of unix sockets has no use for it.
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = addresses.first().copied().unwrap_or(none);
        Some(EdgeProcess { child, lines, address, addresses, dir })
    }

    /// A base spec in its directory: `zhttp` is the edge's own.
    pub fn spec(&self, name: &str) -> String {
        format!("ipc://{}/{name}", self.dir.path().display())
    }

    /// The next line of the log that has this text.
    pub async fn line(&mut self, text: &str) -> String {
        loop {
            let line = within(self.lines.recv()).await.expect("the edge has ended");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The lines that came since, of those that have this text.
    pub fn lines_now(&mut self, text: &str) -> Vec<String> {
        std::iter::from_fn(|| self.lines.try_recv().ok())
            .filter(|line| line.contains(text))
            .collect()
    }

    /// The memory of the process.
    pub fn memory(&self) -> Memory {
        let pid = self.child.id().expect("the edge has ended");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Memory { resident_kib: kib("VmRSS:"), peak_kib: kib("VmHWM:") }
    }

    /// Sends a signal with kill(1).
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the edge has ended").to_string();
        let status = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    pub async fn wait(&mut self) -> ExitStatus {
        within(self.child.wait()).await.unwrap()
    }
}

/// Resident memory of a process, in KiB (proc(5)).
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident_kib: u64,
    /// The most that it ever was.
    pub peak_kib: u64,
}

/// What an edge that cannot start says, and its exit code.
pub async fn fails(options: &[&str]) -> (String, Option<i32>) {
    let arguments: Vec<&str> = [BINARY].iter().chain(options).copied().collect();
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(&arguments);
    let output = within(command.stderr(Stdio::piped()).current_dir(dir.path()).output()).await;
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(arguments[0]);
    command.args(&arguments[1..]).stdout(Stdio::piped()).kill_on_drop(true);
    command
}
