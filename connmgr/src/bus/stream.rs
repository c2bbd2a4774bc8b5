//! The two sockets of stream mode that receive: the ROUTER, which also sends to one certain handler,
//! and the SUB. And the roster of who is there.
//!
//! One of each for the whole edge, on the addresses of all groups. An edge that listens for req mode
//! only has neither.

use std::collections::VecDeque;

use bytes::Bytes;
use omq_tokio::{Error, Identity, IdentitySocket, Message, Socket, TrySendError};
use tokio::sync::watch;

use super::inbound::{self, Inbound};
use super::roster::{Roster, Snapshot};
use super::{BusConfig, BusError, Refused, parts, sockets};

/// The ROUTER and the SUB.
#[derive(Debug)]
pub(super) struct StreamSockets {
    router: IdentitySocket,
    subscriber: Socket,
    /// `"{instance-id} "`
    prefix: Vec<u8>,
    connections: watch::Receiver<Snapshot>,
    /// Raised to get a new snapshot of the ROUTER's connections.
    epoch: watch::Sender<u64>,
    roster: Roster,
}

/// What [`StreamSockets::recv`] has waited for, as omq gives it.
#[derive(Debug)]
pub(super) enum Received {
    /// From the ROUTER.
    Routed(Result<(Identity, Message), Error>),
    /// From the SUB.
    Published(Result<Message, Error>),
}

impl StreamSockets {
    /// Makes both sockets, at the addresses of all specs of all groups.
    ///
    /// # Errors
    /// What binding and connecting can fail with.
    pub(super) async fn open(
        config: &BusConfig,
        watchers: &mut sockets::Watchers,
    ) -> Result<StreamSockets, BusError> {
        let prefix = format!("{} ", config.instance_id).into_bytes();
        let router = sockets::router(&config.instance_id)?;
        let subscriber = sockets::subscriber(&prefix).await?;
        for spec in config.groups.iter().flatten() {
            sockets::attach(&router, spec.out_stream(), config).await?;
            sockets::attach(&subscriber, spec.inward(), config).await?;
        }
        let (epoch, asked) = watch::channel(0);
        let connections = watchers.watch(&router, asked);
        let router = IdentitySocket::try_from(router)
            .map_err(|source| BusError::Socket { source: source.into() })?;
        let roster = Roster::default();
        Ok(StreamSockets { router, subscriber, prefix, connections, epoch, roster })
    }

    /// Puts a packet into one peer's queue; it gets `["", packet]`.
    ///
    /// # Errors
    /// Gives the packet back: `Full` if that peer's queue is full, `NoPeer` if no peer has that
    /// identity.
    pub(super) fn try_route(&self, peer: &[u8], packet: Bytes) -> Result<(), Refused> {
        let message = Message::multipart([Bytes::new(), packet.clone()]);
        match self.router.try_send_to(peer, message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Refused::Full(packet)),
            Err(TrySendError::Closed | TrySendError::Error(_)) => Err(Refused::NoPeer(packet)),
        }
    }

    /// Waits for a message of either socket. Cancel-safe, since each socket's `recv` is.
    pub(super) async fn recv(&self) -> Received {
        tokio::select! {
            routed = self.router.recv_from() => Received::Routed(routed),
            published = self.subscriber.recv() => Received::Published(published),
        }
    }

    /// What the ROUTER has, if anything.
    pub(super) fn try_recv_routed(&self) -> Option<Received> {
        match self.router.try_recv_from() {
            Err(Error::WouldBlock) => None,
            routed => Some(Received::Routed(routed)),
        }
    }

    /// What the SUB has, if anything.
    pub(super) fn try_recv_published(&self) -> Option<Received> {
        match self.subscriber.try_recv() {
            Err(Error::WouldBlock) => None,
            published => Some(Received::Published(published)),
        }
    }

    /// Makes what was received due; before it, the join of its sender, if that is news.
    pub(super) fn handle_received(&mut self, received: Received, due: &mut VecDeque<Inbound>) {
        let event = match received {
            Received::Routed(Ok((identity, message))) => {
                let (peer, connection) = (identity.to_bytes(), identity.peer_info().connection_id);
                if self.roster.handle_sender(&peer, connection, due) {
                    self.epoch.send_replace(self.roster.epoch());
                }
                inbound::parse_routed(peer, parts(&message))
            }
            Received::Published(Ok(message)) => {
                inbound::parse_published(&self.prefix, parts(&message))
            }
            Received::Routed(Err(_)) | Received::Published(Err(_)) => Inbound::Closed,
        };
        due.push_back(event);
    }

    /// True if there may be joins or losses to tell.
    pub(super) fn has_news(&self) -> bool {
        self.connections.has_changed().unwrap_or(false)
    }

    /// Makes joins and losses due.
    pub(super) fn take_news(&mut self, due: &mut VecDeque<Inbound>) {
        if self.has_news() {
            self.roster.handle_snapshot(&self.connections.borrow_and_update(), due);
        }
    }

    /// Gives the sockets away, to be closed.
    pub(super) fn into_sockets(self) -> [Socket; 2] {
        [self.router.into_inner(), self.subscriber]
    }
}
