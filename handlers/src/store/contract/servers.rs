//! Redis servers of a test's own: one, one with a replica and a Sentinel, and a cluster.
//!
//! All are real `redis-server` processes in directories and on ports of their own, and end with the
//! value that stands for them. A port is found free first and taken then, so that another process may
//! be faster: then the server ends, and another port is tried.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult};

use super::eventually;
use crate::store::RedisStore;

/// Sends words to a server, over a connection of their own.
async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> RedisResult<T> {
    let limit = Some(Duration::from_secs(10));
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
    let client = Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Redis server on a unix socket in a directory of its own.
pub(crate) struct RedisServer {
    directory: tempfile::TempDir,
    durable: bool,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    pub(crate) async fn start() -> Self {
        let mut server = RedisServer::prepare(false);
        server.resume().await;
        server
    }

    /// One that is not started yet; `durable` ones have what they acknowledged after a restart.
    pub(crate) fn prepare(durable: bool) -> Self {
        RedisServer { directory: tempfile::tempdir().unwrap(), durable, child: None }
    }

    pub(crate) fn socket(&self) -> String {
        self.directory.path().join("redis.sock").display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    /// Sends a signal, `-STOP` or `-CONT`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap(), name);
    }

    /// Sends words.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&self.url(), words).await.unwrap()
    }

    /// Starts the server, again if it was killed, and waits until it answers.
    pub(crate) async fn resume(&mut self) {
        let durable = if self.durable { "yes" } else { "no" };
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--unixsocket", &self.socket(), "--save", ""]);
        command.args(["--appendonly", durable, "--appendfsync", "always"]);
        command.arg("--dir").arg(self.directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed"));
        eventually("the Redis server answers", || async {
            ask::<u64>(&self.url(), &["DBSIZE"]).await.is_ok()
        })
        .await;
    }

    /// Kills the server, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            // The socket of a killed server remains; a new one would make it anew.
            let _ = std::fs::remove_file(Path::new(&self.socket()));
        }
    }

    pub(crate) async fn open(&self) -> RedisStore {
        RedisStore::open(&self.url()).await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server on a port.
pub(crate) struct TcpServer {
    _directory: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl TcpServer {
    /// Starts one; `arguments` are for its port.
    async fn start(arguments: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let port = free_port();
            let mut command = Command::new("redis-server");
            command.args(arguments(port, directory.path()));
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
            command.arg("--dir").arg(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().expect("redis-server is installed");
            let mut server = TcpServer { _directory: directory, port, child };
            if server.answers().await {
                return server;
            }
        }
        panic!("no server found a port");
    }

    /// Waits until it answers; `false` if it has ended instead.
    async fn answers(&mut self) -> bool {
        let pid = format!("process_id:{}", self.child.id());
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let info = ask::<String>(&self.url(), &["INFO", "server"]).await;
            if info.is_ok_and(|info| info.lines().any(|line| line.trim_end() == pid)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends words.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&self.url(), words).await.unwrap()
    }

    /// Waits until this replica has all that its master has.
    pub(crate) async fn wait_until_equal(&self, master: &TcpServer) {
        let offset = async |server: &TcpServer| {
            let info: String = server.ask(&["INFO", "replication"]).await;
            let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            line.unwrap().trim_end().parse::<u64>().unwrap()
        };
        eventually("the replica has everything", || async {
            let wanted = offset(master).await;
            offset(self).await >= wanted
        })
        .await;
    }

    /// Lets none of its replicas copy it any more. Connections that there are stay, but new ones, also
    /// the test's, are refused.
    pub(crate) async fn stop_replication(&self) {
        self.ask::<()>(&["CONFIG", "SET", "requirepass", "secret"]).await;
        let url = format!("redis://:secret@127.0.0.1:{}", self.port);
        ask::<u64>(&url, &["CLIENT", "KILL", "TYPE", "replica"]).await.unwrap();
    }

    /// Waits until a section of `INFO` has that line.
    pub(crate) async fn wait_for_info(&self, section: &str, line: &str) {
        eventually(line, || async {
            let info = ask::<String>(&self.url(), &["INFO", section]).await.unwrap_or_default();
            info.lines().any(|own| own.trim_end() == line)
        })
        .await;
    }

    /// Sends a signal, `-STOP`, `-CONT` or `-KILL`.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What all servers that replicate have in common: nothing on disk, and no wait before a replica is
/// served.
const REPLICATING: [&str; 6] =
    ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];

/// A master with a replica, and a Sentinel that decides alone.
pub(crate) struct WatchedServers {
    pub(crate) servers: [TcpServer; 2],
    pub(crate) sentinel: TcpServer,
}

impl WatchedServers {
    /// Starts them, and waits until each knows the others. The first server is the master.
    pub(crate) async fn start() -> Self {
        let master = TcpServer::start(|_, _| words(&REPLICATING)).await;
        let of = format!("127.0.0.1 {}", master.port);
        let replica = TcpServer::start(|_, _| {
            let mut all = words(&REPLICATING);
            all.extend(words(&["--replicaof", &of]));
            all
        })
        .await;
        replica.wait_for_info("replication", "master_link_status:up").await;
        let watch = format!(
            "sentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n",
            master.port
        );
        let sentinel = TcpServer::start(|_, directory| {
            let file = directory.join("sentinel.conf");
            std::fs::write(&file, &watch).unwrap();
            words(&[file.to_str().unwrap(), "--sentinel"])
        })
        .await;
        let known = "master0:name=main,status=ok";
        eventually("the Sentinel knows the replica", || async {
            let info = ask::<String>(&sentinel.url(), &["INFO", "sentinel"]).await;
            info.is_ok_and(|info| info.contains(known) && info.contains("slaves=1"))
        })
        .await;
        WatchedServers { servers: [master, replica], sentinel }
    }

    /// The address of the master, by its name.
    pub(crate) fn url(&self) -> String {
        // One of three is dead; the other two are the same one.
        let port = self.sentinel.port;
        format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{port},127.0.0.1:{port}/main")
    }

    pub(crate) async fn open(&self) -> RedisStore {
        RedisStore::open(&self.url()).await.unwrap()
    }

    /// Lets the Sentinel replace the master by its replica, as soon as it finds that good enough.
    pub(crate) async fn fail_over(&self) {
        let order = ["SENTINEL", "FAILOVER", "main"];
        eventually("the Sentinel obeys", || async {
            ask::<()>(&self.sentinel.url(), &order).await.is_ok()
        })
        .await;
    }

    /// Which server the Sentinel says is the master.
    pub(crate) async fn master(&self) -> &TcpServer {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
        let (_, port): (String, u16) = self.sentinel.ask(&question).await;
        self.servers.iter().find(|server| server.port == port).unwrap()
    }

    /// Forgets all data.
    pub(crate) async fn flush(&self) {
        self.servers[0].ask::<()>(&["FLUSHALL"]).await;
    }
}

/// A cluster of three masters.
pub(crate) struct ClusterServers {
    /// The masters, then the replicas of each in turn.
    pub(crate) nodes: Vec<TcpServer>,
    ids: Vec<String>,
}

/// Masters of a cluster.
pub(crate) const MASTERS: usize = 3;

/// The slots that each of the masters begins with.
const SLOT_RANGES: [(&str, &str); MASTERS] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

impl ClusterServers {
    /// Starts three masters, and so many replicas, of the first masters, one each; waits until all
    /// agree about all.
    pub(crate) async fn start(replicas: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..MASTERS + replicas {
            let start = TcpServer::start(|_, _| {
                let mut all = words(&REPLICATING);
                let bus = free_port().to_string();
                all.extend(words(&["--cluster-enabled", "yes", "--cluster-port", &bus]));
                // No node is to be replaced because a machine is slow: tests do it by commands.
                all.extend(words(&["--cluster-replica-no-failover", "yes"]));
                all.extend(words(&["--cluster-node-timeout", "5000"]));
                all.extend(words(&["--cluster-require-full-coverage", "no"]));
                all
            });
            nodes.push(start.await);
        }
        let mut ids = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            ids.push(node.ask::<String>(&["CLUSTER", "MYID"]).await);
            let epoch = (place + 1).to_string();
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            if let Some((first, last)) = SLOT_RANGES.get(place) {
                node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
            }
        }
        let servers = ClusterServers { nodes, ids };
        servers.meet().await;
        for replica in MASTERS..servers.nodes.len() {
            let id = &servers.ids[replica - MASTERS];
            let node = &servers.nodes[replica];
            node.ask::<()>(&["CLUSTER", "REPLICATE", id]).await;
            node.wait_for_info("replication", "master_link_status:up").await;
        }
        // Masters vote for those only of whom they know that they are replicas.
        for node in &servers.nodes {
            eventually("the replicas are known", || async {
                let nodes: String = node.ask(&["CLUSTER", "NODES"]).await;
                nodes.lines().filter(|line| line.contains("slave")).count() == replicas
            })
            .await;
        }
        servers
    }

    async fn meet(&self) {
        let mut places = Vec::new();
        for node in &self.nodes {
            let [_, bus]: [String; 2] = node.ask(&["CONFIG", "GET", "cluster-port"]).await;
            places.push((node.port.to_string(), bus));
        }
        for node in &self.nodes {
            for (port, bus) in &places {
                node.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", port, bus]).await;
            }
        }
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            eventually("the cluster is there", || async {
                let info: String = node.ask(&["CLUSTER", "INFO"]).await;
                let has = |line: &str| info.lines().any(|own| own.trim_end() == line);
                has("cluster_state:ok") && has(&known) && has("cluster_slots_ok:16384")
            })
            .await;
        }
    }

    /// The id of a node.
    pub(crate) fn id(&self, node: usize) -> &str {
        &self.ids[node]
    }

    /// The address of the cluster, by two of its nodes.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port, self.nodes[2].port)
    }

    pub(crate) async fn open(&self) -> RedisStore {
        RedisStore::open(&self.url()).await.unwrap()
    }

    /// Which of the masters of the beginning has the slot of a key.
    pub(crate) async fn slot_and_master(&self, key: &str) -> (u16, usize) {
        let slot: u16 = self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).await;
        let is_within = |(_, last): &(&str, &str)| slot <= last.parse::<u16>().unwrap();
        (slot, SLOT_RANGES.iter().position(is_within).unwrap())
    }

    /// Forgets all data.
    pub(crate) async fn flush(&self) {
        for node in &self.nodes[..MASTERS] {
            node.ask::<()>(&["FLUSHALL"]).await;
        }
    }
}
