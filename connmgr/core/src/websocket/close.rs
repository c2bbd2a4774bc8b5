//! Why a WebSocket closes (RFC 6455 §5.5.1, §7.4).

use zhttp::hold::is_close_code;

use super::WebSocketError;
use super::frame::CONTROL_BYTES_MAX;

/// A code that says why (RFC 6455 §7.4.1, and the registry of §11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// Everything was said.
    pub const NORMAL: Self = CloseCode(1000);
    /// One side goes: a server that stops, a page that is left.
    pub const GOING_AWAY: Self = CloseCode(1001);
    /// The peer has broken the protocol.
    pub const PROTOCOL: Self = CloseCode(1002);
    /// A message of a kind that is not taken.
    pub const UNSUPPORTED: Self = CloseCode(1003);
    /// A message is not what its type says: text that is no UTF-8, compressed data that is none.
    pub const INVALID_DATA: Self = CloseCode(1007);
    /// What is sent breaks a rule of this server's own.
    pub const POLICY: Self = CloseCode(1008);
    /// A message is too large.
    pub const TOO_LARGE: Self = CloseCode(1009);
    /// Something unforeseen.
    pub const INTERNAL: Self = CloseCode(1011);
    /// It is too busy now.
    pub const TRY_AGAIN: Self = CloseCode(1013);

    /// A code that may be sent; `None` for those that are reserved or not defined. 3000 to 3999 are for libraries and
    /// frameworks, 4000 to 4999 for applications.
    pub const fn new(code: u16) -> Option<Self> {
        if is_close_code(code) { Some(CloseCode(code)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// Why.
    pub code: CloseCode,
    /// The same for people; may be empty.
    pub reason: &'a str,
}

/// The longest reason, in bytes: what is left of a control frame behind the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

impl<'a> Close<'a> {
    /// Reads the payload of a close frame; `None` if it says nothing.
    ///
    /// # Errors
    ///
    /// A payload of one byte, a code that must not be sent, a reason that is no UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, WebSocketError> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return if payload.is_empty() { Ok(None) } else { Err(WebSocketError::CloseTooShort) };
        };
        let code = u16::from_be_bytes(*code);
        let code = CloseCode::new(code).ok_or(WebSocketError::CloseCode(code))?;
        let reason = std::str::from_utf8(reason).map_err(|_| WebSocketError::CloseReason)?;
        Ok(Some(Close { code, reason }))
    }

    /// Writes the payload of a close frame behind what is in `out`. A reason that is too long is cut between characters.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code.0.to_be_bytes());
        let end = self.reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
        out.extend_from_slice(&self.reason.as_bytes()[..end]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn codes_are_those_that_may_be_sent() {
        let valid: Vec<u16> =
            (0..=u16::MAX).filter(|code| CloseCode::new(*code).is_some()).collect();
        assert_eq!(
            valid[..12],
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]
        );
        assert_eq!((valid[12], valid.len(), valid.last()), (3000, 2012, Some(&4999)));
    }

    #[test]
    fn a_payload_is_a_code_and_text() {
        assert_eq!(Close::parse(b""), Ok(None));
        assert_eq!(Close::parse(b"\x03"), Err(WebSocketError::CloseTooShort));
        assert_eq!(Close::parse(b"\x03\xed"), Err(WebSocketError::CloseCode(1005)));
        assert_eq!(Close::parse(b"\x03\xe8\xff"), Err(WebSocketError::CloseReason));
        let close = Close { code: CloseCode::NORMAL, reason: "bye" };
        assert_eq!(Close::parse(b"\x03\xe8bye"), Ok(Some(close)));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(100);
        let mut out = Vec::new();
        Close { code: CloseCode::NORMAL, reason: &reason }.write(&mut out);
        let read = Close::parse(&out).unwrap().unwrap();
        assert_eq!(read.reason, "ä".repeat(61));
        assert!(out.len() <= CONTROL_BYTES_MAX);
    }
}
