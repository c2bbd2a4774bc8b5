//! The door for publishers: `POST /PATH` over HTTP, whose body goes to the sessions of that path.
//!
//! Each publisher's connection has a thread that reads with patience and hands over by an inproc socket, so that the loop of
//! the handler waits for ZeroMQ sockets only. The answer comes when the body is handed over, not when it is delivered; that is
//! what nchan's is, too.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::error::BenchError;
use crate::peer::UNBOUNDED;
use crate::request::Request;

const INPROC: &str = "inproc://control";

const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

/// Bytes that are read in one go.
const READ_BYTES_MAX: usize = 65_536;

/// The door, listening.
#[derive(Debug)]
pub struct Control {
    listener: TcpListener,
}

impl Control {
    /// Listens there.
    ///
    /// # Errors
    ///
    /// If the address is taken.
    pub fn listen(address: SocketAddr) -> Result<Self, BenchError> {
        let listener =
            TcpListener::bind(address).map_err(|error| BenchError::Listen { address, error })?;
        Ok(Control { listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, BenchError> {
        Ok(self.listener.local_addr()?)
    }

    /// Opens it, and returns where messages of two parts come out, a path and a body.
    pub(super) fn open(self, context: &zmq::Context) -> Result<zmq::Socket, BenchError> {
        let messages = context.socket(zmq::PULL)?;
        messages.set_rcvhwm(UNBOUNDED)?;
        messages.bind(INPROC)?;
        let context = context.clone();
        thread::spawn(move || {
            for stream in self.listener.incoming().map_while(Result::ok) {
                let context = context.clone();
                thread::spawn(move || {
                    // A publisher that breaks off has broken nothing but its own connection.
                    if let Err(error) = serve(stream, &context) {
                        eprintln!("peer-handler: a publisher: {error}");
                    }
                });
            }
        });
        Ok(messages)
    }
}

fn serve(mut stream: TcpStream, context: &zmq::Context) -> Result<(), BenchError> {
    stream.set_nodelay(true)?;
    let messages = context.socket(zmq::PUSH)?;
    messages.set_sndhwm(UNBOUNDED)?;
    messages.connect(INPROC)?;
    let mut unread = Vec::new();
    let mut buffer = vec![0; READ_BYTES_MAX];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        unread.extend_from_slice(&buffer[..len]);
        loop {
            let malformed = |_| std::io::Error::from(ErrorKind::InvalidData);
            let Some(request) = Request::read(&unread).map_err(malformed)? else { break };
            messages.send_multipart([request.path.as_bytes(), request.body], 0)?;
            stream.write_all(ACCEPTED)?;
            let len = request.len;
            unread.drain(..len);
        }
    }
}
