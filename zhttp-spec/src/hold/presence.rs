//! Who is there: `hello` (`zhttp-spec/hold.md` §5). Its counterpart `bye` has no fields of its own.
//!
//! A handler says hello to each edge every second. What it says is the whole truth about it each
//! time, so that an edge that was just started learns in a second what the others know.

use crate::error::PacketError;
use crate::field::{bool_of, list_of, str_of, u32_of, u64_of};
use crate::packet::Packet;
use crate::tnetstring::{List, Value};
use crate::write::Fields;

/// `hello`: a handler is there, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// How long the edge may count on it, in milliseconds; not 0.
    pub ttl_ms: u64,
    /// Changes when the handler is started anew, so that a quick restart is noticed.
    pub incarnation: u64,
    /// It feeds channels.
    pub feeds: bool,
    /// The requests that it takes.
    pub serves: Serves<'a>,
    /// The most requests that it wants in flight; 0 is no limit.
    pub requests_max: u32,
}

/// What a handler serves: methods (`*` is any) and path prefixes; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves<'a>(List<'a>);

impl<'a> Serves<'a> {
    fn check(value: Value<'a>) -> Result<Self, PacketError> {
        let list = list_of(value, "serves")?;
        for pair in list {
            serve_of(pair?)?;
        }
        Ok(Serves(list))
    }
}

impl<'a> Iterator for Serves<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        serve_of(self.0.next()?.ok()?).ok()
    }
}

fn serve_of(value: Value<'_>) -> Result<(&str, &str), PacketError> {
    let mut pair = list_of(value, "serves")?;
    match (pair.next(), pair.next(), pair.next()) {
        (Some(method), Some(prefix), None) => {
            Ok((str_of(method?, "serves")?, str_of(prefix?, "serves")?))
        }
        _ => Err(PacketError::field("serves", "a list of [method, path prefix]")),
    }
}

impl<'a> Hello<'a> {
    /// Reads a `hello` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let (mut ttl_ms, mut incarnation, mut feeds, mut requests_max) = (0, 0, false, 0);
        let mut serves = Serves::default();
        for entry in packet.fields {
            match entry? {
                (_, Value::Null) => {}
                (b"ttl", value) => ttl_ms = u64_of(value, "ttl")?,
                (b"incarnation", value) => incarnation = u64_of(value, "incarnation")?,
                (b"feeds", value) => feeds = bool_of(value, "feeds")?,
                (b"requests-max", value) => requests_max = u32_of(value, "requests-max")?,
                (b"serves", value) => serves = Serves::check(value)?,
                _ => {}
            }
        }
        if ttl_ms == 0 {
            return Err(PacketError::Missing("ttl"));
        }
        Ok(Hello { ttl_ms, incarnation, feeds, serves, requests_max })
    }

    /// Writes the fields but `serves`, which comes from `serves`.
    pub fn write(&self, fields: &mut Fields<'_, '_>, serves: &[(&str, &str)]) {
        fields.int("ttl", self.ttl_ms);
        fields.int("incarnation", self.incarnation);
        fields.flag("feeds", self.feeds);
        if !serves.is_empty() {
            fields.list("serves", |writer| {
                for (method, prefix) in serves {
                    writer.list(|writer| {
                        writer.bytes(method.as_bytes());
                        writer.bytes(prefix.as_bytes());
                    });
                }
            });
        }
        fields.int("requests-max", self.requests_max.into());
    }
}
