//! An event stream (WHATWG HTML §9.2), block by block as it came over the wire.

use std::collections::VecDeque;
use std::io::{BufReader, ErrorKind};
use std::net::TcpStream;

use serde_json::Value;

use super::http::{Head, Request, read_chunk};

/// An open stream. Dropping it closes the connection.
pub struct EventStream {
    pub head: Head,
    reader: BufReader<TcpStream>,
    /// What came and is no whole block yet.
    rest: Vec<u8>,
    blocks: VecDeque<String>,
}

/// What comes next on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A block with its line breaks, but not the empty line behind it.
    Block(String),
    /// The last chunk: the response is over.
    End,
    /// The connection broke off in the middle.
    Cut,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    /// Empty if it has none: then a reader stands where it stood.
    pub id: String,
    pub data: String,
}

impl Event {
    /// The event that a block is. There must be nothing else in it, and its fields in this order.
    #[track_caller]
    pub fn parse(block: &str) -> Event {
        let lines: Vec<_> = block.lines().map(|line| line.split_once(": ").unwrap()).collect();
        let (kind, id, data) = match lines[..] {
            [("event", kind), ("id", id), ("data", data)] => (kind, id, data),
            [("event", kind), ("data", data)] => (kind, "", data),
            _ => panic!("not an event: {block:?}"),
        };
        Event { kind: kind.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    /// The data.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The channel of a message.
    #[track_caller]
    pub fn channel(&self) -> String {
        self.json()["channel_id"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// The payload's `value`: what tests tell events apart by.
    #[track_caller]
    pub fn value(&self) -> Value {
        self.json()["payload"]["value"].clone()
    }
}

impl EventStream {
    /// Opens a stream, which must be answered with one. Its `retry` block is read.
    #[track_caller]
    pub fn open(request: &Request, address: &str) -> EventStream {
        let mut stream = EventStream::try_open(request, address).unwrap();
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        assert_eq!(stream.next(), Next::Block("retry: 500\n".to_owned()));
        stream
    }

    /// Opens a stream with all of its blocks unread. An error is the socket's.
    pub fn try_open(request: &Request, address: &str) -> std::io::Result<EventStream> {
        let (head, reader) = request.try_open(address)?;
        Ok(EventStream { head, reader, rest: Vec::new(), blocks: VecDeque::new() })
    }

    /// Waits for what comes next. Comments are passed over.
    #[track_caller]
    pub fn next(&mut self) -> Next {
        loop {
            while let Some(block) = self.blocks.pop_front() {
                // A comment, or an id that stands alone: neither is an event.
                let is_comment = block.starts_with(':');
                let is_id_alone = block.starts_with("id:") && block.lines().count() == 1;
                if !is_comment && !is_id_alone {
                    return Next::Block(block);
                }
            }
            let chunk = match read_chunk(&mut self.reader) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    assert!(self.rest.is_empty(), "the response ends in the middle of a block");
                    return Next::End;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing comes"),
                Err(_) => return Next::Cut,
            };
            self.rest.extend_from_slice(&chunk);
            while let Some(at) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let block = self.rest.drain(..at + 2).take(at + 1).collect();
                self.blocks.push_back(String::from_utf8(block).unwrap());
            }
        }
    }

    /// The next event, which must be one.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        match self.next() {
            Next::Block(block) => Event::parse(&block),
            other => panic!("an event was due, and it was {other:?}"),
        }
    }

    /// The next events.
    #[track_caller]
    pub fn events(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event()).collect()
    }

    /// The events up to the end of the response.
    #[track_caller]
    pub fn events_to_end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Next::Block(block) => events.push(Event::parse(&block)),
                Next::End => return events,
                Next::Cut => panic!("the connection broke off after {events:?}"),
            }
        }
    }
}
