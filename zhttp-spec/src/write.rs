//! Writing packets: an [`Envelope`] and the fields behind it, in Condure's order.
//!
//! `from`, `id`, `seq`, `ext`, `type`, then the payload. Empty byte strings, zeros and `false` are
//! left out, as Condure does; [`Fields`] keeps to that.

use crate::packet::{Id, Kind};
use crate::tnetstring::Writer;

/// What every packet has.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The address of the sender; empty to leave it out.
    pub from: &'a [u8],
    /// The sessions, at most [`IDS_MAX`](crate::IDS_MAX): none, one, or a list.
    pub ids: &'a [Id<'a>],
    /// What it is.
    pub kind: Kind,
    /// Say `ext: {multi: true}`.
    pub multi: bool,
}

impl<'a> Envelope<'a> {
    /// An envelope about no session.
    pub const fn new(from: &'a [u8], kind: Kind) -> Self {
        Envelope { from, ids: &[], kind, multi: false }
    }

    /// The same about these sessions.
    pub const fn about(self, ids: &'a [Id<'a>]) -> Self {
        Envelope { ids, ..self }
    }

    /// Appends the packet to `out`, with the fields that `payload` writes.
    pub fn write(&self, out: &mut Vec<u8>, payload: impl FnOnce(&mut Fields<'_, '_>)) {
        self.write_ext(out, |_| {}, payload);
    }

    /// The same, with entries of `ext` beyond `multi`.
    pub fn write_ext(
        &self,
        out: &mut Vec<u8>,
        ext: impl FnOnce(&mut Fields<'_, '_>),
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) {
        out.push(b'T');
        Writer::new(out).map(|writer| {
            let mut fields = Fields { writer };
            fields.bytes("from", self.from);
            self.write_ids(&mut fields);
            fields.map("ext", |fields| {
                fields.flag("multi", self.multi);
                ext(fields);
            });
            // Data has the empty name, and so no type.
            fields.bytes("type", self.kind.name().as_bytes());
            payload(&mut fields);
        });
    }

    fn write_ids(&self, fields: &mut Fields<'_, '_>) {
        debug_assert!(self.ids.len() <= crate::IDS_MAX, "the caller batches");
        match self.ids {
            [] => {}
            [id] => {
                fields.bytes_even_if_empty("id", id.id);
                fields.seq(id.seq);
            }
            ids => fields.list("id", |writer| {
                for id in ids {
                    writer.map(|writer| {
                        let mut fields = Fields { writer };
                        fields.bytes_even_if_empty("id", id.id);
                        fields.seq(id.seq);
                    });
                }
            }),
        }
    }
}

/// Writes the entries of a map; what is empty, zero or false is left out.
#[derive(Debug)]
pub struct Fields<'w, 'b> {
    writer: &'w mut Writer<'b>,
}

impl Fields<'_, '_> {
    /// A byte string, unless it is empty.
    pub fn bytes(&mut self, key: &str, value: &[u8]) {
        if !value.is_empty() {
            self.bytes_even_if_empty(key, value);
        }
    }

    /// A byte string that is put together of these parts.
    pub fn bytes_of(&mut self, key: &str, parts: &[&[u8]]) {
        self.writer.bytes(key.as_bytes());
        self.writer.bytes_of(parts);
    }

    /// A byte string, also an empty one: for the few fields in which that says something.
    pub(crate) fn bytes_even_if_empty(&mut self, key: &str, value: &[u8]) {
        self.writer.bytes(key.as_bytes());
        self.writer.bytes(value);
    }

    /// A number, also 0: for the few fields in which that says something. Numbers above `i64::MAX`
    /// are written as that.
    pub(crate) fn int_even_if_zero(&mut self, key: &str, value: u64) {
        self.writer.bytes(key.as_bytes());
        self.writer.int(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A number, unless it is 0. Numbers above `i64::MAX` are written as that.
    pub fn int(&mut self, key: &str, value: u64) {
        if value != 0 {
            self.int_even_if_zero(key, value);
        }
    }

    /// `true`, unless it is false.
    pub fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.writer.bytes(key.as_bytes());
            self.writer.bool(true);
        }
    }

    /// A list of what `fill` writes.
    pub fn list(&mut self, key: &str, fill: impl FnOnce(&mut Writer<'_>)) {
        self.writer.bytes(key.as_bytes());
        self.writer.list(fill);
    }

    /// A map, unless `fill` writes nothing.
    pub fn map(&mut self, key: &str, fill: impl FnOnce(&mut Fields<'_, '_>)) {
        self.writer.optional_map(key.as_bytes(), |writer| fill(&mut Fields { writer }));
    }

    /// Headers, unless there are none.
    pub fn headers<'h>(&mut self, headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) {
        let mut headers = headers.peekable();
        if headers.peek().is_some() {
            self.list("headers", |writer| {
                for (name, value) in headers {
                    writer.list(|writer| {
                        writer.bytes(name);
                        writer.bytes(value);
                    });
                }
            });
        }
    }

    fn seq(&mut self, seq: Option<u32>) {
        if let Some(seq) = seq {
            self.int_even_if_zero("seq", seq.into());
        }
    }
}
