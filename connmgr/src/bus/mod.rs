//! The bus: the edge's ZeroMQ sockets. Nothing outside this module knows the library.
//!
//! | mode | socket | address | what goes over it |
//! | --- | --- | --- | --- |
//! | stream | PUSH, one for each group | `-out` | the first packet of a session, to whoever takes it |
//! | stream | ROUTER, identity = instance id | `-out-stream` | all other packets to one certain handler; and packets from it |
//! | stream | SUB, subscribed to `"{instance-id} "` | `-in` | packets that handlers publish to this edge |
//! | req | DEALER | as given | whole requests, to whoever takes them; and the answers |
//!
//! Each mode has its sockets only if it has an address. Req mode is one more group, behind the last
//! of [`BusConfig::groups`]: requests go out with [`Bus::try_push`] whichever mode they are of, and
//! what is told about groups is told about that one. Its peers are REP, ROUTER or DEALER.
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
//! killed holds up nobody; past [`HIGH_WATER_MARK`] messages it is passed over (PUSH, DEALER)
//! or its messages are refused (ROUTER).
//!
//! **Receiving.** The ROUTER, the SUB and the DEALERs are asked in turn, and each takes from its
//! peers in turn: nobody who sends without a pause holds up another.
//!
//! **Losses come last.** When a handler leaves in good order, its last packets and the end of its
//! connection arrive together. omq takes a connection off its list only after all that was read
//! from it is in the receive queue; so the bus tells joins and losses only when it has found that
//! queue empty (or after [`MESSAGES_BEFORE_NEWS_MAX`] messages), and a packet is never overtaken by
//! the loss of its sender.
//!
//! **What omq-tokio 0.33.0 does differently, and where that is dealt with:**
//!
//! * connecting sockets queue for peers that are not there (`group.rs`: one PUSH or
//!   DEALER for each spec);
//! * a bound PUSH or DEALER without peers says *full* (`group.rs`: the snapshots tell *no peer*);
//! * its monitor drops events when they come fast (`sockets.rs`: snapshots instead);
//! * a message that is refused for any reason but *full* is not given back (a reference-counted
//!   copy is kept).
//!
//! Rejected: the `zeromq` crate (0.7.0), whose runtime thread freezes when a stalled peer is killed
//! while a send waits, and which aborts the process at a frame header that announces a terabyte; and
//! libzmq (4.3.4), sound, but a C++ dependency and a quarter to a half more CPU for a request. The
//! contract that another library would have to keep is `connmgr/tests/bus.rs`.

mod group;
mod inbound;
mod req_spec;
mod roster;
mod sockets;
mod spec;
mod stream;

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::time::Duration;

use bytes::Bytes;
use omq_tokio::{Error, Message};
use tokio::task::JoinSet;

pub use inbound::Inbound;
pub use req_spec::{ReqSpec, ReqSpecError};
pub use spec::{Spec, SpecError};

use group::{Group, Kind, push_ready};
use stream::StreamSockets;

/// Messages that wait for one peer, in each direction. Past it the peer is passed over (PUSH,
/// DEALER), or messages to it are refused (ROUTER), or nothing more is read from it (ROUTER, SUB,
/// DEALER).
///
/// The memory of a stuck peer is this many messages. Besides, the kernel keeps what it has taken:
/// 128 KiB of requests for a puller or a peer of req mode, 2 MiB of packets for a peer on `ipc`.
pub const HIGH_WATER_MARK: u32 = 1_000;

/// The same for a peer of req mode, whose messages have bodies (Condure has the same number). At the default
/// `--body-buffer-size` that is 13 MB for one that is stuck.
pub const REQ_HIGH_WATER_MARK: u32 = 128;

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
    /// The groups that requests of stream mode are pushed to; each has at least one base spec. The
    /// ROUTER and the SUB are shared: they bind (or connect) to all specs of all groups. Empty: an
    /// edge without stream mode, and none of its three kinds of sockets.
    pub groups: Vec<Vec<Spec>>,
    /// Where requests of req mode go: to the DEALER on all these specs. It is the group behind the
    /// last of `groups`. Empty: an edge without req mode.
    pub req: Vec<ReqSpec>,
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
    /// There is no spec of either mode, or a group without one.
    #[error("there is no spec of handlers, or a group without one")]
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

/// The edge's sockets. See the module's documentation for how they are turned.
#[derive(Debug)]
pub struct Bus {
    /// Those of stream mode in their order, and behind them, if there is one, that of req mode.
    groups: Vec<Group>,
    /// `None` without stream mode.
    stream: Option<StreamSockets>,
    watchers: sockets::Watchers,
    /// Events that are due before anything else.
    due: VecDeque<Inbound>,
    /// Messages that were handed out while news waited.
    messages_before_news: usize,
    /// Whose turn it is to be asked for a message.
    source: Source,
}

/// The sockets that receive.
#[derive(Clone, Copy, Debug)]
enum Source {
    Router,
    Subscriber,
    Dealers,
}

impl Source {
    /// In how many steps `next` comes round.
    const COUNT: usize = 3;

    fn next(self) -> Source {
        match self {
            Source::Router => Source::Subscriber,
            Source::Subscriber => Source::Dealers,
            Source::Dealers => Source::Router,
        }
    }
}

impl Bus {
    /// Opens the sockets. Must be called in, and stay in, one tokio runtime with time and I/O
    /// enabled.
    ///
    /// A stale `ipc` file of an earlier process is replaced. So is, as with libzmq, the file of one
    /// that still runs. Each spec is a line of the log, in Condure's words and order, before it is
    /// opened: what cannot be opened is then seen beside what it belongs to.
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
        let no_spec = config.groups.is_empty() && config.req.is_empty();
        if no_spec || config.groups.iter().any(Vec::is_empty) {
            return Err(BusError::NoSpec);
        }
        log_specs(&config);
        let mut watchers = sockets::Watchers::new();
        let mut groups = Vec::with_capacity(config.groups.len() + 1);
        for specs in &config.groups {
            let addresses: Vec<&str> = specs.iter().map(Spec::out).collect();
            groups.push(Group::open(Kind::Push, &addresses, &config, &mut watchers).await?);
        }
        let mut stream = None;
        if !config.groups.is_empty() {
            stream = Some(StreamSockets::open(&config, &mut watchers).await?);
        }
        if !config.req.is_empty() {
            let addresses: Vec<&str> = config.req.iter().map(ReqSpec::address).collect();
            groups.push(Group::open(Kind::Dealer, &addresses, &config, &mut watchers).await?);
        }
        Ok(Bus {
            groups,
            stream,
            watchers,
            due: VecDeque::new(),
            messages_before_news: 0,
            source: Source::Router,
        })
    }

    /// The number of peers that take requests of a group. 0 for a group that does not exist.
    pub fn push_peers(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, Group::peers)
    }

    /// Puts a packet into the queue of one of the group's peers, each in turn; a peer whose queue
    /// is full is left out. A peer of req mode gets `["", packet]`, a puller `[packet]`.
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
    /// identity, as nobody has without stream mode.
    pub fn try_route(&self, peer: &[u8], packet: Bytes) -> Result<(), Refused> {
        match &self.stream {
            Some(stream) => stream.try_route(peer, packet),
            None => Err(Refused::NoPeer(packet)),
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
                received = or_never(self.stream.as_ref().map(StreamSockets::recv)) => {
                    self.take_stream(received);
                }
                replied = or_never(self.dealers().map(Group::recv)) => {
                    self.take_replied(replied);
                }
                () = self.watchers.changed() => {}
                () = push_ready(self.groups.iter()) => {}
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
        let stream = self.stream.into_iter().flat_map(StreamSockets::into_sockets);
        for socket in self.groups.into_iter().flat_map(Group::into_sockets).chain(stream) {
            closing.spawn(socket.close());
        }
        while closing.join_next().await.is_some() {}
    }

    /// The group of req mode.
    fn dealers(&self) -> Option<&Group> {
        self.groups.last().filter(|group| group.kind() == Kind::Dealer)
    }

    fn dealers_mut(&mut self) -> Option<&mut Group> {
        self.groups.last_mut().filter(|group| group.kind() == Kind::Dealer)
    }

    fn has_news(&self) -> bool {
        self.stream.as_ref().is_some_and(StreamSockets::has_news)
            || self.groups.iter().any(Group::has_news)
    }

    /// Makes joins, losses and changes of the groups due.
    fn take_news(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.take_news(&mut self.due);
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

    /// Makes one message due, from the sockets in turn. False if none has one.
    fn take_message(&mut self) -> bool {
        for _ in 0..Source::COUNT {
            let source = self.source;
            self.source = source.next();
            let stream = self.stream.as_ref();
            let taken = match source {
                Source::Router => stream
                    .and_then(StreamSockets::try_recv_routed)
                    .map(|received| self.take_stream(received)),
                Source::Subscriber => stream
                    .and_then(StreamSockets::try_recv_published)
                    .map(|received| self.take_stream(received)),
                Source::Dealers => self
                    .dealers_mut()
                    .and_then(Group::try_recv)
                    .map(|received| self.take_replied(received)),
            };
            if taken.is_some() {
                return true;
            }
        }
        false
    }

    fn take_stream(&mut self, received: stream::Received) {
        if let Some(stream) = &mut self.stream {
            stream.handle_received(received, &mut self.due);
        }
    }

    fn take_replied(&mut self, received: Result<Message, Error>) {
        self.due.push_back(match received {
            Ok(message) => inbound::parse_replied(parts(&message)),
            Err(_) => Inbound::Closed,
        });
    }
}

fn log_specs(config: &BusConfig) {
    let verb = if config.connect { "connect" } else { "bind" };
    for spec in &config.req {
        tracing::info!("zhttp client {verb} {}", spec.address());
    }
    for spec in config.groups.iter().flatten() {
        let (out, out_stream, inward) = (spec.out(), spec.out_stream(), spec.inward());
        tracing::info!("zhttp client {verb} {out} {out_stream} {inward}");
    }
}

/// The frames of a message. Those that are too small to be shared are copied, others are not.
fn parts(message: &Message) -> impl Iterator<Item = Bytes> {
    (0..message.len()).map_while(|index| message.part_bytes(index))
}

/// Waits for what there is to wait for; forever, if that is nothing.
async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
