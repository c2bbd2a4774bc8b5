//! Bare servers: one thread, epoll, and bytes that were made before.
//!
//! | what | its answer | the limit of |
//! | --- | --- | --- |
//! | [`Kind::Hello`] | a whole response of twelve bytes | requests |
//! | [`Kind::Accept`] | the head of an event stream | accepted connections, and of memory: a held connection has no buffer |
//! | [`Kind::Fan`] | that head; what is POSTed is written to all who have it | fan-out |
//!
//! The fan-out is a loop of one `write(2)` for each subscriber, of one buffer. What a socket does not take is kept and written
//! when it does, because a subscriber that misses something would make the comparison false. It is not merged with what
//! follows: each event is one write, which is what "bare" means; a server that writes several events in one go is allowed to
//! be better than this.

mod connection;

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::str::FromStr;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::error::BenchError;
use crate::request::Request;
use connection::{Connection, Fill};

/// What a bare server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers each request with a small response.
    Hello,
    /// Answers each request with the head of an event stream, and nothing after it.
    Accept,
    /// Answers a `GET` with the head of an event stream, and writes the body of each `POST` to all who have it.
    Fan,
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hello" => Ok(Kind::Hello),
            "accept" => Ok(Kind::Accept),
            "fan" => Ok(Kind::Fan),
            _ => Err("one of hello, accept, fan"),
        }
    }
}

const HELLO: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n";
const STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const PUBLISHED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Events of the kernel that are taken in one go; more come with the next.
const EVENTS_MAX: usize = 1024;

/// Bytes that are read in one go, of whichever connection.
const READ_BYTES_MAX: usize = 65_536;

/// Connections that wait until they are accepted; the kernel has a bound of its own (`net.core.somaxconn`, often 4,096).
const BACKLOG_CONNECTIONS_MAX: i32 = 4096;

const LISTENER: Token = Token(usize::MAX);

/// What answers a request.
enum Answer {
    /// These bytes.
    Bytes(&'static [u8]),
    /// These bytes, and from then on what is published.
    Subscribe(&'static [u8]),
    /// The body goes to all subscribers.
    Publish,
}

impl Kind {
    fn answer(self, request: &Request<'_>) -> Answer {
        match self {
            Kind::Hello => Answer::Bytes(HELLO),
            Kind::Accept => Answer::Bytes(STREAM),
            Kind::Fan if request.is_post => Answer::Publish,
            Kind::Fan => Answer::Subscribe(STREAM),
        }
    }
}

/// A bare server, listening.
#[derive(Debug)]
pub struct Bare {
    kind: Kind,
    poll: Poll,
    listener: TcpListener,
    /// By their tokens; what has left leaves a place in `vacant`.
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
}

impl Bare {
    /// Listens there.
    ///
    /// # Errors
    ///
    /// If the address is taken, or the system refuses.
    pub fn listen(kind: Kind, address: SocketAddr) -> Result<Self, BenchError> {
        let poll = Poll::new()?;
        let mut listener =
            listen(address).map_err(|error| BenchError::Listen { address, error })?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Bare { kind, poll, listener, connections: Vec::new(), vacant: Vec::new() })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, BenchError> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the system refuses something.
    ///
    /// # Errors
    ///
    /// Says what that was.
    pub fn run(mut self) -> Result<(), BenchError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES_MAX];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let Token(key) = event.token();
                if event.is_writable() {
                    self.flush(key);
                }
                if event.is_readable() {
                    self.read(key, &mut buffer);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), BenchError> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client has left already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let key = self.vacant.pop().unwrap_or(self.connections.len());
            self.poll.registry().register(&mut stream, Token(key), Interest::READABLE)?;
            let connection = Some(Connection::new(stream));
            match self.connections.get_mut(key) {
                Some(vacant) => *vacant = connection,
                None => self.connections.push(connection),
            }
        }
    }

    /// Takes what has come, and answers what is whole of it.
    fn read(&mut self, key: usize, buffer: &mut [u8]) {
        loop {
            // An earlier event of the same turn may have closed it.
            let Some(Some(connection)) = self.connections.get_mut(key) else { return };
            let (filled, is_last) = match connection.fill(buffer) {
                Fill::Bytes { len, is_last } => (len, is_last),
                Fill::Nothing => return,
                Fill::Closed => return self.close(key),
            };
            let joined = connection.join(&buffer[..filled]);
            let bytes = joined.as_deref().unwrap_or(&buffer[..filled]);
            let Some(answered) = self.answer_all(key, bytes) else { return self.close(key) };
            let Some(Some(connection)) = self.connections.get_mut(key) else { return };
            connection.keep_unread(&bytes[answered..]);
            if is_last {
                return;
            }
        }
    }

    /// Answers the requests at the begin of the bytes, and says how many bytes they were; `None` if they are none.
    fn answer_all(&mut self, key: usize, bytes: &[u8]) -> Option<usize> {
        let mut answered = 0;
        while answered < bytes.len() {
            let Some(request) = Request::read(&bytes[answered..]).ok()? else { break };
            match self.kind.answer(&request) {
                Answer::Bytes(bytes) => self.write(key, bytes),
                Answer::Subscribe(head) => {
                    self.write(key, head);
                    if let Some(Some(connection)) = self.connections.get_mut(key) {
                        connection.is_subscriber = true;
                    }
                }
                Answer::Publish => {
                    self.publish(request.body);
                    self.write(key, PUBLISHED);
                }
            }
            answered += request.len;
        }
        Some(answered)
    }

    /// The loop that fan-out is compared with.
    fn publish(&mut self, body: &[u8]) {
        let chunk = chunk_of_event(body);
        for key in 0..self.connections.len() {
            if self.connections[key].as_ref().is_some_and(|connection| connection.is_subscriber) {
                self.write(key, &chunk);
            }
        }
    }

    fn write(&mut self, key: usize, bytes: &[u8]) {
        let registry = self.poll.registry();
        let Some(Some(connection)) = self.connections.get_mut(key) else { return };
        if connection.write(bytes, registry, Token(key)).is_err() {
            self.close(key);
        }
    }

    fn flush(&mut self, key: usize) {
        let registry = self.poll.registry();
        let Some(Some(connection)) = self.connections.get_mut(key) else { return };
        if connection.flush(registry, Token(key)).is_err() {
            self.close(key);
        }
    }

    /// The one way in which a connection ends; closing its socket takes it out of epoll.
    fn close(&mut self, key: usize) {
        if self.connections[key].take().is_some() {
            self.vacant.push(key);
        }
    }
}

/// The standard library's backlog is too short: who does not fit in comes again after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_CONNECTIONS_MAX)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A chunk of the chunked coding with one event of an event stream.
fn chunk_of_event(body: &[u8]) -> Vec<u8> {
    let (name, end) = (b"data: ", b"\n\n");
    let event_len = name.len() + body.len() + end.len();
    let mut chunk = Vec::with_capacity(event_len + 16);
    let written: io::Result<()> = write!(chunk, "{event_len:x}\r\n");
    written.expect("a Vec takes everything");
    for piece in [name, body, end, b"\r\n"] {
        chunk.extend_from_slice(piece);
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_chunk() {
        assert_eq!(chunk_of_event(b"hello"), b"d\r\ndata: hello\n\n\r\n");
    }
}
