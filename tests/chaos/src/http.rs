//! A strict reader of HTTP/1.1 responses (RFC 9112), as a machine that takes bytes.
//!
//! A browser forgives; this one does not. A chunk size with an extension, a bare line feed, a byte
//! after the end: each is a fault of the edge, and ends the connection's part in the run. Only what
//! the edge may send is known: a length or chunks, and no trailers.

/// Bytes of a response head. The edge's own limit on heads is lower.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Fields of a response head.
const FIELDS_MAX: usize = 64;

/// Bytes of a chunk-size line: eight hexadecimal digits and the line break.
const SIZE_LINE_BYTES_MAX: usize = 10;

/// What is wrong with a response: the edge's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("a malformed response head: {0}")]
    Head(String),
    #[error("a response head without Content-Length or chunks")]
    Length,
    #[error("a malformed chunk size: {0:?}")]
    ChunkSize(String),
    #[error("a chunk that does not end where it should")]
    ChunkEnd,
    #[error("{0} bytes after the end of a response")]
    Trailing(usize),
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The value of the first field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A part of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Head(Head),
    Body(Vec<u8>),
    /// The response is whole.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized { left: usize },
    ChunkSize,
    Chunk { left: usize },
    ChunkEnd,
    LastChunkEnd,
    End,
}

/// Reads one response after another.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    buffer: Vec<u8>,
    state: State,
}

impl ResponseReader {
    pub(crate) fn new() -> Self {
        ResponseReader { buffer: Vec::new(), state: State::Head }
    }

    /// Takes what came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next response may begin: a request was sent.
    pub(crate) fn next_response(&mut self) {
        debug_assert_eq!(self.state, State::End);
        self.state = State::Head;
    }

    /// The next part; `None` if more bytes are needed, or the response is over.
    pub(crate) fn next_part(&mut self) -> Result<Option<Part>, HttpError> {
        loop {
            return match self.state {
                State::Head => self.head(),
                State::Sized { left: 0 } => self.end(),
                State::Sized { left } => Ok(self.body(left, |left| State::Sized { left })),
                State::ChunkSize => match self.chunk_size()? {
                    Some(0) => {
                        self.state = State::LastChunkEnd;
                        continue;
                    }
                    Some(left) => {
                        self.state = State::Chunk { left };
                        continue;
                    }
                    None => Ok(None),
                },
                State::Chunk { left: 0 } => {
                    self.state = State::ChunkEnd;
                    continue;
                }
                State::Chunk { left } => Ok(self.body(left, |left| State::Chunk { left })),
                State::ChunkEnd => {
                    if !self.line_break()? {
                        return Ok(None);
                    }
                    self.state = State::ChunkSize;
                    continue;
                }
                State::LastChunkEnd => {
                    if !self.line_break()? {
                        return Ok(None);
                    }
                    self.end()
                }
                State::End if self.buffer.is_empty() => Ok(None),
                State::End => Err(HttpError::Trailing(self.buffer.len())),
            };
        }
    }

    fn head(&mut self) -> Result<Option<Part>, HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let parsed =
            response.parse(&self.buffer).map_err(|error| HttpError::Head(error.to_string()))?;
        let httparse::Status::Complete(len) = parsed else {
            let too_long = self.buffer.len() > HEAD_BYTES_MAX;
            return if too_long { Err(HttpError::Head("too long".into())) } else { Ok(None) };
        };
        let status = response.code.ok_or(HttpError::Head("no status".into()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = response.headers.iter().map(|field| (field.name.into(), text(field.value)));
        let head = Head { status, fields: fields.collect() };
        self.state = if status == 204 {
            State::Sized { left: 0 }
        } else if let Some(coding) = head.field("transfer-encoding") {
            if coding != "chunked" {
                return Err(HttpError::Head(format!("Transfer-Encoding: {coding}")));
            }
            State::ChunkSize
        } else {
            let left = head.field("content-length").ok_or(HttpError::Length)?;
            State::Sized { left: left.parse().map_err(|_| HttpError::Length)? }
        };
        self.buffer.drain(..len);
        Ok(Some(Part::Head(head)))
    }

    fn body(&mut self, left: usize, state: impl Fn(usize) -> State) -> Option<Part> {
        let len = left.min(self.buffer.len());
        self.state = state(left - len);
        (len > 0).then(|| Part::Body(self.buffer.drain(..len).collect()))
    }

    /// The size that stands on a line of its own (RFC 9112 §7.1).
    fn chunk_size(&mut self) -> Result<Option<usize>, HttpError> {
        let line = &self.buffer[..self.buffer.len().min(SIZE_LINE_BYTES_MAX)];
        let malformed = || HttpError::ChunkSize(String::from_utf8_lossy(line).into_owned());
        let len = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        match line[len..] {
            [] | [b'\r'] if line.len() < SIZE_LINE_BYTES_MAX => return Ok(None),
            [b'\r', b'\n', ..] => {}
            _ => return Err(malformed()),
        }
        let digits = std::str::from_utf8(&line[..len]).map_err(|_| malformed())?;
        let size = usize::from_str_radix(digits, 16).map_err(|_| malformed())?;
        self.buffer.drain(..len + 2);
        Ok(Some(size))
    }

    /// Whether the line break that must come here has come.
    fn line_break(&mut self) -> Result<bool, HttpError> {
        let line_break = b"\r\n";
        let len = self.buffer.len().min(line_break.len());
        if self.buffer[..len] != line_break[..len] {
            return Err(HttpError::ChunkEnd);
        }
        if len < line_break.len() {
            return Ok(false);
        }
        self.buffer.drain(..len);
        Ok(true)
    }

    fn end(&mut self) -> Result<Option<Part>, HttpError> {
        self.state = State::End;
        Ok(Some(Part::End))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// All parts of a text that comes in pieces of that length; bodies joined.
    fn parts(text: &str, piece: usize) -> Result<(String, bool), HttpError> {
        let mut reader = ResponseReader::new();
        let (mut body, mut ended) = (Vec::new(), false);
        for bytes in text.as_bytes().chunks(piece) {
            reader.feed(bytes);
            while let Some(part) = reader.next_part()? {
                match part {
                    Part::Head(head) => assert_eq!(head.status, 200),
                    Part::Body(bytes) => body.extend(bytes),
                    Part::End => ended = true,
                }
            }
        }
        Ok((String::from_utf8(body).unwrap(), ended))
    }

    #[test]
    fn responses_come_in_any_pieces() {
        let chunks = format!("{HEAD}5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n");
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for piece in 1..chunks.len() {
            assert_eq!(parts(&chunks, piece), Ok(("hello0123456789".into(), true)));
            assert_eq!(parts(sized, piece), Ok(("hello".into(), true)));
        }
        assert!(!parts(&chunks[..chunks.len() - 1], 7).unwrap().1);
    }

    #[test]
    fn nothing_is_forgiven() {
        for bad in ["5;x\r\nhello", "5\nhello\n", "+5\r\nhello", "\r\nhello", "123456789\r\n"] {
            let error = parts(&format!("{HEAD}{bad}"), 3).unwrap_err();
            assert!(matches!(error, HttpError::ChunkSize(_)), "{bad:?}: {error}");
        }
        assert_eq!(parts(&format!("{HEAD}5\r\nhello5\r\n"), 4), Err(HttpError::ChunkEnd));
        assert_eq!(parts(&format!("{HEAD}0\r\n\r\nx"), 99), Err(HttpError::Trailing(1)));
        assert_eq!(parts("HTTP/1.1 200 OK\r\n\r\n", 99), Err(HttpError::Length));
        assert!(matches!(parts("HTTP/1.1 x\r\n\r\n", 99), Err(HttpError::Head(_))));
    }
}
