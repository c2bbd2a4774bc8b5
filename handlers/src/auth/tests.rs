//! Tests of [`Verifier`]: each algorithm, each way to forge a token, each claim.

#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_700_000_000;
const CHANNEL: &str = "97f58c19-ce38-4c6b-8a5b-47f3405691f0";
const SECRET: &str = "a secret of at least thirty-two bytes";

const RSA_PUBLIC: &str = include_str!("testdata/rsa.pub.pem");
const P256_PUBLIC: &str = include_str!("testdata/p256.pub.pem");
const ED25519_PUBLIC: &str = include_str!("testdata/ed25519.pub.pem");

fn rsa_private() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("testdata/rsa.pem")).unwrap()
}

fn p256_private() -> EncodingKey {
    EncodingKey::from_ec_pem(include_bytes!("testdata/p256.pem")).unwrap()
}

fn ed25519_private() -> EncodingKey {
    EncodingKey::from_ed_pem(include_bytes!("testdata/ed25519.pem")).unwrap()
}

fn pem(text: &str) -> KeyMaterial {
    KeyMaterial::PublicPem(text.to_owned())
}

fn secret(text: &str) -> KeyMaterial {
    KeyMaterial::Secret(SecretText::new(text.to_owned()))
}

fn config(role: Role, materials: Vec<KeyMaterial>) -> VerifierConfig {
    let source = |material| KeySource { name: "KEY".to_owned(), material };
    VerifierConfig {
        role,
        issuer: Some("issuer".to_owned()),
        audience: Some("audience".to_owned()),
        keys: materials.into_iter().map(source).collect(),
    }
}

fn verifier(role: Role, materials: Vec<KeyMaterial>) -> Verifier {
    Verifier::new(config(role, materials)).unwrap()
}

/// Claims that every verifier here takes, for both roles.
fn claims() -> Value {
    json!({"iss": "issuer", "aud": "audience", "sub": "s", "exp": NOW_S + 600, "iat": NOW_S,
        "org_id": 42, "channel_id": CHANNEL})
}

/// These claims, some of them changed; null takes one away.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn token_of(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

/// A token signed with [`SECRET`].
fn token(claims: &Value) -> String {
    token_of(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

/// A token with a header made by hand, signed with a secret.
fn token_with_header(header: &Value, secret: &[u8]) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(&claims()));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// The result for a token of [`SECRET`] with these changes, at `now_s`.
fn checked(role: Role, changes: &Value, now_s: u64) -> Result<Claims, AuthError> {
    let token = token(&claims_with(changes));
    verifier(role, vec![secret(SECRET)]).authorize(&token, "42", &[CHANNEL], now_s)
}

fn is_invalid(result: &Result<Claims, AuthError>) -> bool {
    matches!(result, Err(AuthError::Invalid(_)))
}

#[test]
fn each_algorithm_verifies_what_its_key_signed() {
    let cases = [
        (Algorithm::RS256, rsa_private(), pem(RSA_PUBLIC)),
        (Algorithm::RS256, rsa_private(), pem(include_str!("testdata/rsa.pkcs1.pub.pem"))),
        (Algorithm::ES256, p256_private(), pem(P256_PUBLIC)),
        (Algorithm::EdDSA, ed25519_private(), pem(ED25519_PUBLIC)),
        (Algorithm::HS256, EncodingKey::from_secret(SECRET.as_bytes()), secret(SECRET)),
    ];
    for (algorithm, private, public) in cases {
        let token = token_of(algorithm, &private, &claims());
        let verifier = verifier(Role::Subscriber, vec![public]);
        let claims = verifier.authorize(&token, "42", &[CHANNEL], NOW_S).unwrap();
        assert_eq!(claims.org.as_deref(), Some("42"), "{algorithm:?}");
        assert_eq!(claims.channels, Some(vec![ChannelPattern::Exact(CHANNEL.to_owned())]));
        assert_eq!(claims.subject.as_deref(), Some("s"));
        assert_eq!(claims.expires_s, NOW_S + 600);

        // One changed byte, in the payload or in the signature, and it is another token.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        let changed = |part: &str| {
            let first = if part.starts_with('A') { "B" } else { "A" };
            first.to_owned() + &part[1..]
        };
        for forged in [
            format!("{header}.{payload}.{}", changed(signature)),
            format!("{header}.{}.{signature}", changed(payload)),
            format!("{header}.{payload}."),
        ] {
            let error = verifier.verify(&forged, NOW_S).unwrap_err();
            assert_eq!(error, AuthError::Invalid("bad signature"), "{algorithm:?}");
        }
    }
}

#[test]
fn all_keys_of_an_algorithm_are_tried() {
    let materials = || vec![secret("old"), pem(P256_PUBLIC), secret(SECRET)];
    let both = verifier(Role::Subscriber, materials());
    assert!(both.verify(&token(&claims()), NOW_S).is_ok());
    let token = token_of(Algorithm::ES256, &p256_private(), &claims());
    assert!(both.verify(&token, NOW_S).is_ok());
    let token = token_of(Algorithm::RS256, &rsa_private(), &claims());
    assert_eq!(both.verify(&token, NOW_S), Err(AuthError::Invalid("no key for its alg and kid")));
}

#[test]
fn a_public_key_is_no_secret() {
    for public in [RSA_PUBLIC, P256_PUBLIC, ED25519_PUBLIC] {
        let verifier = verifier(Role::Subscriber, vec![pem(public)]);
        let forged =
            token_of(Algorithm::HS256, &EncodingKey::from_secret(public.as_bytes()), &claims());
        assert_eq!(
            verifier.verify(&forged, NOW_S),
            Err(AuthError::Invalid("no key for its alg and kid"))
        );
        // Nor under the name of its own algorithm.
        for alg in ["RS256", "ES256", "EdDSA"] {
            let forged = token_with_header(&json!({"alg": alg}), public.as_bytes());
            assert!(is_invalid(&verifier.verify(&forged, NOW_S)), "{alg}");
        }
        // Nor can it be configured as one by mistake.
        let error = Verifier::new(config(Role::Publisher, vec![secret(public)])).unwrap_err();
        assert_eq!(error.to_string(), "KEY: is a PEM key, not a shared secret");
    }
}

#[test]
fn other_algorithms_are_refused() {
    let verifier = verifier(Role::Subscriber, vec![secret(SECRET), pem(RSA_PUBLIC)]);
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        assert!(is_invalid(&verifier.verify(&token_of(algorithm, &secret, &claims()), NOW_S)));
    }
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let token = token_of(algorithm, &rsa_private(), &claims());
        assert!(is_invalid(&verifier.verify(&token, NOW_S)));
    }
    for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 "] {
        let token = token_with_header(&json!({"alg": alg}), SECRET.as_bytes());
        assert!(is_invalid(&verifier.verify(&token, NOW_S)), "{alg}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert!(is_invalid(&verifier.verify(&format!("{message}."), NOW_S)), "{alg}");
    }
    assert!(is_invalid(
        &verifier.verify(&token_with_header(&json!({"typ": "JWT"}), SECRET.as_bytes()), NOW_S)
    ));
}

#[test]
fn critical_extensions_are_refused_and_other_headers_ignored() {
    let verifier = verifier(Role::Subscriber, vec![secret(SECRET)]);
    let token = |header: Value| token_with_header(&header, SECRET.as_bytes());
    let other = token(json!({"alg": "HS256", "typ": 7, "jwk": {}, "x": [1], "kid": "any"}));
    assert!(verifier.verify(&other, NOW_S).is_ok());
    let critical = token(json!({"alg": "HS256", "crit": ["b64"], "b64": false}));
    assert_eq!(verifier.verify(&critical, NOW_S), Err(AuthError::Invalid("critical extensions")));
}

#[test]
fn a_kid_selects_the_key() {
    let der = |pem: &str| {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(body).unwrap()
    };
    // The last bytes of the two SPKI forms are the keys themselves.
    let (ed, ec) = (der(ED25519_PUBLIC), der(P256_PUBLIC));
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = ec[ec.len() - 64..].split_at(32);
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": encoded(&ed[ed.len() - 32..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "b",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "EC", "crv": "P-256", "kid": "c", "x": encoded(x), "y": encoded(y)},
    ]});
    let verifier = verifier(Role::Subscriber, vec![KeyMaterial::Jwks(set.to_string())]);
    let verify = |algorithm, key: &EncodingKey, kid: Option<&str>| {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        let token = jsonwebtoken::encode(&header, &claims(), key).unwrap();
        verifier.verify(&token, NOW_S).map(drop)
    };
    let no_key = Err(AuthError::Invalid("no key for its alg and kid"));
    assert_eq!(verify(Algorithm::EdDSA, &ed25519_private(), Some("a")), Ok(()));
    assert_eq!(verify(Algorithm::EdDSA, &ed25519_private(), None), Ok(()));
    assert_eq!(
        verify(Algorithm::EdDSA, &ed25519_private(), Some("b")),
        Err(AuthError::Invalid("bad signature"))
    );
    assert_eq!(verify(Algorithm::EdDSA, &ed25519_private(), Some("c")), no_key);
    assert_eq!(verify(Algorithm::EdDSA, &ed25519_private(), Some("z")), no_key);
    assert_eq!(verify(Algorithm::ES256, &p256_private(), Some("c")), Ok(()));
}

#[test]
fn a_token_expires_with_leeway() {
    let at = |exp: Value, now_s| checked(Role::Subscriber, &json!({ "exp": exp }), now_s).map(drop);
    assert_eq!(at(json!(NOW_S), NOW_S + 59), Ok(()));
    assert_eq!(at(json!(NOW_S), NOW_S + 60), Ok(()));
    assert_eq!(at(json!(NOW_S), NOW_S + 61), Err(AuthError::Expired));
    assert_eq!(at(json!(NOW_S as f64 + 0.5), NOW_S + 60), Ok(()));
    assert_eq!(at(json!(-1), NOW_S), Err(AuthError::Expired));
    assert_eq!(at(json!(1e300), u64::MAX), Ok(()));
    for bad in [json!(null), json!("1700000000"), json!([])] {
        assert_eq!(at(bad, 0), Err(AuthError::Invalid("a claim is missing or malformed")));
    }
    // Only a good signature learns about it.
    let expired = token(&claims_with(&json!({"exp": 1})));
    let other = verifier(Role::Subscriber, vec![secret("other")]);
    assert_eq!(other.verify(&expired, NOW_S), Err(AuthError::Invalid("bad signature")));
}

#[test]
fn a_token_begins_with_leeway() {
    let at = |nbf: u64| checked(Role::Subscriber, &json!({ "nbf": nbf }), NOW_S).map(drop);
    assert_eq!(at(NOW_S + 60), Ok(()));
    assert_eq!(at(NOW_S + 61), Err(AuthError::Invalid("not valid yet")));
}

#[test]
fn issuer_and_audience_must_match_if_configured() {
    let with = |changes: Value| checked(Role::Subscriber, &changes, NOW_S).map(drop);
    assert_eq!(with(json!({"aud": ["x", "audience"]})), Ok(()));
    for aud in [json!("x"), json!(["x"]), json!([]), json!(null)] {
        assert_eq!(with(json!({ "aud": aud })), Err(AuthError::Invalid("another audience")));
    }
    for iss in [json!("x"), json!(null)] {
        assert_eq!(with(json!({ "iss": iss })), Err(AuthError::Invalid("another issuer")));
    }
    assert!(with(json!({"aud": 1})).is_err());

    let config = VerifierConfig {
        issuer: None,
        audience: None,
        ..config(Role::Subscriber, vec![secret(SECRET)])
    };
    let lenient = Verifier::new(config).unwrap();
    for changes in [json!({"iss": "x", "aud": "x"}), json!({"iss": null, "aud": null})] {
        assert!(lenient.verify(&token(&claims_with(&changes)), NOW_S).is_ok());
    }
}

#[test]
fn a_subscriber_names_its_org_and_channels() {
    let with = |changes: Value| checked(Role::Subscriber, &changes, NOW_S).map(drop);
    assert_eq!(with(json!({"org_id": "42"})), Ok(()));
    for org in [json!(43), json!("43"), json!("042")] {
        assert_eq!(with(json!({ "org_id": org })), Err(AuthError::Scope));
    }
    for org in [json!(null), json!(-1), json!(1.5), json!([42])] {
        assert!(matches!(with(json!({ "org_id": org })), Err(AuthError::Invalid(_))));
    }

    assert_eq!(with(json!({"channel_id": CHANNEL.to_uppercase()})), Ok(()));
    assert_eq!(with(json!({"channel_id": "other"})), Err(AuthError::Scope));
    assert_eq!(with(json!({"channel_id": "other", "channels": [CHANNEL]})), Ok(()));
    assert_eq!(with(json!({"channel_id": null, "channels": ["97f58c19-*"]})), Ok(()));
    assert_eq!(with(json!({"channel_id": null, "channels": ["*"]})), Ok(()));
    assert_eq!(with(json!({"channel_id": null, "channels": ["98*"]})), Err(AuthError::Scope));
    // A wildcard is a thing of `channels` only.
    assert_eq!(with(json!({"channel_id": "*"})), Err(AuthError::Scope));
    assert_eq!(
        with(json!({"channel_id": null})),
        Err(AuthError::Invalid("neither channel_id nor channels"))
    );
    assert_eq!(with(json!({"sub": null})), Ok(()));
}

#[test]
fn a_publisher_names_itself_and_may_be_narrowed() {
    let with = |changes: Value| checked(Role::Publisher, &changes, NOW_S).map(drop);
    assert_eq!(with(json!({"org_id": null, "channel_id": null})), Ok(()));
    assert_eq!(with(json!({"org_id": 42, "channel_id": null})), Ok(()));
    assert_eq!(with(json!({"org_id": 43, "channel_id": null})), Err(AuthError::Scope));
    assert_eq!(with(json!({"org_id": null, "channel_id": "x"})), Err(AuthError::Scope));
    assert_eq!(with(json!({"org_id": null, "channels": ["97*"]})), Ok(()));
    assert_eq!(with(json!({"sub": null})), Err(AuthError::Invalid("no sub")));
}

#[test]
fn what_is_no_token_is_refused() {
    let verifier = verifier(Role::Subscriber, vec![secret(SECRET), pem(ED25519_PUBLIC)]);
    let good = token(&claims());
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    let more = format!("{good}.x");
    let padded = format!("{good}=");
    let spaced = format!(" {good}");
    let bad: [&str; 10] = ["", ".", "..", "...", "a.b", "a.b.c", &long, &more, &padded, &spaced];
    for token in bad {
        assert!(is_invalid(&verifier.verify(token, NOW_S)), "{token}");
    }
    for end in 0..good.len() {
        assert!(verifier.verify(&good[..end], NOW_S).is_err());
    }
}

#[test]
fn unusable_configurations_are_named() {
    let error = |config| Verifier::new(config).unwrap_err().to_string();
    assert_eq!(
        error(config(Role::Subscriber, vec![])),
        "keys of subscribers: holds no key that can be used"
    );
    assert_eq!(error(config(Role::Subscriber, vec![pem("x")])), "KEY: is not a key in PEM form");
    assert_eq!(
        error(config(Role::Publisher, vec![secret(SECRET); KEYS_MAX + 1])),
        "KEY: more than 32 keys are configured"
    );
}

#[test]
fn answers_are_those_of_the_two_tables() {
    let errors = [AuthError::Expired, AuthError::Invalid("x"), AuthError::Scope];
    assert_eq!(
        errors.map(|error| error.publish_answer()),
        [
            (401, "Token expired"),
            (401, "Token validation failed"),
            (403, "Token not valid for this channel"),
        ]
    );
    assert_eq!(
        errors.map(|error| error.subscribe_answer()),
        [(401, "Token expired"), (401, "Invalid token"), (403, "Invalid token claims")]
    );
}
