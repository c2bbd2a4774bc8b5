//! The one spelling of a channel's name (`docs/channels.md`, "Model").
//!
//! A name that is a UUID may be written in several ways (upper case, without hyphens,
//! `urn:uuid:…`); all of them are the same channel, spelled in lower case with hyphens. Every place
//! where a name comes in (a path, a body, a token) passes it through here, so that names can be
//! compared as bytes after.

use std::borrow::Cow;

use uuid::Uuid;

/// The canonical spelling of a channel name: a UUID in any form that RFC 9562 and its URN have
/// becomes lower case with hyphens; any other name stays as it is.
pub fn canonical_channel(name: &str) -> Cow<'_, str> {
    let Ok(uuid) = Uuid::try_parse(name) else { return Cow::Borrowed(name) };
    let mut buf = Uuid::encode_buffer();
    let canonical: &str = uuid.hyphenated().encode_lower(&mut buf);
    if canonical == name { Cow::Borrowed(name) } else { Cow::Owned(canonical.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_uuid_is_the_same_channel() {
        let canonical = "97f58c19-ce38-4c6b-8a5b-47f3405691f0";
        for name in [
            canonical,
            "97F58C19-CE38-4C6B-8A5B-47F3405691F0",
            "97f58c19ce384c6b8a5b47f3405691f0",
            "urn:uuid:97f58c19-ce38-4c6b-8a5b-47f3405691f0",
        ] {
            assert_eq!(canonical_channel(name), canonical);
        }
        assert!(matches!(canonical_channel(canonical), Cow::Borrowed(_)));
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in ["", "News", "97f58c19-ce38-4c6b-8a5b-47f3405691f", "room:7~x.y"] {
            assert_eq!(canonical_channel(name), name);
        }
    }
}
