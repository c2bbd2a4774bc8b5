//! Threads beside the edge that tell of it: metrics and debug logs.
//!
//! Whoever asks for them is no client of the edge, and the edge must not feel it. So each has one thread with a small
//! runtime of its own, which shares nothing with workers and hub but numbers and lines that they leave there, and is
//! only started if it is configured. [`Observer`] is that thread, from its listener to its end; what is said there is in
//! `metrics/server.rs` and `debug_socket.rs`.
//!
//! Everything that can fail because of the configuration fails at the start, in the thread of the caller.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use crate::config::ListenAddress;
use crate::listener::{BoundPath, ListenError, bind_path};

/// When no client can be accepted, it is tried again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why something that tells of the edge could not be started. The operator's to mend, or the system's.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The place cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system has no thread or no poll for it.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A thread that serves a listener until it is dropped.
#[derive(Debug)]
pub(crate) struct Observer {
    place: String,
    address: Option<SocketAddr>,
    /// Dropped to stop it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Says when to stop, by becoming ready. With what, doesn't matter.
pub(crate) type Stopped = oneshot::Receiver<()>;

impl Observer {
    /// Listens, and runs what `serve` makes of the listener in a thread of that name.
    pub(crate) fn start<F>(
        name: &str,
        address: &ListenAddress,
        serve: impl FnOnce(Incoming, Stopped) -> F,
    ) -> Result<Observer, ObserveError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let incoming = {
            let _guard = runtime.enter();
            Incoming::bind(address)?
        };
        let local = incoming.local_addr();
        let place = local.map_or_else(|| address.to_string(), |local| local.to_string());
        let (stop, stopped) = oneshot::channel();
        let serving = serve(incoming, stopped);
        let run = move || runtime.block_on(serving);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Observer { place, address: local, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens: an address, with the real port where that was left to the system, or a path.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The address, if it is not a path.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked, there is nothing left to stop, and the panic was printed.
            let _ = thread.join();
        }
    }
}

/// A client, whatever its socket is.
pub(crate) trait Client: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Client for S {}

/// Where clients come in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Tcp(TcpListener),
    /// The path goes with it.
    Unix {
        listener: UnixListener,
        _path: BoundPath,
    },
}

impl Incoming {
    /// Listens. To be called in the runtime that accepts.
    fn bind(address: &ListenAddress) -> Result<Incoming, ObserveError> {
        match address {
            ListenAddress::Tcp(address) => {
                let listen = || {
                    let listener = std::net::TcpListener::bind(address)?;
                    listener.set_nonblocking(true)?;
                    TcpListener::from_std(listener)
                };
                let listener = listen().map_err(|source| ListenError::from_io(address, source))?;
                Ok(Incoming::Tcp(listener))
            }
            ListenAddress::Unix(unix) => {
                let (listener, _path) = bind_path(unix)?;
                Ok(Incoming::Unix { listener: UnixListener::from_std(listener)?, _path })
            }
        }
    }

    /// Waits for a client. What fails is tried again: it may be descriptors that are missing.
    pub(crate) async fn accept(&self) -> Box<dyn Client> {
        loop {
            let accepted = match self {
                Incoming::Tcp(listener) => listener.accept().await.map(|(socket, _)| boxed(socket)),
                Incoming::Unix { listener, .. } => {
                    listener.accept().await.map(|(socket, _)| boxed(socket))
                }
            };
            match accepted {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Incoming::Tcp(listener) => listener.local_addr().ok(),
            Incoming::Unix { .. } => None,
        }
    }
}

fn boxed(client: impl Client + 'static) -> Box<dyn Client> {
    Box::new(client)
}
