//! What is known of a socket, as the context of its hold: JSON with short names, at most
//! [`CONTEXT_BYTES_MAX`] bytes, that only handlers see.
//!
//! Tokens are looked at once; what stays of them is what they cover, without their signature. An edge
//! is trusted with that, as it is with everything else that it says about a connection.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zhttp::hold::CONTEXT_BYTES_MAX;

use crate::auth::{ChannelPattern, Claims, LEEWAY_S};

/// Tokens that are refused one after the other, at which a socket is closed. Each costs a look at a
/// signature; who comes again for more pays for a handshake. Below 10, so that the number is one digit.
pub(super) const REFUSED_TOKENS_MAX: u8 = 8;

/// How a socket stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its client may say something.
    Open(Box<Socket>),
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
    /// Tokens that were refused since one was taken; less than [`REFUSED_TOKENS_MAX`], but at the
    /// end of the batch that reaches it.
    pub(super) refused_tokens: u8,
}

impl Socket {
    /// A socket that may do nothing yet.
    pub(super) fn new(org: String) -> Self {
        let nonce = Uuid::new_v4();
        Socket { nonce, org, subscriber: None, publisher: None, refused_tokens: 0 }
    }

    /// When it is closed, in seconds since 1970; `None` without a token.
    pub(super) fn expires_s(&self) -> Option<u64> {
        let tokens = [&self.subscriber, &self.publisher].into_iter().flatten();
        tokens.map(|claims| claims.expires_s.saturating_add(LEEWAY_S)).min()
    }

    /// Whether it is to be closed because of the tokens that it brought.
    pub(super) fn has_tried_enough(&self) -> bool {
        self.refused_tokens >= REFUSED_TOKENS_MAX
    }

    /// The id of a message that has none: the same for whoever does the same request.
    ///
    /// Made by a function that nobody can turn round, as readers see these ids, and the nonce is all
    /// that is secret: who could find it in some ids would know those to come, and could take one for
    /// a message of their own. Then the message that it belongs to would count as a repetition.
    pub(super) fn message_id(&self, number: u64, index: usize) -> Uuid {
        // Each part has its own place, so no two requests are the same text.
        let digest = Sha256::new()
            .chain_update(self.nonce.as_bytes())
            .chain_update(number.to_be_bytes())
            .chain_update((index as u64).to_be_bytes())
            .finalize();
        let (id, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
        Uuid::new_v8(*id)
    }

    /// The context; `None` if it would be too long.
    pub(super) fn encode(&self) -> Option<Bytes> {
        let claims = |claims: &Option<Claims>| claims.as_ref().map(WireClaims::from);
        let is_one = self.subscriber == self.publisher;
        encode(&Wire {
            nonce: self.nonce.simple().to_string(),
            org: self.org.clone(),
            refused_tokens: self.refused_tokens,
            both: claims(&self.subscriber).filter(|_| is_one),
            subscriber: claims(&self.subscriber).filter(|_| !is_one),
            publisher: claims(&self.publisher).filter(|_| !is_one),
        })
    }
}

impl Standing {
    /// Reads a context; `None` if it is none of ours.
    pub(super) fn decode(context: &[u8]) -> Option<Standing> {
        if let Ok(WireRefused { code }) = serde_json::from_slice(context) {
            return Some(Standing::Refused { code });
        }
        let wire: Wire = serde_json::from_slice(context).ok()?;
        let Wire { nonce, org, refused_tokens, both, subscriber, publisher } = wire;
        let claims = |claims: Option<WireClaims>| claims.map(|claims| claims.into_claims(&org));
        let (subscriber, publisher) = match (claims(both), claims(subscriber), claims(publisher)) {
            (None, subscriber, publisher) => (subscriber, publisher),
            (both, None, None) => (both.clone(), both),
            (Some(_), _, _) => return None,
        };
        let nonce = Uuid::try_parse(&nonce).ok()?;
        let socket = Socket { nonce, org, subscriber, publisher, refused_tokens };
        (!socket.has_tried_enough()).then(|| Standing::Open(socket.into()))
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
    /// Always there, and one digit: a context that fits goes on to fit when a token is refused.
    #[serde(rename = "r")]
    refused_tokens: u8,
    /// Of a token that is of both kinds: in place of the other two, as it would not fit twice.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    both: Option<WireClaims>,
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

    fn any_socket() -> impl Strategy<Value = Socket> {
        let refused = 0..REFUSED_TOKENS_MAX;
        (any_claims(), any_claims(), any::<bool>(), refused).prop_map(
            |(subscriber, other, is_one, refused_tokens)| {
                let publisher = if is_one { subscriber.clone() } else { other };
                Socket { refused_tokens, ..socket(subscriber, publisher) }
            },
        )
    }

    /// One change of a text, anywhere in it.
    #[derive(Clone, Debug)]
    enum Mutation {
        Set(u8),
        Insert(u8),
        Remove,
        Cut,
        /// Says again what follows, up to so many bytes of it.
        Repeat(usize),
    }

    fn mutation() -> impl Strategy<Value = (prop::sample::Index, Mutation)> {
        // Mostly what means something in JSON.
        let byte =
            || prop_oneof![prop::sample::select(&b"{}[]\",:0123456789nosprbcex"[..]), any::<u8>()];
        let mutation = prop_oneof![
            4 => byte().prop_map(Mutation::Set),
            2 => byte().prop_map(Mutation::Insert),
            2 => Just(Mutation::Remove),
            1 => Just(Mutation::Cut),
            1 => (1..30_usize).prop_map(Mutation::Repeat),
        ];
        (any::<prop::sample::Index>(), mutation)
    }

    fn mutated(context: &[u8], mutations: &[(prop::sample::Index, Mutation)]) -> Vec<u8> {
        let mut bytes = context.to_vec();
        for (at, mutation) in mutations {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match mutation {
                Mutation::Set(byte) => bytes[at] = *byte,
                Mutation::Insert(byte) => bytes.insert(at, *byte),
                Mutation::Remove => drop(bytes.remove(at)),
                Mutation::Cut => bytes.truncate(at),
                Mutation::Repeat(len) => {
                    let end = bytes.len().min(at + len);
                    let again = bytes[at..end].to_vec();
                    bytes.splice(end..end, again);
                }
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_socket_comes_back(socket in any_socket()) {
            let context = socket.encode().unwrap();
            prop_assert!(context.len() <= CONTEXT_BYTES_MAX);
            prop_assert_eq!(Standing::decode(&context), Some(Standing::Open(socket.into())));
        }

        /// Whatever a context says that was spoilt, it is a socket like any other, or nothing.
        #[test]
        fn a_spoilt_context_is_read_or_refused(
            socket in any_socket(),
            code in prop::option::weighted(0.1, any::<u16>()),
            mutations in prop::collection::vec(mutation(), 0..4),
        ) {
            let context = code.map_or_else(|| socket.encode().unwrap(), refused);
            match Standing::decode(&mutated(&context, &mutations)) {
                Some(Standing::Open(socket)) => {
                    prop_assert!(!socket.has_tried_enough());
                    if let Some(context) = socket.encode() {
                        prop_assert_eq!(Standing::decode(&context), Some(Standing::Open(socket)));
                    }
                }
                Some(Standing::Refused { code }) => {
                    let standing = Some(Standing::Refused { code });
                    prop_assert_eq!(Standing::decode(&refused(code)), standing);
                }
                None => prop_assert!(!mutations.is_empty()),
            }
        }

        /// Nothing but a context is taken for one.
        #[test]
        fn what_is_no_context_is_refused(bytes: Vec<u8>) {
            prop_assume!(bytes.first() != Some(&b'['));
            prop_assert_eq!(Standing::decode(&bytes), None);
        }
    }

    #[test]
    fn a_token_of_both_kinds_stands_there_once() {
        let name = ChannelPattern::Exact("c".repeat(600));
        let claims = Some(claims(Some(vec![name]), 7));
        let socket = socket(claims.clone(), claims);
        let context = socket.encode().unwrap();
        assert_eq!(Standing::decode(&context), Some(Standing::Open(socket.into())));
        let context = String::from_utf8(context.to_vec()).unwrap();
        for member in ["s", "p"] {
            let twice = context.replace(r#","b":"#, &format!(r#","{member}":{{"e":7}},"b":"#));
            assert_eq!(Standing::decode(twice.as_bytes()), None);
        }
    }

    #[test]
    fn a_context_that_fits_goes_on_to_fit() {
        let socket = socket(Some(claims(None, 7)), None);
        let len = |refused_tokens| {
            let socket = Socket { refused_tokens, ..socket.clone() };
            socket.encode().unwrap().len()
        };
        assert!((0..REFUSED_TOKENS_MAX).all(|refused| len(refused) == len(0)));
        let tried = Socket { refused_tokens: REFUSED_TOKENS_MAX, ..socket };
        assert_eq!(Standing::decode(&tried.encode().unwrap()), None);
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
    }

    /// Worked out by Python's `hashlib` and `uuid`.
    #[test]
    fn ids_of_messages_are_known_ones() {
        let nonce = Uuid::from_bytes(std::array::from_fn(|at| at as u8));
        let socket = Socket { nonce, ..socket(None, None) };
        for (number, index, expected) in [
            (1, 0, "58feb8b3-684c-8a64-92bd-d73fe58ee543"),
            (1, 1, "a19c8688-3ff9-862b-abd7-39960bb173d8"),
            (258, 127, "f3c6742c-6ef1-8d5c-95c6-920af72875d1"),
            (u64::MAX, 0, "ed704d3d-16aa-8d7b-af4f-711ecd4c2dfb"),
        ] {
            let id = socket.message_id(number, index);
            assert_eq!(id, Uuid::parse_str(expected).unwrap());
            assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
        }
        // Nothing but the three parts counts.
        let other = Socket { org: "other".to_owned(), refused_tokens: 3, ..socket.clone() };
        assert_eq!(other.message_id(1, 1), socket.message_id(1, 1));
    }
}
