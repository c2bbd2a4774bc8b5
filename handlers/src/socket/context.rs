//! What is known of a socket, as the context of its hold: JSON with short names, at most
//! [`CONTEXT_BYTES_MAX`] bytes, that only handlers see.
//!
//! Tokens are looked at once; what stays of them is what they cover, without their signature. An edge
//! is trusted with that, as it is with everything else that it says about a connection.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zhttp::hold::{CONTEXT_BYTES_MAX, derived_uuid};

use crate::auth::{ChannelPattern, Claims, LEEWAY_S};

/// How a socket stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its client may say something.
    Open(Socket),
    /// Its token was refused, and it is about to be closed.
    Refused {
        /// With this code.
        code: u16,
    },
}

/// What is known of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// Tells it from all other sockets. Not shown to its client.
    pub(super) nonce: Uuid,
    pub(super) org: String,
    /// What it may read: the claims of the last token of a subscriber, which has that org.
    pub(super) subscriber: Option<Claims>,
    /// What it may publish.
    pub(super) publisher: Option<Claims>,
}

impl Socket {
    /// A socket that may do nothing yet.
    pub(super) fn new(org: String) -> Self {
        Socket { nonce: Uuid::new_v4(), org, subscriber: None, publisher: None }
    }

    /// When it is closed, in seconds since 1970; `None` without a token.
    pub(super) fn expires_s(&self) -> Option<u64> {
        let tokens = [&self.subscriber, &self.publisher].into_iter().flatten();
        tokens.map(|claims| claims.expires_s.saturating_add(LEEWAY_S)).min()
    }

    /// The id of a message that has none: the same for whoever does the same request.
    pub(super) fn message_id(&self, number: u64, index: usize) -> Uuid {
        // The parts have no space, so no two requests have the same text.
        Uuid::from_bytes(derived_uuid(&format!("{} {number} {index}", self.nonce.simple())))
    }

    /// The context; `None` if it would be too long.
    pub(super) fn encode(&self) -> Option<Bytes> {
        encode(&Wire {
            nonce: self.nonce.simple().to_string(),
            org: self.org.clone(),
            subscriber: self.subscriber.as_ref().map(WireClaims::from),
            publisher: self.publisher.as_ref().map(WireClaims::from),
        })
    }
}

impl Standing {
    /// Reads a context; `None` if it is none of ours.
    pub(super) fn decode(context: &[u8]) -> Option<Standing> {
        if let Ok(WireRefused { code }) = serde_json::from_slice(context) {
            return Some(Standing::Refused { code });
        }
        let Wire { nonce, org, subscriber, publisher } = serde_json::from_slice(context).ok()?;
        let claims = |claims: Option<WireClaims>| claims.map(|claims| claims.into_claims(&org));
        let (subscriber, publisher) = (claims(subscriber), claims(publisher));
        let nonce = Uuid::try_parse(&nonce).ok()?;
        Some(Standing::Open(Socket { nonce, org, subscriber, publisher }))
    }
}

/// The context of a socket that is about to be closed.
pub(super) fn refused(code: u16) -> Bytes {
    encode(&WireRefused { code }).expect("a number is short")
}

fn encode(wire: &impl Serialize) -> Option<Bytes> {
    let json = serde_json::to_vec(wire).expect("strings and numbers are JSON");
    (json.len() <= CONTEXT_BYTES_MAX).then(|| json.into())
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRefused {
    #[serde(rename = "x")]
    code: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "n")]
    nonce: String,
    #[serde(rename = "o")]
    org: String,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    subscriber: Option<WireClaims>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    publisher: Option<WireClaims>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireClaims {
    #[serde(rename = "e")]
    expires_s: u64,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    channels: Option<WirePatterns>,
}

/// Names and prefixes apart: a name may end with a `*`, and then is no prefix.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePatterns {
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<String>,
}

impl From<&Claims> for WireClaims {
    fn from(claims: &Claims) -> Self {
        let channels = claims.channels.as_ref().map(|patterns| {
            let mut wire = WirePatterns::default();
            for pattern in patterns {
                match pattern {
                    ChannelPattern::Exact(name) => wire.names.push(name.clone()),
                    ChannelPattern::Prefix(prefix) => wire.prefixes.push(prefix.clone()),
                }
            }
            wire
        });
        WireClaims { expires_s: claims.expires_s, channels }
    }
}

impl WireClaims {
    fn into_claims(self, org: &str) -> Claims {
        let channels = self.channels.map(|WirePatterns { names, prefixes }| {
            let names = names.into_iter().map(ChannelPattern::Exact);
            names.chain(prefixes.into_iter().map(ChannelPattern::Prefix)).collect()
        });
        let org = Some(org.to_owned());
        Claims { org, channels, subject: None, expires_s: self.expires_s }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn claims(channels: Option<Vec<ChannelPattern>>, expires_s: u64) -> Claims {
        Claims { org: Some("acme".to_owned()), channels, subject: None, expires_s }
    }

    fn socket(subscriber: Option<Claims>, publisher: Option<Claims>) -> Socket {
        Socket { subscriber, publisher, ..Socket::new("acme".to_owned()) }
    }

    fn any_claims() -> impl Strategy<Value = Option<Claims>> {
        let name = "[a-z*:~]{0,9}".prop_map(ChannelPattern::Exact);
        let pattern = prop_oneof![name, "[a-z*]{0,9}".prop_map(ChannelPattern::Prefix)];
        let channels = prop::option::of(prop::collection::vec(pattern, 0..6));
        let sorted = |mut patterns: Vec<ChannelPattern>| {
            patterns.sort_by_key(|pattern| matches!(pattern, ChannelPattern::Prefix(_)));
            patterns
        };
        let channels = channels.prop_map(move |channels| channels.map(sorted));
        prop::option::of((channels, any::<u64>()).prop_map(|(channels, at)| claims(channels, at)))
    }

    proptest! {
        #[test]
        fn a_socket_comes_back(subscriber in any_claims(), publisher in any_claims()) {
            let socket = socket(subscriber, publisher);
            let context = socket.encode().unwrap();
            prop_assert!(context.len() <= CONTEXT_BYTES_MAX);
            prop_assert_eq!(Standing::decode(&context), Some(Standing::Open(socket)));
        }

        #[test]
        fn any_context_is_read_or_refused(bytes: Vec<u8>) {
            prop_assert_eq!(Standing::decode(&bytes), None);
        }
    }

    #[test]
    fn what_does_not_fit_has_no_context() {
        let with = |len: usize| {
            let name = ChannelPattern::Exact("c".repeat(len));
            socket(Some(claims(Some(vec![name]), 7)), None).encode()
        };
        let longest = CONTEXT_BYTES_MAX - with(0).unwrap().len();
        assert_eq!(with(longest).unwrap().len(), CONTEXT_BYTES_MAX);
        assert_eq!(with(longest + 1), None);
    }

    #[test]
    fn what_is_refused_says_how() {
        assert_eq!(Standing::decode(&refused(3501)), Some(Standing::Refused { code: 3501 }));
    }

    #[test]
    fn the_first_token_that_expires_counts() {
        let at = |expires_s| Some(claims(None, expires_s));
        assert_eq!(socket(None, None).expires_s(), None);
        assert_eq!(socket(at(7), None).expires_s(), Some(67));
        assert_eq!(socket(at(7), at(5)).expires_s(), Some(65));
        assert_eq!(socket(None, at(u64::MAX)).expires_s(), Some(u64::MAX));
    }

    #[test]
    fn ids_of_messages_differ() {
        let (one, other) = (socket(None, None), socket(None, None));
        let mut ids = std::collections::HashSet::new();
        for socket in [&one, &other] {
            for number in 1..30 {
                assert!((0..30).all(|index| ids.insert(socket.message_id(number, index))));
            }
        }
        assert_eq!(one.message_id(3, 4), one.clone().message_id(3, 4));
        assert_eq!(one.message_id(3, 4).get_version_num(), 8);
    }
}
