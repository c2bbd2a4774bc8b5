//! HTTP/1.1 as it is on the wire: a request over a socket of its own, and every byte of the answer.
//!
//! No library, so that nothing is repaired, retried or decoded behind a test's back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::PATIENCE;

/// A request that is being made.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// `GET`.
pub fn get(target: impl Into<String>) -> Request {
    Request::new("GET", target)
}

/// `POST`, with a body that is empty at first.
pub fn post(target: impl Into<String>) -> Request {
    Request::new("POST", target).body("")
}

impl Request {
    pub fn new(method: &str, target: impl Into<String>) -> Request {
        let (method, target) = (method.to_owned(), target.into());
        Request { method, target, headers: Vec::new(), body: None }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Request {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Sets the body; its `Content-Length` is sent, unless a header says another.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// A JSON body, with its type.
    pub fn json(self, body: &Value) -> Request {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// The bytes of the head.
    fn head(&self, address: &str) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if let Some(body) = &self.body
            && !has("Content-Length")
            && !has("Transfer-Encoding")
        {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head + "\r\n"
    }

    /// Sends it, and reads the head of the answer. An error is the socket's.
    pub fn try_open(&self, address: &str) -> std::io::Result<(Head, BufReader<TcpStream>)> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let mut bytes = self.head(address).into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        socket.write_all(&bytes)?;
        let mut reader = BufReader::new(socket);
        Ok((Head::read(&mut reader)?, reader))
    }

    /// Sends it, and reads the answer to its end. An error is the socket's.
    pub fn try_send(&self, address: &str) -> std::io::Result<Response> {
        let (head, mut reader) = self.try_open(address)?;
        let has_none = self.method == "HEAD" || head.status == 204 || head.status == 304;
        let body = if has_none { Vec::new() } else { read_body(&head, &mut reader)? };
        Ok(Response { head, body })
    }

    /// Sends it, and reads the answer to its end.
    #[track_caller]
    pub fn send(&self, address: &str) -> Response {
        self.try_send(address)
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }
}

/// Status line and headers.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    /// As they came, in their order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> std::io::Result<Head> {
        let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole head came");
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(cut)
        };
        let status = line()?;
        let code = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = code.unwrap_or_else(|| panic!("not a status line: {status}"));
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            if line.is_empty() {
                return Ok(Head { status, headers });
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The value of a header, which must not stand there twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "{name} stands there twice");
        value
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status and body.
    pub fn answer(&self) -> (u16, &str) {
        (self.status(), self.text())
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a 200.
    #[track_caller]
    pub fn good(&self) -> &str {
        assert_eq!(self.status(), 200, "{self:?}");
        self.text()
    }
}

/// Reads a body by its length, by its chunks, or to the end of the connection (RFC 9112 §6.3).
fn read_body(head: &Head, reader: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = head.header("Content-Length") {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body)?;
    } else if head.header("Transfer-Encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(reader)? {
            body.extend_from_slice(&chunk);
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// Reads a chunk (RFC 9112 §7.1); `None` is the last one.
pub fn read_chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "cut between chunks");
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let size = line.strip_suffix("\r\n").ok_or_else(cut)?;
    let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {size:?}"));
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    assert!(chunk.ends_with(b"\r\n"), "a chunk is longer than it says");
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}
