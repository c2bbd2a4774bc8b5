//! An HTTP client that sees every byte.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::peers::within;

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

pub struct Client {
    stream: Box<dyn Socket>,
    unread: Vec<u8>,
}

/// How a client's socket differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// What the kernel takes at most for a client that does not read; 0 is the kernel's choice.
    pub receive_buffer_bytes: u32,
    /// It ends with a reset.
    pub resets: bool,
}

/// A response whose end is known.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client::over(within(TcpStream::connect(address)).await.unwrap())
    }

    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
        Client { stream: Box::new(stream), unread: Vec::new() }
    }

    /// Connects by a socket that is set so.
    pub async fn connect_by(address: SocketAddr, options: SocketOptions) -> Client {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.unwrap();
        if options.receive_buffer_bytes > 0 {
            socket.set_recv_buffer_size(options.receive_buffer_bytes).unwrap();
        }
        if options.resets {
            let linger = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&socket).set_linger(linger).unwrap();
        }
        Client::over(within(socket.connect(address)).await.unwrap())
    }

    /// Connects and asks for a path.
    pub async fn get(address: SocketAddr, path: &str) -> Client {
        let mut client = Client::connect(address).await;
        client.ask(path).await;
        client
    }

    pub async fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x.com\r\n\r\n")).await;
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
        // A socket has nothing to flush, TLS has.
        within(self.stream.flush()).await.unwrap();
    }

    pub async fn half_close(&mut self) {
        within(self.stream.shutdown()).await.unwrap();
    }

    /// Reads at most so many bytes; none at the end.
    pub async fn some(&mut self, bytes_max: usize) -> Vec<u8> {
        if self.unread.is_empty() {
            let mut buffer = vec![0; bytes_max];
            let bytes = within(self.stream.read(&mut buffer)).await.unwrap_or(0);
            buffer.truncate(bytes);
            return buffer;
        }
        self.unread.drain(..bytes_max.min(self.unread.len())).collect()
    }

    /// Reads some bytes; none at the end.
    async fn more(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        // A reset is an end here.
        let bytes = within(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..bytes]);
        bytes
    }

    /// Reads up to and with this text.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.unread.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                let read = self.unread.drain(..at + text.len()).collect();
                return String::from_utf8(read).unwrap();
            }
            let unread = String::from_utf8_lossy(&self.unread).into_owned();
            assert!(self.more().await > 0, "the end comes before {text:?}: {unread:?}");
        }
    }

    pub async fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.unread.len() < bytes {
            assert!(self.more().await > 0, "the end comes too early");
        }
        self.unread.drain(..bytes).collect()
    }

    /// Reads all there is, up to the end of the connection.
    pub async fn rest(&mut self) -> String {
        String::from_utf8(self.rest_bytes().await).unwrap()
    }

    /// The same, if it may be no text.
    pub async fn rest_bytes(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Reads a response with a length or in chunks.
    pub async fn response(&mut self) -> Response {
        let head = self.until("\r\n\r\n").await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let body = if let Some(length) = field("Content-Length") {
            self.exactly(length.parse().unwrap()).await
        } else if field("Transfer-Encoding") == Some("chunked") {
            self.chunks().await
        } else {
            Vec::new()
        };
        Response { status, head, body }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = self.until("\r\n").await;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let chunk = self.exactly(size + 2).await;
            if size == 0 {
                return body;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
