//! Requests to whoever pulls: groups of PUSH sockets.
//!
//! A group is served by one bound PUSH, which deals its messages out in turn. When the bus
//! *connects*, a group has a PUSH for each spec, and the turn is kept here: a connecting omq socket
//! (0.33.0) queues messages for addresses where nobody is listening yet, as libzmq does without
//! `ZMQ_IMMEDIATE`. A request would wait there for a handler that may never start, while others are
//! idle.

use bytes::Bytes;
use omq_tokio::{Message, Socket};
use tokio::sync::watch;

use super::roster::Snapshot;
use super::{BusConfig, BusError, Refused, Spec, sockets};

/// One group of handlers that share requests.
#[derive(Debug)]
pub(super) struct PushGroup {
    members: Vec<Member>,
    /// Index of the member whose turn it is.
    turn: usize,
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

impl PushGroup {
    /// Makes the sockets of a group.
    ///
    /// # Errors
    /// What binding and connecting can fail with.
    pub(super) async fn open(
        specs: &[Spec],
        config: &BusConfig,
        watchers: &mut sockets::Watchers,
    ) -> Result<PushGroup, BusError> {
        // The epoch is of use only where connections are matched with messages.
        let (_, never) = watch::channel(0);
        let mut members = Vec::new();
        for each in specs.chunks(if config.connect { 1 } else { specs.len().max(1) }) {
            let socket = sockets::push()?;
            for spec in each {
                sockets::attach(&socket, spec.out(), config).await?;
            }
            let snapshots = watchers.watch(&socket, never.clone());
            members.push(Member { socket, snapshots, connects: config.connect });
        }
        Ok(PushGroup { members, turn: 0, blocked: false, peers_told: 0 })
    }

    pub(super) fn peers(&self) -> usize {
        self.members.iter().map(Member::peers).sum()
    }

    /// Gives the message to the next peer that has room.
    pub(super) fn try_push(&mut self, packet: Bytes) -> Result<(), Refused> {
        let (mut message, mut tried) = (Message::single(packet.clone()), false);
        for _ in 0..self.members.len() {
            let member = &self.members[self.turn];
            self.turn = (self.turn + 1) % self.members.len();
            if member.peers() == 0 {
                continue;
            }
            tried = true;
            if !member.is_certain() {
                continue;
            }
            match member.socket.try_send(message) {
                Ok(()) => return Ok(()),
                Err(_) => message = Message::single(packet.clone()),
            }
        }
        if !tried {
            return Err(Refused::NoPeer(packet));
        }
        self.blocked = true;
        Err(Refused::Full(packet))
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
