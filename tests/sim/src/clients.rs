//! Those who read channels, of every temper: quick, slow, stalled; who leave by a close, a reset or without a word; who
//! come back with the cursor that they have, with none, with another channel's, with nonsense.

use std::collections::{BTreeMap, BTreeSet};

use forebay_judge::{Begin, GapKind, Reader, Seen};
use zhttp::Cursor;

use crate::coverage::Mark;
use crate::http::{Head, Piece, ResponseReader};
use crate::schedule::Action;
use crate::sockets::{Conn, Owner};
use crate::store::id_of;
use crate::world::{World, trace};

/// How long a client waits before it connects again, in milliseconds, at most.
pub(crate) const RECONNECT_MS: u64 = 700;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not connected.
    Away,
    /// Its request is under way.
    Asking,
    /// It was refused; the answer is still coming.
    Refused,
    /// It reads, as a handler has taken it.
    Held { take: usize },
    /// It was told 204: all that it reads has ended.
    Resting,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// The channels that it wants.
    pub(crate) wants: BTreeSet<usize>,
    /// It began from now on, not from the oldest event.
    from_now: bool,
    /// What it has got.
    pub(crate) reader: Reader,
    http: ResponseReader,
    pub(crate) state: State,
    pub(crate) conn: Option<Conn>,
    /// What it asked with, and when, in ticks of the history.
    asked: (Option<String>, u64),
    /// Somebody has asked for the end of its response.
    pub(crate) may_end: bool,
    /// It does not read.
    pub(crate) is_paused: bool,
    /// Bytes that it reads at once; 0 is all.
    pub(crate) sip_bytes: usize,
    /// Comments that it has got.
    pub(crate) comments: u64,
    /// The heads of its channels when its hold was taken.
    heads: BTreeMap<usize, Cursor>,
}

impl Client {
    /// A client that wants these channels.
    pub(crate) fn new(wants: BTreeSet<usize>, from_now: bool) -> Self {
        Client {
            wants,
            from_now,
            reader: Reader::default(),
            http: ResponseReader::default(),
            state: State::Away,
            conn: None,
            asked: (None, 0),
            may_end: false,
            is_paused: false,
            sip_bytes: 0,
            comments: 0,
            heads: BTreeMap::new(),
        }
    }
}

impl World {
    /// A client asks to read.
    pub(crate) fn connect(&mut self, client: usize) -> Result<(), String> {
        let entry = &self.clients[client];
        let is_free = matches!(entry.state, State::Away | State::Resting) && entry.conn.is_none();
        if !is_free || entry.wants.is_empty() {
            return Ok(());
        }
        let Some(conn) = self.open(Owner::Client(client), forebay_core::worker::Mode::Stream)?
        else {
            self.reconnect(client);
            return Ok(());
        };
        self.clients[client].conn = Some(conn);
        self.clients[client].http = ResponseReader::default();
        self.ask(client, conn);
        Ok(())
    }

    /// Sends the request to read, on a connection that carries none.
    fn ask(&mut self, client: usize, conn: Conn) {
        let presented = self.choose_cursor(client);
        let entry = &mut self.clients[client];
        entry.state = State::Asking;
        entry.may_end = false;
        let wants: Vec<String> = entry.wants.iter().map(ToString::to_string).collect();
        let now = if entry.from_now { "&now" } else { "" };
        let mut request =
            format!("GET /events/o?c={}{now} HTTP/1.1\r\nHost: e\r\n", wants.join("."));
        if let Some(id) = &presented {
            request.push_str(&format!("Last-Event-ID: {id}\r\n"));
        }
        request.push_str("\r\n");
        entry.asked = (presented, self.store.history.tick());
        trace!(self, "client {client} asks: {}", request.escape_debug());
        self.send_soon(conn, request.as_bytes());
    }

    /// What a client comes with: mostly its own cursor.
    fn choose_cursor(&mut self, client: usize) -> Option<String> {
        let entry = &self.clients[client];
        if self.is_operating && self.random.chance(30) {
            return Some(self.random.pick(&["12", "0-7", "~AQ", "~", "1-01", "a-b"]).to_owned());
        }
        if self.is_operating && entry.wants.len() == 1 && self.random.chance(40) {
            let other = self.random.index(self.store.channels.len());
            let head = self.store.channels[other].head();
            if head != Cursor::START && !entry.wants.contains(&other) {
                self.mark(Mark::ResumeForeign);
                return Some(Cursor::new(head.epoch, self.random.up_to(head.offset)).to_string());
            }
        }
        let id = entry.reader.resume(&entry.wants)?.to_owned();
        let is_composite = id.starts_with('~');
        self.mark(if is_composite { Mark::ResumeComposite } else { Mark::ResumePlain });
        Some(id)
    }

    pub(crate) fn reconnect(&mut self, client: usize) {
        let due_ms = self.now_ms + self.random.up_to(RECONNECT_MS);
        self.schedule.at(due_ms, Action::Connect { client });
    }

    /// A client gets bytes.
    pub(crate) fn client_bytes(&mut self, client: usize, bytes: &[u8]) -> Result<(), String> {
        trace!(self, "client {client} gets {}", bytes.escape_ascii());
        self.clients[client].http.push(bytes);
        let judged = self.client_pieces(client);
        judged.map_err(|error| format!("client {client}: {error}"))
    }

    fn client_pieces(&mut self, client: usize) -> Result<(), String> {
        while let Some(piece) = self.clients[client].http.next_piece()? {
            match piece {
                Piece::Interim(status) => return Err(format!("an interim response {status}")),
                Piece::Head(head) => self.client_head(client, &head)?,
                Piece::Body(body) => {
                    if !matches!(self.clients[client].state, State::Held { .. }) {
                        continue;
                    }
                    let reader = &mut self.clients[client].reader;
                    for seen in reader.handle_bytes(&self.store.history, &body)? {
                        self.see(client, seen);
                    }
                }
                Piece::End => self.client_end(client)?,
            }
        }
        Ok(())
    }

    fn client_head(&mut self, client: usize, head: &Head) -> Result<(), String> {
        if self.clients[client].state != State::Asking {
            return Err("a response that nobody asked for".into());
        }
        self.count_status(head.status);
        let entry = &mut self.clients[client];
        entry.state = match head.status {
            200 => {
                let number = head.number("x-take").ok_or("no hold was taken")? as usize;
                let take = &self.takes[number];
                let (presented, tick) = &entry.asked;
                let begin =
                    Begin { presented: presented.as_deref(), taken: &take.channels, tick: *tick };
                entry.reader.begin(&self.store.history, begin);
                entry.may_end = take.expires;
                entry.heads = take.heads.clone();
                State::Held { take: number }
            }
            204 => {
                self.coverage.count(Mark::Rested);
                State::Resting
            }
            400 if entry.asked.0.is_some() => {
                self.coverage.count(Mark::CursorInvalid);
                entry.reader.forget();
                State::Refused
            }
            // Whoever made the edge answer so, the client comes back; in the end it must be served.
            500 | 502..=504 => State::Refused,
            other => return Err(format!("the answer is {other}")),
        };
        Ok(())
    }

    pub(crate) fn count_status(&mut self, status: u16) {
        match status {
            404 => self.mark(Mark::Unserved404),
            502 => self.mark(Mark::Retried502),
            503 => self.mark(Mark::Refused503),
            504 => self.mark(Mark::TimedOut504),
            _ => {}
        }
    }

    fn see(&mut self, client: usize, seen: Seen) {
        match seen {
            Seen::Event { channel, end, control } => {
                self.counts.events += 1;
                let entry = &self.clients[client];
                // It was there when the hold was taken.
                let was_there = entry.heads.get(&channel).copied().map(id_of)
                    == Some(self.store.history.log(channel).head());
                if end && was_there {
                    self.mark(Mark::EndWhileBehind);
                }
                if control {
                    self.mark(Mark::ControlStored);
                }
            }
            Seen::Gap(kind) => {
                self.counts.gaps += 1;
                self.mark_gap(kind);
            }
            Seen::Note => self.mark(Mark::NoteSeen),
            Seen::Comment => {
                self.clients[client].comments += 1;
                self.mark(Mark::Comment);
            }
            Seen::Draining => self.clients[client].may_end = true,
            Seen::Marker => {}
        }
    }

    pub(crate) fn mark_gap(&mut self, kind: GapKind) {
        self.mark(match kind {
            GapKind::Trimmed => Mark::GapTrimmed,
            GapKind::Recreated => Mark::GapRecreated,
            GapKind::Lost => Mark::GapLost,
            GapKind::Back => Mark::GapBack,
        });
    }

    /// A response is whole.
    fn client_end(&mut self, client: usize) -> Result<(), String> {
        let entry = &self.clients[client];
        if let State::Held { take } = entry.state {
            // What was there before is another life's.
            entry.reader.finish(entry.may_end)?;
            let mark = if entry.reader.is_finished() {
                Mark::EndedByChannels
            } else if self.takes[take].expires {
                Mark::EndedByExpiry
            } else {
                Mark::EndedByHandler
            };
            self.mark(mark);
        }
        let entry = &mut self.clients[client];
        let rests = entry.state == State::Resting;
        if !rests {
            entry.state = State::Away;
        }
        let Some(conn) = entry.conn else { return Ok(()) };
        let is_open = self.socket(conn).is_some_and(|socket| !socket.is_shut && !socket.is_closed);
        if is_open && !rests && self.random.chance(500) {
            self.mark(Mark::Reused);
            self.ask(client, conn);
            return Ok(());
        }
        self.clients[client].conn = None;
        self.close_side(conn);
        self.plan_client_read(conn);
        if !rests {
            self.reconnect(client);
        }
        Ok(())
    }

    /// Nothing more comes on the connection of a client.
    pub(crate) fn client_cut(&mut self, client: usize, is_excused: bool) -> Result<(), String> {
        trace!(self, "client {client} is cut off");
        let entry = &mut self.clients[client];
        entry.conn = None;
        if entry.state == State::Resting {
            return Ok(());
        }
        if matches!(entry.state, State::Held { .. }) && !is_excused {
            return Err(format!("client {client} is cut off, and nobody is to blame"));
        }
        entry.state = State::Away;
        self.reconnect(client);
        Ok(())
    }

    /// A client goes away; what it has not read is lost.
    pub(crate) fn disconnect(&mut self, client: usize) -> Result<(), String> {
        let Some(conn) = self.clients[client].conn.take() else { return Ok(()) };
        trace!(self, "client {client} goes");
        self.clients[client].state = State::Away;
        self.abandon(conn)
    }
}
