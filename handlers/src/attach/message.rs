//! What clients of held WebSockets say, and what a handler answers (`zhttp-spec/hold.md` §4.1).
//!
//! A `message` is answered as a request is, by a task of its own. The answer is one packet that does
//! everything, so that a handler that dies has answered or has not. It goes by the link that the
//! message came by, and waits while the edge is slow; the bytes that do so are bounded ([`Held`]).
//!
//! A task that is underway when the link is lost goes on to its end, as what it publishes must not
//! be broken off half way. But its answer is dropped: the edge has given the message to another
//! handler, or is another edge now, which may have given the same id to another connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use zhttp::hold::{Change, ChangeLists, HoldChannel, Message, is_close_code};
use zhttp::{Envelope, Id, Kind, Packet, PacketError};

use super::feed::EdgeId;
use super::link::LinkSender;
use super::response::{HeldChannel, whole_seconds};
use super::service::{Service, catch_panic, panic_text};
use super::stats::{Counters, Ticket};

/// The code of the close when a handler failed (RFC 6455 §7.4.1).
pub(crate) const CLOSE_INTERNAL: u16 = 1011;

/// The code of the close when a handler has too much to do; the client may come again.
pub(super) const CLOSE_BUSY: u16 = 1013;

/// What the client of a held WebSocket has said since it was answered last.
///
/// The same may come to two handlers, or twice to one, if the first does not seem to answer (H-92):
/// what is done for it must bear repetition. Whoever has to make something of it that is the same
/// each time derives it from the context, the number and the place among the bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessages {
    /// The edge that holds the connection.
    pub edge: EdgeId,
    /// Names the connection, as long as it is held, at that edge.
    pub id: Bytes,
    /// The [`messages`](super::Hold::messages) of its hold.
    pub path: String,
    /// Counts what of this connection has come to handlers, from 1.
    pub number: u64,
    /// The context of its hold.
    pub context: Bytes,
    /// How many channels the connection reads.
    pub channels: u64,
    /// What was said, in order; all together are about as large as one message may be.
    pub bodies: Vec<ClientMessage>,
}

/// One message of a client, at most 65,536 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage {
    /// What it says; UTF-8 unless it is binary.
    pub body: Bytes,
    /// Whether it came as a binary message.
    pub binary: bool,
}

/// What a handler does about what a client said: changes to the hold, made in the order of the
/// fields here, then something to say. The default does nothing, and says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Channels that are read no more.
    pub remove: Vec<String>,
    /// Channels that are read from now on; at most 128, with those that are read already (or else
    /// the edge closes the connection). One that is read already keeps its place, unless it is also
    /// removed.
    pub add: Vec<HeldChannel>,
    /// A new context, at most 1024 bytes.
    pub context: Option<Bytes>,
    /// When the connection is to be closed.
    pub expires: Option<Expires>,
    /// Text messages for the client, at most 1 MiB in all. They come before any event of a channel
    /// that is added.
    pub bodies: Vec<String>,
    /// Close the connection, behind all that.
    pub close: Option<Close>,
}

/// When a held connection is to be closed, counted from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expires {
    /// After that long, in whole seconds, rounded up; `None` is never.
    pub after: Option<Duration>,
    /// With this code, if it is a WebSocket; 0 is the usual one.
    pub code: u16,
}

/// The close of a WebSocket (RFC 6455 §7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code; one that may be sent.
    pub code: u16,
    /// Why, for people; the edge cuts it to 123 bytes.
    pub reason: String,
}

impl Answer {
    /// Closes the connection, and does nothing else.
    pub fn close(code: u16, reason: impl Into<String>) -> Self {
        Answer { close: Some(Close { code, reason: reason.into() }), ..Answer::default() }
    }
}

impl ClientMessages {
    /// Reads a `message` packet. Bodies are not copied: they keep the packet.
    pub(super) fn read(
        bytes: &Bytes,
        packet: &Packet<'_>,
        edge: EdgeId,
    ) -> Result<Self, PacketError> {
        let message = Message::read(packet)?;
        let mut ids = packet.ids;
        let (Some(Id { id, .. }), None) = (ids.next(), ids.next()) else {
            return Err(PacketError::Missing("id"));
        };
        let said = |(body, binary)| ClientMessage { body: bytes.slice_ref(body), binary };
        Ok(ClientMessages {
            edge,
            id: bytes.slice_ref(id),
            path: message.path.to_owned(),
            number: message.number,
            context: bytes.slice_ref(message.context),
            channels: message.channels,
            bodies: message.bodies.map(said).collect(),
        })
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) from: Arc<[u8]>,
    pub(super) link: LinkSender,
    /// A permit for each byte of an answer that waits for the link.
    pub(super) room: Arc<Semaphore>,
    /// Changes when the link is lost that the message came by.
    pub(super) losses: watch::Receiver<u64>,
    pub(super) counters: Arc<Counters>,
    /// The place among the requests in flight, which this takes as well.
    pub(super) ticket: Ticket,
}

/// Has what a client said answered.
pub(super) async fn hear<S: Service>(service: Arc<S>, said: ClientMessages, mut reply: Reply) {
    let (id, number, path) = (said.id.clone(), said.number, said.path.clone());
    let answered = catch_panic(async { service.message(said).await }).await;
    let packets = match answered {
        Ok(answer) => match packets_of((&reply.from, &id), number, &answer, &reply.room) {
            Ok(packets) => packets,
            Err(AnswerError::NoRoom) => {
                reply.counters.requests_refused.add(1);
                vec![close_packet(&reply.from, &id, CLOSE_BUSY, "")]
            }
            Err(error @ (AnswerError::CloseCode(_) | AnswerError::Packet(_))) => {
                tracing::error!(path, %error, "an answer that cannot be");
                vec![close_packet(&reply.from, &id, CLOSE_INTERNAL, "")]
            }
        },
        Err(panic) => {
            reply.counters.requests_panicked.add(1);
            tracing::error!(path, panic = panic_text(&*panic), "a service panicked");
            vec![close_packet(&reply.from, &id, CLOSE_INTERNAL, "")]
        }
    };
    let sent = async {
        for packet in packets {
            // An error says that the link is lost.
            if reply.link.send(packet).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        // An error says that there is no edge's task any more.
        _ = reply.losses.changed() => reply.counters.requests_gone.add(1),
        () = sent => {}
    }
    drop(reply.ticket);
}

/// Why an answer was not sent. But for the room it is the handler's fault, found here because the edge
/// could only end the connection, or would not even do that.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("too many bytes of answers wait for the edge")]
    NoRoom,
    #[error("the code {0} of a close may not be sent")]
    CloseCode(u16),
    #[error(transparent)]
    Packet(#[from] PacketError),
}

/// The packets of an answer; read as the edge will read them, so that its rules stand in one place,
/// the codec.
fn packets_of(
    (from, id): (&[u8], &[u8]),
    number: u64,
    answer: &Answer,
    room: &Arc<Semaphore>,
) -> Result<Vec<Bytes>, AnswerError> {
    let hold = hold_packet(from, id, number, answer);
    Change::read(&Packet::parse(&hold)?)?;
    if let Some(Close { code, .. }) = answer.close
        && !is_close_code(code)
    {
        return Err(AnswerError::CloseCode(code));
    }
    let hold = held(hold, room).ok_or(AnswerError::NoRoom)?;
    let close = answer.close.as_ref();
    let close = close.map(|Close { code, reason }| close_packet(from, id, *code, reason));
    Ok(std::iter::once(hold).chain(close).collect())
}

/// The bytes of a packet, if there is room for them.
fn held(packet: Vec<u8>, room: &Arc<Semaphore>) -> Option<Bytes> {
    let permits = u32::try_from(packet.len()).ok()?;
    let permits = Arc::clone(room).try_acquire_many_owned(permits).ok()?;
    Some(Bytes::from_owner(Held { packet, _permits: permits }))
}

/// A packet that has a permit for each of its bytes, and gives them back when the last who has it lets
/// go of it: the link, having written it. So what waits within the link counts, too, but for what is so
/// small that the link copies it.
struct Held {
    packet: Vec<u8>,
    _permits: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.packet
    }
}

fn hold_packet(from: &[u8], id: &[u8], number: u64, answer: &Answer) -> Vec<u8> {
    let add: Vec<HoldChannel<'_>> = answer.add.iter().map(HoldChannel::from).collect();
    let remove: Vec<&str> = answer.remove.iter().map(String::as_str).collect();
    let bodies: Vec<&str> = answer.bodies.iter().map(String::as_str).collect();
    let lists = ChangeLists { add: &add, remove: &remove, bodies: &bodies };
    let expires = answer.expires;
    let change = Change {
        context: answer.context.as_deref(),
        expires_s: expires.map(|expires| expires.after.map_or(0, whole_seconds)),
        expires_code: expires.map(|expires| expires.code),
        answers: Some(number),
        // The lists are written from the slices.
        ..Change::default()
    };
    let mut packet = Vec::new();
    let ids = [Id { id, seq: None }];
    let envelope = Envelope::new(from, Kind::Hold).about(&ids);
    envelope.write(&mut packet, |fields| change.write(fields, &lists));
    packet
}

/// A packet that closes a held WebSocket.
pub(super) fn close_packet(from: &[u8], id: &[u8], code: u16, reason: &str) -> Bytes {
    let mut packet = Vec::new();
    let ids = [Id { id, seq: None }];
    Envelope::new(from, Kind::Close).about(&ids).write(&mut packet, |fields| {
        fields.int("code", code.into());
        fields.bytes("body", reason.as_bytes());
    });
    packet.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_answer_has_its_room_until_nobody_has_it_any_more() {
        let room = Arc::new(Semaphore::new(1000));
        let answer = |len| Answer { bodies: vec!["x".repeat(len)], ..Answer::default() };
        let packets = |len| packets_of((b"h", b"1"), 7, &answer(len), &room);
        let first = packets(600).unwrap().remove(0);
        let taken = first.len();
        assert_eq!(room.available_permits(), 1000 - taken);
        assert!(matches!(packets(600), Err(AnswerError::NoRoom)));
        assert_eq!(room.available_permits(), 1000 - taken);
        // What is small still has room, and goes by itself.
        let second = packets(100).unwrap();
        let in_the_link = first.slice(1..);
        drop(first);
        assert_eq!(room.available_permits(), 1000 - taken - second[0].len());
        drop((in_the_link, second));
        assert_eq!(room.available_permits(), 1000);
    }
}
