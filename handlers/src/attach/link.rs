//! One link to one edge. Nothing outside this file knows the ZeroMQ library.
//!
//! A link is a DEALER that connects to the edge's `-out-stream`, the ROUTER, under the handler's
//! instance id. Packets go both ways over this one connection, as `["", "T…"]`. Plain ZHTTP
//! handlers pull requests from `-out` and publish answers to `-in`; those sockets drop what a full
//! queue cannot take, and tell nobody whether an edge is there. A DEALER waits instead of dropping,
//! and its connection is the handler's presence at the edge.
//!
//! The link connects by itself, again and again, until it is closed, and tells when it is
//! [`LinkEvent::Up`] and when [`LinkEvent::Down`]. What was sent and not yet written when a
//! connection is lost is lost with it: the edge counts the sessions of a lost handler as lost, so
//! their packets are of no use to it, and a restarted edge knows no session at all. For the same
//! reason nothing is taken while the link is down.
//!
//! **Events are in order.** `Down` comes after all packets of the lost connection (omq takes a
//! connection off its list only after its data is in the receive queue, and that queue is emptied
//! first), `Up` before the first of the next.
//!
//! **What omq-tokio 0.33.0 does differently:** a connecting socket queues messages while nobody is
//! there, for whoever comes. So a packet is taken only while the connection that was seen last is
//! the present one (omq counts the changes of its connections). Another thread can still lose that
//! race; an edge answers packets for sessions that it does not know with `cancel`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use omq_tokio::{
    Error, KeepAlive, Message, Options, ReconnectPolicy, Socket, SocketType, TrySendError,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Messages that wait in each direction. Past it sending is refused, or waits; and nothing more is
/// read from the edge, which then refuses packets for this handler.
pub const HIGH_WATER_MARK: u32 = 1_000;

/// The largest message that is taken from an edge, in bytes; a larger one closes the connection.
/// Edges have the same limit.
pub const MESSAGE_SIZE_MAX: usize = 16 * 1024 * 1024;

/// How long [`Link::close`] waits for what has not been written yet.
pub const LINGER_MAX: Duration = Duration::from_secs(1);

/// The pause between two attempts to connect doubles from this one …
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// … to this one. A restarted edge has its handlers back within about a second.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// An edge's host that vanished is found by TCP keep-alive: after 15 + 3 × 5 seconds of silence.
const TCP_KEEP_ALIVE: KeepAlive =
    KeepAlive::Enabled { idle: Duration::from_secs(15), intvl: Duration::from_secs(5), cnt: 3 };

/// An identity has 1 to 64 bytes (ZHTTP's `from`).
const IDENTITY_LEN_MAX: usize = 64;

/// Why there can be no such link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The base spec cannot be expanded, for the same reasons as in the edge.
    #[error("base spec must be ipc://PATH, or tcp://HOST:PORT with a port of 1 to 65533: {spec:?}")]
    Spec {
        /// The spec, as it was typed.
        spec: String,
    },
    /// The identity is empty, too long, begins with a zero byte, or has a space in it.
    #[error("identity must have 1 to {IDENTITY_LEN_MAX} bytes and no space: {identity:?}")]
    Identity {
        /// The identity, as it was given.
        identity: String,
    },
    /// The library refuses the address. That nobody listens there is no error: it is tried again.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// The expanded address.
        endpoint: String,
        /// What the library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A packet that was not taken, and the packet itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue towards the edge is full.
    #[error("the queue towards the edge is full")]
    Full(Bytes),
    /// The link is down, or closed.
    #[error("the link is down")]
    Down(Bytes),
}

impl Refused {
    /// The packet.
    pub fn into_packet(self) -> Bytes {
        match self {
            Refused::Full(packet) | Refused::Down(packet) => packet,
        }
    }
}

/// Something that happened on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A packet, `T…`.
    Packet(Bytes),
    /// The edge is there.
    Up,
    /// The connection to the edge is lost. It is being tried again.
    Down,
}

/// What the watcher has seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Down,
    /// There is a connection.
    Up {
        /// Its number, by which a new connection is told from an old one.
        connection: u64,
        /// Up to date as long as this is the socket's.
        generation: u64,
    },
}

/// A handler's connection to one edge. Closes in the background when dropped with all its senders.
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    seen: watch::Receiver<Seen>,
    watcher: Watcher,
    /// What has been told. `None` after a first packet that came before the watcher had seen its
    /// connection.
    told: Option<Seen>,
    /// A packet that waits until `Up` has been told.
    due: Option<Bytes>,
}

/// The sending half of a link; cheap to clone. All clones share one queue, in order.
#[derive(Clone, Debug)]
pub struct LinkSender {
    socket: Arc<Socket>,
    seen: watch::Receiver<Seen>,
}

/// Ends the watching task when dropped, and with it the task's hold on the socket.
#[derive(Debug)]
struct Watcher(AbortHandle);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Begins to connect to the edge at a base spec, under an identity that no other handler of
    /// that edge has: who connects under the same identity takes the place of this link. Must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// See [`LinkError`]; none of them is that the edge is not there.
    pub async fn connect(spec: &str, identity: &str) -> Result<Link, LinkError> {
        let endpoint = out_stream(spec).ok_or_else(|| LinkError::Spec { spec: spec.to_owned() })?;
        let len = identity.len();
        if len == 0
            || len > IDENTITY_LEN_MAX
            || identity.contains(' ')
            || identity.starts_with('\0')
        {
            return Err(LinkError::Identity { identity: identity.to_owned() });
        }
        let options = Options::default()
            .identity(identity.to_owned())
            .send_hwm(HIGH_WATER_MARK)
            .recv_hwm(HIGH_WATER_MARK)
            .max_message_size(MESSAGE_SIZE_MAX)
            .linger(LINGER_MAX)
            .reconnect(ReconnectPolicy::Exponential {
                min: RECONNECT_PAUSE_MIN,
                max: RECONNECT_PAUSE_MAX,
            })
            .tcp_keepalive(TCP_KEEP_ALIVE);
        let failed = |source: Error| LinkError::Connect {
            endpoint: endpoint.clone(),
            source: source.into(),
        };
        let socket = Socket::try_new(SocketType::Dealer, options).map_err(failed)?;
        socket.connect(endpoint.as_str()).await.map_err(failed)?;
        let (publish, seen) = watch::channel(Seen::Down);
        let watcher =
            Watcher(tokio::spawn(watch_connection(socket.clone(), publish)).abort_handle());
        let sender = LinkSender { socket: Arc::new(socket), seen: seen.clone() };
        Ok(Link { sender, seen, watcher, told: Some(Seen::Down), due: None })
    }

    /// Another handle to send with.
    pub fn sender(&self) -> LinkSender {
        self.sender.clone()
    }

    /// See [`LinkSender::try_send`].
    ///
    /// # Errors
    /// Gives the packet back.
    pub fn try_send(&self, packet: Bytes) -> Result<(), Refused> {
        self.sender.try_send(packet)
    }

    /// See [`LinkSender::send`].
    ///
    /// # Errors
    /// Gives the packet back.
    pub async fn send(&self, packet: Bytes) -> Result<(), Refused> {
        self.sender.send(packet).await
    }

    /// Waits for what happens next. Cancel-safe: nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> LinkEvent {
        loop {
            if let Some(packet) = self.due.take() {
                return LinkEvent::Packet(packet);
            }
            let received = match self.sender.socket.try_recv() {
                Err(Error::WouldBlock) => {
                    // All packets of a connection are out before its loss is told.
                    if let Some(event) = self.take_seen() {
                        return event;
                    }
                    tokio::select! {
                        received = self.sender.socket.recv() => received,
                        Ok(()) = self.seen.changed() => { self.seen.mark_changed(); continue }
                    }
                }
                received => received,
            };
            match received {
                Ok(message) => {
                    if let Some(event) = self.take_message(&message) {
                        return event;
                    }
                }
                // The socket lives as long as the link, so this is a failure within the library:
                // down, for good.
                Err(_) => match self.told.replace(Seen::Down) {
                    Some(Seen::Down) => std::future::pending().await,
                    _ => return LinkEvent::Down,
                },
            }
        }
    }

    /// Closes the connection. Waits up to [`LINGER_MAX`] for what has not been written yet.
    pub async fn close(self) {
        let socket = Socket::clone(&self.sender.socket);
        drop(self.watcher);
        // An error here says that it is closed already.
        let _ = socket.close().await;
    }

    /// What has to be told about the connection before a packet of it may be handed out, and the
    /// packet.
    fn take_message(&mut self, message: &Message) -> Option<LinkEvent> {
        let parts = message.len();
        let delimited = parts == 2 && message.part_slice(0).is_some_and(<[u8]>::is_empty);
        let packet = if delimited || parts == 1 { message.part_bytes(parts - 1) } else { None };
        let packet = packet.filter(|packet| !packet.is_empty())?;
        if self.told == Some(Seen::Down) {
            let seen = *self.seen.borrow_and_update();
            self.told = (seen != Seen::Down).then_some(seen);
            self.due = Some(packet);
            return Some(LinkEvent::Up);
        }
        Some(LinkEvent::Packet(packet))
    }

    /// What has to be told about the connection, given what the watcher has seen.
    fn take_seen(&mut self) -> Option<LinkEvent> {
        let changed = self.seen.has_changed().unwrap_or(false);
        let seen = *self.seen.borrow_and_update();
        match (self.told, seen) {
            (Some(Seen::Down), Seen::Up { .. }) => {
                self.told = Some(seen);
                Some(LinkEvent::Up)
            }
            (Some(Seen::Up { connection: told, .. }), Seen::Up { connection: now, .. })
                if told != now =>
            {
                // Lost and back between two looks: `Up` follows in the next round.
                self.told = Some(Seen::Down);
                self.seen.mark_changed();
                Some(LinkEvent::Down)
            }
            (Some(Seen::Up { .. }), Seen::Down) => {
                self.told = Some(seen);
                Some(LinkEvent::Down)
            }
            // Told by its first packet; now the watcher has seen it, or has seen it lost already.
            // What the watcher had seen before that packet is older than the connection, and does
            // not count.
            (None, Seen::Up { .. }) => {
                self.told = Some(seen);
                None
            }
            (None, Seen::Down) if changed => {
                self.told = Some(seen);
                Some(LinkEvent::Down)
            }
            (None | Some(Seen::Down), Seen::Down) | (Some(Seen::Up { .. }), Seen::Up { .. }) => {
                None
            }
        }
    }
}

impl LinkSender {
    /// Puts a packet into the queue towards the edge.
    ///
    /// # Errors
    /// Gives the packet back: `Full` if there is no room, `Down` if the edge is not there.
    pub fn try_send(&self, packet: Bytes) -> Result<(), Refused> {
        if !self.is_up() {
            return Err(Refused::Down(packet));
        }
        match self.socket.try_send(Message::multipart([Bytes::new(), packet.clone()])) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Refused::Full(packet)),
            Err(TrySendError::Closed | TrySendError::Error(_)) => Err(Refused::Down(packet)),
        }
    }

    /// Puts a packet into the queue towards the edge; waits while it is full. Cancel-safe: if the
    /// future is dropped, the packet has not been taken.
    ///
    /// # Errors
    /// Gives the packet back if the edge is not there, or goes while there is no room.
    pub async fn send(&self, packet: Bytes) -> Result<(), Refused> {
        let mut packet = packet;
        let mut seen = self.seen.clone();
        loop {
            seen.mark_unchanged();
            match self.try_send(packet) {
                Err(Refused::Full(refused)) => packet = refused,
                result => return result,
            }
            tokio::select! {
                () = self.socket.wait_send_ready() => {}
                // The edge went, or the link was dropped: `try_send` knows.
                _ = seen.changed() => {}
            }
        }
    }

    /// True while the edge is there.
    pub fn is_up(&self) -> bool {
        // Without its link nobody watches any more.
        self.seen.has_changed().is_ok()
            && match *self.seen.borrow() {
                Seen::Up { generation, .. } => generation == self.socket.connections_generation(),
                Seen::Down => false,
            }
    }
}

/// Looks at the socket's connection after each change of it, until the socket is closed.
async fn watch_connection(socket: Socket, publish: watch::Sender<Seen>) {
    loop {
        let generation = socket.connections_generation();
        let Ok(connections) = socket.connections().await else { return };
        let newest = connections.iter().map(|connection| connection.connection_id).max();
        if generation == socket.connections_generation() {
            let up = |connection| Seen::Up { connection, generation };
            publish.send_replace(newest.map_or(Seen::Down, up));
        }
        if socket.connections_changed(generation).await.is_err() {
            return;
        }
    }
}

/// The `-out-stream` address of a base spec: a suffix for `ipc`, the next port for `tcp` (the
/// edge's `bus::Spec` has all three).
fn out_stream(spec: &str) -> Option<String> {
    if let Some(path) = spec.strip_prefix("ipc://") {
        return (!path.is_empty()).then(|| format!("{spec}-out-stream"));
    }
    let (host, port) = spec.strip_prefix("tcp://")?.rsplit_once(':')?;
    // `u16::from_str` would take a sign.
    let port: u16 = if port.bytes().all(|byte| byte.is_ascii_digit()) {
        port.parse().ok()?
    } else {
        return None;
    };
    // The edge takes the port after this one, too.
    let fits = !host.is_empty() && (1..=u16::MAX - 2).contains(&port);
    fits.then(|| format!("tcp://{host}:{}", port + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_specs_are_expanded_as_the_edge_does_it() {
        assert_eq!(out_stream("ipc://client").as_deref(), Some("ipc://client-out-stream"));
        assert_eq!(out_stream("tcp://127.0.0.1:5560").as_deref(), Some("tcp://127.0.0.1:5561"));
        assert_eq!(out_stream("tcp://[::1]:65533").as_deref(), Some("tcp://[::1]:65534"));
        for spec in [
            "",
            "client",
            "ipc://",
            "tcp://h",
            "tcp://:1",
            "tcp://h:",
            "tcp://h:0",
            "tcp://h:65534",
            "tcp://h:+1",
        ] {
            assert_eq!(out_stream(spec), None, "{spec}");
        }
    }
}
