//! Keys to verify with: from what an operator has (PEM, a JWK Set, a secret) to keys that are known
//! to work, each pinned to its one algorithm.
//!
//! Everything that can be wrong with a key is found here, at start-up. That is more than parsing:
//! the signature library would take a truncated or a private key and only fail, or panic, at the
//! first token. So each key is first read by the crate of its kind, and handed on in the form that
//! it came out in.
//!
//! | key | algorithm | RFC |
//! | --- | --- | --- |
//! | RSA, 2048 to 4096 bits | RS256 | 7518 §3.3 |
//! | EC on P-256 | ES256 | 7518 §3.4 |
//! | Ed25519 | EdDSA | 8037 §3.1 |
//! | secret | HS256 | 7518 §3.2 |

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePublicKey;
use jsonwebtoken::{Algorithm, DecodingKey};
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;

use super::jwks;

/// The shortest RSA key that is trusted, in bits (RFC 7518 §3.3). The longest, 4096, is the `rsa`
/// crate's bound.
const RSA_BITS_MIN: usize = 2048;

/// A text that `Debug` does not show: a secret or a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Takes a secret into custody.
    pub fn new(text: String) -> Self {
        SecretText(text)
    }

    /// The secret, to sign or verify with, or to write to its file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        SecretText::new(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(hidden)")
    }
}

/// A key, or several, as configured.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// Where it comes from, for error texts: a variable, an option or a file.
    pub name: String,
    /// The key itself.
    pub material: KeyMaterial,
}

/// The forms in which a key may be given.
#[derive(Clone, Debug)]
pub enum KeyMaterial {
    /// PEM text of one or more public keys (`PUBLIC KEY`, or `RSA PUBLIC KEY`). `\n` may stand for
    /// a line break, as it does in many environment files.
    PublicPem(String),
    /// A JWK Set (RFC 7517 §5). Keys of kinds that we don't verify with are passed over.
    Jwks(String),
    /// A shared secret for HS256; its bytes as they are.
    Secret(SecretText),
}

/// A key that cannot be used, and where it comes from. Found at start-up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct KeyError {
    /// The name of the [`KeySource`].
    pub name: String,
    /// What is wrong with it.
    pub problem: KeyProblem,
}

impl KeyError {
    pub(super) fn new(name: impl Into<String>, problem: KeyProblem) -> Self {
        KeyError { name: name.into(), problem }
    }
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// It is set, but to nothing.
    #[error("is set, but empty")]
    Empty,
    /// It is not set, but something is that makes no sense without it.
    #[error("is required, since {0} is set")]
    RequiredBy(&'static str),
    /// There is no complete PEM block in it.
    #[error("is not a key in PEM form")]
    NotPem,
    /// It is a private key, which has no place where tokens are verified.
    #[error("is a private key; the public key is needed here")]
    Private,
    /// It is not a private key, where one is needed to sign.
    #[error("is no Ed25519 private key (PKCS #8)")]
    NotEd25519Private,
    /// It is a key of another kind, or a broken one.
    #[error("is no valid RSA, P-256 or Ed25519 public key")]
    Unsupported,
    /// It is an RSA key of so few bits.
    #[error("is an RSA key of {0} bits; at least {RSA_BITS_MIN} are required")]
    RsaBits(usize),
    /// It is a PEM key, where a shared secret is needed: a token's forger may well know it.
    #[error("is a PEM key, not a shared secret")]
    PemSecret,
    /// It is not the JSON of a JWK Set.
    #[error("is no JWK Set (line {line}, column {column})")]
    Jwks {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// A key of a JWK Set is broken.
    #[error("key {index} of the set {problem}")]
    JwksKey {
        /// Its place in the set, from 0.
        index: usize,
        /// What is wrong with it.
        problem: Box<KeyProblem>,
    },
    /// There is not one key to verify with.
    #[error("holds no key that can be used")]
    NoKey,
    /// There are more keys than may be tried for a token.
    #[error("more than {} keys are configured", super::KEYS_MAX)]
    TooMany,
}

/// A key with the one algorithm that it is used with.
#[derive(Clone, Debug)]
pub(super) struct PinnedKey {
    /// Its name in a JWK Set, which tokens may refer to.
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl PinnedKey {
    /// The `alg` of tokens that are signed with it (RFC 7518 §3.1).
    pub(super) fn alg(&self) -> &'static str {
        alg_name(self.algorithm)
    }

    pub(super) fn rsa(key: &RsaPublicKey) -> Result<Self, KeyProblem> {
        let bits = key.n().bits();
        if bits < RSA_BITS_MIN {
            return Err(KeyProblem::RsaBits(bits));
        }
        let (modulus, exponent) = (key.n().to_bytes_be(), key.e().to_bytes_be());
        let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
        Ok(PinnedKey { kid: None, algorithm: Algorithm::RS256, key })
    }

    pub(super) fn p256(key: &p256::PublicKey) -> Self {
        let key = DecodingKey::from_ec_der(&key.to_sec1_bytes());
        PinnedKey { kid: None, algorithm: Algorithm::ES256, key }
    }

    pub(super) fn ed25519(key: &ed25519_dalek::VerifyingKey) -> Self {
        let key = DecodingKey::from_ed_der(key.as_bytes());
        PinnedKey { kid: None, algorithm: Algorithm::EdDSA, key }
    }

    fn secret(secret: &SecretText) -> Result<Self, KeyProblem> {
        if secret.expose().is_empty() {
            return Err(KeyProblem::Empty);
        }
        if secret.expose().contains(PEM_BEGIN) {
            return Err(KeyProblem::PemSecret);
        }
        let key = DecodingKey::from_secret(secret.expose().as_bytes());
        Ok(PinnedKey { kid: None, algorithm: Algorithm::HS256, key })
    }
}

/// The name of an algorithm in a token's header.
fn alg_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::ES256 => "ES256",
        Algorithm::RS256 => "RS256",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::HS384
        | Algorithm::HS512
        | Algorithm::ES384
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => unreachable!("no key is pinned to it"),
    }
}

/// Reads all keys of a source; there is at least one.
pub(super) fn pinned_keys(source: &KeySource) -> Result<Vec<PinnedKey>, KeyError> {
    let keys = match &source.material {
        KeyMaterial::PublicPem(text) => {
            pem_blocks(text).and_then(|blocks| blocks.iter().map(public_key).collect())
        }
        KeyMaterial::Jwks(text) => jwks::pinned_keys(text),
        KeyMaterial::Secret(secret) => PinnedKey::secret(secret).map(|key| vec![key]),
    };
    keys.map_err(|problem| KeyError::new(&*source.name, problem))
}

fn public_key(block: &PemBlock<'_>) -> Result<PinnedKey, KeyProblem> {
    let der = &block.der[..];
    match block.label {
        "PUBLIC KEY" => {
            if let Ok(key) = RsaPublicKey::from_public_key_der(der) {
                PinnedKey::rsa(&key)
            } else if let Ok(key) = p256::PublicKey::from_public_key_der(der) {
                Ok(PinnedKey::p256(&key))
            } else if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_der(der) {
                Ok(PinnedKey::ed25519(&key))
            } else {
                Err(KeyProblem::Unsupported)
            }
        }
        "RSA PUBLIC KEY" => RsaPublicKey::from_pkcs1_der(der)
            .map_err(|_| KeyProblem::Unsupported)
            .and_then(|key| PinnedKey::rsa(&key)),
        label if label.ends_with("PRIVATE KEY") => Err(KeyProblem::Private),
        _ => Err(KeyProblem::Unsupported),
    }
}

const PEM_BEGIN: &str = "-----BEGIN ";

/// A block of PEM text (RFC 7468).
pub(super) struct PemBlock<'a> {
    /// What stands after `BEGIN`.
    pub(super) label: &'a str,
    pub(super) der: Vec<u8>,
}

/// The blocks of a PEM text; at least one. Text around them is ignored, and lines may have any
/// length: keys pass through forms and environment files that break them anew.
pub(super) fn pem_blocks(text: &str) -> Result<Vec<PemBlock<'_>>, KeyProblem> {
    let blocks: Vec<_> = text
        .split(PEM_BEGIN)
        .skip(1)
        .map(pem_block)
        .collect::<Option<_>>()
        .ok_or(KeyProblem::NotPem)?;
    if blocks.is_empty() { Err(KeyProblem::NotPem) } else { Ok(blocks) }
}

/// Reads a block from behind its `-----BEGIN `.
fn pem_block(text: &str) -> Option<PemBlock<'_>> {
    let (label, rest) = text.split_once("-----")?;
    let (body, end) = rest.split_once("-----END ")?;
    end.strip_prefix(label)?.strip_prefix("-----")?;
    let body: String = body.replace("\\n", "").split_ascii_whitespace().collect();
    Some(PemBlock { label, der: STANDARD.decode(body).ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pinned(pem: &str) -> Result<Vec<&'static str>, KeyProblem> {
        let material = KeyMaterial::PublicPem(pem.to_owned());
        let source = KeySource { name: "KEY".to_owned(), material };
        match pinned_keys(&source) {
            Ok(keys) => Ok(keys.iter().map(PinnedKey::alg).collect()),
            Err(error) => {
                assert_eq!(error.name, "KEY");
                Err(error.problem)
            }
        }
    }

    const RSA: &str = include_str!("testdata/rsa.pub.pem");
    const P256: &str = include_str!("testdata/p256.pub.pem");
    const ED25519: &str = include_str!("testdata/ed25519.pub.pem");

    #[test]
    fn the_key_decides_the_algorithm() {
        assert_eq!(pinned(RSA), Ok(vec!["RS256"]));
        assert_eq!(pinned(include_str!("testdata/rsa.pkcs1.pub.pem")), Ok(vec!["RS256"]));
        assert_eq!(pinned(P256), Ok(vec!["ES256"]));
        assert_eq!(pinned(ED25519), Ok(vec!["EdDSA"]));
        assert_eq!(pinned(&[RSA, "note\n", P256, ED25519].concat()).unwrap().len(), 3);
    }

    #[test]
    fn line_breaks_may_be_mangled() {
        assert_eq!(pinned(&RSA.replace('\n', "\\n")), Ok(vec!["RS256"]));
        assert_eq!(pinned(&RSA.replace('\n', "\r\n")), Ok(vec!["RS256"]));
        assert_eq!(pinned(&RSA.replace('\n', " ")), Ok(vec!["RS256"]));
    }

    #[test]
    fn unusable_keys_are_refused() {
        let private = include_str!("testdata/rsa.pem");
        assert_eq!(pinned(private), Err(KeyProblem::Private));
        assert_eq!(pinned(&[RSA, private].concat()), Err(KeyProblem::Private));
        let short = include_str!("testdata/rsa1024.pub.pem");
        assert_eq!(pinned(short), Err(KeyProblem::RsaBits(1024)));
        let p384 = include_str!("testdata/p384.pub.pem");
        assert_eq!(pinned(p384), Err(KeyProblem::Unsupported));
        assert_eq!(pinned(&RSA.replace("PUBLIC KEY", "CERTIFICATE")), Err(KeyProblem::Unsupported));
        assert_eq!(pinned(&P256.replace("PUBLIC", "RSA PUBLIC")), Err(KeyProblem::Unsupported));
    }

    #[test]
    fn broken_pem_is_refused() {
        let cut = &RSA[..RSA.len() - 30];
        for text in ["", "secret", cut, &RSA.replacen("PUBLIC", "X", 1), &RSA.replacen('M', "!", 1)]
        {
            assert_eq!(pinned(text), Err(KeyProblem::NotPem), "{text}");
        }
        // Whole lines are missing: base64 still, but no key.
        let lines: Vec<_> = RSA.lines().collect();
        let short = [&lines[..2], &lines[4..]].concat().join("\n");
        assert_eq!(pinned(&short), Err(KeyProblem::Unsupported));
    }

    #[test]
    fn secrets_are_bytes_but_not_keys() {
        let pinned = |text: &str| PinnedKey::secret(&SecretText::new(text.to_owned()));
        assert_eq!(pinned("x").unwrap().alg(), "HS256");
        assert_eq!(pinned("").unwrap_err(), KeyProblem::Empty);
        assert_eq!(pinned(RSA).unwrap_err(), KeyProblem::PemSecret);
        assert!(!format!("{:?}", pinned("hunter2").unwrap()).contains("hunter2"));
    }
}
