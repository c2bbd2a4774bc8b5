//! What clients of WebSockets say, and what they make of the answers: each message is answered once, in order; an answer
//! to a subscription comes before the channel's events, and one to its end behind the last of them.

use bytes::Bytes;
use forebay_judge::Taken;
use zhttp::hold::{Change, ChangeLists, HoldChannel, Message, Send};
use zhttp::{Cursor, Kind, Packet};

use crate::closes::CLOSED_BY_HANDLER;
use crate::coverage::Mark;
use crate::frames::{self, Opcode, close_payload};
use crate::hearing::EXPIRED;
use crate::saying::{Answer, Saying, Start, What};
use crate::schedule::Action;
use crate::speakers::{Speaker, Stage};
use crate::store::id_of;
use crate::subscribe::{about, place};
use crate::wire::Class;
use crate::world::{World, trace};

/// What a message of a client is filled up with, in bytes: mostly little.
const SAID_BYTES: &[u64] = &[0, 0, 0, 20, 130, 700];

/// The same of what it wants to be told.
const ANSWERED_BYTES: &[u64] = &[0, 0, 20, 500, 20_000];

/// More than anybody may say at once (hold.md H-96).
const TOO_MUCH_BYTES: usize = 65_530;

/// A client waits until some of so many messages are answered before it says more.
const UNANSWERED_MAX: usize = 40;

/// What a handler says unasked, on a WebSocket.
const NOTE: &str = r#"{"event_type":"control","message_id":"m","control_type":"note"}"#;

impl World {
    /// A client of a WebSocket does something, or something is done to it.
    pub(crate) fn operate_speaker(&mut self, drawn: u64, channel: usize) -> Result<(), String> {
        let speaker = self.random.index(self.speakers.len());
        match drawn {
            0..=3 => self.attach(speaker)?,
            4..=6 => self.detach_for_a_while(speaker)?,
            7..=9 => self.speakers[speaker].is_paused = true,
            10..=11 => self.speakers[speaker].sip_bytes = self.random.pick(&[0, 1, 7, 100]),
            12..=16 => self.wake_speaker(speaker),
            17..=28 => self.say_some(speaker),
            29..=30 => self.ping(speaker),
            31 => self.close_socket(speaker),
            32 => self.change_socket(speaker, channel),
            33 => self.hurry_socket(speaker),
            _ => self.speak_to_socket(speaker),
        }
        Ok(())
    }

    fn detach_for_a_while(&mut self, speaker: usize) -> Result<(), String> {
        self.detach(speaker)?;
        self.attach_again(speaker);
        Ok(())
    }

    /// Whether a client may say something now.
    fn can_speak(&self, speaker: usize) -> bool {
        let entry = &self.speakers[speaker];
        let doings = &entry.doings;
        let is_there = matches!(entry.stage, Stage::Held { .. } | Stage::Asking { .. });
        is_there
            && doings.closing.is_none()
            && !doings.said_too_much
            && !doings.has_begun
            && !doings.is_half_closed
            && doings.said.len() < UNANSWERED_MAX
    }

    /// A client says some things at once, of any kind.
    fn say_some(&mut self, speaker: usize) {
        let Stage::Held { take } = self.speakers[speaker].stage else { return };
        // Where it is not heard it tries that once in a while only: it costs the connection.
        if !self.takes[take].hears && self.random.chance(900) {
            return;
        }
        let mut out = Vec::new();
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 3, 12]) {
            if !self.can_speak(speaker) {
                break;
            }
            let what = self.any_what(speaker);
            self.say(speaker, what, &mut out);
        }
        if self.is_operating && self.can_speak(speaker) && self.random.chance(12) {
            self.speakers[speaker].doings.said_too_much = true;
            let much = vec![b'x'; TOO_MUCH_BYTES + 10];
            frames::write_message(&mut self.random, Opcode::Text, (&much, 3), &mut out);
        }
        if self.is_operating && self.can_speak(speaker) && self.random.chance(20) {
            self.speakers[speaker].doings.has_begun = true;
            frames::write(&mut self.random, (Opcode::Text, false), b"t ", &mut out);
        }
        self.speaker_sends(speaker, &out);
        match self.random.up_to(99) {
            0..=5 => self.close_socket(speaker),
            6..=9 if self.is_operating => self.half_close(speaker),
            _ => {}
        }
        // And does not look what comes of it.
        self.speakers[speaker].is_paused |= self.is_operating && self.random.chance(200);
    }

    /// A client says some words, without having seen an answer to its handshake.
    pub(crate) fn say_words(&mut self, speaker: usize) {
        let mut out = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            self.say(speaker, What::Word { padding: 0 }, &mut out);
        }
        self.speaker_sends(speaker, &out);
    }

    /// A client that is held asks for the channels that it wants and was not given.
    pub(crate) fn ask_for_the_rest(&mut self, speaker: usize) {
        let entry = &self.speakers[speaker];
        if !self.can_speak(speaker) {
            return;
        }
        let rest: Vec<usize> = entry.wants.difference(&entry.doings.intent).copied().collect();
        let mut out = Vec::new();
        for channel in rest {
            let start = self.speakers[speaker].start(channel);
            self.say(speaker, What::Subscribe { channel, start }, &mut out);
        }
        self.speaker_sends(speaker, &out);
    }

    /// Anything that a client could say.
    fn any_what(&mut self, speaker: usize) -> What {
        let channel = self.random.index(self.store.channels.len());
        let entry = &self.speakers[speaker];
        if entry.doings.touched.contains(&channel) || self.random.chance(400) {
            return What::Word { padding: self.random.pick(ANSWERED_BYTES) as usize };
        }
        if self.speakers[speaker].doings.intent.contains(&channel) {
            return What::Unsubscribe { channel };
        }
        let other = self.random.index(self.store.channels.len());
        let head = self.store.channels[other].head();
        let start = match self.random.up_to(9) {
            0 => Start::Oldest,
            1 => Start::Now,
            2 if other != channel && head != Cursor::START => Start::After(head),
            _ => self.speakers[speaker].start(channel),
        };
        What::Subscribe { channel, start }
    }

    /// Writes down one message of a client, and remembers it.
    fn say(&mut self, speaker: usize, what: What, out: &mut Vec<u8>) {
        let tick = self.store.history.tick();
        let now_ms = self.now_ms;
        let entry = &mut self.speakers[speaker];
        let doings = &mut entry.doings;
        doings.serial += 1;
        let saying = Saying { serial: doings.serial, what };
        doings.said.push_back((saying, tick, now_ms));
        match what {
            What::Word { .. } => {}
            What::Subscribe { channel, .. } => {
                doings.intent.insert(channel);
                entry.wants.insert(channel);
            }
            What::Unsubscribe { channel } => {
                doings.intent.remove(&channel);
                entry.wants.remove(&channel);
            }
        }
        let (kind, letter) =
            if self.random.chance(200) { (Opcode::Binary, 'b') } else { (Opcode::Text, 't') };
        let padding = self.random.pick(SAID_BYTES) as usize;
        let text = format!("{letter} {saying}{}", "x".repeat(padding));
        let pieces = if self.random.chance(250) { self.random.between(2, 4) } else { 1 };
        trace!(self, "speaker {speaker} says {saying}");
        frames::write_message(&mut self.random, kind, (text.as_bytes(), pieces as usize), out);
    }

    /// A client asks whether the edge is there.
    fn ping(&mut self, speaker: usize) {
        if !matches!(self.speakers[speaker].stage, Stage::Held { .. }) || !self.can_speak(speaker) {
            return;
        }
        let len = self.random.pick(&[0, 4, 125]);
        let payload: Vec<u8> = (0..len).map(|_| self.random.number() as u8).collect();
        self.speaker_sends_frame(speaker, Opcode::Ping, &payload);
        self.speakers[speaker].doings.pinged.push_back(payload);
    }

    /// A client closes, in order.
    fn close_socket(&mut self, speaker: usize) {
        if !matches!(self.speakers[speaker].stage, Stage::Held { .. }) || !self.can_speak(speaker) {
            return;
        }
        let code = self.random.pick(&[None, Some(1000), Some(1001), Some(4321)]);
        trace!(self, "speaker {speaker} closes with {code:?}");
        self.speaker_sends_frame(speaker, Opcode::Close, &close_payload(code));
        let doings = &mut self.speakers[speaker].doings;
        doings.closing = Some((code, !doings.said.is_empty()));
    }

    /// A worker sends off what a client has said: behind what it has sent before, and it says how many channels are read.
    pub(crate) fn judge_sent(&mut self, life: u64, packet: &Bytes) -> Result<(), String> {
        let packet = Packet::parse(packet).map_err(|error| error.to_string())?;
        let message = Message::read(&packet).map_err(|error| error.to_string())?;
        let id = { packet.ids }.next().ok_or("a message of nobody")?.id;
        self.oracles.talk.handle_sent(&Bytes::copy_from_slice(id), &message)?;
        let is_its = |speaker: &&Speaker| {
            let is_here = speaker.conn.is_some_and(|conn| conn.life == life);
            matches!(speaker.stage, Stage::Held { take } if is_here && *self.takes[take].id == *id)
        };
        let Some(speaker) = self.speakers.iter().find(is_its) else { return Ok(()) };
        let changes = |(saying, ..): &(Saying, u64, u64)| saying.what.channel().is_some();
        let is_certain =
            speaker.doings.touched.is_empty() && !speaker.doings.said.iter().any(changes);
        let channels = speaker.reader.channels().len() as u64;
        if is_certain && message.channels != channels {
            return Err(format!("{channels} channels are read, and {message:?} is sent off"));
        }
        Ok(())
    }

    /// A client sends nothing more, and reads what it is told.
    fn half_close(&mut self, speaker: usize) {
        let entry = &self.speakers[speaker];
        let Some(conn) = entry.conn.filter(|_| self.can_speak(speaker)) else { return };
        let due_ms = entry.doings.sent_ms.max(self.now_ms);
        self.speakers[speaker].doings.is_half_closed = true;
        self.schedule.at(due_ms, Action::ClientClose { conn });
    }

    /// A client is told something that is no event.
    pub(crate) fn speaker_hears(
        &mut self,
        speaker: usize,
        take: usize,
        text: &str,
    ) -> Result<(), String> {
        if text == NOTE {
            self.mark(Mark::NoteSeen);
            return Ok(());
        }
        if text == format!("hello {take}") {
            return Ok(());
        }
        let (answer, padding) =
            Answer::parse(text).ok_or_else(|| format!("nobody has written {text:?}"))?;
        let doings = &mut self.speakers[speaker].doings;
        let (saying, tick, _) = doings.said.pop_front().ok_or("an answer to nothing")?;
        if saying.serial != answer.serial {
            return Err(format!("the answer to {}, and {saying} was to be", answer.serial));
        }
        self.take_answer(speaker, (saying, tick), (answer, padding))?;
        self.mark(Mark::SaidAnswered);
        if self.edge.as_ref().is_some_and(|edge| edge.is_draining) {
            self.mark(Mark::AnswerInDrain);
        }
        Ok(())
    }

    fn take_answer(
        &mut self,
        speaker: usize,
        (saying, tick): (Saying, u64),
        (answer, padding): (Answer, usize),
    ) -> Result<(), String> {
        let reader = &mut self.speakers[speaker].reader;
        match (saying.what, answer.placed) {
            (What::Word { padding: wanted }, None) if padding == wanted => {}
            (What::Unsubscribe { channel }, None) => reader.unsubscribe(channel),
            (What::Subscribe { channel, start }, Some((at, ended))) => {
                let is_behind = reader.is_behind(&self.store.history);
                let had = match start {
                    Start::After(cursor) => Some(id_of(cursor)),
                    Start::Oldest | Start::Now => None,
                };
                let taken = Taken { channel, at: id_of(at), ended };
                reader.subscribe(taken, had, tick)?;
                if had.is_some_and(|had| had > taken.at) {
                    self.mark(Mark::SubscribedBack);
                }
                if is_behind {
                    self.mark(Mark::SubscribedBehind);
                }
            }
            other => return Err(format!("{other:?} do not fit")),
        }
        Ok(())
    }

    /// A handler, and the session of a client that is held.
    fn handler_and_session(&mut self, speaker: usize) -> Option<(usize, Bytes, String)> {
        let handler = self.any_handler()?;
        let Stage::Held { take } = self.speakers[speaker].stage else { return None };
        Some((handler, self.takes[take].id.clone(), self.handlers[handler].name.clone()))
    }

    /// A handler changes unasked what a client reads. Whether that had its effect shows by events only, so it is done once
    /// for each channel and connection.
    fn change_socket(&mut self, speaker: usize, channel: usize) {
        let Some((handler, id, from)) = self.handler_and_session(speaker) else { return };
        let tick = self.store.history.tick();
        let log = &self.store.channels[channel];
        let place = place(Start::Oldest, log);
        let entry = &mut self.speakers[speaker];
        let is_asked =
            entry.doings.said.iter().any(|(said, ..)| said.what.channel() == Some(channel));
        if is_asked || !entry.doings.touched.insert(channel) {
            return;
        }
        let added = HoldChannel { name: &log.name, cursor: place.cursor, ended: false };
        let removed = [&*log.name];
        let removes = entry.reader.channels().contains(&channel);
        let (add, remove): (&[HoldChannel<'_>], &[&str]) =
            if removes { (&[], &removed) } else { (std::slice::from_ref(&added), &[]) };
        let lists = ChangeLists { add, remove, bodies: &[NOTE] };
        let packet =
            about(&id, &from, Kind::Hold, |fields| Change::default().write(fields, &lists));
        if removes {
            entry.reader.withdraw(channel);
        } else {
            let taken = Taken { channel, at: id_of(place.cursor), ended: false };
            entry.reader.offer(taken, tick);
        }
        trace!(self, "the WebSocket of {speaker} changes in {channel}, removed: {removes}");
        self.send_to_hub(handler, Class::Session, packet);
    }

    /// A handler gives a WebSocket a second more.
    fn hurry_socket(&mut self, speaker: usize) {
        let Some((handler, id, from)) = self.handler_and_session(speaker) else { return };
        let change =
            Change { expires_s: Some(1), expires_code: Some(EXPIRED), ..Change::default() };
        let packet =
            about(&id, &from, Kind::Hold, |fields| change.write(fields, &ChangeLists::default()));
        self.speakers[speaker].doings.may_end.insert(EXPIRED);
        self.send_to_hub(handler, Class::Session, packet);
    }

    /// A handler writes to a WebSocket, or ends it.
    fn speak_to_socket(&mut self, speaker: usize) {
        let Some((handler, id, from)) = self.handler_and_session(speaker) else { return };
        let packet = if self.random.chance(700) {
            let body = NOTE.as_bytes();
            about(&id, &from, Kind::Send, |fields| Send { kind: None, body }.write(fields))
        } else {
            self.speakers[speaker].doings.may_end.insert(CLOSED_BY_HANDLER);
            about(&id, &from, Kind::Close, |fields| fields.int("code", CLOSED_BY_HANDLER.into()))
        };
        self.send_to_hub(handler, Class::Session, packet);
    }
}
