//! A client's side of HTTP/1.1 (RFC 9112), as far as an edge speaks it: heads, lengths, chunks. Apart from the edge's
//! own code, so that a mistake there is seen here.

/// What of a response has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The head of a response that is followed by another one (RFC 9110 §15.2).
    Interim(u16),
    /// The head.
    Head(Head),
    /// Content.
    Body(Vec<u8>),
    /// It is whole.
    End,
}

/// A status and the fields that somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field, by its name in small letters.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// The same as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// It is another protocol from there on (RFC 9110 §15.2.2).
    Switched,
}

/// Reads responses, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseReader {
    input: Vec<u8>,
    stage: Stage,
}

impl ResponseReader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether it stands between two responses.
    pub(crate) fn is_idle(&self) -> bool {
        self.stage == Stage::Head && self.input.is_empty()
    }

    /// The next piece.
    ///
    /// # Errors
    ///
    /// What no server should send.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, String> {
        loop {
            match self.stage {
                Stage::Head => {
                    let Some(head) = self.take_until(b"\r\n\r\n")? else { return Ok(None) };
                    let head = parse_head(&head)?;
                    if head.status == 101 {
                        self.stage = Stage::Switched;
                        return Ok(Some(Piece::Head(head)));
                    }
                    if head.status < 200 {
                        return Ok(Some(Piece::Interim(head.status)));
                    }
                    self.stage = if head.field("transfer-encoding") == Some("chunked") {
                        Stage::ChunkSize
                    } else {
                        Stage::Length(head.number("content-length").unwrap_or(0))
                    };
                    return Ok(Some(Piece::Head(head)));
                }
                Stage::Length(0) => {
                    self.stage = Stage::Head;
                    return Ok(Some(Piece::End));
                }
                Stage::Length(left) => {
                    let Some(body) = self.take(left) else { return Ok(None) };
                    self.stage = Stage::Length(left - body.len() as u64);
                    return Ok(Some(Piece::Body(body)));
                }
                Stage::Switched => return Ok(self.take(u64::MAX).map(Piece::Body)),
                Stage::ChunkSize => {
                    let Some(line) = self.take_until(b"\r\n")? else { return Ok(None) };
                    let size = u64::from_str_radix(&line, 16);
                    match size.map_err(|_| format!("a chunk of {line:?} bytes"))? {
                        0 => self.stage = Stage::Trailer,
                        size => self.stage = Stage::Chunk(size),
                    }
                }
                Stage::Chunk(0) => self.stage = Stage::ChunkEnd,
                Stage::Chunk(left) => {
                    let Some(body) = self.take(left) else { return Ok(None) };
                    self.stage = Stage::Chunk(left - body.len() as u64);
                    return Ok(Some(Piece::Body(body)));
                }
                Stage::ChunkEnd => match self.take_until(b"\r\n")? {
                    Some(line) if line.is_empty() => self.stage = Stage::ChunkSize,
                    Some(line) => return Err(format!("{line:?} behind a chunk")),
                    None => return Ok(None),
                },
                Stage::Trailer => match self.take_until(b"\r\n")? {
                    Some(line) if line.is_empty() => {
                        self.stage = Stage::Head;
                        return Ok(Some(Piece::End));
                    }
                    Some(line) => return Err(format!("{line:?} behind the last chunk")),
                    None => return Ok(None),
                },
            }
        }
    }

    fn take(&mut self, max: u64) -> Option<Vec<u8>> {
        if self.input.is_empty() {
            return None;
        }
        let len = self.input.len().min(usize::try_from(max).unwrap_or(usize::MAX));
        Some(self.input.drain(..len).collect())
    }

    /// The text up to a mark, which is taken too.
    fn take_until(&mut self, mark: &[u8]) -> Result<Option<String>, String> {
        let Some(at) = self.input.windows(mark.len()).position(|bytes| bytes == mark) else {
            return Ok(None);
        };
        let text: Vec<u8> = self.input.drain(..at + mark.len()).take(at).collect();
        String::from_utf8(text).map(Some).map_err(|error| error.to_string())
    }
}

fn parse_head(text: &str) -> Result<Head, String> {
    let mut lines = text.split("\r\n");
    let status =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let mut head =
        Head { status: status.ok_or_else(|| format!("no head: {text:?}"))?, ..Head::default() };
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("no field: {line:?}"))?;
        head.fields.push((name.to_ascii_lowercase(), value.into()));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn responses_are_read_in_any_cut() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
            HTTP/1.1 502 Bad\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\nno";
        for cut in 1..text.len() {
            let (mut reader, mut pieces) = (ResponseReader::default(), Vec::new());
            for part in text.chunks(cut) {
                reader.push(part);
                while let Some(piece) = reader.next_piece().unwrap() {
                    pieces.push(piece);
                }
            }
            assert!(reader.is_idle());
            let heads: Vec<u16> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Head(head) => Some(head.status),
                    Piece::Interim(_) | Piece::Body(_) | Piece::End => None,
                })
                .collect();
            assert_eq!(pieces.first(), Some(&Piece::Interim(100)));
            assert_eq!(heads, [200, 502]);
            let bodies = pieces.iter().filter_map(|piece| match piece {
                Piece::Body(bytes) => Some(&bytes[..]),
                Piece::Interim(_) | Piece::Head(_) | Piece::End => None,
            });
            assert_eq!(bodies.collect::<Vec<_>>().concat(), b"abcdeno");
            assert_eq!(pieces.last(), Some(&Piece::End));
        }
    }
}
