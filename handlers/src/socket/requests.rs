//! What a client may say, read and checked as far as that needs nothing but the text.
//!
//! A request is a JSON object with a `type`. Members that a type does not have are not looked at; so a
//! `publish` may have all members of a message, which is decoded from the same text later. Members are
//! first cut out as they stand: then the `id` can be repeated whatever is wrong with the others.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::attach::ClientMessage;
use crate::fanout::{LIMIT_DEFAULT, LIMIT_MAX, Start};
use crate::publish::Ack;
use crate::store::ChannelName;

/// The longest id, in bytes: of the text of a number, or of what a string says.
const ID_BYTES_MAX: usize = 64;

/// The type of requests whose outcomes are counted.
const PUBLISH: &str = "publish";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// As it stands, JSON.
    pub(super) id: Option<&'a str>,
    /// Counts from this request on.
    pub(super) token: Option<String>,
    pub(super) ask: Ask<'a>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    Subscribe { channel: ChannelName, start: Start },
    Unsubscribe { channel: ChannelName },
    Publish { channel: ChannelName, expect: Option<u64>, ack: Ack, text: &'a [u8] },
    History { channel: ChannelName, start: Start, limit: u32 },
    Head { channel: ChannelName },
    Refresh,
    Ping,
}

/// Something that is no request: what of it could be read, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Malformed<'a> {
    pub(super) id: Option<&'a str>,
    /// Counts all the same, from here on.
    pub(super) token: Option<String>,
    /// Whether something was to be published.
    pub(super) is_publish: bool,
    pub(super) text: String,
}

/// All members that any request has, as they stand. Null is absent.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    expect: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Reads what the client of a socket of `org` has said.
    pub(super) fn parse(said: &'a ClientMessage, org: &str) -> Result<Self, Malformed<'a>> {
        let nothing = |text: String| Malformed { text, ..Malformed::default() };
        if said.binary {
            return Err(nothing("a request is a text message".to_owned()));
        }
        // Looked at apart, because serde would also take the members from an array, by position.
        if said.body.trim_ascii_start().first() != Some(&b'{') {
            return Err(nothing("a request is a JSON object".to_owned()));
        }
        let members: Members<'a> = serde_json::from_slice(&said.body)
            .map_err(|error| nothing(format!("not a JSON object: {error}")))?;
        let mut known = Malformed::default();
        match members.read(&mut known, org, &said.body) {
            Ok(ask) => Ok(Request { id: known.id, token: known.token, ask }),
            Err(text) => Err(Malformed { text, ..known }),
        }
    }
}

impl<'a> Members<'a> {
    /// Reads all of them. What is `known` when something is found to be wrong was read before that.
    fn read(
        &self,
        known: &mut Malformed<'a>,
        org: &str,
        text: &'a [u8],
    ) -> Result<Ask<'a>, String> {
        // First of all, as it counts whatever is wrong with the others.
        let token = optional("token", self.token, "a string").map(|token| known.token = token);
        known.id = self.id.map(id_of).transpose()?;
        let kind = self.kind.ok_or("type: is missing")?;
        let kind: String = value_of("type", kind, "a string")?;
        known.is_publish = kind == PUBLISH;
        token?;
        if kind == "refresh" && known.token.is_none() {
            return Err("token: is missing".to_owned());
        }
        self.ask(&kind, org, text)
    }

    fn ask(&self, kind: &str, org: &str, text: &'a [u8]) -> Result<Ask<'a>, String> {
        let channel = || self.channel(org);
        Ok(match kind {
            "subscribe" => {
                Ask::Subscribe { channel: channel()?, start: start("cursor", self.cursor)? }
            }
            "unsubscribe" => Ask::Unsubscribe { channel: channel()? },
            PUBLISH => {
                let expect = optional("expect", self.expect, "an offset, a number from 0")?;
                let ack: Option<String> = optional("ack", self.ack, Ack::NAMES)?;
                let wrong = || format!("ack: want {}", Ack::NAMES);
                let ack = ack.map(|ack| Ack::parse(&ack).ok_or_else(wrong)).transpose()?;
                let ack = ack.unwrap_or_default();
                Ask::Publish { channel: channel()?, expect, ack, text }
            }
            "history" => {
                let (channel, start) = (channel()?, start("after", self.after)?);
                Ask::History { channel, start, limit: self.limit()? }
            }
            "head" => Ask::Head { channel: channel()? },
            "refresh" => Ask::Refresh,
            "ping" => Ask::Ping,
            unknown => return Err(format!("type: {unknown:?} is unknown")),
        })
    }

    fn channel(&self, org: &str) -> Result<ChannelName, String> {
        let channel = self.channel.ok_or("channel: is missing")?;
        let channel: String = value_of("channel", channel, "a string")?;
        ChannelName::new(org, &channel).map_err(|error| format!("channel: {error}"))
    }

    fn limit(&self) -> Result<u32, String> {
        let wanted = format!("1 to {LIMIT_MAX} events");
        let limit = optional("limit", self.limit, &wanted)?.unwrap_or(LIMIT_DEFAULT);
        if (1..=LIMIT_MAX).contains(&limit) {
            Ok(limit)
        } else {
            Err(format!("limit: want {wanted}"))
        }
    }
}

fn id_of(id: &RawValue) -> Result<&str, String> {
    let text = id.get();
    let len = if text.starts_with('"') {
        serde_json::from_str::<String>(text).ok().map(|id| id.len())
    } else {
        let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        is_number.then_some(text.len())
    };
    if len.is_some_and(|len| len <= ID_BYTES_MAX) {
        Ok(text)
    } else {
        Err(format!("id: want a number, or a string of at most {ID_BYTES_MAX} bytes"))
    }
}

fn start(name: &str, value: Option<&RawValue>) -> Result<Start, String> {
    let cursor: Option<String> = optional(name, value, "a string")?;
    Start::parse(&cursor.unwrap_or_default()).map_err(|error| format!("{name}: {error}"))
}

fn optional<T: DeserializeOwned>(
    name: &str,
    value: Option<&RawValue>,
    wanted: &str,
) -> Result<Option<T>, String> {
    value.map(|value| value_of(name, value, wanted)).transpose()
}

fn value_of<T: DeserializeOwned>(name: &str, value: &RawValue, wanted: &str) -> Result<T, String> {
    serde_json::from_str(value.get()).map_err(|_| format!("{name}: want {wanted}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use zhttp::Cursor;

    use super::*;

    fn said(text: &str) -> ClientMessage {
        ClientMessage { body: bytes::Bytes::copy_from_slice(text.as_bytes()), binary: false }
    }

    fn ask(text: &str) -> Ask<'static> {
        let said = Box::leak(Box::new(said(text)));
        Request::parse(said, "acme").unwrap().ask
    }

    #[test]
    fn each_type_has_its_members() {
        let channel = ChannelName::new("acme", "news").unwrap();
        let named = || channel.clone();
        let subscribe = |start| Ask::Subscribe { channel: named(), start };
        let text =
            r#"{"type":"publish","channel":"news","expect":7,"ack":"accepted","payload":{}}"#;
        let publish = |expect, ack, text: &'static str| Ask::Publish {
            channel: named(),
            expect,
            ack,
            text: text.as_bytes(),
        };
        let plain = r#"{"type":"publish","channel":"news","expect":null}"#;
        for (text, expected) in [
            (r#"{"type":"subscribe","channel":"news"}"#, subscribe(Start::Oldest)),
            (r#"{"type":"subscribe","channel":"news","cursor":""}"#, subscribe(Start::Oldest)),
            (r#"{"type":"subscribe","channel":"news","cursor":"$"}"#, subscribe(Start::Now)),
            (
                r#" {"cursor":"5-7","channel":"news","type":"subscribe"} "#,
                subscribe(Start::After(Cursor::new(5, 7))),
            ),
            (r#"{"type":"unsubscribe","channel":"news"}"#, Ask::Unsubscribe { channel: named() }),
            (text, publish(Some(7), Ack::Accepted, text)),
            (plain, publish(None, Ack::Stored, plain)),
            (
                r#"{"type":"history","channel":"news","after":"5-7","limit":1000}"#,
                Ask::History {
                    channel: named(),
                    start: Start::After(Cursor::new(5, 7)),
                    limit: 1000,
                },
            ),
            (
                r#"{"type":"history","channel":"news"}"#,
                Ask::History { channel: named(), start: Start::Oldest, limit: 100 },
            ),
            (r#"{"type":"head","channel":"news"}"#, Ask::Head { channel: named() }),
            (r#"{"type":"refresh","token":"t"}"#, Ask::Refresh),
            // Members of other types are nobody's business.
            (r#"{"type":"ping","channel":7,"limit":"x","more":[{}]}"#, Ask::Ping),
        ] {
            assert_eq!(ask(text), expected, "{text}");
        }
    }

    #[test]
    fn ids_are_repeated_as_they_stand() {
        let longest = format!("\"{}\"", "x".repeat(64));
        let escaped = format!("\"{}\"", "\\u0041".repeat(64));
        for id in ["0", "-1.50e3", r#""""#, r#""a\"b""#, &longest, &escaped] {
            let said = said(&format!(r#"{{"type":"ping","id":{id}}}"#));
            assert_eq!(Request::parse(&said, "acme").unwrap().id, Some(id));
        }
        let no_id = said(r#"{"type":"ping","id":null}"#);
        assert_eq!(Request::parse(&no_id, "acme").unwrap().id, None);
        let long = format!("\"{}\"", "x".repeat(65));
        let number = "1".repeat(65);
        for id in ["true", "{}", "[1]", &long, &number] {
            let said = said(&format!(r#"{{"type":"ping","id":{id}}}"#));
            let malformed = Request::parse(&said, "acme").unwrap_err();
            assert_eq!(malformed.id, None);
            assert_eq!(malformed.text, "id: want a number, or a string of at most 64 bytes");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let channel = "channel: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -";
        for (text, expected) in [
            ("", "a request is a JSON object"),
            (r#"["ping"]"#, "a request is a JSON object"),
            ("{", "not a JSON object: EOF while parsing an object at line 1 column 1"),
            ("{} {}", "not a JSON object: trailing characters at line 1 column 4"),
            (
                r#"{"type":"ping","type":"ping"}"#,
                "not a JSON object: duplicate field `type` at line 1 column 21",
            ),
            ("{}", "type: is missing"),
            (r#"{"type":7}"#, "type: want a string"),
            (r#"{"type":"pong"}"#, r#"type: "pong" is unknown"#),
            (r#"{"type":"subscribe"}"#, "channel: is missing"),
            (r#"{"type":"head","channel":7}"#, "channel: want a string"),
            (r#"{"type":"head","channel":"a b"}"#, channel),
            (r#"{"type":"subscribe","channel":"a","cursor":7}"#, "cursor: want a string"),
            (
                r#"{"type":"subscribe","channel":"a","cursor":"7"}"#,
                "cursor: a cursor is <epoch>-<offset>, two decimal numbers",
            ),
            (r#"{"type":"history","channel":"a","after":{}}"#, "after: want a string"),
            (r#"{"type":"history","channel":"a","limit":0}"#, "limit: want 1 to 1000 events"),
            (r#"{"type":"history","channel":"a","limit":1001}"#, "limit: want 1 to 1000 events"),
            (r#"{"type":"history","channel":"a","limit":"7"}"#, "limit: want 1 to 1000 events"),
            (
                r#"{"type":"publish","channel":"a","expect":-1}"#,
                "expect: want an offset, a number from 0",
            ),
            (r#"{"type":"publish","channel":"a","ack":"x"}"#, "ack: want stored or accepted"),
            (r#"{"type":"publish","channel":"a","ack":1}"#, "ack: want stored or accepted"),
            (r#"{"type":"ping","token":7}"#, "token: want a string"),
            (r#"{"type":"refresh"}"#, "token: is missing"),
        ] {
            let said = said(text);
            let malformed = Request::parse(&said, "acme").unwrap_err();
            assert_eq!(malformed.text, expected, "{text}");
            assert_eq!(malformed.is_publish, text.contains("publish"), "{text}");
        }
        let binary = ClientMessage { binary: true, ..said(r#"{"type":"ping"}"#) };
        let malformed = Request::parse(&binary, "acme").unwrap_err();
        assert_eq!(malformed.text, "a request is a text message");
        let said = said(r#"{"channel":7,"id":"x","type":"head"}"#);
        assert_eq!(Request::parse(&said, "acme").unwrap_err().id, Some(r#""x""#));
    }

    #[test]
    fn a_token_is_read_whatever_is_wrong_with_the_rest() {
        for text in [
            r#"{"token":"t"}"#,
            r#"{"token":"t","id":true,"type":"ping"}"#,
            r#"{"type":"pong","token":"t"}"#,
            r#"{"type":7,"token":"t"}"#,
            r#"{"type":"head","channel":"a b","token":"t"}"#,
            r#"{"type":"publish","channel":"a","ack":"x","token":"t"}"#,
        ] {
            let said = said(text);
            let malformed = Request::parse(&said, "acme").unwrap_err();
            assert_eq!(malformed.token.as_deref(), Some("t"), "{text}");
        }
        // Of what is no JSON object nothing counts.
        for text in [r#"{"type":"pong","token":"t"} {}"#, r#"["t"]"#, r#"{"token":7}"#] {
            let said = said(text);
            assert_eq!(Request::parse(&said, "acme").unwrap_err().token, None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"[\{\}\[\]",:a-z0-9\\ -]{0,60}"#) {
            let said = said(&text);
            if let Err(malformed) = Request::parse(&said, "acme") {
                prop_assert!(!malformed.text.is_empty());
            }
        }
    }
}
