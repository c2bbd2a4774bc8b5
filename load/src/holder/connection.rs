//! One connection: what it waits for until it is open, and how what comes then is read.
//!
//! ```text
//! Opening: Connecting ─▶ Head ─▶ Answer, of which all is awaited   ─▶ Held
//!                             └▶ Reply, to what a WebSocket has said ─┘
//! ```
//!
//! An [`Opening`] is boxed and has buffers; when it is done, 24 bytes are left of it.

use std::net::TcpStream;

use super::{Ask, Say};
use crate::wire::Stream;
use crate::wire::body::Body;
use crate::wire::frames::{self, Frames, Kind, Piece};
use crate::wire::head::Head;

/// Bytes of the first messages of a WebSocket, until the one that was expected.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// A connection's place in its worker.
#[derive(Debug)]
pub(crate) struct Entry {
    /// `None` when it is closed.
    pub(super) socket: Option<TcpStream>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Opening(Box<Opening>),
    /// Open; what comes is content.
    Held(Stream),
    /// Open; nothing is to come, and what comes is not looked at.
    Idle,
    Closed,
}

/// A connection that is not open yet.
#[derive(Debug)]
pub(super) struct Opening {
    /// When `connect` was called.
    pub(super) since_ns: u64,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    Connecting,
    /// So much of the head has come.
    Head(Vec<u8>),
    /// The rest of an answer.
    Answer(Body),
    /// So much has come of the message that may be the one that is expected.
    Reply(Frames, Vec<u8>),
}

impl Opening {
    pub(super) fn new(since_ns: u64) -> Box<Opening> {
        Box::new(Opening { since_ns, phase: Phase::Connecting })
    }

    /// What is written when it is connected. Returns the state that follows at once, if it is open with that.
    pub(super) fn handle_connected(
        &mut self,
        ask: &Ask,
        number: u64,
        out: &mut Vec<u8>,
    ) -> Option<State> {
        self.phase = Phase::Head(Vec::new());
        match ask {
            Ask::Nothing => return Some(State::Idle),
            Ask::Answer(request) | Ask::Stream(request) => request.write(number, out),
            Ask::Socket { request, .. } => request.write_upgrade(number, out),
        }
        None
    }

    /// Reads on; cuts off the input what is not content. Writes what is to be sent. Returns its state when it is open.
    ///
    /// # Errors
    /// Says why it will not open.
    pub(super) fn handle_bytes(
        &mut self,
        ask: &Ask,
        number: u64,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<State>, String> {
        loop {
            let next = match &mut self.phase {
                Phase::Connecting => return Ok(None),
                Phase::Head(begin) => {
                    let Some(head) = read_head(begin, input)? else { return Ok(None) };
                    check(ask, number, &head)?;
                    match ask {
                        Ask::Nothing => return Ok(Some(State::Idle)),
                        Ask::Answer(_) if !head.stays => {
                            return Err("the server closes behind its answer".to_owned());
                        }
                        Ask::Answer(_) => Phase::Answer(head.body),
                        Ask::Stream(_) => return Ok(Some(State::Held(Stream::Http(head.body)))),
                        Ask::Socket { say: Some(say), .. } => {
                            write_message(say, number, out);
                            Phase::Reply(Frames::default(), Vec::new())
                        }
                        Ask::Socket { say: None, .. } => {
                            return Ok(Some(State::Held(Stream::Socket(Frames::default()))));
                        }
                    }
                }
                Phase::Answer(body) => {
                    while body.next(input).map_err(|error| error.to_string())?.is_some() {}
                    return Ok(body.is_done().then_some(State::Idle));
                }
                Phase::Reply(frames, text) => {
                    let Ask::Socket { say: Some(say), .. } = ask else { return Ok(None) };
                    let has_come = read_reply(frames, text, say, input)?;
                    return Ok(has_come.then_some(State::Held(Stream::Socket(*frames))));
                }
            };
            self.phase = next;
        }
    }

    /// What it waits for, for a report of one that has waited too long.
    pub(super) fn waits_for(&self) -> &'static str {
        match self.phase {
            Phase::Connecting => "connection",
            Phase::Head(_) => "answer",
            Phase::Answer(_) => "end of the answer",
            Phase::Reply(..) => "expected message",
        }
    }
}

fn write_message(say: &Say, number: u64, out: &mut Vec<u8>) {
    let mut message = Vec::new();
    say.message.write(number, &mut message);
    frames::write_text(&message, number, out);
}

/// Reads the head, which is put together only if it comes in pieces.
fn read_head(begin: &mut Vec<u8>, input: &mut &[u8]) -> Result<Option<Head>, String> {
    let before = begin.len();
    let head = if before == 0 {
        Head::read(input)
    } else {
        begin.extend_from_slice(input);
        Head::read(begin)
    };
    match head.map_err(|error| error.to_string())? {
        Some(head) => {
            *input = &input[head.bytes - before..];
            Ok(Some(head))
        }
        None => {
            if before == 0 {
                begin.extend_from_slice(input);
            }
            *input = &[];
            Ok(None)
        }
    }
}

/// Whether the server has agreed.
fn check(ask: &Ask, number: u64, head: &Head) -> Result<(), String> {
    let expected = if matches!(ask, Ask::Socket { .. }) { 101 } else { 200 };
    if head.status != expected {
        return Err(format!("status {}", head.status));
    }
    if expected == 101 && head.accept.as_deref() != Some(&frames::accept(&frames::key(number))) {
        return Err("Sec-WebSocket-Accept is wrong".to_owned());
    }
    Ok(())
}

/// Whether the message that is expected has come.
fn read_reply(
    frames: &mut Frames,
    text: &mut Vec<u8>,
    say: &Say,
    input: &mut &[u8],
) -> Result<bool, String> {
    while let Some(Piece { kind, payload, ends_message, .. }) =
        frames.next(input).map_err(|error| error.to_string())?
    {
        match kind {
            Kind::Data => text.extend_from_slice(payload),
            Kind::Close => return Err("closed before the expected message".to_owned()),
            // It comes within seconds, so a ping need not be answered.
            Kind::Ping | Kind::Pong => {}
        }
        if text.len() > REPLY_BYTES_MAX {
            return Err(format!("a first message of more than {REPLY_BYTES_MAX} bytes"));
        }
        if ends_message {
            if memchr::memmem::find(text, &say.expected).is_some() {
                return Ok(true);
            }
            text.clear();
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::request::{Request, Template, parse_target};

    fn request() -> (Request, Request) {
        let target = parse_target("127.0.0.1:1").unwrap();
        let path = || Template::new("/", "{n}");
        (Request::get(&target, path(), &[]), Request::upgrade(&target, path(), &[]))
    }

    /// Reads it byte by byte; returns how many were read when it was open, and what was written.
    fn open(ask: &Ask, bytes: &[u8]) -> Result<(Option<usize>, Vec<u8>), String> {
        let mut opening = Opening::new(0);
        let mut out = Vec::new();
        opening.handle_connected(ask, 3, &mut out);
        out.clear();
        for read in 1..=bytes.len() {
            let mut input = &bytes[read - 1..read];
            if opening.handle_bytes(ask, 3, &mut input, &mut out)?.is_some() {
                return Ok((Some(read), out));
            }
        }
        Ok((None, out))
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Entry>() <= 32, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_stream_is_open_with_its_head() {
        let ask = Ask::Stream(request().0);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(open(&ask, &[&head[..], b"1\r\na\r\n"].concat()).unwrap().0, Some(head.len()));
        assert_eq!(open(&ask, b"HTTP/1.1 503 No\r\n\r\n").unwrap_err(), "status 503");
        let whole = [&head[..], b"1\r\na\r\n"].concat();
        let mut input = &whole[..];
        let mut opening = Opening::new(0);
        opening.handle_connected(&ask, 0, &mut Vec::new());
        let state = opening.handle_bytes(&ask, 0, &mut input, &mut Vec::new()).unwrap().unwrap();
        assert!(matches!(state, State::Held(Stream::Http(Body::CHUNKED))));
        assert_eq!(input, b"1\r\na\r\n");
    }

    #[test]
    fn an_answer_is_awaited_to_its_end() {
        let ask = Ask::Answer(request().0);
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(open(&ask, answer).unwrap().0, Some(answer.len()));
        let closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert!(open(&ask, closing).is_err());
    }

    #[test]
    fn a_socket_is_open_when_it_is_accepted() {
        let accept = frames::accept(&frames::key(3));
        let head = format!("HTTP/1.1 101 Up\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        let quiet = Ask::Socket { request: request().1, say: None };
        assert_eq!(open(&quiet, head.as_bytes()).unwrap().0, Some(head.len()));
        let wrong = b"HTTP/1.1 101 Up\r\nSec-WebSocket-Accept: x\r\n\r\n";
        assert_eq!(open(&quiet, wrong).unwrap_err(), "Sec-WebSocket-Accept is wrong");

        let message = Template::new("hello {n}", "{n}");
        let say = Say { message, expected: b"answer".to_vec() };
        let asking = Ask::Socket { request: request().1, say: Some(say) };
        let bytes = [head.as_bytes(), b"\x81\x04open\x89\x00\x01\x03ans\x80\x03wer"].concat();
        let (read, said) = open(&asking, &bytes).unwrap();
        assert_eq!((read, said.len()), (Some(bytes.len()), 2 + 4 + 7));
        let closed = [head.as_bytes(), b"\x88\x00"].concat();
        assert_eq!(open(&asking, &closed).unwrap_err(), "closed before the expected message");
    }
}
