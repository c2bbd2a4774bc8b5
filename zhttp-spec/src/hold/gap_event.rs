//! The control event that tells a client of a gap (`hold.md`, H-65).
//!
//! It is the one event that two parties make: the edge, for connections that it holds, and a handler
//! that finds the gap before there is a hold. A client that is told the same gap by both must be able
//! to see that, by the `message_id`; so the text is made here, for both.

use std::fmt::Write as _;

use crate::cursor::Cursor;

use super::GapReason;

/// The data of the event: JSON in one line.
///
/// `channel` is the name as it stands in packets (H-4). A reader at `from` misses what was before
/// `to`, the first event that it can get.
pub fn gap_event(channel: &str, from: Cursor, to: Cursor, reason: GapReason) -> String {
    let mut data = String::from(r#"{"event_type":"control","message_id":""#);
    write_uuid(&mut data, derived_uuid(&format!("{channel} {from} {to}")));
    data.push_str(r#"","control_type":"gap","channel":""#);
    // Orgs have no colon: what stands behind the first one is the name that the client knows.
    let channel = channel.split_once(':').map_or(channel, |(_, channel)| channel);
    for character in channel.chars() {
        match character {
            '"' | '\\' => data.extend(['\\', character]),
            control if u32::from(control) < 0x20 => {
                let _ = write!(data, "\\u{:04x}", u32::from(control));
            }
            other => data.push(other),
        }
    }
    let reason = reason.name();
    let _ = write!(data, r#"","from":"{from}","to":"{to}","reason":"{reason}"}}"#);
    data
}

/// A UUID of version 8 (RFC 9562 §5.8) that is a function of a text: for events that several may
/// make, and readers get once. Not a secret, and not meant to withstand somebody who looks for two
/// texts with the same one.
pub fn derived_uuid(text: &str) -> [u8; 16] {
    let high = fnv1a(text.as_bytes(), 0) & !0xf000 | 0x8000;
    let low = fnv1a(text.as_bytes(), 1) & !(0b11 << 62) | 0b10 << 62;
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn write_uuid(out: &mut String, bytes: [u8; 16]) {
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
}

/// FNV-1a, 64 bits, with a first byte that makes several functions of one.
fn fnv1a(bytes: &[u8], salt: u8) -> u64 {
    std::iter::once(&salt).chain(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
