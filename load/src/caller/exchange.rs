//! One connection of a caller: what is to be written, and the answers as they come.

use std::collections::VecDeque;
use std::net::TcpStream;

use crate::wire::body::Body;
use crate::wire::head::Head;

/// A request whose answer has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) tag: u64,
    /// Its time counts from here.
    pub(super) due_ns: u64,
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// `None` when it could not be made again.
    pub(super) socket: Option<TcpStream>,
    /// Requests that the socket has not taken.
    pub(super) unsent: Vec<u8>,
    pub(super) awaited: VecDeque<Awaited>,
    /// Stands in the queue of those that may send.
    pub(super) is_queued: bool,
    /// The begin of a head that has not come whole.
    begin: Vec<u8>,
    answer: Option<Answer>,
}

/// An answer whose head has come.
#[derive(Clone, Copy, Debug)]
struct Answer {
    status: u16,
    body: Body,
    stays: bool,
}

/// What the bytes were.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Content of the answer to the first request that is awaited.
    Content(Awaited, &'a [u8]),
    /// The end of that answer; whether the connection stays.
    End { awaited: Awaited, status: u16, stays: bool },
}

impl Exchange {
    pub(super) fn new(socket: TcpStream) -> Exchange {
        Exchange { socket: Some(socket), ..Exchange::default() }
    }

    /// Cuts the next part of an answer off the input; `None` when it is used up.
    ///
    /// # Errors
    /// Says why nothing more can be read.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Part<'a>>, String> {
        loop {
            if let Some(answer) = &mut self.answer {
                let Some(awaited) = self.awaited.front().copied() else {
                    return Err("an answer that nobody asked for".to_owned());
                };
                let piece = answer.body.next(input).map_err(|error| error.to_string())?;
                if let Some(content) = piece {
                    return Ok(Some(Part::Content(awaited, content)));
                }
                if !answer.body.is_done() {
                    return Ok(None);
                }
                let Answer { status, stays, .. } = *answer;
                self.answer = None;
                self.awaited.pop_front();
                return Ok(Some(Part::End { awaited, status, stays }));
            }
            if input.is_empty() || !self.read_head(input)? {
                return Ok(None);
            }
        }
    }

    /// Whether the head is whole.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<bool, String> {
        let before = self.begin.len();
        let head = if before == 0 {
            Head::read(input)
        } else {
            self.begin.extend_from_slice(input);
            Head::read(&self.begin)
        };
        let Some(head) = head.map_err(|error| error.to_string())? else {
            if before == 0 {
                self.begin.extend_from_slice(input);
            }
            *input = &[];
            return Ok(false);
        };
        *input = &input[head.bytes - before..];
        self.begin.clear();
        let Head { status, body, stays, .. } = head;
        // What comes before the answer itself (RFC 9110 §15.2).
        if !(100..200).contains(&status) {
            self.answer = Some(Answer { status, body, stays });
        }
        Ok(true)
    }

    /// The server has closed. Returns the answer that ended with that, if it is one that does.
    pub(super) fn handle_close(&mut self) -> Option<(Awaited, u16)> {
        let Answer { status, body, .. } = self.answer.take()?;
        (body == Body::UntilClose).then(|| Some((self.awaited.pop_front()?, status)))?
    }

    /// Forgets what belonged to the connection, all but what it was waiting for.
    pub(super) fn reset(&mut self, socket: Option<TcpStream>) {
        self.socket = socket;
        self.unsent.clear();
        self.begin.clear();
        self.answer = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn exchange(awaited: u64) -> Exchange {
        let awaited = (0..awaited).map(|tag| Awaited { tag, due_ns: tag * 10 }).collect();
        Exchange { awaited, ..Exchange::default() }
    }

    #[test]
    fn answers_belong_to_their_requests_however_they_are_cut() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n0\r\n\r\n\
            HTTP/1.1 204 No\r\nConnection: close\r\n\r\n";
        for size in 1..=bytes.len() {
            let mut exchange = exchange(3);
            let (mut content, mut ends) = (Vec::new(), Vec::new());
            for mut input in bytes.chunks(size) {
                while let Some(part) = exchange.next(&mut input).unwrap() {
                    match part {
                        Part::Content(awaited, bytes) => {
                            content.extend(bytes.iter().map(|byte| (awaited.tag, *byte)));
                        }
                        Part::End { awaited, status, stays } => {
                            ends.push((awaited.tag, status, stays));
                        }
                    }
                }
            }
            assert_eq!(content, [(0, b'a'), (0, b'b'), (0, b'c'), (1, b'd')], "{size}");
            assert_eq!(ends, [(0, 200, true), (1, 503, true), (2, 204, false)], "{size}");
        }
    }

    #[test]
    fn an_answer_may_end_with_the_connection() {
        let mut one = exchange(1);
        let mut input = &b"HTTP/1.1 200 OK\r\n\r\nabc"[..];
        assert!(matches!(one.next(&mut input).unwrap(), Some(Part::Content(_, b"abc"))));
        assert_eq!(one.next(&mut input).unwrap(), None);
        assert_eq!(one.handle_close().unwrap().1, 200);
        let mut cut = exchange(1);
        let mut input = &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"[..];
        while cut.next(&mut input).unwrap().is_some() {}
        assert_eq!(cut.handle_close(), None);
        let mut nobody = exchange(0);
        assert!(nobody.next(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..]).is_err());
    }
}
