//! The protobuf messages that publishers send (`docs/channels.md`, "Publish").
//!
//! The schema is `sentry_protos/conduit/v1alpha/publish.proto` beside this crate; `build.rs`
//! generates the types from it. Nothing is added to them here: what a message must satisfy, and how
//! it looks when it is delivered, is the business of the handlers.

#![forbid(unsafe_code)]

/// What prost generates for the package `sentry_protos.conduit.v1alpha`.
mod generated {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/sentry_protos.conduit.v1alpha.rs"));
}

pub use generated::{Phase, PublishRequest};

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{Struct, Timestamp, Value, value::Kind};

    use super::*;

    /// The field numbers and types are a contract with publishers that were built elsewhere, so
    /// they are pinned by bytes written by hand from the protobuf encoding, not by a round trip.
    #[test]
    fn the_wire_form_is_pinned() {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let request = PublishRequest {
            channel_id: "c".to_owned(),
            message_id: "m".to_owned(),
            client_timestamp: Some(Timestamp { seconds: 1, nanos: 2 }),
            phase: Phase::Delta.into(),
            sequence: 300,
            payload: Some(Struct { fields: [("k".to_owned(), text("v"))].into() }),
        };
        let expected = [
            &[0x0a, 1, b'c'][..],
            &[0x12, 1, b'm'],
            &[0x1a, 4, 0x08, 1, 0x10, 2],
            &[0x20, 2],
            &[0x28, 0xac, 0x02],
            &[0x32, 10, 0x0a, 8, 0x0a, 1, b'k', 0x12, 3, 0x1a, 1, b'v'],
        ]
        .concat();
        assert_eq!(request.encode_to_vec(), expected);
        assert_eq!(PublishRequest::decode(&expected[..]), Ok(request));
    }

    #[test]
    fn phases_have_their_numbers_and_names() {
        let phases = [
            (0, "PHASE_UNSPECIFIED"),
            (1, "PHASE_START"),
            (2, "PHASE_DELTA"),
            (3, "PHASE_END"),
            (4, "PHASE_ERROR"),
        ];
        for (number, name) in phases {
            assert_eq!(Phase::try_from(number).map(|phase| phase.as_str_name()), Ok(name));
        }
        assert!(Phase::try_from(5).is_err());
    }
}
