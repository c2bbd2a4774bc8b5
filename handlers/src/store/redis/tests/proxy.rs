//! A proxy before a server, which can keep to itself what subscribers should hear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// A proxy on a port of its own, before a unix socket. It ends when dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    swallows: Arc<AtomicBool>,
    _serving: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(socket: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let swallows = Arc::new(AtomicBool::new(false));
        let swallowing = Arc::clone(&swallows);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                connections.spawn(serve(client, server, Arc::clone(&swallowing)));
            }
        });
        Proxy { address, swallows, _serving: serving }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on what the server says to those who have subscribed gets lost here, or not.
    pub(super) fn swallow(&self, swallow: bool) {
        self.swallows.store(swallow, Ordering::SeqCst);
    }
}

async fn serve(client: TcpStream, server: UnixStream, swallows: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let subscribed = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from_client.read(&mut buffer).await {
            let says = |word: &[u8]| buffer[..len].windows(word.len()).any(|part| part == word);
            if says(b"\r\nSUBSCRIBE\r\n") {
                subscribed.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..len]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from_server.read(&mut buffer).await {
            if swallows.load(Ordering::SeqCst) && subscribed.load(Ordering::SeqCst) {
                continue;
            }
            if to_client.write_all(&buffer[..len]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
