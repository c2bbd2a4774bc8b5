//! What visitors ask for, and how: a wish is for the handler, a manner is between visitor and edge.

use forebay_core::worker::Mode;

use crate::handler::pattern;
use crate::scenario::REQ_BODY_BYTES_MAX;
use crate::world::World;

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

impl Whom {
    /// In which mode its requests come.
    pub(crate) fn mode(self) -> Mode {
        if self == Whom::Rep { Mode::Req } else { Mode::Stream }
    }
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

/// How a visitor uses its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// It sends its body when it is told `100 Continue`.
    pub(crate) expects: bool,
    /// The handler does not wait for the body, and gives no credits for it.
    pub(crate) early: bool,
    /// It wants no other answer.
    pub(crate) closes: bool,
    /// It closes its side behind the request.
    pub(crate) half_closes: bool,
    /// It reads what has come once in a while.
    pub(crate) dawdles: bool,
}

/// A request, and what of its answer has come.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) wish: Wish,
    pub(crate) manner: Manner,
    pub(crate) token: u64,
    /// The body, as long as it waits for `100 Continue`.
    pub(crate) held_back: Vec<u8>,
    pub(crate) is_continued: bool,
    /// What the answer is drawn from.
    pub(crate) seed: Option<u64>,
    pub(crate) got: u64,
    /// 0 before the head.
    pub(crate) status: u16,
}

impl Ask {
    /// What is sent at once.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = head(&self.wish, &self.manner, self.token);
        if !self.manner.expects {
            out.extend_from_slice(&body(&self.wish, self.token));
        }
        out
    }

    /// Takes bytes of the answer.
    pub(crate) fn check(&mut self, body: &[u8]) -> Result<(), String> {
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

impl World {
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

    /// A request in any manner; when all is calm in one that leads to an answer.
    pub(crate) fn any_ask(&mut self, wish: Wish) -> Ask {
        let token = self.token();
        let has_body = wish.up > 0;
        let mut manner = Manner {
            expects: has_body && self.random.chance(300),
            closes: self.random.chance(150),
            ..Manner::default()
        };
        if self.is_operating {
            manner.early = has_body && wish.whom != Whom::Rep && self.random.chance(200);
            manner.half_closes = !manner.expects && self.random.chance(100);
            manner.dawdles = self.random.chance(100);
        }
        let held_back = if manner.expects { body(&wish, token) } else { Vec::new() };
        Ask { wish, manner, token, held_back, ..Ask::default() }
    }

    /// A request that is sent ahead, behind that one: such that it goes the same way.
    pub(crate) fn ask_ahead(&mut self, before: &Ask) -> Ask {
        let Wish { up, down, .. } = before.wish;
        let wish = Wish { up: up.min(70), down: down / 2, silent: false, ..before.wish };
        let mut ask = self.any_ask(wish);
        ask.manner.expects = false;
        ask.manner.dawdles = before.manner.dawdles;
        ask.held_back = Vec::new();
        ask
    }
}

fn head(wish: &Wish, manner: &Manner, token: u64) -> Vec<u8> {
    let path = match wish.whom {
        Whom::Served => "/plain",
        Whom::Plain => "/push",
        Whom::Nobody => "/nobody",
        Whom::Rep => "/req",
    };
    let Wish { up, down, .. } = wish;
    let (length, hand) = (u64::from(wish.length), u64::from(wish.hand));
    let mut out =
        format!("POST {path}?token={token}&up={up}&down={down}&length={length}&hand={hand}");
    let (chunked, sized) = ("Transfer-Encoding: chunked\r\n", format!("Content-Length: {up}\r\n"));
    for (is, text) in [
        (wish.silent, "&silent"),
        (manner.early, "&early"),
        (true, " HTTP/1.1\r\nHost: e\r\n"),
        (manner.closes, "Connection: close\r\n"),
        (manner.expects, "Expect: 100-continue\r\n"),
        (wish.chunked, chunked),
        (!wish.chunked, &sized),
        (true, "\r\n"),
    ] {
        out.push_str(if is { text } else { "" });
    }
    out.into_bytes()
}

/// The body of a request, framed.
fn body(wish: &Wish, token: u64) -> Vec<u8> {
    let body: Vec<u8> = (0..wish.up).map(|index| pattern(token, index)).collect();
    if !wish.chunked {
        return body;
    }
    let mut out = Vec::new();
    for chunk in body.chunks(33) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}
