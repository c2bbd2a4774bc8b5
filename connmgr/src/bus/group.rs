//! Requests to whoever takes them: groups of PUSH sockets in stream mode, one of DEALERs in req
//! mode.
//!
//! The two kinds differ in the socket, in the framing of a request, and in that answers come back to
//! a DEALER. All else is the same, because omq sends both in the same way: each peer has a queue of
//! its own, and messages are dealt out in turn to those that have room.
//!
//! A group is served by one bound socket. When the bus *connects*, a group has a socket for each
//! address, and the turn is kept here: a connecting omq socket (0.33.0) queues messages for
//! addresses where nobody is listening yet, as libzmq does without `ZMQ_IMMEDIATE`. A request would
//! wait there for a handler that may never start, while others are idle.
//!
//! Either way, what waits in a peer's queue is lost with its connection: who comes back in its place
//! gets what is sent from then on, and no request whose client has gone long ago.
//!
//! Rejected: to keep the turn here over one socket for each *peer*, bound or not. A socket that is
//! bound hides its peers, and is fair by itself.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use omq_tokio::{Error, Message, Socket};
use tokio::sync::watch;

use super::roster::Snapshot;
use super::{BusConfig, BusError, Refused, sockets};

/// What a group is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// PUSH: a request is one frame, and what answers it comes by other sockets.
    Push,
    /// DEALER: a request has the empty delimiter in front that REP, and whoever minds it, expects;
    /// so has its answer.
    Dealer,
}

impl Kind {
    fn open(self) -> Result<Socket, BusError> {
        match self {
            Kind::Push => sockets::push(),
            Kind::Dealer => sockets::dealer(),
        }
    }

    /// The frames of a request. Shares the packet's bytes.
    fn frame(self, packet: &Bytes) -> Message {
        match self {
            Kind::Push => Message::single(packet.clone()),
            Kind::Dealer => Message::multipart([Bytes::new(), packet.clone()]),
        }
    }
}

/// One group of handlers that share requests.
#[derive(Debug)]
pub(super) struct Group {
    kind: Kind,
    members: Vec<Member>,
    /// Index of the member that is the next to be given a message.
    send_turn: usize,
    /// Index of the member that is the next to be asked for one.
    recv_turn: usize,
    /// A message was refused as `Full`, and `PushReady` has not been told since.
    blocked: bool,
    /// The number of peers that has been told.
    peers_told: usize,
}

#[derive(Debug)]
struct Member {
    socket: Socket,
    snapshots: watch::Receiver<Snapshot>,
    /// It connects, to one address.
    connects: bool,
}

impl Member {
    fn peers(&self) -> usize {
        self.snapshots.borrow().connections.len()
    }

    /// False if what is sent now could end up in the queue for a peer that is not there.
    fn is_certain(&self) -> bool {
        !self.connects || self.snapshots.borrow().generation == self.socket.connections_generation()
    }
}

impl Group {
    /// Makes the sockets of a group, at its addresses; there is at least one.
    ///
    /// # Errors
    /// What binding and connecting can fail with.
    pub(super) async fn open(
        kind: Kind,
        addresses: &[&str],
        config: &BusConfig,
        watchers: &mut sockets::Watchers,
    ) -> Result<Group, BusError> {
        // The epoch is of use only where connections are matched with messages.
        let (_, never) = watch::channel(0);
        let mut members = Vec::new();
        for each in addresses.chunks(if config.connect { 1 } else { addresses.len().max(1) }) {
            let socket = kind.open()?;
            for address in each {
                sockets::attach(&socket, address, config).await?;
            }
            let snapshots = watchers.watch(&socket, never.clone());
            members.push(Member { socket, snapshots, connects: config.connect });
        }
        let (send_turn, recv_turn) = (0, 0);
        Ok(Group { kind, members, send_turn, recv_turn, blocked: false, peers_told: 0 })
    }

    /// What it is made of.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of peers that take requests.
    pub(super) fn peers(&self) -> usize {
        self.members.iter().map(Member::peers).sum()
    }

    /// Gives the packet to the next peer that has room.
    ///
    /// # Errors
    /// Gives it back: `Full` if all queues are full, `NoPeer` if there is no peer.
    pub(super) fn try_push(&mut self, packet: Bytes) -> Result<(), Refused> {
        let mut tried = false;
        for _ in 0..self.members.len() {
            let member = &self.members[self.send_turn];
            self.send_turn = (self.send_turn + 1) % self.members.len();
            if member.peers() == 0 {
                continue;
            }
            tried = true;
            if member.is_certain() && member.socket.try_send(self.kind.frame(&packet)).is_ok() {
                return Ok(());
            }
        }
        if !tried {
            return Err(Refused::NoPeer(packet));
        }
        self.blocked = true;
        Err(Refused::Full(packet))
    }

    /// What a peer has sent, if anything, from the members in turn. Only for DEALERs.
    pub(super) fn try_recv(&mut self) -> Option<Result<Message, Error>> {
        for _ in 0..self.members.len() {
            let member = &self.members[self.recv_turn];
            self.recv_turn = (self.recv_turn + 1) % self.members.len();
            match member.socket.try_recv() {
                Err(Error::WouldBlock) => {}
                received => return Some(received),
            }
        }
        None
    }

    /// Waits for what a peer sends. Only for DEALERs. Cancel-safe, since each socket's `recv` is.
    pub(super) async fn recv(&self) -> Result<Message, Error> {
        type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Message, Error>> + Send + 'a>>;
        let waiting = self.members.iter();
        let mut waiting: Vec<Waiting<'_>> =
            waiting.map(|member| Box::pin(member.socket.recv()) as Waiting<'_>).collect();
        poll_fn(|context| {
            // No other is polled once one has given its message: nothing is taken and then lost.
            for received in &mut waiting {
                if let Poll::Ready(received) = received.as_mut().poll(context) {
                    return Poll::Ready(received);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// True if there may be something to tell: another number of peers, or room after a refusal.
    pub(super) fn has_news(&self) -> bool {
        self.blocked
            || self.members.iter().any(|member| member.snapshots.has_changed().unwrap_or(false))
    }

    /// The number of peers, if it has changed since it was told.
    pub(super) fn take_news(&mut self) -> Option<usize> {
        for member in &mut self.members {
            member.snapshots.mark_unchanged();
        }
        let peers = self.peers();
        let changed = peers != self.peers_told;
        self.peers_told = peers;
        changed.then_some(peers)
    }

    /// True once when a group that refused a message has room again.
    pub(super) fn take_ready(&mut self) -> bool {
        let ready = self.blocked && self.waiting().any(Socket::send_ready);
        self.blocked &= !ready;
        ready
    }

    /// The sockets whose room is waited for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Socket> {
        let waiting = |member: &&Member| self.blocked && member.peers() > 0 && member.is_certain();
        self.members.iter().filter(waiting).map(|member| &member.socket)
    }

    /// Gives the sockets away, to be closed.
    pub(super) fn into_sockets(self) -> impl Iterator<Item = Socket> {
        self.members.into_iter().map(|member| member.socket)
    }
}

/// Completes when any group that refused a message may have room again. Never, if none has.
pub(super) async fn push_ready(groups: impl Iterator<Item = &Group>) {
    type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    let waiting = groups.flat_map(Group::waiting);
    let mut waiting: Vec<Waiting<'_>> =
        waiting.map(|socket| Box::pin(socket.wait_send_ready()) as Waiting<'_>).collect();
    poll_fn(|context| {
        let ready = waiting.iter_mut().any(|room| room.as_mut().poll(context).is_ready());
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
