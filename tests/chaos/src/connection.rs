//! A connection that sends requests one after the other, and is made again when it is lost.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::http::{Head, HttpError, Part, ResponseReader};

/// Bytes that are read at a time.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection was refused or lost: nobody knows what became of the request.
    #[error(transparent)]
    Lost(#[from] io::Error),
    /// What came is no answer.
    #[error(transparent)]
    Malformed(#[from] HttpError),
}

/// Where the edge takes a client.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection of either kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl Address {
    /// Connects.
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

pub(crate) struct Connection {
    address: Address,
    open: Option<(Box<dyn Duplex>, ResponseReader)>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Connection::to(Address::Tcp(address))
    }

    /// One to either kind of address.
    pub(crate) fn to(address: Address) -> Self {
        Connection { address, open: None }
    }

    /// Sends a request and reads the answer. After an error, and after an answer that closes, the
    /// next exchange makes a new connection.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
    ) -> Result<(Head, Vec<u8>), ExchangeError> {
        let (mut stream, mut reader) = match self.open.take() {
            Some((stream, mut reader)) => {
                reader.next_response();
                (stream, reader)
            }
            None => (self.address.connect().await?, ResponseReader::new()),
        };
        stream.write_all(request).await?;
        let (head, body) = answer(&mut stream, &mut reader).await?;
        if !head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.open = Some((stream, reader));
        }
        Ok((head, body))
    }
}

async fn answer(
    stream: &mut Box<dyn Duplex>,
    reader: &mut ResponseReader,
) -> Result<(Head, Vec<u8>), ExchangeError> {
    let (mut head, mut body) = (None, Vec::new());
    let mut buffer = [0; READ_BYTES];
    loop {
        match reader.next_part()? {
            Some(Part::Head(start)) => head = Some(start),
            Some(Part::Body(bytes)) => body.extend(bytes),
            Some(Part::End) => {
                let head = head.ok_or(HttpError::Length)?;
                return Ok((head, body));
            }
            None => match stream.read(&mut buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                len => reader.feed(&buffer[..len]),
            },
        }
    }
}
