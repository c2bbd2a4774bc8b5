//! Finding the end of a request head while its bytes arrive (RFC 9112 §2.1, §2.2).
//!
//! A head may come in one read or in ten thousand. [`HeadScanner`] remembers how far it has looked, so that each byte is
//! looked at once, and stops only at CRs and LFs. It knows of lines: whether they end properly, whether one is folded,
//! and how long they may be. What is in them is read by [`RequestHead::parse`](super::RequestHead::parse), once, when
//! the head is whole.
//!
//! **The same verdict however the bytes are cut.** Each refusal belongs to the byte that proves it, and the earliest
//! wins, whether or not later bytes are there already. That is also why a request line that is too long is refused at
//! its first byte too many, not when its end arrives.
//!
//! Rejected: looking for CRLF CRLF with a substring search. A client that sends bare LFs would wait for its timeout
//! instead of being told, and the limit for the target could not be kept before the end.

use memchr::memchr2;

use super::error::HeadError;
use super::request_line::{METHOD_BYTES_MAX, VERSION_BYTES, is_token};

/// How large a request head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head in bytes, with its last empty line and what empty lines came before it. Past it: 431. A connection
    /// whose head is incomplete holds up to that much memory.
    pub head_bytes_max: usize,
    /// The request target, in bytes. Past it: 414. RFC 9112 §3 asks for at least 8000 for the request line.
    pub target_bytes_max: usize,
}

impl Default for HeadLimits {
    /// 32 KiB and 16 KiB: four times what common servers allow, as tokens travel in targets and cookies in heads.
    fn default() -> Self {
        HeadLimits { head_bytes_max: 32 * 1024, target_bytes_max: 16 * 1024 }
    }
}

/// Where in the input a complete head stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSpan {
    /// The first byte of the request line; before it are only empty lines.
    pub start: usize,
    /// The first byte after the empty line that ends the head, where the body begins.
    pub end: usize,
}

/// Finds the end of one request head. See the head of this file.
///
/// ```text
///            CRLF (a few)      other           CRLF + other
/// Leading ─────────────▶ Leading ──▶ RequestLine ──▶ FieldLines ──CRLF CRLF──▶ done
/// ```
#[derive(Clone, Debug)]
pub struct HeadScanner {
    /// How many bytes of the input were looked at.
    scanned: usize,
    /// Where the line begins that is being looked at.
    line_start: usize,
    /// Where the request line begins; equal to `line_start` until it has ended.
    head_start: usize,
    /// Whether the byte before `scanned` was a CR, so that an LF is due.
    after_cr: bool,
}

impl HeadScanner {
    /// A scanner for an input that has not begun.
    pub const fn new() -> Self {
        HeadScanner { scanned: 0, line_start: 0, head_start: 0, after_cr: false }
    }

    /// Looks at what is new in `input`, which begins where it began at the last call and has only grown.
    ///
    /// `None`: more bytes are needed. After `Some` or an error the scanner is spent; the next head, which begins at
    /// [`HeadSpan::end`] and the body behind it, takes a new one.
    ///
    /// # Errors
    ///
    /// What can be told without reading the lines: see the first group of [`HeadError`], and the limits.
    pub fn scan(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<HeadSpan>, HeadError> {
        let window = &input[..input.len().min(limits.head_bytes_max)];
        loop {
            if self.after_cr {
                match window.get(self.scanned) {
                    None => break,
                    Some(b'\n') => {}
                    Some(_) => return Err(HeadError::BareCr),
                }
                self.after_cr = false;
                self.scanned += 1;
                if let Some(span) = self.end_line()? {
                    return Ok(Some(span));
                }
            }
            if window.get(self.line_start).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                return Err(HeadError::FoldedLine);
            }
            let unseen = &window[self.scanned..];
            let stop = memchr2(b'\r', b'\n', unseen);
            let seen = stop.unwrap_or(unseen.len());
            self.scanned += seen;
            self.check_request_line(window, limits)?;
            match stop.map(|stop| unseen[stop]) {
                None => break,
                Some(b'\n') => return Err(HeadError::BareLf),
                Some(_) => {
                    self.scanned += 1;
                    self.after_cr = true;
                }
            }
        }
        if input.len() >= limits.head_bytes_max { Err(HeadError::HeadTooLarge) } else { Ok(None) }
    }

    /// Whether nothing but empty lines has been seen. A connection that is closed then was idle, not cut off.
    pub fn is_idle(&self) -> bool {
        self.scanned == self.head_start || (self.after_cr && self.scanned == self.head_start + 1)
    }

    /// A CRLF was seen just before `scanned`.
    fn end_line(&mut self) -> Result<Option<HeadSpan>, HeadError> {
        let line_is_empty = self.scanned - self.line_start == CRLF_BYTES;
        let in_request_line = self.head_start == self.line_start;
        self.line_start = self.scanned;
        if !line_is_empty {
            return Ok(None);
        }
        if !in_request_line {
            return Ok(Some(HeadSpan { start: self.head_start, end: self.scanned }));
        }
        self.head_start = self.scanned;
        if self.scanned > LEADING_CRLFS_MAX * CRLF_BYTES {
            return Err(HeadError::LeadingCrlfs);
        }
        Ok(None)
    }

    /// Refuses a request line that is longer than any good one, without waiting for its end.
    ///
    /// Lines below that are judged in `request_line`, which knows the target itself.
    fn check_request_line(&self, window: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
        if self.line_start != self.head_start {
            return Ok(());
        }
        let line = &window[self.line_start..self.scanned];
        let longest = METHOD_BYTES_MAX + 1 + limits.target_bytes_max + 1 + VERSION_BYTES;
        if line.len() > METHOD_BYTES_MAX && !line[..=METHOD_BYTES_MAX].contains(&b' ') {
            let is_token = is_token(&line[..=METHOD_BYTES_MAX]);
            return Err(if is_token { HeadError::MethodTooLong } else { HeadError::Method });
        }
        if line.len() > longest { Err(HeadError::TargetTooLong) } else { Ok(()) }
    }
}

impl Default for HeadScanner {
    fn default() -> Self {
        HeadScanner::new()
    }
}

/// Empty lines before a request line that are skipped (RFC 9112 §2.2: at least one); old clients send one behind a
/// body. More are refused with 400, so that a connection cannot be kept busy with nothing.
pub const LEADING_CRLFS_MAX: usize = 4;

const CRLF_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 200, target_bytes_max: 50 };

    #[test]
    fn looks_at_each_byte_once() {
        let input = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut scanner = HeadScanner::new();
        let mut scanned = 0;
        let end = input.len() - b"body".len();
        for len in 0..end {
            assert_eq!(scanner.scan(&input[..len], &LIMITS), Ok(None), "{len}");
            assert!(scanner.scanned >= scanned);
            scanned = scanner.scanned;
        }
        assert_eq!(scanner.scan(input, &LIMITS).unwrap(), Some(HeadSpan { start: 2, end }));
    }

    #[test]
    fn is_idle_until_the_request_line_begins() {
        let mut scanner = HeadScanner::new();
        for (input, is_idle) in
            [(&b""[..], true), (b"\r", true), (b"\r\n", true), (b"\r\nG", false)]
        {
            assert_eq!(scanner.scan(input, &LIMITS), Ok(None));
            assert_eq!(scanner.is_idle(), is_idle, "{input:?}");
        }
    }

    #[test]
    fn a_head_may_be_as_large_as_the_limit() {
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.resize(LIMITS.head_bytes_max - 4, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        let span = HeadScanner::new().scan(&head, &LIMITS).unwrap().unwrap();
        assert_eq!(span.end, LIMITS.head_bytes_max);
        head.insert(20, b'a');
        assert_eq!(HeadScanner::new().scan(&head, &LIMITS), Err(HeadError::HeadTooLarge));
        let prefix = &head[..LIMITS.head_bytes_max - 1];
        assert_eq!(HeadScanner::new().scan(prefix, &LIMITS), Ok(None));
    }

    #[test]
    fn a_long_target_is_refused_before_the_line_ends() {
        let line = [b"GET /".as_slice(), &[b'a'; 100]].concat();
        assert_eq!(HeadScanner::new().scan(&line, &LIMITS), Err(HeadError::TargetTooLong));
    }
}
