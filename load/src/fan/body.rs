//! What is posted: a payload as the server wants it.

/// A body with places for the payload and the number of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    parts: Vec<Part>,
    content_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Payload,
    Channel,
}

/// A PublishRequest of Forebay.
const JSON: &str = r#"{"phase":"PHASE_DELTA","payload":{"value":"{payload}"}}"#;

const PAYLOAD: &str = "{payload}";

const CHANNEL: &str = "{c}";

/// Reads `json`, `raw`, or a text with `{payload}`.
pub(super) fn parse(text: &str) -> Result<Body, &'static str> {
    let (mut rest, content_type) = match text {
        "json" => (JSON, "application/json"),
        "raw" => (PAYLOAD, "text/plain"),
        _ if text.trim_start().starts_with(['{', '[']) => (text, "application/json"),
        _ => (text, "text/plain"),
    };
    if !rest.contains(PAYLOAD) {
        return Err("neither json nor raw, nor a text with {payload}");
    }
    let mut parts = Vec::new();
    loop {
        let places = [(PAYLOAD, Part::Payload), (CHANNEL, Part::Channel)];
        let found =
            places.into_iter().filter_map(|(name, part)| Some((rest.find(name)?, name, part)));
        let Some((place, name, part)) = found.min_by_key(|(place, ..)| *place) else { break };
        parts.extend([Part::Text(rest[..place].to_owned()), part]);
        rest = &rest[place + name.len()..];
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(Body { parts, content_type })
}

impl Body {
    pub(super) fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// Writes it; `payload` writes the payload.
    pub(super) fn write(&self, channel: u64, out: &mut Vec<u8>, payload: impl Fn(&mut Vec<u8>)) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Payload => payload(out),
                Part::Channel => out.extend_from_slice(channel.to_string().as_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_body_is_what_the_server_wants() {
        for (text, kind, expected) in [
            ("raw", "text/plain", "PAY"),
            ("json", "application/json", r#"{"phase":"PHASE_DELTA","payload":{"value":"PAY"}}"#),
            (r#"{"c":"c{c}","p":"{payload}{c}"}"#, "application/json", r#"{"c":"c7","p":"PAY7"}"#),
        ] {
            let body = parse(text).unwrap();
            let mut out = Vec::new();
            body.write(7, &mut out, |out| out.extend_from_slice(b"PAY"));
            assert_eq!(
                (String::from_utf8(out).unwrap().as_str(), body.content_type()),
                (expected, kind)
            );
        }
        assert!(parse("yaml").is_err());
    }
}
