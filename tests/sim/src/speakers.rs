//! Clients that read channels on WebSockets: how they come, what they get, and how they end. What they say is in
//! `speech`, and why a connection may end in `closes`.
//!
//! One keeps a place for each channel, and comes back with all of them. It answers pings, and is answered; a connection
//! of it that nobody broke ends by a close, whose code must have its reason.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forebay_core::worker::Mode;
use forebay_judge::{Got, Id, Seen, SocketReader};
use zhttp::Cursor;

use crate::clients::RECONNECT_MS;
use crate::coverage::Mark;
use crate::frames::{self, ACCEPT, Opcode, close_payload};
use crate::http::{Head, Piece, ResponseReader};
use crate::saying::{Saying, Start};
use crate::schedule::Action;
use crate::sockets::{Conn, Owner};
use crate::world::{World, trace};

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not connected.
    #[default]
    Away,
    /// Its handshake is under way; compression is offered or not.
    Asking { deflates: bool },
    /// It was refused; the answer is still coming.
    Refused,
    /// It reads, as a handler has taken it.
    Held { take: usize },
    /// It was told that this is the end.
    Over,
}

/// A client.
#[derive(Debug, Default)]
pub(crate) struct Speaker {
    /// The channels that it wants.
    pub(crate) wants: BTreeSet<usize>,
    /// It began from now on, not from the oldest event.
    from_now: bool,
    /// Where it stands in each channel that it has got something of.
    pub(crate) places: BTreeMap<usize, Id>,
    /// What it knows of this connection.
    pub(crate) reader: SocketReader,
    http: ResponseReader,
    pub(crate) stage: Stage,
    pub(crate) conn: Option<Conn>,
    /// When it asked, in ticks of the history.
    asked_tick: u64,
    /// It does not read.
    pub(crate) is_paused: bool,
    /// Bytes that it reads at once; 0 is all.
    pub(crate) sip_bytes: usize,
    /// Pings that it has got.
    pub(crate) pings: u64,
    /// All that is about one connection, and that it has done itself.
    pub(crate) doings: Doings,
}

/// What a client has done on a connection.
#[derive(Debug, Default)]
pub(crate) struct Doings {
    /// By when all that it has sent has left it.
    pub(crate) sent_ms: u64,
    /// What it will read when all that it has said is answered.
    pub(crate) intent: BTreeSet<usize>,
    /// Channels that a handler has added or taken away unasked.
    pub(crate) touched: BTreeSet<usize>,
    /// The serial of its last message.
    pub(crate) serial: u64,
    /// What has no answer; when it was said, in ticks of the history and in milliseconds.
    pub(crate) said: VecDeque<(Saying, u64, u64)>,
    /// What pings that have no answer have said.
    pub(crate) pinged: VecDeque<Vec<u8>>,
    /// It has said that it closes, with this code; and whether something had no answer then.
    pub(crate) closing: Option<(Option<u16>, bool)>,
    /// It has begun to say something, and goes no further.
    pub(crate) has_begun: bool,
    /// It sends nothing more, and reads on.
    pub(crate) is_half_closed: bool,
    /// It has said more at once than it may.
    pub(crate) said_too_much: bool,
    /// With which codes handlers have wanted it to end.
    pub(crate) may_end: BTreeSet<u16>,
}

impl Speaker {
    pub(crate) fn new(wants: BTreeSet<usize>, from_now: bool) -> Self {
        Speaker { wants, from_now, ..Speaker::default() }
    }

    /// From where it wants a channel.
    pub(crate) fn start(&self, channel: usize) -> Start {
        match self.places.get(&channel) {
            Some(id) => Start::After(Cursor::new(id.epoch, id.offset)),
            None if self.from_now => Start::Now,
            None => Start::Oldest,
        }
    }
}

impl World {
    /// A client asks for a WebSocket.
    pub(crate) fn attach(&mut self, speaker: usize) -> Result<(), String> {
        let entry = &self.speakers[speaker];
        if entry.stage != Stage::Away || entry.conn.is_some() {
            return Ok(());
        }
        let Some(conn) = self.open(Owner::Speaker(speaker), Mode::Stream)? else {
            self.attach_again(speaker);
            return Ok(());
        };
        // The public way is to ask for everything by messages.
        let asks_later = self.random.chance(400);
        let offer = match self.random.up_to(9) {
            0..=1 => Some("permessage-deflate"),
            2 => Some("permessage-deflate; server_max_window_bits=10"),
            _ => None,
        };
        let entry = &mut self.speakers[speaker];
        let wants = { entry.wants.iter() }.filter(|_| !asks_later);
        let wants: Vec<String> =
            wants.map(|want| format!("{want}@{}", entry.start(*want))).collect();
        entry.conn = Some(conn);
        entry.http = ResponseReader::default();
        entry.stage = Stage::Asking { deflates: offer.is_some() };
        entry.asked_tick = self.store.history.tick();
        entry.doings = Doings::default();
        entry.reader.begin(offer.is_some());
        if !entry.places.is_empty() && !wants.is_empty() {
            self.coverage.count(Mark::SocketResumed);
        }
        let request = frames::handshake(&format!("/ws/o?c={}", wants.join(".")), offer);
        trace!(self, "speaker {speaker} asks: {}", request.escape_debug());
        self.speaker_sends(speaker, request.as_bytes());
        if self.is_operating && self.random.chance(100) {
            self.mark(Mark::SaidAhead);
            self.say_words(speaker);
        }
        Ok(())
    }

    pub(crate) fn attach_again(&mut self, speaker: usize) {
        let due_ms = self.now_ms + self.random.up_to(RECONNECT_MS);
        self.schedule.at(due_ms, Action::Attach { speaker });
    }

    /// Sends behind what it has sent before.
    pub(crate) fn speaker_sends(&mut self, speaker: usize, bytes: &[u8]) {
        let entry = &self.speakers[speaker];
        let (Some(conn), after_ms) = (entry.conn, entry.doings.sent_ms) else { return };
        self.speakers[speaker].doings.sent_ms = self.send_behind(conn, after_ms, bytes);
    }

    /// The same with one frame.
    pub(crate) fn speaker_sends_frame(&mut self, speaker: usize, opcode: Opcode, payload: &[u8]) {
        let mut out = Vec::new();
        frames::write(&mut self.random, (opcode, true), payload, &mut out);
        self.speaker_sends(speaker, &out);
    }

    pub(crate) fn speaker_bytes(&mut self, speaker: usize, bytes: &[u8]) -> Result<(), String> {
        trace!(self, "speaker {speaker} gets {}", bytes.escape_ascii());
        self.speakers[speaker].http.push(bytes);
        let judged = self.speaker_pieces(speaker);
        judged.map_err(|error| format!("speaker {speaker}: {error}"))
    }

    fn speaker_pieces(&mut self, speaker: usize) -> Result<(), String> {
        while let Some(piece) = self.speakers[speaker].http.next_piece()? {
            match piece {
                Piece::Interim(status) => return Err(format!("an interim response {status}")),
                Piece::Head(head) => self.speaker_head(speaker, &head)?,
                Piece::Body(body) if matches!(self.speakers[speaker].stage, Stage::Refused) => {
                    drop(body);
                }
                Piece::Body(body) => {
                    self.speakers[speaker].reader.push(&body);
                    self.speaker_frames(speaker)?;
                }
                // A connection whose handshake was refused carries nothing else.
                Piece::End => {}
            }
        }
        Ok(())
    }

    fn speaker_head(&mut self, speaker: usize, head: &Head) -> Result<(), String> {
        let Stage::Asking { deflates } = self.speakers[speaker].stage else {
            return Err("a response that nobody asked for".into());
        };
        self.count_status(head.status);
        let extension = head.field("sec-websocket-extensions");
        self.speakers[speaker].stage = match head.status {
            101 => {
                let is_agreed = match extension {
                    Some(value) => deflates && value.starts_with("permessage-deflate"),
                    None => true,
                };
                if head.field("sec-websocket-accept") != Some(ACCEPT)
                    || head.field("upgrade") != Some("websocket")
                    || !is_agreed
                {
                    return Err(format!("not what was asked for: {head:?}"));
                }
                let number = head.number("x-take").ok_or("no hold was taken")? as usize;
                self.speaker_held(speaker, number, extension.is_some())?;
                return Ok(());
            }
            500 | 502..=504 => Stage::Refused,
            other => return Err(format!("the answer is {other}")),
        };
        Ok(())
    }

    fn speaker_held(
        &mut self,
        speaker: usize,
        number: usize,
        inflates: bool,
    ) -> Result<(), String> {
        let take = &self.takes[number];
        let entry = &mut self.speakers[speaker];
        entry.reader.begin(inflates);
        for taken in &take.channels {
            let had = entry.places.get(&taken.channel).copied();
            entry.reader.subscribe(*taken, had, entry.asked_tick)?;
        }
        entry.stage = Stage::Held { take: number };
        entry.doings.intent = entry.reader.channels().clone();
        if take.expires {
            entry.doings.may_end.insert(take.expires_code);
        }
        self.mark(Mark::SocketHeld);
        if inflates {
            self.mark(Mark::SocketDeflated);
        }
        self.ask_for_the_rest(speaker);
        Ok(())
    }

    fn speaker_frames(&mut self, speaker: usize) -> Result<(), String> {
        loop {
            let entry = &mut self.speakers[speaker];
            let Some(got) = entry.reader.next_got(&self.store.history)? else { return Ok(()) };
            let Stage::Held { take } = entry.stage else {
                return Err(format!("{got:?} in the stage {:?}", entry.stage));
            };
            match got {
                Got::Seen(seen) => self.speaker_sees(speaker, take, seen),
                Got::Text(text) => self.speaker_hears(speaker, take, &text)?,
                Got::Ping(payload) => {
                    entry.pings += 1;
                    self.speaker_sends_frame(speaker, Opcode::Pong, &payload);
                }
                Got::Pong(payload) => {
                    if entry.doings.pinged.pop_front() != Some(payload) {
                        return Err("a pong that nobody waits for".into());
                    }
                    self.mark(Mark::Ponged);
                }
                Got::Close(close) => {
                    self.judge_close(speaker, take, close.as_ref())?;
                    self.speakers[speaker].stage = Stage::Over;
                    self.answer_close(speaker);
                }
            }
        }
    }

    fn speaker_sees(&mut self, speaker: usize, take: usize, seen: Seen) {
        let entry = &mut self.speakers[speaker];
        let channels: Vec<usize> = entry.reader.channels().iter().copied().collect();
        for channel in channels {
            if let Some(place) = entry.reader.place(channel) {
                entry.places.insert(channel, place);
            }
        }
        match seen {
            Seen::Event { channel, .. } => {
                // The only channel that has not ended is the one that goes on.
                let was_over = { entry.reader.channels().iter() }
                    .all(|other| *other == channel || entry.reader.has_end(*other));
                let begins = entry.reader.place(channel).is_some_and(|id| id.offset == 1);
                if was_over && begins && self.takes[take].persistent {
                    self.mark(Mark::PersistentOutlives);
                }
                self.counts.events += 1;
            }
            Seen::Gap(kind) => {
                self.counts.gaps += 1;
                self.mark_gap(kind);
            }
            Seen::Note | Seen::Comment | Seen::Draining | Seen::Marker => {}
        }
    }

    /// The other side has said that it closes; at times it is told that this was heard.
    fn answer_close(&mut self, speaker: usize) {
        let has_said = self.speakers[speaker].doings.closing.is_some();
        if !has_said && self.random.chance(700) {
            self.speaker_sends_frame(speaker, Opcode::Close, &close_payload(Some(1000)));
        }
    }

    /// Nothing more comes on the connection of a client.
    pub(crate) fn speaker_cut(&mut self, speaker: usize, is_excused: bool) -> Result<(), String> {
        trace!(self, "speaker {speaker} is cut off");
        let entry = &mut self.speakers[speaker];
        let stage = std::mem::take(&mut entry.stage);
        let doings = &entry.doings;
        // Nothing else is owed to who sends nothing more.
        let has_all = doings.is_half_closed && doings.said.is_empty();
        entry.conn = None;
        self.attach_again(speaker);
        if has_all && matches!(stage, Stage::Held { .. }) {
            self.mark(Mark::HalfClosedHeard);
        } else if matches!(stage, Stage::Held { .. }) && !is_excused {
            return Err(format!("speaker {speaker} is cut off, and nobody is to blame"));
        }
        Ok(())
    }

    /// A client goes away; what it has not read is lost.
    pub(crate) fn detach(&mut self, speaker: usize) -> Result<(), String> {
        let Some(conn) = self.speakers[speaker].conn.take() else { return Ok(()) };
        trace!(self, "speaker {speaker} goes");
        self.speakers[speaker].stage = Stage::Away;
        self.abandon(conn)
    }

    /// A client reads on.
    pub(crate) fn wake_speaker(&mut self, speaker: usize) {
        self.speakers[speaker].is_paused = false;
        if let Some(conn) = self.speakers[speaker].conn {
            self.plan_client_read(conn);
        }
    }
}
