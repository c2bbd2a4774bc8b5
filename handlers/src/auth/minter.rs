//! Makes tokens, for `forebay token` and for tests.
//!
//! The claims are those that Sentry's servers take too: an org that is a number is one in the
//! token, and a single channel goes into `channel_id`. So a token from here works on either side of
//! a migration.

use std::fmt;

use ed25519_dalek::pkcs8::DecodePrivateKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::Role;
use super::keys::{KeyProblem, SecretText, pem_blocks};
use crate::event::canonical_channel;

/// The `sub` of every token that is made here.
const SUBJECT: &str = "forebay";

/// A key to sign with.
#[derive(Clone, Debug)]
pub enum MintKey {
    /// A shared secret, for HS256.
    Secret(SecretText),
    /// An Ed25519 private key (PKCS #8, PEM), for EdDSA.
    Ed25519Pem(SecretText),
}

/// What to build a [`Minter`] from.
#[derive(Clone, Debug)]
pub struct MinterConfig {
    /// What the tokens are for.
    pub role: Role,
    /// The `iss` of the tokens, if any.
    pub issuer: Option<String>,
    /// The `aud` of the tokens, if any.
    pub audience: Option<String>,
    /// The key that signs them.
    pub key: MintKey,
}

/// What a token shall allow, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The org that it covers; `None`: every org (publishers only).
    pub org: Option<&'a str>,
    /// The channels that it covers, each a name or a prefix and `*`; none: every channel
    /// (publishers only).
    pub channels: &'a [&'a str],
    /// How long it is good, in seconds.
    pub ttl_s: u64,
    /// The time now, in seconds since 1970.
    pub now_s: u64,
}

/// Why a token was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// A subscriber's token would be good for nothing.
    #[error("a subscriber's token needs an org and at least one channel")]
    Scope,
    /// The signature library failed; our bug, since the key was checked.
    #[error("the token could not be signed")]
    Signing,
}

/// Makes the tokens of one [`Role`].
#[derive(Clone)]
pub struct Minter {
    role: Role,
    issuer: Option<String>,
    audience: Option<String>,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Minter {
    /// Reads and checks the key.
    pub fn new(config: MinterConfig) -> Result<Self, KeyProblem> {
        let MinterConfig { role, issuer, audience, key } = config;
        let (algorithm, key) = match key {
            MintKey::Secret(secret) if secret.expose().is_empty() => return Err(KeyProblem::Empty),
            MintKey::Secret(secret) => {
                (Algorithm::HS256, EncodingKey::from_secret(secret.expose().as_bytes()))
            }
            MintKey::Ed25519Pem(pem) => (Algorithm::EdDSA, ed25519_key(&pem)?),
        };
        Ok(Minter { role, issuer, audience, algorithm, key })
    }

    /// Makes a token.
    pub fn mint(&self, grant: &Grant<'_>) -> Result<String, MintError> {
        match self.role {
            Role::Subscriber if grant.org.is_none() || grant.channels.is_empty() => {
                return Err(MintError::Scope);
            }
            Role::Subscriber | Role::Publisher => {}
        }
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
        claim("sub", json!(SUBJECT));
        claim("iat", json!(grant.now_s));
        claim("exp", json!(grant.now_s.saturating_add(grant.ttl_s)));
        if let Some(issuer) = &self.issuer {
            claim("iss", json!(issuer));
        }
        if let Some(audience) = &self.audience {
            claim("aud", json!(audience));
        }
        if let Some(org) = grant.org {
            claim("org_id", org_claim(org));
        }
        match grant.channels {
            [] => {}
            [one] if !one.ends_with('*') => claim("channel_id", json!(canonical_channel(one))),
            several => claim("channels", json!(several)),
        }
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, &self.key)
            .map_err(|_| MintError::Signing)
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter")
            .field("role", &self.role)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// A number, if the name is exactly how that number is written.
fn org_claim(org: &str) -> Value {
    match org.parse::<u64>() {
        Ok(number) if number.to_string() == org => json!(number),
        Ok(_) | Err(_) => json!(org),
    }
}

fn ed25519_key(pem: &SecretText) -> Result<EncodingKey, KeyProblem> {
    let blocks = pem_blocks(pem.expose())?;
    let [block] = &blocks[..] else { return Err(KeyProblem::NotEd25519Private) };
    // The library would find out at the first token only.
    ed25519_dalek::SigningKey::from_pkcs8_der(&block.der)
        .map_err(|_| KeyProblem::NotEd25519Private)?;
    Ok(EncodingKey::from_ed_der(&block.der))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn minter(role: Role) -> Minter {
        Minter::new(MinterConfig {
            role,
            issuer: Some("i".to_owned()),
            audience: Some("a".to_owned()),
            key: MintKey::Secret(SecretText::new("s3cret".to_owned())),
        })
        .unwrap()
    }

    fn claims(role: Role, org: Option<&str>, channels: &[&str]) -> Value {
        let grant = Grant { org, channels, ttl_s: 600, now_s: NOW_S };
        let token = minter(role).mint(&grant).unwrap();
        let payload = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[test]
    fn claims_are_those_of_sentry() {
        assert_eq!(
            claims(Role::Subscriber, Some("42"), &["97F58C19CE384C6B8A5B47F3405691F0"]),
            json!({"sub": "forebay", "iat": NOW_S, "exp": NOW_S + 600, "iss": "i", "aud": "a",
                "org_id": 42, "channel_id": "97f58c19-ce38-4c6b-8a5b-47f3405691f0"})
        );
        assert_eq!(
            claims(Role::Publisher, None, &[]),
            json!({"sub": "forebay", "iat": NOW_S, "exp": NOW_S + 600, "iss": "i", "aud": "a"})
        );
        let claims = claims(Role::Publisher, Some("042"), &["a*"]);
        assert_eq!((&claims["org_id"], &claims["channels"]), (&json!("042"), &json!(["a*"])));
    }

    #[test]
    fn a_subscriber_needs_a_scope() {
        let refused = |org, channels| {
            minter(Role::Subscriber).mint(&Grant { org, channels, ttl_s: 1, now_s: 0 })
        };
        assert_eq!(refused(None, &["c"]), Err(MintError::Scope));
        assert_eq!(refused(Some("o"), &[]), Err(MintError::Scope));
    }

    #[test]
    fn unusable_keys_are_refused() {
        let problem = |key| {
            let role = Role::Subscriber;
            let config = MinterConfig { role, issuer: None, audience: None, key };
            Minter::new(config).unwrap_err()
        };
        let pem = |text: &str| MintKey::Ed25519Pem(SecretText::new(text.to_owned()));
        let secret = MintKey::Secret(SecretText::new(String::new()));
        assert_eq!(problem(secret), KeyProblem::Empty);
        assert_eq!(problem(pem("x")), KeyProblem::NotPem);
        for other in [include_str!("testdata/ed25519.pub.pem"), include_str!("testdata/p256.pem")] {
            assert_eq!(problem(pem(other)), KeyProblem::NotEd25519Private);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", minter(Role::Publisher)).contains("s3cret"));
    }
}
