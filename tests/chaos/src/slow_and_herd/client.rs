//! A client: one connection after the other to one channel, each from where the last one ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Clock;
use super::transcript::{Transcript, What};
use crate::cluster::ORG;
use crate::http::{Part, ResponseReader};

/// Addresses of 127.0.0.0/8 that clients come from in turn: one address has some 28,000 ports, and ports
/// of connections that were just lost are not free at once.
const SOURCES: usize = 16;

/// Bytes that the kernel keeps for a client with small buffers. (It takes twice that, for itself too.)
const SMALL_RECEIVE_BYTES: usize = 4 * 1024;

/// Bytes of a segment to a client with small buffers, as on an ethernet. The kernel sizes the *sender's*
/// buffer by it: with loopback's 64 KiB that would be megabytes, and the edge would never see a slow client.
const SMALL_SEGMENT_BYTES: u32 = 1400;

/// Where and what all clients of a channel read.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    pub(crate) token: Arc<str>,
    pub(crate) channel: Arc<str>,
}

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffers {
    /// As the kernel likes.
    Usual,
    /// So small that what is not read waits in the edge, not in the kernel.
    Small,
}

/// One connection that has a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    response: ResponseReader,
    partial: Vec<u8>,
    buffer: Vec<u8>,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// That many blocks came.
    Blocks(usize),
    /// The response has ended in order.
    Ended,
}

/// Why there is no stream, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// Refused, reset or closed.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// Not what an edge should send.
    #[error("{0}")]
    Wrong(String),
}

impl Reads {
    /// Sends the request of client `number`, without waiting for the answer.
    pub(crate) async fn connect(
        &self,
        number: usize,
        buffers: Buffers,
        after: Option<&str>,
    ) -> Result<Stream, StreamError> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if buffers == Buffers::Small {
            socket.set_recv_buffer_size(SMALL_RECEIVE_BYTES)?;
            socket.set_tcp_mss(SMALL_SEGMENT_BYTES)?;
        }
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        let last = u8::try_from(number % SOURCES + 1).unwrap_or(1);
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
        let mut socket = TcpSocket::from_std_stream(socket.into()).connect(self.address).await?;
        let (channel, token) = (&self.channel, &self.token);
        let last_id = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /events/{ORG}?channel_id={channel}&token={token} HTTP/1.1\r\nHost: crowd\r\n\
             Accept: text/event-stream\r\n{last_id}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(Stream {
            socket,
            response: ResponseReader::new(),
            partial: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Reads once, at most so many bytes, and writes down what is whole.
    pub(crate) async fn read(
        &self,
        stream: &mut Stream,
        bytes_max: usize,
        transcript: &mut Transcript,
    ) -> Result<Progress, StreamError> {
        stream.buffer.resize(bytes_max, 0);
        let len = stream.socket.read(&mut stream.buffer).await?;
        if len == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        stream.response.feed(&stream.buffer[..len]);
        let at_us = self.clock.now_us();
        let mut count = 0;
        let wrong = |error: &dyn std::fmt::Display| StreamError::Wrong(error.to_string());
        while let Some(part) = stream.response.next_part().map_err(|error| wrong(&error))? {
            match part {
                Part::Head(head) if head.status == 200 => {}
                Part::Head(head) => return Err(wrong(&format!("status {}", head.status))),
                Part::Body(bytes) => {
                    stream.partial.extend_from_slice(&bytes);
                    let mut taken = 0;
                    while let Some(len) = block_len(&stream.partial[taken..]) {
                        let block = transcript.blocks.number(&stream.partial[taken..taken + len]);
                        transcript.add(at_us, What::Block(block));
                        taken += len;
                        count += 1;
                    }
                    stream.partial.drain(..taken);
                }
                Part::End => {
                    let rest = Some(&stream.partial).filter(|rest| !rest.is_empty());
                    let rest = rest.map(|rest| transcript.blocks.number(rest));
                    transcript.add(at_us, What::Ended(rest));
                    return Ok(Progress::Ended);
                }
            }
        }
        Ok(Progress::Blocks(count))
    }
}

impl Stream {
    /// From now on the kernel keeps more for this client.
    pub(crate) fn enlarge_buffer(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(&self.socket).set_recv_buffer_size(bytes)
    }
}

/// Bytes up to the first empty line, with it.
fn block_len(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + bytes[from..].iter().position(|byte| *byte == b'\n')?;
        if bytes.get(end + 1) == Some(&b'\n') {
            return Some(end + 2);
        }
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_with_an_empty_line() {
        assert_eq!(block_len(b"a: b\nc: d\n\ne"), Some(11));
        assert_eq!(block_len(b"a\n"), None);
        assert_eq!(block_len(b":\n\n"), Some(3));
        assert_eq!(block_len(b""), None);
    }
}
