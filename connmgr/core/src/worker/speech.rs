//! What the clients of held WebSockets say, and how it is answered (hold.md §4.1).
//!
//! ```text
//!               a message is whole            its answer, and nothing waits
//!   silent ─────────────────────▶ unanswered ─────────────────────────────▶ silent
//!                                   ▲    │ its answer, and more waits
//!                                   └────┘
//! ```
//!
//! One packet of a connection is out at a time, so its messages keep their order whichever handler has them, and a handler
//! that dies costs no more than giving that packet to another. What is said meanwhile waits here, up to a bound, and goes
//! out together. The hub takes a packet for a request that nobody ever begins with, only answers; it is named by
//! [`MessageId`], so that a late word about one says nothing about the next.
//!
//! A close is the client's last word: it has its turn when all before it is answered, and so has the end of what it sends.
//! While a client takes nothing, nothing goes out for it: what is answered waits for it.

use std::sync::Arc;

use zhttp::hold::{Change, Message};
use zhttp::{Envelope, Id, Kind, Packet, PacketError};

use super::connection::{Framing, Held, State};
use super::socket::STOPPING;
use super::{Named, Output, Transport, Worker};
use crate::hub::{Class, Pending, ToHub};
use crate::session::SessionId;
use crate::short_text::ShortText;
use crate::slab::Key;
use crate::websocket::{Close, CloseCode, MessageKind};

/// The longest message of a client, in bytes (H-96).
const MESSAGE_BYTES_MAX: usize = 65_536;

/// What waits behind a packet without an answer, in bytes; some more if it came in one piece (H-96).
const WAITING_BYTES_MAX: usize = 65_536;

/// The same in messages.
const WAITING_MESSAGES_MAX: usize = 128;

/// As what method handlers serve it (H-91).
const METHOD: &str = "MESSAGE";

/// To a client that nobody has answered (H-95).
const UNANSWERED: Close<'_> = Close { code: CloseCode::TRY_AGAIN, reason: "Nobody has answered" };

/// To a client that does not get to the end of what it says.
const UNFINISHED: Close<'_> =
    Close { code: CloseCode::POLICY, reason: "The message took too long" };

/// To a client whose answer cannot be.
const INVALID_ANSWER: Close<'_> =
    Close { code: CloseCode::INTERNAL, reason: "The handler sent an invalid answer" };

/// What a client says, and what of it has no answer.
#[derive(Debug)]
pub(super) struct Speech {
    /// Who hears it.
    path: Arc<str>,
    /// The number of the last packet; begins again behind 2³²−1.
    number: u32,
    /// There while something has no answer, or is not whole: most of the time a client says nothing.
    open: Option<Box<Open>>,
}

/// What a client has said, and has no answer.
#[derive(Debug, Default)]
struct Open {
    /// By when the packet that is out must be answered, if one is.
    answer_until_ms: Option<u64>,
    /// By when the message that is not whole must be, if there is one.
    whole_until_ms: Option<u64>,
    waiting: Messages,
}

/// Messages one behind the other; behind the last that is whole, what there is of the next.
#[derive(Debug, Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Where each ends, and of which kind it is.
    whole: Vec<(usize, MessageKind)>,
}

/// A message is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Speech {
    /// Nothing is said yet to those who serve this path.
    pub(super) fn new(path: Arc<str>) -> Self {
        Speech { path, number: 0, open: None }
    }

    /// What is due next, and when: an answer, or the end of a message.
    pub(super) fn due(&self) -> Option<(u64, Close<'static>)> {
        let open = self.open.as_ref()?;
        // Who is not read from cannot get on.
        let whole_until_ms = open.whole_until_ms.filter(|_| !self.is_full());
        let answer = open.answer_until_ms.map(|until_ms| (until_ms, UNANSWERED));
        let whole = whole_until_ms.map(|until_ms| (until_ms, UNFINISHED));
        answer.into_iter().chain(whole).min_by_key(|(until_ms, _)| *until_ms)
    }

    /// Whether nothing is out.
    fn is_silent(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.answer_until_ms.is_none())
    }

    /// Whether everything that was said is answered.
    pub(super) fn is_done(&self) -> bool {
        self.is_silent() && self.open.as_ref().is_none_or(|open| open.waiting.whole.is_empty())
    }

    /// Whether no more of it is to be read for now.
    pub(super) fn is_full(&self) -> bool {
        let Some(open) = self.open.as_ref().filter(|_| !self.is_done()) else { return false };
        let Messages { bytes, whole } = &open.waiting;
        bytes.len() >= WAITING_BYTES_MAX || whole.len() >= WAITING_MESSAGES_MAX
    }

    /// Takes the next piece of a message, which must be whole by then.
    pub(super) fn hear(
        &mut self,
        (kind, piece, is_end): (MessageKind, &[u8], bool),
        whole_until_ms: u64,
    ) -> Result<(), TooLong> {
        let open = self.open.get_or_insert_default();
        let waiting = &mut open.waiting;
        if waiting.rest_bytes() + piece.len() > MESSAGE_BYTES_MAX {
            return Err(TooLong);
        }
        waiting.bytes.extend_from_slice(piece);
        if is_end {
            waiting.whole.push((waiting.bytes.len(), kind));
            open.whole_until_ms = None;
        } else {
            open.whole_until_ms.get_or_insert(whole_until_ms);
        }
        Ok(())
    }

    /// Hands out what is whole, if nothing is out. What is not has more time: it may have had to wait.
    fn next(&mut self, answer_until_ms: u64) -> Option<Messages> {
        let open = self.open.as_mut().filter(|open| open.answer_until_ms.is_none())?;
        if open.waiting.whole.is_empty() {
            return None;
        }
        let rest = open.waiting.bytes.split_off(open.waiting.whole_bytes());
        let rest = Messages { bytes: rest, whole: Vec::new() };
        open.whole_until_ms = open.whole_until_ms.map(|_| answer_until_ms);
        open.answer_until_ms = Some(answer_until_ms);
        self.number = self.number.checked_add(1).unwrap_or(1);
        Some(std::mem::replace(&mut open.waiting, rest))
    }

    /// Whether the packet of that number is out.
    fn waits_for(&self, number: u64) -> bool {
        !self.is_silent() && u64::from(self.number) == number
    }

    /// The packet that is out is answered, or needs no answer any more. Gives what to tell the hub, if there is one.
    fn take_answer(&mut self, session: SessionId) -> Option<ToHub> {
        let open = self.open.as_mut()?;
        open.answer_until_ms.take()?;
        let is_empty = open.waiting.bytes.is_empty() && open.waiting.whole.is_empty();
        if is_empty && open.whole_until_ms.is_none() {
            self.open = None;
        }
        let id = MessageId { session, number: self.number }.text();
        Some(ToHub::Done { id, cancel: None })
    }

    /// Checks what is always true, of a client that takes something or not.
    pub(super) fn check_invariants(&self, is_client_full: bool) {
        let Some(open) = &self.open else { return };
        let waiting = &open.waiting;
        assert!(waiting.rest_bytes() <= MESSAGE_BYTES_MAX, "messages are bounded");
        assert!(waiting.whole.len() <= WAITING_MESSAGES_MAX, "what waits is bounded");
        let waits = !self.is_silent() || is_client_full;
        assert!(waiting.whole.is_empty() || waits, "what is whole is out, or waits for something");
        let is_begun = waiting.rest_bytes() == 0 || open.whole_until_ms.is_some();
        assert!(is_begun, "what is not whole has a time");
        assert!(waiting.whole.is_sorted_by_key(|(end, _)| *end), "one behind the other");
    }
}

impl Messages {
    /// The bytes of the messages that are whole.
    fn whole_bytes(&self) -> usize {
        self.whole.last().map_or(0, |(end, _)| *end)
    }

    /// The bytes of the one that is not.
    fn rest_bytes(&self) -> usize {
        self.bytes.len() - self.whole_bytes()
    }

    /// Those that are whole, and whether each is binary.
    fn each(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let starts = std::iter::once(0).chain(self.whole.iter().map(|(end, _)| *end));
        let spans = starts.zip(&self.whole);
        spans.map(|(start, (end, kind))| (&self.bytes[start..*end], *kind == MessageKind::Binary))
    }
}

/// Names a packet in the hub: the connection, and the number of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MessageId {
    session: SessionId,
    number: u32,
}

impl MessageId {
    fn text(self) -> ShortText {
        let mut number = itoa::Buffer::new();
        let number = number.format(self.number).as_bytes();
        ShortText::concat(&[&self.session.text(), b"/", number])
    }
}

/// The session and the number that such a name holds; `None` if it is that of a request.
pub(super) fn message_of(id: &[u8]) -> Option<(&[u8], u64)> {
    let slash = id.iter().position(|&byte| byte == b'/')?;
    let number = std::str::from_utf8(&id[slash + 1..]).ok()?.parse().ok()?;
    Some((&id[..slash], number))
}

impl Held {
    /// The id that it has kept, in this worker and at this place.
    pub(super) fn session(&self, worker: u16, key: Key) -> SessionId {
        SessionId { worker, slot: key.index, counter: self.counter }
    }

    /// What its client says, if it may say anything.
    pub(super) fn speech(&self) -> Option<&Speech> {
        match &self.framing {
            Framing::Socket(socket) => socket.speech.as_ref(),
            Framing::Response(_) => None,
        }
    }

    fn speech_mut(&mut self) -> Option<&mut Speech> {
        match &mut self.framing {
            Framing::Socket(socket) => socket.speech.as_mut(),
            Framing::Response(_) => None,
        }
    }
}

impl Worker {
    /// The name of a path, the same memory for all who come one after the other.
    pub(super) fn shared_path(&mut self, path: &str) -> Arc<str> {
        if *self.last_path != *path {
            self.last_path = path.into();
        }
        Arc::clone(&self.last_path)
    }

    /// Sends off what the client of a held WebSocket has said, if nothing is out and it takes an answer.
    pub(super) fn say(&mut self, now_ms: u64, key: Key) {
        if self.connections.get(key).is_none() || self.is_full(key) {
            return;
        }
        let answer_until_ms = now_ms.saturating_add(self.config.timeouts.answer_ms);
        let worker = self.config.index;
        let State::Held(held) = &mut self.connections[key.index].state else { return };
        let session = held.session(worker, key);
        let Some(said) = held.speech_mut().and_then(|speech| speech.next(answer_until_ms)) else {
            return;
        };
        let speech = held.speech().expect("it has just spoken");
        let id = session.text();
        let ids = [Id { id: &id, seq: None }];
        let message = Message {
            path: &speech.path,
            number: speech.number.into(),
            context: &held.context,
            channels: self.members.cursors(key).count() as u64,
            // Written from the messages.
            bodies: zhttp::hold::Said::default(),
        };
        let mut out = self.scratches.take();
        let envelope = Envelope::new(&self.config.instance_id, Kind::Message).about(&ids);
        envelope.write(&mut out, |fields| message.write(fields, said.each()));
        let packet = self.scratches.keep(out);
        let pending = Pending {
            worker,
            class: Class::Message,
            id: MessageId { session, number: speech.number }.text(),
            method: METHOD.into(),
            path: (&*speech.path).into(),
            packet,
            deadline_ms: Some(answer_until_ms),
        };
        self.outputs.push_back(Output::Hub(ToHub::Request(pending)));
        self.rearm(key);
    }

    /// Takes a `hold` packet. What answers, and cannot be understood, ends the connection (H-95).
    pub(super) fn take_hold_packet(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) -> Result<(), PacketError> {
        match Change::read(packet) {
            Ok(change) => self.take_change(now_ms, transport, key, &change),
            Err(error) => {
                if Change::answered_by(packet).is_some_and(|number| self.waits_for(key, number)) {
                    self.end_held_socket(now_ms, transport, key, Some(INVALID_ANSWER));
                }
                Err(error)
            }
        }
    }

    /// Changes a hold, and says something to its client. That may be an answer; then the first counts (H-93).
    fn take_change(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        change: &Change<'_>,
    ) -> Result<(), PacketError> {
        if change.answers.is_some_and(|number| !self.waits_for(key, number)) {
            return Ok(());
        }
        let State::Held(held) = &self.connections[key.index].state else { return Ok(()) };
        let is_socket = matches!(held.framing, Framing::Socket(_));
        if !is_socket && { change.bodies }.next().is_some() {
            return Err(PacketError::Field { field: "bodies", want: "nothing in format sse" });
        }
        let changed = self.change(now_ms, key, change);
        if changed.is_err() && change.answers.is_some() {
            self.end_held_socket(now_ms, transport, key, Some(INVALID_ANSWER));
            return changed;
        }
        changed?;
        if change.answers.is_none() && self.is_full(key) {
            // It gets no more than its cursors can make good (H-24).
            self.stats.sends_dropped += { change.bodies }.count() as u64;
            return Ok(());
        }
        let mut out = Vec::new();
        for body in change.bodies {
            self.write_held_message(key, body.as_bytes(), &mut out);
        }
        if !out.is_empty() {
            self.write(now_ms, transport, key, &out);
        }
        if change.answers.is_some() {
            self.handle_answered(now_ms, transport, key);
        }
        Ok(())
    }

    /// What the client of a held WebSocket has said is answered: it may go on.
    fn handle_answered(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let State::Held(held) = &mut connection.state else { return };
        let session = held.session(self.config.index, key);
        let done = held.speech_mut().and_then(|speech| speech.take_answer(session));
        self.outputs.extend(done.map(Output::Hub));
        if self.draining {
            return self.end_held_socket(now_ms, transport, key, Some(STOPPING));
        }
        self.say(now_ms, key);
        self.process_input(now_ms, transport, key);
    }

    /// Nobody will answer what was said in the packet of that number.
    pub(super) fn refuse_message(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        session: &[u8],
        number: u64,
    ) {
        if let Named::Held(key) = self.find(session)
            && self.waits_for(key, number)
        {
            self.end_unanswered(now_ms, transport, key);
        }
    }

    /// Whether the client of a held WebSocket has no answer yet to what it has said.
    pub(super) fn is_unanswered(&self, key: Key) -> bool {
        let State::Held(held) = &self.connections[key.index].state else { return false };
        held.speech().is_some_and(|speech| !speech.is_silent())
    }

    /// Whether the packet of that number of a held WebSocket is out.
    fn waits_for(&self, key: Key, number: u64) -> bool {
        let State::Held(held) = &self.connections[key.index].state else { return false };
        held.speech().is_some_and(|speech| speech.waits_for(number))
    }

    /// Ends a held WebSocket that has waited for an answer for too long.
    pub(super) fn end_unanswered(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        self.end_held_socket(now_ms, transport, key, Some(UNANSWERED));
    }

    /// A connection is held no more: nobody needs to answer its client.
    pub(super) fn end_speech(&mut self, held: &mut Held, session: SessionId) {
        let done = held.speech_mut().and_then(|speech| speech.take_answer(session));
        self.outputs.extend(done.map(Output::Hub));
    }
}
