//! JWK Sets (RFC 7517 §5): several public keys, each with a `kid` that tokens name.
//!
//! A set that an identity provider publishes has keys for other purposes too. As the RFC asks,
//! those that we cannot use (another kind, curve, algorithm or purpose) are passed over. A key that
//! claims to be one of ours and is broken is an error all the same: found at start-up, rather than
//! by the tokens that it should have verified.
//!
//! A symmetric key (`oct`) in a set is not used: a secret is configured as one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::{BigUint, RsaPublicKey};
use serde::Deserialize;

use super::keys::{KeyProblem, PinnedKey};

/// The bytes of a coordinate on P-256, and of an Ed25519 key.
const COORDINATE_BYTES: usize = 32;

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

/// A key as it stands (RFC 7517 §4; RFC 7518 §6; RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part. Only its presence matters.
    d: Option<serde::de::IgnoredAny>,
}

/// Reads the usable keys of a set; there is at least one.
pub(super) fn pinned_keys(text: &str) -> Result<Vec<PinnedKey>, KeyProblem> {
    let set: JwkSet = serde_json::from_str(text)
        .map_err(|error| KeyProblem::Jwks { line: error.line(), column: error.column() })?;
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let key = pinned_key(jwk)
            .map_err(|problem| KeyProblem::JwksKey { index, problem: Box::new(problem) })?;
        keys.extend(key);
    }
    if keys.is_empty() { Err(KeyProblem::NoKey) } else { Ok(keys) }
}

/// Reads the members of one kind of key.
type Reader = fn(&Jwk) -> Result<PinnedKey, KeyProblem>;

/// Reads one key; `None` if it is not for us.
fn pinned_key(jwk: &Jwk) -> Result<Option<PinnedKey>, KeyProblem> {
    if jwk.purpose.as_ref().is_some_and(|purpose| purpose != "sig") {
        return Ok(None);
    }
    let (alg, read): (_, Reader) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => ("RS256", rsa_key),
        ("EC", Some("P-256")) => ("ES256", p256_key),
        ("OKP", Some("Ed25519")) => ("EdDSA", ed25519_key),
        _ => return Ok(None),
    };
    // "Ed25519" is the name that RFC 9864 gives to EdDSA with this curve.
    let is_alg = |own: &String| own == alg || (alg == "EdDSA" && own == "Ed25519");
    if !jwk.alg.as_ref().is_none_or(is_alg) {
        return Ok(None);
    }
    if jwk.d.is_some() {
        return Err(KeyProblem::Private);
    }
    let key = read(jwk)?;
    Ok(Some(PinnedKey { kid: jwk.kid.clone(), ..key }))
}

fn rsa_key(jwk: &Jwk) -> Result<PinnedKey, KeyProblem> {
    let number = |text| member(text).map(|bytes| BigUint::from_bytes_be(&bytes));
    let key =
        RsaPublicKey::new(number(&jwk.n)?, number(&jwk.e)?).map_err(|_| KeyProblem::Unsupported)?;
    PinnedKey::rsa(&key)
}

fn p256_key(jwk: &Jwk) -> Result<PinnedKey, KeyProblem> {
    // SEC 1 §2.3.3, uncompressed. The constructor checks that the point is on the curve.
    let sec1 = [&[0x04][..], &coordinate(&jwk.x)?, &coordinate(&jwk.y)?].concat();
    let key = p256::PublicKey::from_sec1_bytes(&sec1).map_err(|_| KeyProblem::Unsupported)?;
    Ok(PinnedKey::p256(&key))
}

fn ed25519_key(jwk: &Jwk) -> Result<PinnedKey, KeyProblem> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(&coordinate(&jwk.x)?)
        .map_err(|_| KeyProblem::Unsupported)?;
    Ok(PinnedKey::ed25519(&key))
}

fn coordinate(text: &Option<String>) -> Result<[u8; COORDINATE_BYTES], KeyProblem> {
    member(text)?.try_into().map_err(|_| KeyProblem::Unsupported)
}

/// The bytes of a member that must be there.
fn member(text: &Option<String>) -> Result<Vec<u8>, KeyProblem> {
    let text = text.as_ref().ok_or(KeyProblem::Unsupported)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyProblem::Unsupported)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    /// RFC 8037 appendix A.2, and RFC 7517 appendix A.1: its EC key and its RSA key.
    fn vectors() -> [Value; 3] {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP\
            ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicA\
            taSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINH\
            aQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        [
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            json!({"kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}),
            json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}),
        ]
    }

    /// `kid/alg` of each usable key.
    fn pinned(keys: &[Value]) -> Result<Vec<String>, KeyProblem> {
        let keys = pinned_keys(&json!({"keys": keys, "more": 1}).to_string())?;
        let name = |key: &PinnedKey| format!("{}/{}", key.kid.as_deref().unwrap_or(""), key.alg());
        Ok(keys.iter().map(name).collect())
    }

    /// A key with one member changed; null takes it away.
    fn with(mut key: Value, member: &str, value: Value) -> Value {
        match value {
            Value::Null => drop(key.as_object_mut().unwrap().remove(member)),
            value => key[member] = value,
        }
        key
    }

    #[test]
    fn each_kind_has_its_algorithm() {
        let [ed, ec, rsa] = vectors();
        let ec = with(with(ec, "use", json!("sig")), "kid", Value::Null);
        assert_eq!(pinned(&[ed, ec, rsa]).unwrap(), ["ed/EdDSA", "/ES256", "2011-04-29/RS256"]);
    }

    #[test]
    fn keys_for_others_are_passed_over() {
        let [ed, ec_for_encryption, rsa] = vectors();
        let others = [
            ec_for_encryption.clone(),
            with(with(ec_for_encryption, "use", json!("sig")), "crv", json!("P-384")),
            with(rsa, "alg", json!("RS512")),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "AKP"}),
        ];
        assert_eq!(pinned(&others), Err(KeyProblem::NoKey));
        assert_eq!(pinned(&[&others[..], &[ed]].concat()).unwrap(), ["ed/EdDSA"]);
    }

    #[test]
    fn broken_keys_are_refused() {
        let [ed, ec, rsa] = vectors();
        let ec = with(ec, "use", Value::Null);
        let broken = [
            with(ed.clone(), "x", json!("AAAA")),
            with(ed.clone(), "x", Value::Null),
            with(ec.clone(), "y", ec["x"].clone()),
            with(rsa.clone(), "e", json!("AA")),
            with(rsa.clone(), "n", json!("?")),
        ];
        for key in broken {
            let problem = Box::new(KeyProblem::Unsupported);
            let expected = Err(KeyProblem::JwksKey { index: 1, problem });
            assert_eq!(pinned(&[ed.clone(), key]), expected);
        }
        let private = pinned(&[with(ed, "d", json!("AAAA"))]).unwrap_err();
        assert_eq!(
            private.to_string(),
            "key 0 of the set is a private key; the public key is needed here"
        );
        let problem = pinned_keys("{").unwrap_err();
        assert_eq!(problem, KeyProblem::Jwks { line: 1, column: 1 });
    }
}
