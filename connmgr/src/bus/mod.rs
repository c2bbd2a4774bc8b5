//! The bus: the edge's ZeroMQ sockets in stream mode. Nothing outside this module knows the
//! library.
//!
//! | socket | address | what goes over it |
//! | --- | --- | --- |
//! | PUSH, one for each group | `-out` | the first packet of a session, to whoever takes it |
//! | ROUTER, identity = instance id | `-out-stream` | all other packets to one certain handler; and packets from it |
//! | SUB, subscribed to `"{instance-id} "` | `-in` | packets that handlers publish to this edge |
//!
//! The caller owns a [`Bus`] on a current-thread tokio runtime in a thread of its own, and turns it
//! in a loop:
//!
//! ```text
//! wait for (the workers' notify | bus.recv())     one wake-up for many messages
//! up to 128 from bus.try_recv()                   into the workers' queues
//! up to 128 from the workers' queues              try_push, try_route
//! bus.flush()                                     the sockets' own tasks run now
//! ```
//!
//! **Sending.** `try_push` and `try_route` never wait; they put a message into a peer's bounded
//! queue, or give it back and say why. The bytes are written by the task of that peer's connection,
//! which on a current-thread runtime runs only while the caller awaits: that is what [`Bus::flush`]
//! is for. What is put in between two flushes goes out in one write, so flush once for a batch (at
//! most [`SENDS_PER_FLUSH`] messages, so that the queues don't fill up while nobody drains them),
//! not once for a message. Each peer has its own queue and its own task, so a peer that is stuck or
//! killed holds up nobody; past [`HIGH_WATER_MARK`] messages it is passed over (PUSH) or its
//! messages are refused (ROUTER).
//!
//! **Losses come last.** When a handler leaves in good order, its last packets and the end of its
//! connection arrive together. omq takes a connection off its list only after all that was read
//! from it is in the receive queue; so the bus tells joins and losses only when it has found that
//! queue empty (or after [`MESSAGES_BEFORE_NEWS_MAX`] messages), and a packet is never overtaken by
//! the loss of its sender.
//!
//! **What omq-tokio 0.33.0 does differently, and where that is dealt with:**
//!
//! * connecting sockets queue for peers that are not there (`push.rs`: one PUSH for each spec);
//! * a bound PUSH without peers says *full* (`push.rs`: the snapshots tell *no peer*);
//! * its monitor drops events when they come fast (`sockets.rs`: snapshots instead);
//! * a message that is refused for any reason but *full* is not given back (a reference-counted
//!   copy is kept).
//!
//! Rejected: the `zeromq` crate (0.7.0), whose runtime thread freezes when a stalled peer is killed
//! while a send waits, and which aborts the process at a frame header that announces a terabyte; and
//! libzmq (4.3.4), sound, but a C++ dependency and a quarter to a half more CPU for a request. The
//! contract that another library would have to keep is `connmgr/tests/bus.rs`.

mod inbound;
mod push;
mod roster;
mod sockets;
mod spec;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use omq_tokio::{Error, Identity, IdentitySocket, Message, Socket, TrySendError};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use inbound::Inbound;
pub use spec::{Spec, SpecError};

use push::PushGroup;
use roster::{Roster, Snapshot};

/// Messages that wait for one peer, in each direction. Past it the peer is passed over (PUSH), or
/// messages to it are refused (ROUTER), or nothing more is read from it (ROUTER, SUB).
///
/// The memory of a stuck peer is this many messages. Besides, the kernel keeps what it has taken: 128 KiB
/// of requests for a puller, 2 MiB of packets for a peer on `ipc`.
pub const HIGH_WATER_MARK: u32 = 1_000;

/// The largest message that is taken from a peer, in bytes over all frames; omq counts each frame
/// as a few dozen bytes more than it has. A peer that announces more loses its connection before
/// anything is allocated for it; other peers don't notice.
pub const MESSAGE_SIZE_MAX: usize = 16 * 1024 * 1024;

/// How many messages may be sent between two [`Bus::flush`]. An eighth of what one peer's queue
/// holds.
pub const SENDS_PER_FLUSH: usize = 128;

/// How long [`Bus::close`] waits for what has not been written yet.
pub const LINGER_MAX: Duration = Duration::from_secs(1);

/// An instance id is at most this long, in bytes (Condure, `FROM_MAX`).
pub const INSTANCE_ID_LEN_MAX: usize = 64;

/// So many messages are handed out before a join or a loss that waits for the queue to be empty is
/// told anyway. A bus that is never idle tells a loss late, by 16 queues full of messages, but it
/// tells it.
pub const MESSAGES_BEFORE_NEWS_MAX: usize = 16 * HIGH_WATER_MARK as usize;

/// Where the bus is, and who it is.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// The groups that requests are pushed to; each has at least one base spec. The ROUTER and the
    /// SUB are shared: they bind (or connect) to all specs of all groups.
    pub groups: Vec<Vec<Spec>>,
    /// Connect to the specs, instead of binding them.
    pub connect: bool,
    /// Mode of the `ipc` files that are bound, as for `chmod`. `None`: what the umask gives.
    pub ipc_file_mode: Option<u32>,
    /// The ROUTER's identity, and what handlers address this edge by. 1 to 64 bytes without a
    /// space.
    pub instance_id: String,
}

/// Why a bus could not be opened. All are the caller's to mend: a configuration, or a machine that
/// doesn't fit it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The instance id is empty, too long, or has a space in it (which ends it, on the wire).
    #[error("instance id must have 1 to {INSTANCE_ID_LEN_MAX} bytes and no space: {instance_id:?}")]
    InstanceId {
        /// The id, as it was given.
        instance_id: String,
    },
    /// There is no group, or one without a spec.
    #[error("a group of handlers has no spec")]
    NoSpec,
    /// An address could not be bound.
    #[error("cannot bind {endpoint}")]
    Bind {
        /// The expanded address.
        endpoint: String,
        /// What the library or the system says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An address is none that one can connect to. That nobody listens there is no error: it is
    /// tried again.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// The expanded address.
        endpoint: String,
        /// What the library or the system says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The mode of a bound `ipc` file could not be set.
    #[error("cannot set the mode of {path}")]
    FileMode {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The library refuses to make a socket at all.
    #[error("cannot make a ZeroMQ socket")]
    Socket {
        /// What the library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A message that was not taken, and the message itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Everyone who could take it has a full queue. For a group, [`Inbound::PushReady`] tells when
    /// to try again.
    #[error("the peer's queue is full")]
    Full(Bytes),
    /// Nobody is there who could take it. [`Inbound::PushPeers`] and [`Inbound::PeerJoined`] tell
    /// when that changes.
    #[error("there is no such peer")]
    NoPeer(Bytes),
}

impl Refused {
    /// The message.
    pub fn into_packet(self) -> Bytes {
        match self {
            Refused::Full(packet) | Refused::NoPeer(packet) => packet,
        }
    }
}

/// The edge's three kinds of sockets. See the module's documentation for how it is turned.
#[derive(Debug)]
pub struct Bus {
    groups: Vec<PushGroup>,
    router: IdentitySocket,
    subscriber: Socket,
    /// `"{instance-id} "`
    prefix: Vec<u8>,
    watchers: sockets::Watchers,
    connections: watch::Receiver<Snapshot>,
    /// Raised to get a new snapshot of the ROUTER's connections.
    epoch: watch::Sender<u64>,
    roster: Roster,
    /// Events that are due before anything else.
    due: VecDeque<Inbound>,
    /// Messages that were handed out while news waited.
    messages_before_news: usize,
    /// Whose turn it is, when both the ROUTER and the SUB have messages.
    subscriber_next: bool,
}

impl Bus {
    /// Opens the sockets. Must be called in, and stay in, one tokio runtime with time and I/O
    /// enabled.
    ///
    /// A stale `ipc` file of an earlier process is replaced. So is, as with libzmq, the file of one
    /// that still runs.
    ///
    /// # Errors
    /// See [`BusError`]. Sockets that were opened already are closed.
    pub async fn open(config: BusConfig) -> Result<Bus, BusError> {
        let id = &config.instance_id;
        if id.is_empty()
            || id.len() > INSTANCE_ID_LEN_MAX
            || id.contains(' ')
            || id.starts_with('\0')
        {
            return Err(BusError::InstanceId { instance_id: config.instance_id });
        }
        if config.groups.is_empty() || config.groups.iter().any(Vec::is_empty) {
            return Err(BusError::NoSpec);
        }
        let prefix = format!("{id} ").into_bytes();
        let mut watchers = sockets::Watchers::new();
        let mut groups = Vec::with_capacity(config.groups.len());
        for specs in &config.groups {
            groups.push(PushGroup::open(specs, &config, &mut watchers).await?);
        }
        let router = sockets::router(id)?;
        let subscriber = sockets::subscriber(&prefix).await?;
        for spec in config.groups.iter().flatten() {
            sockets::attach(&router, spec.out_stream(), &config).await?;
            sockets::attach(&subscriber, spec.inward(), &config).await?;
        }
        let (epoch, asked) = watch::channel(0);
        let connections = watchers.watch(&router, asked);
        let router = IdentitySocket::try_from(router)
            .map_err(|source| BusError::Socket { source: source.into() })?;
        Ok(Bus {
            groups,
            router,
            subscriber,
            prefix,
            watchers,
            connections,
            epoch,
            roster: Roster::default(),
            due: VecDeque::new(),
            messages_before_news: 0,
            subscriber_next: false,
        })
    }

    /// The number of peers that take requests of a group. 0 for a group that does not exist.
    pub fn push_peers(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, PushGroup::peers)
    }

    /// Puts a packet into the queue of one of the group's peers, each in turn; a peer whose queue
    /// is full is left out.
    ///
    /// # Errors
    /// Gives the packet back: `Full` if all queues are full, `NoPeer` if there is no peer, or no
    /// such group.
    pub fn try_push(&mut self, group: usize, packet: Bytes) -> Result<(), Refused> {
        match self.groups.get_mut(group) {
            Some(group) => group.try_push(packet),
            None => Err(Refused::NoPeer(packet)),
        }
    }

    /// Puts a packet into one peer's queue; it gets `["", packet]`.
    ///
    /// # Errors
    /// Gives the packet back: `Full` if that peer's queue is full, `NoPeer` if no peer has that
    /// identity.
    pub fn try_route(&self, peer: &[u8], packet: Bytes) -> Result<(), Refused> {
        let message = Message::multipart([Bytes::new(), packet.clone()]);
        match self.router.try_send_to(peer, message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Refused::Full(packet)),
            Err(TrySendError::Closed | TrySendError::Error(_)) => Err(Refused::NoPeer(packet)),
        }
    }

    /// Lets the sockets' tasks run once, so that what was sent is written. Does not wait for any
    /// peer.
    pub async fn flush(&self) {
        tokio::task::yield_now().await;
    }

    /// Waits for whatever comes in next. Cancel-safe: nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Inbound {
        loop {
            if let Some(event) = self.try_recv() {
                return event;
            }
            tokio::select! {
                routed = self.router.recv_from() => self.take_routed(routed),
                published = self.subscriber.recv() => self.take_published(published),
                () = self.watchers.changed() => {}
                () = push_ready(&self.groups) => {}
            }
        }
    }

    /// What has come in already, if anything. Does not let the sockets' tasks run.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        if let Some(event) = self.due.pop_front() {
            return Some(event);
        }
        if self.messages_before_news < MESSAGES_BEFORE_NEWS_MAX && self.take_message() {
            self.messages_before_news =
                if self.has_news() { self.messages_before_news + 1 } else { 0 };
        } else {
            self.messages_before_news = 0;
            self.take_news();
        }
        self.due.pop_front()
    }

    /// Closes all sockets. Waits up to [`LINGER_MAX`] for what has not been written yet; removes
    /// the `ipc` files.
    pub async fn close(self) {
        // A socket closes when its last handle does, and the watchers have some.
        self.watchers.shutdown().await;
        let mut closing = JoinSet::new();
        for socket in self.groups.into_iter().flat_map(PushGroup::into_sockets) {
            closing.spawn(socket.close());
        }
        closing.spawn(self.router.into_inner().close());
        closing.spawn(self.subscriber.close());
        while closing.join_next().await.is_some() {}
    }

    fn has_news(&self) -> bool {
        self.connections.has_changed().unwrap_or(false)
            || self.groups.iter().any(PushGroup::has_news)
    }

    /// Makes joins, losses and changes of the groups due.
    fn take_news(&mut self) {
        if self.connections.has_changed().unwrap_or(false) {
            self.roster.handle_snapshot(&self.connections.borrow_and_update(), &mut self.due);
        }
        for (group, pushing) in self.groups.iter_mut().enumerate() {
            if let Some(count) = pushing.take_news() {
                self.due.push_back(Inbound::PushPeers { group, count });
            }
            if pushing.take_ready() {
                self.due.push_back(Inbound::PushReady { group });
            }
        }
    }

    /// Makes one message due, from the ROUTER and the SUB in turn. False if neither has one.
    fn take_message(&mut self) -> bool {
        for _ in 0..2 {
            self.subscriber_next = !self.subscriber_next;
            if self.subscriber_next {
                match self.router.try_recv_from() {
                    Err(Error::WouldBlock) => continue,
                    routed => self.take_routed(routed),
                }
            } else {
                match self.subscriber.try_recv() {
                    Err(Error::WouldBlock) => continue,
                    published => self.take_published(published),
                }
            }
            return true;
        }
        false
    }

    fn take_routed(&mut self, received: Result<(Identity, Message), Error>) {
        let Ok((identity, message)) = received else {
            return self.due.push_back(Inbound::Closed);
        };
        let (peer, connection) = (identity.to_bytes(), identity.peer_info().connection_id);
        if self.roster.handle_sender(&peer, connection, &mut self.due) {
            self.epoch.send_replace(self.roster.epoch());
        }
        self.due.push_back(inbound::parse_routed(peer, parts(&message)));
    }

    fn take_published(&mut self, received: Result<Message, Error>) {
        self.due.push_back(match received {
            Ok(message) => inbound::parse_published(&self.prefix, parts(&message)),
            Err(_) => Inbound::Closed,
        });
    }
}

/// The frames of a message. Those that are too small to be shared are copied, others are not.
fn parts(message: &Message) -> impl Iterator<Item = Bytes> {
    (0..message.len()).map_while(|index| message.part_bytes(index))
}

/// Completes when any group that refused a message may have room again. Never, if none has.
async fn push_ready(groups: &[PushGroup]) {
    type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    let waiting = groups.iter().flat_map(PushGroup::waiting);
    let mut waiting: Vec<Waiting<'_>> =
        waiting.map(|socket| Box::pin(socket.wait_send_ready()) as Waiting<'_>).collect();
    std::future::poll_fn(|context| {
        let ready = waiting.iter_mut().any(|room| room.as_mut().poll(context).is_ready());
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
