//! The fields of plain ZHTTP beyond those of every packet (`zhttp-spec/zhttp.md` §4).
//!
//! One struct serves requests, responses, pieces of bodies, errors, credits and the WebSocket
//! packets: they share most of their fields, and which of them are right at which moment is for the
//! session to say. What is unknown is skipped, for Pushpin sends more than an edge needs.

use crate::error::PacketError;
use crate::field::{bool_of, bytes_of, list_of, str_of, u16_of, u32_of};
use crate::tnetstring::{List, Map, Value};
use crate::write::Fields;

/// The headers of a request or response; iterate to read names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a>(List<'a>);

impl<'a> Headers<'a> {
    fn check(value: Value<'a>) -> Result<Self, PacketError> {
        let list = list_of(value, "headers")?;
        for pair in list {
            header(pair?).ok_or(PacketError::field("headers", "a list of [name, value]"))?;
        }
        Ok(Headers(list))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        header(self.0.next()?.ok()?)
    }
}

fn header(value: Value<'_>) -> Option<(&[u8], &[u8])> {
    let Value::List(mut pair) = value else { return None };
    match (pair.next()?.ok()?, pair.next()?.ok()?, pair.next()) {
        (Value::Bytes(name), Value::Bytes(value), None) => Some((name, value)),
        _ => None,
    }
}

/// The fields of plain ZHTTP beyond those of every packet; what is absent is empty, 0 or `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Payload<'a> {
    /// The method of a request.
    pub method: Option<&'a str>,
    /// The target of a request, absolute.
    pub uri: Option<&'a str>,
    /// The status of a response, or the code of a WebSocket close.
    pub code: Option<u16>,
    /// The reason phrase of a response.
    pub reason: &'a [u8],
    /// Why, in an error.
    pub condition: Option<&'a str>,
    /// The headers of a request or a response.
    pub headers: Headers<'a>,
    /// `text` or `binary`, in WebSocket data.
    pub content_type: &'a [u8],
    /// The body, or a piece of it.
    pub body: &'a [u8],
    /// How many more bytes the sender takes.
    pub credits: u32,
    /// More of the body follows.
    pub more: bool,
    /// The answer may come in pieces.
    pub stream: bool,
    /// Answers may come by the ROUTER socket.
    pub router_resp: bool,
    /// The address of the client.
    pub peer_address: Option<&'a str>,
    /// The port of the client.
    pub peer_port: Option<u16>,
}

impl<'a> Payload<'a> {
    pub(crate) fn read(fields: Map<'a>) -> Result<Self, PacketError> {
        let mut payload = Payload::default();
        for entry in fields {
            let (key, value) = entry?;
            if value == Value::Null {
                continue;
            }
            match key {
                b"method" => payload.method = Some(str_of(value, "method")?),
                b"uri" => payload.uri = Some(str_of(value, "uri")?),
                b"code" => payload.code = Some(u16_of(value, "code")?),
                b"reason" => payload.reason = bytes_of(value, "reason")?,
                b"condition" => payload.condition = Some(str_of(value, "condition")?),
                b"headers" => payload.headers = Headers::check(value)?,
                b"content-type" => payload.content_type = bytes_of(value, "content-type")?,
                b"body" => payload.body = bytes_of(value, "body")?,
                b"credits" => payload.credits = u32_of(value, "credits")?,
                b"more" => payload.more = bool_of(value, "more")?,
                b"stream" => payload.stream = bool_of(value, "stream")?,
                b"router-resp" => payload.router_resp = bool_of(value, "router-resp")?,
                b"peer-address" => payload.peer_address = Some(str_of(value, "peer-address")?),
                b"peer-port" => payload.peer_port = Some(port_of(value)?),
                _ => {}
            }
        }
        Ok(payload)
    }

    /// Writes the fields, in Condure's order.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("method", self.method.unwrap_or_default().as_bytes());
        fields.bytes("uri", self.uri.unwrap_or_default().as_bytes());
        fields.bytes("condition", self.condition.unwrap_or_default().as_bytes());
        fields.int("code", self.code.unwrap_or_default().into());
        fields.bytes("reason", self.reason);
        fields.headers(self.headers);
        fields.bytes("content-type", self.content_type);
        fields.bytes("body", self.body);
        fields.int("credits", self.credits.into());
        fields.flag("more", self.more);
        fields.flag("stream", self.stream);
        fields.flag("router-resp", self.router_resp);
        fields.bytes("peer-address", self.peer_address.unwrap_or_default().as_bytes());
        fields.int("peer-port", self.peer_port.unwrap_or_default().into());
    }
}

/// Pushpin's proxy writes the port as a string (its `zhttprequestpacket`, 1.36 to 2.0-dev).
fn port_of(value: Value<'_>) -> Result<u16, PacketError> {
    let Value::Bytes(text) = value else { return u16_of(value, "peer-port") };
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(PacketError::field("peer-port", "a port number"))
}
