//! Tokens: who may publish to a channel, and who may read it (`docs/channels.md`, "Tokens").
//!
//! A token is a JWT (RFC 7519) in the compact form of a JWS (RFC 7515). A [`Verifier`] is built
//! once at start-up, for one [`Role`], from keys that are parsed and checked then; per request it
//! says which [`Claims`] a token carries, or why not ([`AuthError`]). A [`Minter`] makes tokens,
//! and [`DevKeys`] are the keys of a `forebay up` that was given none.
//!
//! What keeps forged tokens out:
//!
//! * **The key decides the algorithm.** Each key is pinned to one at start-up by what it is (RSA →
//!   RS256, P-256 → ES256, Ed25519 → EdDSA, a secret → HS256); a token's `alg` only selects among
//!   keys. So `none` selects nothing, and a public key is never used as an HMAC secret.
//! * **Nothing in a token is looked at before its signature**, but `alg`, `kid` and `crit`.
//! * `exp` is required. There is no clock in here: `now_s` comes in, so the leeway can be tested.
//! * Critical extensions (`crit`) are refused: we understand none (RFC 7515 §4.1.11).
//!
//! The signatures are `jsonwebtoken`'s; its `decode` is not used, since it takes a clock, knows
//! nothing of `crit`, and would parse the token once for each key that is tried.
//!
//! A token, a secret or a private key is in no error text and no `Debug` output.

mod bearer;
mod claims;
mod config;
mod dev_keys;
mod jwks;
mod keys;
mod minter;
mod verifier;

pub use bearer::{BearerError, bearer};
pub use claims::{ChannelPattern, Claims};
pub use config::{GatewayJwt, PublishJwt, VerifierConfig};
pub use dev_keys::{
    DEV_ISSUER, DEV_PUBLISH_AUDIENCE, DEV_SUBSCRIBE_AUDIENCE, DevKeys, DevKeysError,
};
pub use keys::{KeyError, KeyMaterial, KeyProblem, KeySource, SecretText};
pub use minter::{Grant, MintError, MintKey, Minter, MinterConfig};
pub use verifier::{KEYS_MAX, LEEWAY_S, TOKEN_BYTES_MAX, Verifier};

/// What a token is for. The two have verifiers, keys and audiences of their own: a reader's token
/// cannot publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads channels. Its token must name its org and at least one channel.
    Subscriber,
    /// Publishes to channels. Its token must name a subject; org and channels are optional and
    /// narrow it.
    Publisher,
}

/// Why a token was refused. The text is for logs; the peer gets an answer that says less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// `exp` passed more than [`LEEWAY_S`] ago. The signature was good.
    #[error("token expired")]
    Expired,
    /// Not a token that we accept. Holds the reason.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// A good token, for another org or channel.
    #[error("token does not cover this org or channel")]
    Scope,
}

impl AuthError {
    /// Status and body of the answer on the publish route.
    pub fn publish_answer(&self) -> (u16, &'static str) {
        match self {
            AuthError::Expired => (401, "Token expired"),
            AuthError::Invalid(_) => (401, "Token validation failed"),
            AuthError::Scope => (403, "Token not valid for this channel"),
        }
    }

    /// Status and body of the answer on the subscribe route.
    pub fn subscribe_answer(&self) -> (u16, &'static str) {
        match self {
            AuthError::Expired => (401, "Token expired"),
            AuthError::Invalid(_) => (401, "Invalid token"),
            AuthError::Scope => (403, "Invalid token claims"),
        }
    }
}

#[cfg(test)]
mod tests;
