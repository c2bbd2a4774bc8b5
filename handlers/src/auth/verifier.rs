//! The check of a token: signature, time, issuer, audience, and what it covers.
//!
//! The order is: shape, signature, claims, `exp`, `nbf`, `iss`, `aud`, scope. It decides what the
//! peer hears: *expired* is said of a token that was good once, and to nobody else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::claims::{Claims, RawClaims};
use super::keys::{KeyError, KeyProblem, PinnedKey, pinned_keys};
use super::{AuthError, Role, VerifierConfig};

/// How far the clocks of those who make tokens may be off, in seconds: a token is good that long
/// after its `exp` and before its `nbf`. Sentry's servers have the same.
pub const LEEWAY_S: u64 = 60;

/// The longest token, in bytes; longer ones are refused unread. It bounds what a token can make us
/// decode, and the number of channels in one to about 300 UUIDs.
pub const TOKEN_BYTES_MAX: usize = 16_384;

/// The most keys of a verifier. A token without a `kid` is tried with each key of its algorithm, so
/// this bounds what a forged one costs.
pub const KEYS_MAX: usize = 32;

/// Checks the tokens of one [`Role`].
#[derive(Clone, Debug)]
pub struct Verifier {
    role: Role,
    issuer: Option<String>,
    audience: Option<String>,
    keys: Vec<PinnedKey>,
}

/// The header of a token (RFC 7515 §4.1): what is looked at before its signature.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Verifier {
    /// Reads and checks all keys.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used, by the name of its source; no key at all; too many.
    pub fn new(config: VerifierConfig) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for source in &config.keys {
            keys.append(&mut pinned_keys(source)?);
            if keys.len() > KEYS_MAX {
                return Err(KeyError::new(&*source.name, KeyProblem::TooMany));
            }
        }
        let VerifierConfig { role, issuer, audience, .. } = config;
        if keys.is_empty() {
            let name = match role {
                Role::Subscriber => "keys of subscribers",
                Role::Publisher => "keys of publishers",
            };
            return Err(KeyError::new(name, KeyProblem::NoKey));
        }
        Ok(Verifier { role, issuer, audience, keys })
    }

    /// Checks a token at `now_s`, in seconds since 1970, and that it covers all of `channels` in
    /// `org`.
    ///
    /// # Errors
    ///
    /// Those of [`Verifier::verify`] and [`Claims::authorize`].
    pub fn authorize(
        &self,
        token: &str,
        org: &str,
        channels: &[impl AsRef<str>],
        now_s: u64,
    ) -> Result<Claims, AuthError> {
        let claims = self.verify(token, now_s)?;
        claims.authorize(org, channels)?;
        Ok(claims)
    }

    /// Checks a token at `now_s`, in seconds since 1970, and says what it claims. For those who
    /// learn only later which channels they have to ask for.
    ///
    /// # Errors
    ///
    /// [`AuthError::Expired`] or [`AuthError::Invalid`].
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, AuthError> {
        let payload = self.signed_payload(token)?;
        let raw: RawClaims =
            decoded(payload).ok_or(AuthError::Invalid("a claim is missing or malformed"))?;
        self.check_registered_claims(&raw, now_s)?;
        let is_narrowed = raw.channel_id.is_some() || raw.channels.is_some();
        match self.role {
            Role::Subscriber if raw.org_id.is_none() => Err(AuthError::Invalid("no org_id")),
            Role::Subscriber if !is_narrowed => {
                Err(AuthError::Invalid("neither channel_id nor channels"))
            }
            Role::Publisher if raw.sub.is_none() => Err(AuthError::Invalid("no sub")),
            Role::Subscriber | Role::Publisher => Ok(Claims::from(raw)),
        }
    }

    /// The payload of a token, still encoded, if one of the keys signed it.
    fn signed_payload<'a>(&self, token: &'a str) -> Result<&'a str, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Invalid("too long"));
        }
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            message.split_once('.').map(|(header, payload)| (message, header, payload, signature))
        });
        let (message, header, payload, signature) =
            parts.ok_or(AuthError::Invalid("not three parts"))?;
        let header: Header = decoded(header).ok_or(AuthError::Invalid("malformed header"))?;
        if header.crit.is_some() {
            return Err(AuthError::Invalid("critical extensions"));
        }
        let mut candidates = self.keys.iter().filter(|key| header.selects(key)).peekable();
        if candidates.peek().is_none() {
            return Err(AuthError::Invalid("no key for its alg and kid"));
        }
        let is_signed_with = |key: &PinnedKey| {
            let result = jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &key.key,
                key.algorithm,
            );
            matches!(result, Ok(true))
        };
        if candidates.any(is_signed_with) {
            Ok(payload)
        } else {
            Err(AuthError::Invalid("bad signature"))
        }
    }

    /// RFC 7519 §4.1.
    fn check_registered_claims(&self, raw: &RawClaims, now_s: u64) -> Result<(), AuthError> {
        let (now, leeway) = (now_s as f64, LEEWAY_S as f64);
        if raw.exp + leeway < now {
            return Err(AuthError::Expired);
        }
        if raw.nbf.is_some_and(|nbf| nbf - leeway > now) {
            return Err(AuthError::Invalid("not valid yet"));
        }
        if self.issuer.is_some() && self.issuer != raw.iss {
            return Err(AuthError::Invalid("another issuer"));
        }
        let is_for_us = |own: &String| raw.aud.as_ref().is_some_and(|aud| aud.contains(own));
        if !self.audience.as_ref().is_none_or(is_for_us) {
            return Err(AuthError::Invalid("another audience"));
        }
        Ok(())
    }
}

impl Header {
    /// Whether a key may have signed this token. A `kid` selects among keys that have one; a key
    /// without one has no name that it could be wrong about.
    fn selects(&self, key: &PinnedKey) -> bool {
        let is_named = match (&self.kid, &key.kid) {
            (Some(named), Some(own)) => named == own,
            (None, _) | (_, None) => true,
        };
        self.alg == key.alg() && is_named
    }
}

/// A part of a token: base64url without padding, of a JSON object.
fn decoded<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}
