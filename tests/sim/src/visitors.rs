//! Those who make other requests: with bodies both ways, in stream mode and in req mode, to handlers that said hello, to
//! plain ones, and to nobody. Each checks every byte that it gets.

use forebay_core::worker::Mode;

use crate::coverage::Mark;
use crate::handler::pattern;
use crate::http::{Head, Piece, ResponseReader};
use crate::scenario::REQ_BODY_BYTES_MAX;
use crate::sockets::{Conn, Owner};
use crate::world::{World, trace};

/// Whom a visitor asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Whom {
    /// A handler that says hello.
    #[default]
    Served,
    /// A plain handler.
    Plain,
    /// Nobody serves it.
    Nobody,
    /// A REP socket.
    Rep,
}

/// What a visitor wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) whom: Whom,
    /// Bytes that it sends.
    pub(crate) up: u64,
    /// Bytes that it wants.
    pub(crate) down: u64,
    pub(crate) chunked: bool,
    /// The handler says the length.
    pub(crate) length: bool,
    /// The handler gives the session away.
    pub(crate) hand: bool,
    /// The handler works long, and is silent.
    pub(crate) silent: bool,
}

/// A visitor.
#[derive(Debug, Default)]
pub(crate) struct Visitor {
    pub(crate) conn: Option<Conn>,
    http: ResponseReader,
    wish: Wish,
    pub(crate) token: u64,
    /// What the answer is drawn from.
    seed: Option<u64>,
    got: u64,
    status: u16,
    /// It has asked, and has no whole answer.
    pub(crate) is_asking: bool,
    /// The status of the last whole answer, and its token.
    pub(crate) answered: Option<(u64, u16)>,
}

impl World {
    /// A visitor asks, if it is not at it already. Says whether it does now.
    pub(crate) fn visit(&mut self, visitor: usize, wish: Wish) -> Result<bool, String> {
        if self.visitors[visitor].is_asking {
            return Ok(false);
        }
        let mode = if wish.whom == Whom::Rep { Mode::Req } else { Mode::Stream };
        let is_same = (self.visitors[visitor].wish.whom == Whom::Rep) == (wish.whom == Whom::Rep);
        let conn = match self.visitors[visitor].conn {
            Some(conn) if is_same => Some(conn),
            Some(conn) => {
                self.visitors[visitor].conn = None;
                self.abandon(conn)?;
                self.open(Owner::Visitor(visitor), mode)?
            }
            None => self.open(Owner::Visitor(visitor), mode)?,
        };
        let Some(conn) = conn else { return Ok(false) };
        let token = self.token();
        let entry = &mut self.visitors[visitor];
        if entry.conn != Some(conn) {
            entry.http = ResponseReader::default();
        }
        let http = std::mem::take(&mut entry.http);
        *entry =
            Visitor { conn: Some(conn), http, wish, token, is_asking: true, ..Visitor::default() };
        let request = request(&wish, token);
        trace!(self, "visitor {visitor} asks: {}", request.escape_ascii());
        self.send_soon(conn, &request);
        Ok(true)
    }

    /// A wish of any kind.
    pub(crate) fn any_wish(&mut self) -> Wish {
        use Whom::{Nobody, Plain, Rep, Served};
        let whom = self.random.pick(&[Served, Served, Served, Plain, Rep, Rep, Nobody]);
        let (up, down) =
            (self.random.pick(&[0, 0, 70, 2000]), self.random.pick(&[0, 20, 900, 3000]));
        Wish {
            whom,
            up: if whom == Rep { up.min(REQ_BODY_BYTES_MAX as u64) } else { up },
            down: if whom == Rep { down.min(REQ_BODY_BYTES_MAX as u64) } else { down },
            chunked: self.random.chance(500),
            length: self.random.chance(300),
            hand: self.random.chance(150),
            silent: whom == Served && self.random.chance(100),
        }
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
                Piece::Head(head) => self.visitor_head(visitor, &head)?,
                Piece::Body(body) => self.visitors[visitor].check(&body)?,
                Piece::End => self.visitor_end(visitor)?,
            }
        }
        Ok(())
    }

    fn visitor_head(&mut self, visitor: usize, head: &Head) -> Result<(), String> {
        self.count_status(head.status);
        let may_fail = entry_may_fail(&self.visitors[visitor], self.calm_token);
        let entry = &mut self.visitors[visitor];
        if !entry.is_asking || entry.status != 0 {
            return Err("a response that nobody asked for".into());
        }
        entry.status = head.status;
        entry.seed = head.number("x-seed");
        match (head.status, entry.wish.whom) {
            (200, Whom::Nobody) => Err("an answer from nobody".into()),
            (200, _) if entry.seed.is_none() => Err("an answer from no handler".into()),
            (200, _) | (502..=504, _) | (404, Whom::Nobody | Whom::Plain) => Ok(()),
            (408, _) if entry.wish.up > 0 => Ok(()),
            // Two handlers that take each other for gone may speak about one session.
            (500, _) if may_fail => Ok(()),
            (other, _) => Err(format!("the answer is {other}")),
        }
    }

    fn visitor_end(&mut self, visitor: usize) -> Result<(), String> {
        let entry = &mut self.visitors[visitor];
        entry.is_asking = false;
        entry.answered = Some((entry.token, entry.status));
        if entry.status != 200 {
            if entry.wish.whom == Whom::Rep {
                self.mark(Mark::ReqFailed);
            }
            return Ok(());
        }
        if entry.got != entry.wish.down {
            return Err(format!("a whole answer of {} bytes, not {}", entry.got, entry.wish.down));
        }
        self.counts.responses += 1;
        if entry.wish.whom == Whom::Rep {
            self.mark(Mark::ReqAnswered);
        }
        Ok(())
    }

    /// Nothing more comes on the connection of a visitor.
    pub(crate) fn visitor_cut(&mut self, visitor: usize) {
        let entry = &mut self.visitors[visitor];
        let is_in_body = entry.is_asking && entry.status == 200;
        entry.conn = None;
        entry.is_asking = false;
        if is_in_body {
            self.mark(Mark::CutInBody);
        }
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
        self.got
    }

    fn check(&mut self, body: &[u8]) -> Result<(), String> {
        if self.status != 200 {
            return Ok(());
        }
        let seed = self.seed.unwrap_or_default();
        for byte in body {
            if *byte != pattern(seed, self.got) {
                return Err(format!("byte {} of the answer was changed", self.got));
            }
            self.got += 1;
        }
        Ok(())
    }
}

/// Whether it asked before calm came.
fn entry_may_fail(visitor: &Visitor, calm_token: u64) -> bool {
    visitor.token <= calm_token
}

fn request(wish: &Wish, token: u64) -> Vec<u8> {
    let path = match wish.whom {
        Whom::Served => "/plain",
        Whom::Plain => "/push",
        Whom::Nobody => "/nobody",
        Whom::Rep => "/req",
    };
    let number = u64::from;
    let silent = if wish.silent { "&silent" } else { "" };
    let mut out = format!(
        "POST {path}?token={token}&up={}&down={}&length={}&hand={}{silent} HTTP/1.1\r\nHost: e\r\n",
        wish.up,
        wish.down,
        number(wish.length),
        number(wish.hand),
    )
    .into_bytes();
    let body: Vec<u8> = (0..wish.up).map(|index| pattern(token, index)).collect();
    if !wish.chunked {
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", wish.up).as_bytes());
        out.extend_from_slice(&body);
        return out;
    }
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(33) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}
