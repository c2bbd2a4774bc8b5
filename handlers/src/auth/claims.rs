//! What a token says (`docs/channels.md`, "Tokens"; RFC 7519 §4.1 for the registered claims).
//!
//! [`RawClaims`] is the payload as it stands, with the two spellings that some claims have.
//! [`Claims`] is what is left once they were checked: org and channels in their one spelling, ready
//! to be compared.

use serde::Deserialize;

use super::AuthError;
use crate::event::canonical_channel;

/// A payload, before any check.
#[derive(Deserialize)]
pub(super) struct RawClaims {
    /// Seconds since 1970; a NumericDate may have a fraction.
    pub(super) exp: f64,
    #[serde(default)]
    pub(super) nbf: Option<f64>,
    #[serde(default)]
    pub(super) iss: Option<String>,
    #[serde(default)]
    pub(super) aud: Option<Audience>,
    #[serde(default)]
    pub(super) sub: Option<String>,
    #[serde(default)]
    pub(super) org_id: Option<OrgId>,
    #[serde(default)]
    pub(super) channel_id: Option<String>,
    #[serde(default)]
    pub(super) channels: Option<Vec<String>>,
}

/// `aud`: one, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// `org_id`: a number, as Sentry has it, or a name.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OrgId {
    Number(u64),
    Name(String),
}

/// What a good token says about its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The only org that it covers; `None` covers every org.
    pub org: Option<String>,
    /// The only channels that it covers; `None` covers every channel.
    pub channels: Option<Vec<ChannelPattern>>,
    /// Whose token it is, if it says so.
    pub subject: Option<String>,
    /// When it expires, in seconds since 1970, leeway not counted.
    pub expires_s: u64,
}

impl Claims {
    /// Whether the token covers all of `channels` in `org`.
    ///
    /// # Errors
    ///
    /// [`AuthError::Scope`] if it does not. With no channel at all, only the org is asked about.
    pub fn authorize(&self, org: &str, channels: &[impl AsRef<str>]) -> Result<(), AuthError> {
        let is_org_covered = self.org.as_ref().is_none_or(|own| own == org);
        let is_covered = |channel: &str| match &self.channels {
            Some(patterns) => patterns.iter().any(|pattern| pattern.matches(channel)),
            None => true,
        };
        if is_org_covered && channels.iter().all(|channel| is_covered(channel.as_ref())) {
            Ok(())
        } else {
            Err(AuthError::Scope)
        }
    }
}

impl Claims {
    /// Whether whoever has these may do all that the bearer of `other` may. When they expire is not
    /// looked at.
    pub fn covers(&self, other: &Claims) -> bool {
        let is_org_covered = self.org.is_none() || self.org == other.org;
        let are_channels_covered = match (&self.channels, &other.channels) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => {
                others.iter().all(|other| own.iter().any(|own| own.covers(other)))
            }
        };
        is_org_covered && are_channels_covered
    }
}

impl From<RawClaims> for Claims {
    fn from(raw: RawClaims) -> Self {
        let one = raw.channel_id.iter().map(|name| ChannelPattern::exact(name));
        let several = raw.channels.iter().flatten().map(|text| ChannelPattern::from_claim(text));
        let is_narrowed = raw.channel_id.is_some() || raw.channels.is_some();
        Claims {
            org: raw.org_id.map(|org| match org {
                OrgId::Number(number) => number.to_string(),
                OrgId::Name(name) => name,
            }),
            channels: is_narrowed.then(|| one.chain(several).collect()),
            subject: raw.sub,
            // A negative time saturates to 0.
            expires_s: raw.exp as u64,
        }
    }
}

/// Which channels a claim covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelPattern {
    /// The channel with this name, in its canonical spelling.
    Exact(String),
    /// Every channel whose canonical name starts with this.
    Prefix(String),
}

impl ChannelPattern {
    /// An item of `channels`: a name, or a prefix and `*`.
    ///
    /// A `*` elsewhere is a character like any other, one that no channel has. A prefix is not
    /// brought into a canonical spelling: that of a UUID must be written in lower case with
    /// hyphens.
    pub fn from_claim(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => ChannelPattern::Prefix(prefix.to_owned()),
            None => ChannelPattern::exact(text),
        }
    }

    fn exact(name: &str) -> Self {
        ChannelPattern::Exact(canonical_channel(name).into_owned())
    }

    /// Whether it covers every channel that the other one covers.
    fn covers(&self, other: &ChannelPattern) -> bool {
        match (self, other) {
            (ChannelPattern::Exact(own), ChannelPattern::Exact(other)) => own == other,
            (ChannelPattern::Exact(_), ChannelPattern::Prefix(_)) => false,
            (
                ChannelPattern::Prefix(own),
                ChannelPattern::Exact(other) | ChannelPattern::Prefix(other),
            ) => other.starts_with(own.as_str()),
        }
    }

    /// Whether it covers a channel, in whatever spelling.
    pub fn matches(&self, channel: &str) -> bool {
        let channel = canonical_channel(channel);
        match self {
            ChannelPattern::Exact(name) => channel == name.as_str(),
            ChannelPattern::Prefix(prefix) => channel.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns() {
        let matches =
            |claim: &str, channel: &str| ChannelPattern::from_claim(claim).matches(channel);
        assert!(matches("news", "news"));
        assert!(!matches("news", "news2"));
        assert!(!matches("news", "New"));
        assert!(matches("news*", "news"));
        assert!(matches("news.*", "news.sport"));
        assert!(!matches("news.*", "news"));
        assert!(matches("*", "anything"));
        assert!(!matches("n*ws", "news"));
        assert!(!matches("", "news"));

        let uuid = "97f58c19-ce38-4c6b-8a5b-47f3405691f0";
        assert!(matches(&uuid.to_uppercase(), uuid));
        assert!(matches(uuid, &uuid.replace('-', "")));
        assert!(matches("97f58c19-*", &uuid.to_uppercase()));
    }

    #[test]
    fn one_token_covers_another() {
        let claims = |org: Option<&str>, channels: Option<&[&str]>| Claims {
            org: org.map(str::to_owned),
            channels: channels.map(|channels| {
                channels.iter().map(|text| ChannelPattern::from_claim(text)).collect()
            }),
            subject: None,
            expires_s: 0,
        };
        let every = claims(None, None);
        let in_7 = |channels: &[&str]| claims(Some("7"), Some(channels));
        for (wider, narrower) in [
            (every.clone(), every.clone()),
            (every.clone(), in_7(&["a"])),
            (claims(Some("7"), None), in_7(&["a", "*"])),
            (in_7(&["a", "b"]), in_7(&["b"])),
            (in_7(&["a*"]), in_7(&["a", "ab", "ab*", "a*"])),
            (in_7(&["*"]), in_7(&["x*", "y"])),
            (in_7(&[]), in_7(&[])),
            (in_7(&["A7F58C19CE384C6B8A5B47F3405691F0"]), {
                in_7(&["a7f58c19-ce38-4c6b-8a5b-47f3405691f0"])
            }),
        ] {
            assert!(wider.covers(&narrower), "{wider:?} {narrower:?}");
        }
        for (narrower, wider) in [
            (in_7(&["a"]), every.clone()),
            (in_7(&["*"]), claims(Some("7"), None)),
            (claims(Some("7"), None), claims(None, None)),
            (claims(Some("7"), None), claims(Some("8"), None)),
            (in_7(&["a", "b"]), in_7(&["a", "b", "c"])),
            (in_7(&["ab*"]), in_7(&["a*"])),
            (in_7(&["a"]), in_7(&["a*"])),
            (in_7(&["ab*"]), in_7(&["a"])),
            (in_7(&[]), in_7(&["a"])),
        ] {
            assert!(!narrower.covers(&wider), "{narrower:?} {wider:?}");
        }
    }

    proptest! {
        /// What `covers` says is so for each channel.
        #[test]
        fn who_covers_another_may_read_all_that_it_may(
            own in patterns_of_claims(), other in patterns_of_claims(), channel in "[ab]{1,3}",
        ) {
            let claims = |channels: Option<Vec<String>>| Claims {
                org: None,
                channels: channels.map(|channels| {
                    channels.iter().map(|text| ChannelPattern::from_claim(text)).collect()
                }),
                subject: None,
                expires_s: 0,
            };
            let (own, other) = (claims(own), claims(other));
            if own.covers(&other) && other.authorize("7", &[&channel]).is_ok() {
                prop_assert!(own.authorize("7", &[&channel]).is_ok());
            }
            prop_assert!(own.covers(&own));
        }
    }

    fn patterns_of_claims() -> impl Strategy<Value = Option<Vec<String>>> {
        prop::option::of(prop::collection::vec("[ab]{0,2}[*]?", 0..4))
    }

    #[test]
    fn all_channels_must_be_covered() {
        let claims = Claims {
            org: Some("7".to_owned()),
            channels: Some(vec![ChannelPattern::from_claim("a"), ChannelPattern::from_claim("b*")]),
            subject: None,
            expires_s: 0,
        };
        assert_eq!(claims.authorize("7", &["a", "b1", "b2"]), Ok(()));
        assert_eq!(claims.authorize("7", &["a", "c"]), Err(AuthError::Scope));
        assert_eq!(claims.authorize("8", &["a"]), Err(AuthError::Scope));
        let all = Claims { org: None, channels: None, ..claims.clone() };
        assert_eq!(all.authorize("8", &["c".to_owned()]), Ok(()));
        // An empty list is a narrowing to nothing, not the absence of one.
        let nothing = Claims { channels: Some(vec![]), ..claims };
        assert_eq!(nothing.authorize("7", &["a"]), Err(AuthError::Scope));
    }
}
