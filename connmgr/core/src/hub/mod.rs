//! The hub: what the edge knows of its handlers, in the thread that owns the ZeroMQ sockets.
//!
//! Three machines behind one door. `Presence` knows who is there and what they do; `Dispatch`
//! gives requests to them; [`Feeds`] has channels followed and ranges read. Packets from handlers
//! come in by [`Hub::handle_packet`], messages from workers by [`Hub::handle_worker`]; what goes out
//! is polled. The shell moves bytes and decides nothing.

mod dispatch;
mod presence;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use zhttp::hold::{Events, Gap, Heads, Hello};
use zhttp::{Cursor, Envelope, Ids, Kind, Packet, PacketError, Salvage, hold};

pub use dispatch::{Class, DispatchConfig, Pending, Route};
use dispatch::{Dispatch, DispatchOutput, Verdict};
use presence::{Change, Presence};

use crate::hold::{Fed, Feeds, FeedsConfig, FeedsOutput, MissingRun, Run, RunError, Want};
use crate::session::SessionId;
use crate::short_text::ShortText;
use crate::worker::Mode;

/// What a handler is to be told waits so many milliseconds for one to come (hold.md H-25).
const NOTICE_WAIT_MS: u64 = 10_000;

/// So many of them wait; with one more the oldest is forgotten. Each costs a context of 1 KiB at most.
const NOTICES_MAX: usize = 1_000;

/// The identity of a handler: its `from`, and that of its socket.
pub type HandlerId = Arc<[u8]>;

/// What the shell sets.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The instance id of the edge: its `from`.
    pub instance_id: Arc<[u8]>,
    /// How many workers there are.
    pub workers: u16,
    /// How requests are given to handlers.
    pub dispatch: DispatchConfig,
    /// How channels are fed.
    pub feeds: FeedsConfig,
}

/// From a worker to the hub.
#[derive(Debug)]
pub enum ToHub {
    /// A request that wants a handler.
    Request(Pending),
    /// A packet about a session, for its handler.
    Packet {
        /// The handler.
        to: HandlerId,
        /// The packet.
        packet: Bytes,
    },
    /// The request of this id needs its handler no more. If no handler has answered it yet, the
    /// packet, a `cancel`, goes to whoever has it.
    Done {
        /// The id of the session.
        id: ShortText,
        /// What to send; nothing if the handler has finished by itself.
        cancel: Option<Bytes>,
    },
    /// To one of the handlers that are there, always the same for the same id; if nobody is, to the next
    /// who comes.
    Notify {
        /// The id of the session.
        id: ShortText,
        /// The packet.
        packet: Bytes,
    },
    /// About channels.
    Want(Want),
}

/// From the hub to a worker.
#[derive(Clone, Debug)]
pub enum FromHub {
    /// A packet from a handler of stream mode; some of its ids are this worker's.
    Packet(Bytes),
    /// The same of req mode.
    Reply(Bytes),
    /// A packet that cannot be understood, though it says that it is about sessions of this worker.
    Malformed {
        /// In which mode it came.
        mode: Mode,
        /// Who sent it; empty if that is not known.
        from: HandlerId,
        /// What is wrong.
        error: PacketError,
        /// The packet.
        packet: Bytes,
    },
    /// No handler took the request of this id, or the message, in time; or too many wait.
    Refused(ShortText),
    /// No handler has ever served what the request of this id asks for.
    Unserved(ShortText),
    /// The handler that had begun with the request of this id is gone.
    HandlerLeft(ShortText),
    /// A piece of the request of this id was dropped, as its handler takes nothing.
    Undelivered(ShortText),
    /// This handler takes nothing for now: what clients send for it is to wait with them.
    Stalled(HandlerId),
    /// It takes something again.
    Flowing(HandlerId),
    /// About channels.
    Fed(Fed),
    /// Events of this channel, which ends there, were dropped because too much waited for this worker. They may be what it
    /// had asked for.
    Missed(Arc<str>, Cursor),
}

/// What the shell is to do.
#[derive(Debug)]
pub enum HubOutput {
    /// Push a request to a group of plain handlers; give it back by
    /// [`Hub::handle_push_refused`] if none takes it.
    Push {
        /// The group.
        group: usize,
        /// The request.
        pending: Pending,
    },
    /// Send a packet to a handler.
    Route {
        /// The handler.
        peer: HandlerId,
        /// The packet.
        packet: Bytes,
    },
    /// Pass a message to a worker.
    Worker {
        /// The worker.
        worker: u16,
        /// The message.
        message: FromHub,
    },
}

/// What waits for a handler to be told.
#[derive(Debug)]
struct Notice {
    until_ms: u64,
    id: ShortText,
    packet: Bytes,
}

/// The machine.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    presence: Presence,
    dispatch: Dispatch,
    feeds: Feeds,
    /// In the order of their ends.
    notices: VecDeque<Notice>,
    outputs: VecDeque<HubOutput>,
}

impl Hub {
    /// An edge that no handler has greeted yet.
    pub fn new(config: HubConfig) -> Self {
        Hub {
            presence: Presence::default(),
            dispatch: Dispatch::new(config.dispatch.clone()),
            feeds: Feeds::new(config.feeds),
            notices: VecDeque::new(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// How many handlers are there.
    pub fn handlers(&self) -> usize {
        self.presence.len()
    }

    /// The feeds, to look at.
    pub fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// Checks what is always true of the feeds and of the dispatch.
    ///
    /// # Panics
    ///
    /// It is not.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        self.feeds.check_invariants();
        assert!(self.notices.len() <= NOTICES_MAX, "notices are bounded");
        self.dispatch.check_invariants(&self.presence);
    }

    /// Takes a message of a worker.
    pub fn handle_worker(&mut self, now_ms: u64, worker: u16, message: ToHub) {
        match message {
            ToHub::Request(pending) => {
                self.dispatch.handle_request(now_ms, &mut self.presence, pending);
            }
            ToHub::Packet { to, packet } => {
                self.outputs.push_back(HubOutput::Route { peer: to, packet });
            }
            ToHub::Done { id, cancel } => {
                self.dispatch.handle_done(&mut self.presence, &id, cancel);
            }
            ToHub::Notify { id, packet } => self.notify(now_ms, id, packet),
            ToHub::Want(want) => self.feeds.handle_want(now_ms, worker, want),
        }
    }

    /// Takes a packet that a handler sent; `peer` is the identity of its socket, if it came by one
    /// that has an identity.
    ///
    /// # Errors
    ///
    /// The packet is not understood, and has had no effect. To be logged and counted.
    pub fn handle_packet(
        &mut self,
        now_ms: u64,
        peer: Option<&[u8]>,
        bytes: &Bytes,
    ) -> Result<(), PacketError> {
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.handle_malformed(Mode::Stream, peer, (bytes, error)),
        };
        let from = peer.unwrap_or(packet.from);
        match packet.kind {
            Kind::Hello => {
                if from.is_empty() {
                    return Err(PacketError::Missing("from"));
                }
                let change = self.presence.handle_hello(now_ms, from, &Hello::read(&packet)?);
                self.handle_change(now_ms, change);
            }
            Kind::Bye => {
                let change = self.presence.handle_bye(now_ms, from);
                self.handle_change(now_ms, change);
            }
            Kind::Events => {
                let events = Events::read(&packet)?;
                // A channel that nobody reads any more needs no events.
                let Some(name) = self.feeds.name(events.channel) else { return Ok(()) };
                match Run::new(name, bytes, &events) {
                    Ok(run) => self.feeds.handle_events(now_ms, from, &Arc::new(run)),
                    Err(RunError::Empty) => {}
                    Err(RunError::TooLarge) => {
                        let want = "at most 1 MiB of data";
                        return Err(PacketError::Field { field: "events", want });
                    }
                }
            }
            Kind::Gap => self.handle_gap(now_ms, &Gap::read(&packet)?),
            Kind::Heads => {
                for (name, head) in Heads::read(&packet)? {
                    self.feeds.handle_head(now_ms, from, name, head);
                }
            }
            Kind::Feed | Kind::Unfeed | Kind::Range | Kind::Message | Kind::Closed => {
                return Err(PacketError::UnknownType);
            }
            Kind::Data
            | Kind::Error
            | Kind::Credit
            | Kind::KeepAlive
            | Kind::Cancel
            | Kind::HandoffStart
            | Kind::HandoffProceed
            | Kind::Close
            | Kind::Ping
            | Kind::Pong
            | Kind::Hold
            | Kind::Send => {
                if packet.ids.clone().next().is_none() {
                    return Err(PacketError::Missing("id"));
                }
                let is_end = matches!(packet.kind, Kind::Error | Kind::Cancel);
                self.pass((from, is_end), packet.ids, || FromHub::Packet(bytes.clone()));
            }
        }
        Ok(())
    }

    /// Takes a packet that came by the socket of req mode.
    ///
    /// # Errors
    ///
    /// The packet is not understood, or is about no session, and has had no effect.
    pub fn handle_reply(&mut self, bytes: &Bytes) -> Result<(), PacketError> {
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.handle_malformed(Mode::Req, None, (bytes, error)),
        };
        if packet.ids.clone().next().is_none() {
            return Err(PacketError::Missing("id"));
        }
        self.pass((b"", false), packet.ids, || FromHub::Reply(bytes.clone()));
        Ok(())
    }

    /// A packet that is not understood may still tell which sessions it was about: their workers end them.
    fn handle_malformed(
        &mut self,
        mode: Mode,
        peer: Option<&[u8]>,
        (bytes, error): (&Bytes, PacketError),
    ) -> Result<(), PacketError> {
        let Salvage { from, ids } = Packet::salvage(bytes).ok_or(error)?;
        let from: HandlerId = peer.unwrap_or(from).into();
        let packet = bytes.clone();
        let message = FromHub::Malformed { mode, from: Arc::clone(&from), error, packet };
        if self.pass((&from, true), ids, || message.clone()) { Ok(()) } else { Err(error) }
    }

    fn handle_gap(&mut self, now_ms: u64, gap: &Gap<'_>) {
        let Some(channel) = self.feeds.name(gap.channel) else { return };
        let Gap { channel: _, after, first, reason } = *gap;
        let gap = Arc::new(MissingRun { channel, after, first, reason });
        self.feeds.handle_gap(now_ms, &gap);
    }

    /// Passes a message about sessions to their workers; from whom, and whether it ends them. Says whether there are any.
    fn pass(
        &mut self,
        (from, is_end): (&[u8], bool),
        ids: Ids<'_>,
        message: impl Fn() -> FromHub,
    ) -> bool {
        let mut told: SmallVec<[u16; 8]> = SmallVec::new();
        for id in ids {
            match self.dispatch.handle_answer(&mut self.presence, (from, is_end), id.id) {
                Verdict::Pass => {}
                Verdict::PassInsteadOf(slower) => self.cancel(&slower, id.id),
                Verdict::Withdrawn => {
                    self.cancel(from, id.id);
                    continue;
                }
            }
            if let Some(worker) = SessionId::parse(id.id)
                .map(|session| session.worker)
                .filter(|worker| *worker < self.config.workers)
                && !told.contains(&worker)
            {
                told.push(worker);
                self.outputs.push_back(HubOutput::Worker { worker, message: message() });
            }
        }
        !told.is_empty()
    }

    /// Tells a handler that a request is not its any more.
    fn cancel(&mut self, to: &[u8], id: &[u8]) {
        if to.is_empty() {
            return;
        }
        let mut packet = Vec::new();
        let ids = [zhttp::Id { id, seq: None }];
        Envelope::new(&self.config.instance_id, Kind::Cancel)
            .about(&ids)
            .write(&mut packet, |_| {});
        self.outputs.push_back(HubOutput::Route { peer: to.into(), packet: packet.into() });
    }

    /// The connection of a handler's socket is lost.
    pub fn handle_peer_lost(&mut self, now_ms: u64, peer: &[u8]) {
        self.presence.handle_lost(peer);
        self.dispatch.handle_gone(peer);
        // Also one whose ttl had passed: it may have answered since.
        self.handle_left(now_ms, &peer.into(), None);
    }

    fn handle_change(&mut self, now_ms: u64, change: Change) {
        match change {
            Change::None => {}
            Change::Joined(id) => self.handle_joined(now_ms, &id),
            Change::Restarted(id) => {
                self.dispatch.handle_gone(&id);
                self.handle_left(now_ms, &id, None);
                self.handle_joined(now_ms, &id);
            }
            Change::Leaving(id) => {
                self.feeds.handle_left(now_ms, &id);
                self.dispatch.handle_leaving();
            }
        }
    }

    fn handle_joined(&mut self, now_ms: u64, id: &HandlerId) {
        if self.presence.feeds(id) {
            self.feeds.handle_joined(now_ms, id);
        } else {
            self.feeds.handle_left(now_ms, id);
        }
        self.dispatch.handle_joined(now_ms, &self.presence);
        let notices = std::mem::take(&mut self.notices);
        for notice in notices.into_iter().filter(|notice| notice.until_ms > now_ms) {
            self.notify(now_ms, notice.id, notice.packet);
        }
    }

    /// Tells one of the handlers that are there; or, if nobody is, the next who comes (H-25).
    fn notify(&mut self, now_ms: u64, id: ShortText, packet: Bytes) {
        if let Some(peer) = self.presence.by_rendezvous(&id) {
            self.outputs.push_back(HubOutput::Route { peer, packet });
            return;
        }
        if self.notices.len() >= NOTICES_MAX {
            self.notices.pop_front();
        }
        let until_ms = now_ms.saturating_add(NOTICE_WAIT_MS);
        self.notices.push_back(Notice { until_ms, id, packet });
    }

    fn handle_left(&mut self, now_ms: u64, id: &HandlerId, incarnation: Option<u64>) {
        self.feeds.handle_left(now_ms, id);
        self.dispatch.handle_left(now_ms, &mut self.presence, (id, incarnation));
    }

    /// No handler of the group took this request: it waits, and is pushed again; or nobody is waited
    /// for, as nobody has ever served it.
    pub fn handle_push_refused(&mut self, now_ms: u64, group: usize, pending: Pending) {
        self.dispatch.handle_push_refused(now_ms, &self.presence, (group, pending));
    }

    /// So many plain handlers are in a group now.
    pub fn handle_push_peers(&mut self, group: usize, count: usize) {
        if count > 0 {
            self.dispatch.handle_peopled(group);
        }
        self.dispatch.handle_push_ready();
    }

    /// A group of plain handlers takes requests again.
    pub fn handle_push_ready(&mut self) {
        self.dispatch.handle_push_ready();
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        while let Some((id, incarnation)) = self.presence.pop_expired(now_ms) {
            // It may only be late.
            self.handle_left(now_ms, &id, Some(incarnation));
        }
        self.dispatch.handle_timeout(now_ms);
        while self.notices.pop_front_if(|notice| notice.until_ms <= now_ms).is_some() {}
        self.feeds.handle_timeout(now_ms);
    }

    /// When [`Hub::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadlines = [
            self.presence.next_deadline(),
            self.dispatch.next_deadline(),
            self.feeds.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What to do next.
    pub fn poll_output(&mut self, now_ms: u64) -> Option<HubOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(output) = self.dispatch.poll_output(now_ms, &mut self.presence) {
            return Some(match output {
                DispatchOutput::Push(group, pending) => HubOutput::Push { group, pending },
                DispatchOutput::Route(peer, packet) => HubOutput::Route { peer, packet },
                DispatchOutput::Worker(worker, message) => HubOutput::Worker { worker, message },
            });
        }
        self.feeds.poll_output().map(|output| self.packet_of(output))
    }

    fn packet_of(&self, output: FeedsOutput) -> HubOutput {
        let from = &*self.config.instance_id;
        let mut out = Vec::new();
        let peer = match output {
            FeedsOutput::Feed(feeder, channels) => {
                let channels = channels.iter().map(|(name, head)| (&**name, *head));
                hold::write_packet(&mut out, from, Kind::Feed, |fields| {
                    hold::Feed::write(fields, channels);
                });
                feeder
            }
            FeedsOutput::Unfeed(feeder, names) => {
                hold::write_packet(&mut out, from, Kind::Unfeed, |fields| {
                    hold::Unfeed::write(fields, names.iter().map(|name| &**name));
                });
                feeder
            }
            FeedsOutput::Range(feeder, channel, after) => {
                let bytes = self.config.feeds.range_bytes_max as u64;
                let range = hold::Range { channel: &channel, after, bytes };
                hold::write_packet(&mut out, from, Kind::Range, |fields| range.write(fields));
                feeder
            }
            FeedsOutput::Worker(worker, fed) => {
                return HubOutput::Worker { worker, message: FromHub::Fed(fed) };
            }
        };
        HubOutput::Route { peer, packet: out.into() }
    }
}
