//! Those who make other requests: with bodies both ways, in stream mode and in req mode, to handlers that said hello, to
//! plain ones, and to nobody. Each checks every byte that it gets.
//!
//! They use a connection in every way that HTTP/1.1 knows: again behind an answer, with the next request sent ahead, for
//! the last time, with `Expect: 100-continue`; they close their side behind a request, and read late. What they may rely
//! on they hold the edge to: answers come in order, each to its own request; and whoever was not told that an answer is
//! the last one has the connection until it has been at rest for long.

use forebay_core::worker::Mode;

use crate::coverage::Mark;
use crate::http::{Head, Piece, ResponseReader};
use crate::requests::Ask;
pub(crate) use crate::requests::{Whom, Wish};
use crate::schedule::Action;
use crate::sockets::{Conn, Owner};
use crate::world::{World, trace};

/// Who expects to be told to send a body waits so long for that, in milliseconds.
const CONTINUE_WAIT_MS: u64 = 1000;

/// A visitor who dawdles reads so late, in milliseconds, at most.
const DAWDLE_MS: u64 = 3000;

/// A visitor.
#[derive(Debug, Default)]
pub(crate) struct Visitor {
    pub(crate) conn: Option<Conn>,
    http: ResponseReader,
    /// What it waits for, or has got last.
    ask: Ask,
    /// What it has asked for ahead, behind that.
    ahead: Option<Ask>,
    /// That of the last request.
    pub(crate) token: u64,
    /// It has asked, and has no whole answer.
    pub(crate) is_asking: bool,
    /// The status of the last whole answer, and its token.
    pub(crate) answered: Option<(u64, u16)>,
    /// Answers that it has got on its connection.
    answers: u64,
    /// When its connection was last at rest: behind an answer, or when it was opened.
    rested_ms: u64,
    /// How long it was when the visitor asked.
    rest_ms: u64,
    /// The edge has said that there is no further answer on this connection.
    is_last: bool,
    /// It has read late, and so does not know since when its connection was at rest.
    has_dawdled: bool,
    /// It has closed its side.
    is_half_closed: bool,
}

impl World {
    /// A visitor asks, if it is not at it already. Says whether it does now.
    pub(crate) fn visit(&mut self, visitor: usize, wish: Wish) -> Result<bool, String> {
        if self.visitors[visitor].is_asking {
            return Ok(false);
        }
        let Some(conn) = self.connection_for(visitor, wish.whom.mode())? else { return Ok(false) };
        let ask = self.any_ask(wish);
        let is_last = ask.manner.expects || ask.manner.closes || ask.manner.half_closes;
        let goes_ahead = self.is_operating && !is_last && self.random.chance(150);
        let ahead = goes_ahead.then(|| self.ask_ahead(&ask));
        let mut bytes = ask.bytes();
        bytes.extend(ahead.iter().flat_map(Ask::bytes));
        trace!(self, "visitor {visitor} asks: {}", bytes.escape_ascii());
        let sent_ms = self.send_soon(conn, &bytes);
        if ask.manner.expects {
            let action = Action::SendBody { visitor, token: ask.token };
            self.schedule.at(sent_ms + CONTINUE_WAIT_MS, action);
        }
        let last = ahead.as_ref().unwrap_or(&ask);
        let entry = &mut self.visitors[visitor];
        entry.token = last.token;
        entry.has_dawdled |= last.manner.dawdles;
        entry.is_half_closed = last.manner.half_closes;
        if entry.is_half_closed {
            self.schedule.at(sent_ms, Action::ClientClose { conn });
        }
        entry.rest_ms = self.now_ms - entry.rested_ms;
        let is_again = entry.answers > 0;
        (entry.ask, entry.ahead, entry.is_asking) = (ask, ahead, true);
        if is_again {
            self.mark(Mark::VisitorReused);
        }
        Ok(true)
    }

    /// The connection that a visitor asks on: the one that it has, if that is of the mode and takes another request.
    fn connection_for(&mut self, visitor: usize, mode: Mode) -> Result<Option<Conn>, String> {
        let entry = &mut self.visitors[visitor];
        let is_over = entry.is_last || entry.is_half_closed;
        match entry.conn {
            Some(conn) if entry.ask.wish.whom.mode() == mode && !is_over => return Ok(Some(conn)),
            Some(conn) => {
                entry.conn = None;
                self.abandon(conn)?;
            }
            None => {}
        }
        let conn = self.open(Owner::Visitor(visitor), mode)?;
        let rested_ms = self.now_ms;
        self.visitors[visitor] = Visitor { conn, rested_ms, ..Visitor::default() };
        Ok(conn)
    }

    /// A visitor sends the body that it has held back, because it was told to, or was told nothing for long.
    pub(crate) fn send_body(&mut self, visitor: usize, token: u64) -> Result<(), String> {
        let entry = &mut self.visitors[visitor];
        let is_asking = entry.is_asking && entry.ask.token == token;
        let Some(conn) = entry.conn.filter(|_| is_asking) else { return Ok(()) };
        let body = std::mem::take(&mut entry.ask.held_back);
        if body.is_empty() {
            return Ok(());
        }
        let is_told = entry.ask.is_continued;
        if !is_told && token > self.calm_token {
            return Err(format!("visitor {visitor} was not told to send its body"));
        }
        self.mark(if is_told { Mark::Continued } else { Mark::ContinueUnheard });
        self.send_soon(conn, &body);
        Ok(())
    }

    /// How long a visitor waits before it reads, in milliseconds, at most.
    pub(crate) fn visitor_wait_ms(&self, visitor: usize) -> u64 {
        let dawdles = self.is_operating && self.visitors[visitor].ask.manner.dawdles;
        if dawdles { DAWDLE_MS } else { 2 }
    }

    pub(crate) fn visitor_bytes(&mut self, visitor: usize, bytes: &[u8]) -> Result<(), String> {
        trace!(self, "visitor {visitor} gets {}", bytes.escape_ascii());
        self.visitors[visitor].http.push(bytes);
        let judged = self.visitor_pieces(visitor);
        judged.map_err(|error| format!("visitor {visitor}: {error}"))
    }

    fn visitor_pieces(&mut self, visitor: usize) -> Result<(), String> {
        while let Some(piece) = self.visitors[visitor].http.next_piece()? {
            match piece {
                Piece::Interim(status) => self.visitor_interim(visitor, status)?,
                Piece::Head(head) => self.visitor_head(visitor, &head)?,
                Piece::Body(body) => self.visitors[visitor].ask.check(&body)?,
                Piece::End => self.visitor_end(visitor)?,
            }
        }
        Ok(())
    }

    /// A response comes that says: go on.
    fn visitor_interim(&mut self, visitor: usize, status: u16) -> Result<(), String> {
        let entry = &mut self.visitors[visitor];
        let ask = &mut entry.ask;
        let is_due = entry.is_asking && ask.status == 0 && ask.manner.expects;
        if status != 100 || !is_due || std::mem::replace(&mut ask.is_continued, true) {
            return Err(format!("an interim response {status} that nobody waits for"));
        }
        let token = ask.token;
        self.send_body(visitor, token)
    }

    fn visitor_head(&mut self, visitor: usize, head: &Head) -> Result<(), String> {
        self.count_status(head.status);
        let entry = &mut self.visitors[visitor];
        let ask = &mut entry.ask;
        if !entry.is_asking || ask.status != 0 {
            return Err("a response that nobody asked for".into());
        }
        ask.status = head.status;
        ask.seed = head.number("x-seed");
        let is_last = head.field("connection") == Some("close");
        // The body will not come any more: whatever comes would be taken for it.
        let is_refused = !std::mem::take(&mut ask.held_back).is_empty();
        if !is_last && (ask.manner.closes || is_refused) {
            return Err("an answer must be the last, and does not say so".into());
        }
        entry.is_last = is_last;
        let may_fail = ask.token <= self.calm_token;
        if is_refused {
            self.coverage.count(Mark::ContinueRefused);
        }
        match (head.status, ask.wish.whom) {
            (200, Whom::Nobody) => Err("an answer from nobody".into()),
            (200, _) if ask.seed.is_none() => Err("an answer from no handler".into()),
            (200, _) if head.number("x-token") != Some(ask.token) => {
                Err(format!("the answer to {:?}, not to {}", head.field("x-token"), ask.token))
            }
            (200, _) | (502..=504, _) | (404, Whom::Nobody | Whom::Plain | Whom::Served) => Ok(()),
            (408, _) if ask.wish.up > 0 => Ok(()),
            // Two handlers that take each other for gone may speak about one session.
            (500, _) if may_fail => Ok(()),
            (other, _) => Err(format!("the answer is {other}")),
        }
    }

    fn visitor_end(&mut self, visitor: usize) -> Result<(), String> {
        let entry = &mut self.visitors[visitor];
        let ahead = entry.ahead.take();
        let is_dropped = ahead.is_some() && entry.is_last;
        let next = ahead.filter(|_| !is_dropped);
        let is_pipelined = next.is_some();
        entry.is_asking = is_pipelined;
        entry.answered = Some((entry.ask.token, entry.ask.status));
        entry.answers += 1;
        entry.rested_ms = self.now_ms;
        let (status, got, wish) = (entry.ask.status, entry.ask.got, entry.ask.wish);
        let manner = entry.ask.manner;
        if let Some(next) = next {
            entry.ask = next;
            entry.rest_ms = 0;
        }
        let is_rep = wish.whom == Whom::Rep;
        let is_answer = status == 200;
        for (is, mark) in [
            (is_pipelined, Mark::Pipelined),
            (is_dropped, Mark::PipelineDropped),
            (is_rep && is_answer, Mark::ReqAnswered),
            (is_rep && !is_answer, Mark::ReqFailed),
            (manner.early && is_answer, Mark::AnsweredEarly),
            (manner.closes && is_answer, Mark::ClosedAsAsked),
            (manner.half_closes && is_answer, Mark::HalfClosedAnswered),
        ] {
            if is {
                self.mark(mark);
            }
        }
        if is_answer && got != wish.down {
            return Err(format!("a whole answer of {got} bytes, not {}", wish.down));
        }
        self.counts.responses += u64::from(is_answer);
        Ok(())
    }

    /// Nothing more comes on the connection of a visitor; `is_excused` if the edge could not help it.
    pub(crate) fn visitor_cut(&mut self, visitor: usize, is_excused: bool) -> Result<(), String> {
        trace!(self, "visitor {visitor} is cut off");
        let may_end = self.edge.as_ref().is_none_or(|edge| edge.is_draining || edge.has_leapt());
        let timeouts = &self.scenario.timeouts;
        let now_ms = self.now_ms;
        let entry = &mut self.visitors[visitor];
        let idle_ms = match entry.ask.wish.whom.mode() {
            Mode::Stream => timeouts.idle_ms,
            Mode::Req => timeouts.idle_ms.min(timeouts.req_ms),
        };
        let is_in_answer = entry.is_asking && !entry.http.is_idle();
        let is_in_body = entry.is_asking && entry.ask.status == 200;
        let has_no_answer = entry.is_asking && entry.ask.status == 0;
        let rest_ms = if entry.is_asking { entry.rest_ms } else { now_ms - entry.rested_ms };
        let is_over = entry.is_last || entry.is_half_closed || is_in_answer;
        let was_promised = !is_over && !entry.has_dawdled;
        entry.conn = None;
        entry.is_asking = false;
        if was_promised && !is_excused && !may_end && rest_ms < idle_ms / 2 {
            return Err(format!("visitor {visitor} is cut off, and nobody is to blame"));
        }
        if is_in_body {
            self.mark(Mark::CutInBody);
        }
        if has_no_answer && self.visitors[visitor].is_half_closed {
            self.mark(Mark::HalfClosedGone);
        }
        Ok(())
    }

    /// A visitor leaves, whatever it waits for.
    pub(crate) fn visitor_leaves(&mut self, visitor: usize) -> Result<(), String> {
        self.visitors[visitor].is_asking = false;
        match self.visitors[visitor].conn.take() {
            Some(conn) => self.abandon(conn),
            None => Ok(()),
        }
    }
}

impl Visitor {
    /// How many bytes of its answer it has got.
    pub(crate) fn got(&self) -> u64 {
        self.ask.got
    }
}
