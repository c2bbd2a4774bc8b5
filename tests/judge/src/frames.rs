//! A reader of the frames that servers send (RFC 6455 §5, RFC 7692), strict: what a Forebay edge never writes to a held
//! connection is an error, also where the RFC would let it through: a message in pieces, or binary.

use flate2::{Decompress, FlushDecompress, Status};

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Text(String),
    /// To be answered.
    Ping(Vec<u8>),
    /// An answer.
    Pong(Vec<u8>),
    /// The last one: with its code and reason, if it has any.
    Close(Option<(u16, String)>),
}

/// What the content of a message ends with before it is compressed away (RFC 7692 §7.2.1).
const DEFLATE_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The longest message that is believed, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MASK: u8 = 0x80;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    partial: Vec<u8>,
    /// Bytes of it that are read.
    used: usize,
    /// Messages may be compressed, each by itself.
    inflates: bool,
    is_closed: bool,
}

impl FrameReader {
    /// Of a connection on which compression was agreed upon, or not.
    pub fn new(inflates: bool) -> Self {
        FrameReader { inflates, ..FrameReader::default() }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.partial.drain(..std::mem::take(&mut self.used));
        self.partial.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    ///
    /// What nobody should have written.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let input = &self.partial[self.used..];
        if self.is_closed && !input.is_empty() {
            return Err("something comes behind a close".into());
        }
        let Some(Cut { head, head_bytes, payload }) = cut(input)? else { return Ok(None) };
        let frame = parse(head, payload, self.inflates)?;
        self.is_closed = matches!(frame, Frame::Close(_));
        self.used += head_bytes + payload.len();
        Ok(Some(frame))
    }
}

/// A whole frame.
struct Cut<'a> {
    /// Its first byte.
    head: u8,
    head_bytes: usize,
    payload: &'a [u8],
}

/// The first frame, if it is whole.
fn cut(input: &[u8]) -> Result<Option<Cut<'_>>, String> {
    let &[head, len, ref rest @ ..] = input else { return Ok(None) };
    if len & MASK != 0 {
        return Err("a server masks".into());
    }
    let (len, rest) = match len {
        126 => match rest.split_first_chunk::<2>() {
            Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest),
            None => return Ok(None),
        },
        len => (u64::from(len), rest),
    };
    let shortest = match len {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    let head_bytes = input.len() - rest.len();
    if head_bytes != shortest {
        return Err(format!("a length of {len} in a longer form than it needs"));
    }
    if len > MESSAGE_BYTES_MAX as u64 {
        return Err(format!("a frame of {len} bytes"));
    }
    Ok(rest.get(..len as usize).map(|payload| Cut { head, head_bytes, payload }))
}

fn parse(head: u8, payload: &[u8], inflates: bool) -> Result<Frame, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| error.to_string());
    let is_control = head & 0x08 != 0;
    if is_control && payload.len() > 125 {
        return Err(format!("a control frame of {} bytes", payload.len()));
    }
    match head {
        0x81 => text(payload.to_vec()).map(Frame::Text),
        _ if head == FIN | RSV1 | 1 && inflates => text(inflate(payload)?).map(Frame::Text),
        0x88 if payload.is_empty() => Ok(Frame::Close(None)),
        0x88 => {
            let (code, reason) = payload.split_first_chunk::<2>().ok_or("half a code")?;
            Ok(Frame::Close(Some((u16::from_be_bytes(*code), text(reason.to_vec())?))))
        }
        0x89 => Ok(Frame::Ping(payload.to_vec())),
        0x8a => Ok(Frame::Pong(payload.to_vec())),
        other => Err(format!("a frame that begins with {other:#x}")),
    }
}

/// Inflates a message that refers to none before it.
fn inflate(payload: &[u8]) -> Result<Vec<u8>, String> {
    let mut inflater = Decompress::new(false);
    let mut out = Vec::with_capacity(4 * payload.len() + 64);
    for input in [payload, &DEFLATE_TAIL] {
        let began = inflater.total_in();
        loop {
            let done = (inflater.total_in() - began) as usize;
            let (read, wrote) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress_vec(&input[done..], &mut out, FlushDecompress::Sync);
            let status =
                status.map_err(|error| format!("a message that does not inflate: {error}"))?;
            if out.len() > MESSAGE_BYTES_MAX || matches!(status, Status::StreamEnd) {
                return Err("a message that inflates without end, or ends too soon".into());
            }
            let is_all_read = inflater.total_in() - began == input.len() as u64;
            if is_all_read && out.len() < out.capacity() {
                break;
            }
            if out.len() == out.capacity() {
                out.reserve(out.len().max(64));
            } else if (read, wrote) == (inflater.total_in(), inflater.total_out()) {
                return Err("a message that cannot be inflated".into());
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
        let len = match payload.len() {
            len @ 0..126 => vec![len as u8],
            len @ 126..=0xffff => [&[126][..], &(len as u16).to_be_bytes()].concat(),
            len => [&[127][..], &(len as u64).to_be_bytes()].concat(),
        };
        [&[head][..], &len, payload].concat()
    }

    fn deflated(text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 100);
        let mut deflater = Compress::new(Compression::fast(), false);
        deflater.compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - DEFLATE_TAIL.len());
        out
    }

    fn read(bytes: &[u8], cut: usize, inflates: bool) -> Result<Vec<Frame>, String> {
        let (mut reader, mut frames) = (FrameReader::new(inflates), Vec::new());
        for piece in bytes.chunks(cut) {
            reader.push(piece);
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_read_in_any_cut() {
        let long = "ä".repeat(40_000);
        let stream = [
            frame(0x81, b"hello"),
            frame(0x89, b"p"),
            frame(0x81, "x".repeat(126).as_bytes()),
            frame(0xc1, &deflated("deflated")),
            frame(0xc1, &deflated(&long)),
            frame(0x81, long.as_bytes()),
            frame(0x8a, b""),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let frames = read(&stream, stream.len(), true).unwrap();
        assert_eq!(frames[0], Frame::Text("hello".into()));
        assert_eq!(frames[1], Frame::Ping(b"p".to_vec()));
        assert_eq!(frames[3], Frame::Text("deflated".into()));
        assert!(frames[4] == Frame::Text(long.clone()) && frames[5] == frames[4]);
        assert_eq!(
            frames[6..],
            [Frame::Pong(Vec::new()), Frame::Close(Some((1000, "bye".into())))]
        );
        for cut in [1, 3, 1000, 65_536] {
            assert!(read(&stream, cut, true).unwrap() == frames);
        }
    }

    #[test]
    fn what_no_edge_writes_is_an_error() {
        let wrong = |bytes: &[u8], why: &str| {
            let error = read(bytes, 7, true).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        wrong(&[0x81, 0x80, 1, 2, 3, 4], "masks");
        wrong(&[0x81, 126, 0, 5], "longer form");
        wrong(&[0x81, 127, 0, 0, 0, 0, 0, 0, 1, 0], "longer form");
        wrong(&frame(0x01, b"half"), "begins with");
        wrong(&frame(0x82, b"binary"), "begins with");
        wrong(&frame(0x91, b"rsv"), "begins with");
        wrong(&frame(0x81, b"\xff"), "utf-8");
        wrong(&frame(0x88, b"\x03"), "half a code");
        wrong(&frame(0x89, &[0; 126]), "control frame");
        wrong(&frame(0xc1, b"\xff\xff"), "inflate");
        wrong(&[frame(0x88, b""), frame(0x81, b"more")].concat(), "behind a close");
        assert!(read(&frame(0xc1, &deflated("not agreed")), 9, false).is_err());
    }
}
