//! What the worker keeps for a connection. The idle states decide the size of the entry: anything
//! large is boxed.

use crate::backlog::Backlog;
use crate::http1::{BodyDecoder, BodyEncoder, HeadScanner, Version};
use crate::hub::HandlerId;
use crate::ring::Ring;
use crate::session::Session;
use crate::websocket::{CloseCode, Upgrade};

use super::held_socket::HeldSocket;
use super::req::ReqExchange;
use super::socket::Socket;
use super::{Mode, TimeoutConfig, multi};

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) mode: Mode,
    /// It is over TLS.
    pub(super) is_secure: bool,
    /// What came and was not used yet.
    pub(super) input: Ring,
    /// What is to be sent and was not taken yet.
    pub(super) output: Backlog,
    /// The client has said that it sends nothing more, and all that it sent was read.
    pub(super) eof: bool,
    /// It has said so, but not all was read.
    pub(super) is_read_closed: bool,
    /// It has sent nothing yet: its first request may be under way.
    pub(super) is_new: bool,
}

impl Connection {
    pub(super) fn new(now_ms: u64, mode: Mode, is_secure: bool) -> Self {
        Connection {
            state: State::Reading(Reading::new(now_ms)),
            mode,
            is_secure,
            input: Ring::new(),
            output: Backlog::new(),
            eof: false,
            is_read_closed: false,
            is_new: true,
        }
    }

    /// When a client that begins with a request now is taken to be gone, if it has half-closed.
    pub(super) fn first_eof_until_ms(&self, now_ms: u64, timeouts: &TimeoutConfig) -> Option<u64> {
        let is_half_closed = self.eof || self.is_read_closed;
        is_half_closed.then_some(now_ms.saturating_add(timeouts.eof_ms))
    }

    /// When a client that has half-closed in its request is taken to be gone; `None` if it makes no request.
    pub(super) fn eof_until_ms(&mut self) -> Option<&mut Option<u64>> {
        match &mut self.state {
            State::Exchange(exchange) => Some(&mut exchange.eof_until_ms),
            State::Req(exchange) => Some(&mut exchange.eof_until_ms),
            State::Reading(_) | State::Held(_) | State::Closing(_) => None,
        }
    }

    /// The client has taken some of what waits for it: it lives, also if it has closed its side.
    pub(super) fn handle_progress(&mut self, now_ms: u64, timeouts: &TimeoutConfig) {
        match &mut self.state {
            State::Reading(reading) if reading.is_idle() => reading.since_ms = now_ms,
            State::Reading(_) => {}
            State::Exchange(exchange) => exchange.handle_progress(now_ms, timeouts),
            State::Req(_) => {}
            State::Held(held) => held.progress_ms = now_ms,
            State::Closing(closing) if closing.is_shut => {}
            State::Closing(closing) => {
                closing.linger_until_ms = now_ms.saturating_add(timeouts.stream_ms);
            }
        }
    }
}

/// What a connection is doing; see the head of `worker`.
#[derive(Debug)]
pub(super) enum State {
    /// Waits for a request, or reads the head of one.
    Reading(Reading),
    /// A request is with a handler, or on its way to one.
    Exchange(Box<Exchange>),
    /// The same in req mode.
    Req(Box<ReqExchange>),
    /// Reads channels.
    Held(Box<Held>),
    /// Everything is said; the client may take it.
    Closing(Closing),
}

#[derive(Debug)]
pub(super) struct Reading {
    /// When the connection became idle, or the head began.
    pub(super) since_ms: u64,
    /// Looks for the end of the head once a byte of it is there.
    pub(super) scanner: Option<Box<HeadScanner>>,
}

impl Reading {
    /// Waits for a request from now on.
    pub(super) fn new(now_ms: u64) -> Self {
        Reading { since_ms: now_ms, scanner: None }
    }

    /// Whether nothing of a request has come.
    pub(super) fn is_idle(&self) -> bool {
        self.scanner.as_ref().is_none_or(|scanner| scanner.is_idle())
    }
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) session: Session,
    pub(super) version: Version,
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    pub(super) decoder: BodyDecoder,
    pub(super) response: Response,
    /// When the handler was last heard.
    pub(super) heard_ms: u64,
    /// When the client last took or sent something.
    pub(super) progress_ms: u64,
    /// When the handler was last told that the session is alive.
    pub(super) kept_alive_ms: u64,
    /// When a client that has half-closed is taken to be gone.
    pub(super) eof_until_ms: Option<u64>,
    /// The handler on whose list of waiting uploads this one stands.
    pub(super) waits_for: Option<HandlerId>,
}

impl Exchange {
    /// The client has taken or sent something.
    pub(super) fn handle_progress(&mut self, now_ms: u64, timeouts: &TimeoutConfig) {
        self.progress_ms = now_ms;
        if let Some(until_ms) = &mut self.eof_until_ms {
            *until_ms = now_ms.saturating_add(timeouts.eof_ms);
        }
    }

    /// When the handler is next to hear that the session is alive.
    pub(super) fn next_keep_alive_ms(&self, timeouts: &TimeoutConfig) -> u64 {
        multi::next_keep_alive_ms(self.session.id(), self.kept_alive_ms, timeouts.keep_alive_ms)
    }

    /// What of the request an answer depends on, if nothing of one came.
    pub(super) fn awaiting(&self) -> Option<RequestParts> {
        matches!(self.response, Response::Awaited(_)).then(|| self.request())
    }

    /// Whether it is the client who is to go on: there is room for more of its body.
    pub(super) fn waits_for_client(&self) -> bool {
        !self.decoder.is_done() && self.session.credits() > 0 && self.waits_for.is_none()
    }

    /// What of the request an answer depends on.
    pub(super) fn request(&self) -> RequestParts {
        RequestParts { version: self.version, is_head: self.is_head }
    }
}

/// What of a request an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestParts {
    pub(super) version: Version,
    pub(super) is_head: bool,
}

impl RequestParts {
    /// For a request whose head could not be read.
    pub(super) const UNREADABLE: Self = RequestParts { version: Version::Http11, is_head: false };
}

/// How far the answer is.
#[derive(Debug)]
pub(super) enum Response {
    /// Nothing of it came. With what there is to say if it makes the connection a WebSocket.
    Awaited(Option<Box<Upgrade>>),
    /// Its head is out.
    Streaming(BodyEncoder),
    /// It is no response any more, but a WebSocket.
    Socket(Box<Socket>),
}

#[derive(Debug)]
pub(super) struct Held {
    /// Counts sessions: with worker and slot the id of the one that this was.
    pub(super) counter: u64,
    pub(super) framing: Framing,
    /// 0 is never.
    pub(super) keep_alive_ms: u32,
    pub(super) expires_at_ms: u64,
    /// With which code a WebSocket is closed then.
    pub(super) expires_code: CloseCode,
    /// When something was last sent.
    pub(super) sent_ms: u64,
    /// When the client last took something.
    pub(super) progress_ms: u64,
    pub(super) context: Box<[u8]>,
    pub(super) notify: bool,
    /// Behind the end of the response the connection takes another request. Not if the client has sent
    /// something meanwhile: that was dropped.
    pub(super) is_reusable: bool,
}

/// What is around the events of a held connection.
#[derive(Debug)]
pub(super) enum Framing {
    /// They are the content of a response.
    Response(BodyEncoder),
    /// They are messages, and come with their frames.
    Socket(Box<HeldSocket>),
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) linger_until_ms: u64,
    /// The write side is shut down.
    pub(super) is_shut: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A growth here is a growth of every idle connection: change the numbers only on purpose.
    #[test]
    fn idle_connections_are_small() {
        assert_eq!(size_of::<Connection>(), 48);
        assert_eq!(size_of::<Held>(), 72);
        assert_eq!(size_of::<HeldSocket>(), 56);
    }
}
