//! The format of a publish body, from its `Content-Type` (RFC 9110 §8.3).

use super::EventError;

/// How many bytes of an unknown content type are shown in the answer that refuses it.
const SHOWN_BYTES_MAX: usize = 64;

/// The formats of a publish body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One protobuf `PublishRequest`.
    Protobuf,
    /// One JSON object, or an array of them.
    Json,
    /// JSON objects, each on a line of its own.
    Ndjson,
}

impl Format {
    /// The format that a `Content-Type` names: its parameters are ignored, case does not matter.
    ///
    /// None at all means protobuf: that is what publishers of Sentry's kind send, and their server
    /// never looks at the type.
    ///
    /// # Errors
    ///
    /// [`EventError::ContentType`] for any other type.
    pub fn from_content_type(value: Option<&[u8]>) -> Result<Self, EventError> {
        let value = value.unwrap_or_default();
        let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let is =
            |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name.as_bytes()));
        if essence.is_empty() || is(PROTOBUF_TYPES) {
            Ok(Format::Protobuf)
        } else if is(JSON_TYPES) {
            Ok(Format::Json)
        } else if is(NDJSON_TYPES) {
            Ok(Format::Ndjson)
        } else {
            Err(EventError::ContentType(shown(essence)))
        }
    }
}

/// Never registered for most of its life; these are the spellings in use.
const PROTOBUF_TYPES: &[&str] =
    &["application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf"];

const JSON_TYPES: &[&str] = &["application/json"];

const NDJSON_TYPES: &[&str] = &["application/x-ndjson", "application/ndjson"];

/// What may be repeated to the client: its own bytes, but few and printable.
fn shown(essence: &[u8]) -> String {
    let shown = &essence[..essence.len().min(SHOWN_BYTES_MAX)];
    shown.iter().map(|&byte| if byte.is_ascii_graphic() { byte as char } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(value: &str) -> Result<Format, EventError> {
        Format::from_content_type(Some(value.as_bytes()))
    }

    #[test]
    fn known_types_in_any_case_and_with_parameters() {
        assert_eq!(of("application/x-protobuf"), Ok(Format::Protobuf));
        assert_eq!(of("Application/Protobuf"), Ok(Format::Protobuf));
        assert_eq!(of("application/json"), Ok(Format::Json));
        assert_eq!(of(" APPLICATION/JSON ; charset=utf-8; x=\"a;b\""), Ok(Format::Json));
        assert_eq!(of("application/x-ndjson;charset=utf-8"), Ok(Format::Ndjson));
    }

    #[test]
    fn no_type_is_protobuf() {
        assert_eq!(Format::from_content_type(None), Ok(Format::Protobuf));
        assert_eq!(of(""), Ok(Format::Protobuf));
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let error = of("application/x-www-form-urlencoded; a=b").unwrap_err();
        assert_eq!(error.to_string(), "Unsupported content type application/x-www-form-urlencoded");
        assert_eq!(error.status(), 415);
        let long = of(&format!("text/\n{}", "x".repeat(1000))).unwrap_err();
        assert_eq!(long, EventError::ContentType(format!("text/?{}", "x".repeat(58))));
    }
}
