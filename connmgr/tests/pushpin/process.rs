//! Debian's Pushpin, rootless: its configuration in a temporary folder, its ports free ones.
//!
//! Its runner starts what `condure_bin` names, zurl (which fetches from backends), the proxy and the handler. All
//! sockets between them are in the folder; only clients and publishers come by TCP. Pushpin cannot be told to take any
//! free port, so it is given ports that were free a moment ago, and others if somebody was quicker.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::peers::within;

/// How often Pushpin is started anew if it ends at once, as it does when a port is taken.
const ATTEMPTS_MAX: usize = 5;

/// The services of Pushpin, by the names that they log with.
const SERVICES: [&str; 4] = ["condure", "zurl", "proxy", "handler"];

/// The runner kills after 4 seconds what has not ended on SIGTERM; after this long it is killed itself.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A running Pushpin. It and what it started end when dropped.
pub struct Pushpin {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// All that was logged, shown when a test fails.
    log: Arc<Mutex<Vec<String>>>,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where publishers connect.
    pub publish_address: SocketAddr,
    dir: TempDir,
}

impl Pushpin {
    /// What is installed, as it tells itself; `None` if nothing is.
    pub fn version() -> Option<String> {
        let output = std::process::Command::new("pushpin").arg("--version").output().ok()?;
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// Starts it with this connection manager and waits until all of it runs. What is asked of `/backend/…` goes to the
    /// backend, the rest to the handler that Pushpin has for tests.
    pub async fn start(condure_bin: &str, backend: SocketAddr) -> Pushpin {
        let mut last_log = String::new();
        for _ in 0..ATTEMPTS_MAX {
            let dir = tempfile::tempdir().unwrap();
            let (address, publish_address) = two_free_addresses();
            let config = config(&dir, condure_bin, address, publish_address);
            std::fs::write(dir.path().join("pushpin.conf"), config).unwrap();
            let routes = format!("*,path_beg=/backend/ {backend}\n* test\n");
            std::fs::write(dir.path().join("routes"), routes).unwrap();
            let (child, log, lines) = spawn(&dir);
            let mut pushpin = Pushpin { child, lines, log, address, publish_address, dir };
            if pushpin.is_started().await {
                return pushpin;
            }
            last_log = pushpin.log.lock().unwrap().join("\n");
        }
        panic!("Pushpin does not start:\n{last_log}");
    }

    /// Waits until all services run; false if Pushpin ends first.
    async fn is_started(&mut self) -> bool {
        let mut waiting = SERVICES.to_vec();
        while !waiting.is_empty() {
            let Some(line) = within(self.lines.recv()).await else { return false };
            let is_of = |service: &&str| line.contains(&format!(" [{service}] "));
            if line.ends_with(" started") {
                waiting.retain(|service| !is_of(service));
            }
        }
        true
    }

    /// Waits for so many lines of the log that have this.
    pub async fn lines(&mut self, text: &str, count: usize) {
        for _ in 0..count {
            while !within(self.lines.recv()).await.expect("Pushpin has ended").contains(text) {}
        }
    }

    /// Publishes an item: its channel and its formats, as JSON.
    pub async fn publish(&self, channel: &str, formats: serde_json::Value) {
        let body = serde_json::json!({ "items": [{ "channel": channel, "formats": formats }] });
        let body = body.to_string();
        let mut client = Client::connect(self.publish_address).await;
        let length = body.len();
        let head = format!(
            "POST /publish/ HTTP/1.1\r\nHost: x.com\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        client.send(head + &body).await;
        assert_eq!(client.response().await.status, 200);
    }

    /// Where the handler publishes what becomes of connections.
    pub fn stats_spec(&self) -> String {
        format!("ipc://{}/pushpin-stats", self.dir.path().display())
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(mut self) -> ExitStatus {
        self.terminate();
        within(self.child.wait()).await.unwrap()
    }

    fn terminate(&self) {
        if let Some(pid) = self.child.id() {
            let status = std::process::Command::new("kill").arg(pid.to_string()).status();
            assert!(status.unwrap().success());
        }
    }
}

impl Drop for Pushpin {
    /// The runner ends what it started only when it is asked to end, not when it is killed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            eprintln!("--- Pushpin\n{}\n---", log.join("\n"));
        }
        self.terminate();
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn spawn(dir: &TempDir) -> (Child, Arc<Mutex<Vec<String>>>, mpsc::UnboundedReceiver<String>) {
    let mut child = Command::new("pushpin")
        .arg(format!("--config={}", dir.path().join("pushpin.conf").display()))
        .arg("--merge-output")
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (sender, lines) = mpsc::unbounded_channel();
    tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                log.lock().unwrap().push(line.clone());
                // Nobody may be waiting any more; Pushpin must not wait for that.
                let _ = sender.send(line);
            }
        }
    });
    (child, log, lines)
}

/// What is not said here is as in Debian's `internal.conf`.
fn config(dir: &TempDir, condure_bin: &str, listen: SocketAddr, publish: SocketAddr) -> String {
    let dir = dir.path().display();
    let (publish_host, publish_port) = (publish.ip(), publish.port());
    format!(
        "[global]
include=/usr/lib/pushpin/internal.conf
rundir={dir}
ipc_prefix=pushpin-
port_offset=0
stats_connection_ttl=120

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
condure_bin={condure_bin}
http_port={listen}
logdir={dir}
log_level=2
client_buffer_size=8192
client_maxconn=50000

[proxy]
routesfile=routes
zurl_out_specs=ipc://{dir}/pushpin-zurl-in
zurl_out_stream_specs=ipc://{dir}/pushpin-zurl-in-stream
zurl_in_specs=ipc://{dir}/pushpin-zurl-out

[handler]
push_in_spec=ipc://{dir}/pushpin-publish-in
push_in_http_addr={publish_host}
push_in_http_port={publish_port}
command_spec=ipc://{dir}/pushpin-command
stats_spec=ipc://{dir}/pushpin-stats
stats_format=json
message_rate=2500
message_hwm=25000
"
    )
}

fn two_free_addresses() -> (SocketAddr, SocketAddr) {
    let [one, other] = [(); 2].map(|()| std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
    (one.local_addr().unwrap(), other.local_addr().unwrap())
}
