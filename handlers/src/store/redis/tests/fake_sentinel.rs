//! A Sentinel that says what a test wants it to.
//!
//! It knows the one question that the store asks, so that who is asked, when, and with what answer is
//! the test's to decide, and no failover has to be waited for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it says where the master is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    /// On this port.
    Port(u16),
    /// The first time there, and then here.
    Once(u16, u16),
    /// Nothing, though it takes the question.
    Nothing,
}

/// It ends when dropped.
pub(super) struct FakeSentinel {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    _serving: JoinSet<()>,
}

impl FakeSentinel {
    pub(super) async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let saying = Arc::clone(&says);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, Arc::clone(&saying)));
            }
        });
        FakeSentinel { address, says, _serving: serving }
    }

    /// From now on it says this.
    pub(super) fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

/// The address of the master that these know.
pub(super) fn url(sentinels: &[FakeSentinel]) -> String {
    let hosts: Vec<String> = sentinels.iter().map(|one| one.address.to_string()).collect();
    format!("redis+sentinel://{}/main", hosts.join(","))
}

async fn serve(client: TcpStream, says: Arc<Mutex<Says>>) {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    while let Some(words) = command(&mut from_client).await {
        let answer = if words[0] == "SENTINEL" { answer(&says) } else { "+OK\r\n".to_owned() };
        if to_client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(says: &Mutex<Says>) -> String {
    let mut says = says.lock().unwrap();
    let port = match *says {
        Says::Port(port) => port,
        Says::Once(port, later) => {
            *says = Says::Port(later);
            port
        }
        Says::Nothing => return String::new(),
    };
    let port = port.to_string();
    format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
}

/// The next command, an array of strings.
async fn command(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for _ in 0..length(from, '*').await? {
        let mut word = vec![0; length(from, '$').await? + "\r\n".len()];
        from.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8(word).unwrap().trim_end().to_owned());
    }
    Some(words)
}

async fn length(from: &mut (impl AsyncBufReadExt + Unpin), kind: char) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    line.strip_prefix(kind)?.trim_end().parse().ok()
}
