//! How the bus's ZeroMQ sockets are made: options, bind or connect, file modes, and the watch on
//! their connections.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use omq_tokio::{KeepAlive, Options, ReconnectPolicy, Socket, SocketType};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::roster::Snapshot;
use super::{
    BusConfig, BusError, HIGH_WATER_MARK, LINGER_MAX, MESSAGE_SIZE_MAX, REQ_HIGH_WATER_MARK,
};

/// Connections that may be in their handshake at one time, per socket; a further one is closed and
/// comes again. A few KiB each. A thousand handlers that start together fit.
const HANDSHAKES_PENDING_MAX: usize = 1_024;

/// What the kernel may keep of requests for one peer of a group, in bytes (Linux keeps twice as
/// much).
///
/// The library's own choice for `ipc`, 1 MiB, would hide ten thousand small requests with a handler
/// that is stuck, while others are idle.
const REQUEST_KERNEL_BUFFER_BYTES: usize = 64 * 1024;

/// First and last pause between attempts to connect, when the bus connects instead of binding.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// See [`RECONNECT_PAUSE_MIN`].
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A handler's host that vanished is found by TCP keep-alive: after 15 + 3 × 5 seconds of silence.
///
/// ZMTP heartbeats would be the finer tool, but they cannot tell a vanished host from a process
/// that is stopped for a while, and a stopped handler must find its connection again.
const TCP_KEEP_ALIVE: KeepAlive =
    KeepAlive::Enabled { idle: Duration::from_secs(15), intvl: Duration::from_secs(5), cnt: 3 };

/// The options that all sockets of the bus share.
fn options() -> Options {
    Options::default()
        .send_hwm(HIGH_WATER_MARK)
        .recv_hwm(HIGH_WATER_MARK)
        .max_message_size(MESSAGE_SIZE_MAX)
        .max_pending_handshakes(HANDSHAKES_PENDING_MAX)
        .linger(LINGER_MAX)
        .reconnect(ReconnectPolicy::Exponential {
            min: RECONNECT_PAUSE_MIN,
            max: RECONNECT_PAUSE_MAX,
        })
        .tcp_keepalive(TCP_KEEP_ALIVE)
}

/// A PUSH for one group, or, when connecting, for one spec of it.
pub(super) fn push() -> Result<Socket, BusError> {
    create(SocketType::Push, options().send_buffer_size(REQUEST_KERNEL_BUFFER_BYTES))
}

/// A DEALER for req mode, or, when connecting, for one spec of it. Without an identity, as
/// Condure's: a ROUTER that answers knows the connection, and needs no name.
pub(super) fn dealer() -> Result<Socket, BusError> {
    let options = options().send_hwm(REQ_HIGH_WATER_MARK).recv_hwm(REQ_HIGH_WATER_MARK);
    create(SocketType::Dealer, options.send_buffer_size(REQUEST_KERNEL_BUFFER_BYTES))
}

/// The ROUTER, under the identity that ROUTER peers address it by.
pub(super) fn router(instance_id: &str) -> Result<Socket, BusError> {
    create(SocketType::Router, options().identity(instance_id.to_owned()).router_mandatory(true))
}

/// The SUB, already subscribed: omq repeats the subscription to each publisher as a part of its
/// handshake.
pub(super) async fn subscriber(prefix: &[u8]) -> Result<Socket, BusError> {
    let socket = create(SocketType::Sub, options())?;
    socket
        .subscribe(prefix.to_vec())
        .await
        .map_err(|source| BusError::Socket { source: source.into() })?;
    Ok(socket)
}

fn create(kind: SocketType, options: Options) -> Result<Socket, BusError> {
    Socket::try_new(kind, options).map_err(|source| BusError::Socket { source: source.into() })
}

/// Binds or connects a socket, as the configuration says. A bound `ipc` file gets its mode.
///
/// Between the bind and the change of the mode the file has the mode that the umask gives it: who
/// needs more puts it into a directory with the right mode.
pub(super) async fn attach(
    socket: &Socket,
    endpoint: &str,
    config: &BusConfig,
) -> Result<(), BusError> {
    if config.connect {
        let connected = socket.connect(endpoint).await;
        return connected.map_err(|source| BusError::Connect {
            endpoint: endpoint.to_owned(),
            source: source.into(),
        });
    }
    let bound = socket.bind(endpoint).await;
    bound.map_err(|source| BusError::Bind {
        endpoint: endpoint.to_owned(),
        source: source.into(),
    })?;
    // An abstract address (`ipc://@name`) has no file.
    let file = endpoint.strip_prefix("ipc://").filter(|path| !path.starts_with('@'));
    if let (Some(path), Some(mode)) = (file, config.ipc_file_mode) {
        std::fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|source| BusError::FileMode { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// The tasks that watch connections. They end with the value.
#[derive(Debug)]
pub(super) struct Watchers {
    tasks: JoinSet<()>,
    /// Told after each new snapshot of any socket.
    changed: Arc<Notify>,
}

impl Watchers {
    pub(super) fn new() -> Watchers {
        Watchers { tasks: JoinSet::new(), changed: Arc::new(Notify::new()) }
    }

    /// Completes when there is a new snapshot of any socket. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Keeps a snapshot of the socket's ready connections. A new one is taken after each change and
    /// whenever the epoch in `asked` has been raised.
    ///
    /// Not omq's monitor: its queue is bounded and drops events when many connections come and go.
    pub(super) fn watch(
        &mut self,
        socket: &Socket,
        mut asked: watch::Receiver<u64>,
    ) -> watch::Receiver<Snapshot> {
        let (publish, snapshots) = watch::channel(Snapshot::default());
        let (socket, changed) = (socket.clone(), Arc::clone(&self.changed));
        self.tasks.spawn(async move {
            loop {
                let epoch = *asked.borrow_and_update();
                let generation = socket.connections_generation();
                let Ok(peers) = socket.connections().await else { return };
                let peers = peers.into_iter();
                let connections = peers.map(|peer| (peer.connection_id, peer.identity)).collect();
                publish.send_replace(Snapshot { epoch, generation, connections });
                changed.notify_one();
                tokio::select! {
                    now = socket.connections_changed(generation) => if now.is_err() { return },
                    Ok(()) = asked.changed() => {}
                }
            }
        });
        snapshots
    }

    /// Ends all watches, and with them their hold on the sockets.
    pub(super) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}
