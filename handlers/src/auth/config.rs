//! Which keys a verifier trusts, and what else it requires: as the operator gave it.
//!
//! The command line reads the environment; here the values of Sentry conduit's variables become a
//! [`VerifierConfig`], and anything else (`FOREBAY_*`, development keys) fills in one by itself. A
//! value that cannot be right is a start-up error that names its variable.

use super::Role;
use super::keys::{KeyError, KeyMaterial, KeyProblem, KeySource, SecretText};

/// What to build a [`super::Verifier`] from.
#[derive(Clone, Debug)]
pub struct VerifierConfig {
    /// What the tokens are for.
    pub role: Role,
    /// The `iss` that a token must have; `None`: any, or none.
    pub issuer: Option<String>,
    /// The `aud` that a token must have, perhaps among others; `None`: any, or none.
    pub audience: Option<String>,
    /// The keys that are trusted; at least one, and at most [`super::KEYS_MAX`] in all.
    pub keys: Vec<KeySource>,
}

/// The values of `GATEWAY_JWT_ISSUER`, `GATEWAY_JWT_AUDIENCE` and `GATEWAY_JWT_PUBLIC_KEY`.
#[derive(Clone, Debug, Default)]
pub struct GatewayJwt {
    /// The `iss` of subscribers' tokens.
    pub issuer: Option<String>,
    /// The `aud` of subscribers' tokens.
    pub audience: Option<String>,
    /// One or more PEM public keys, or a JWK Set.
    pub public_key: Option<String>,
}

/// The values of `PUBLISH_JWT_ISSUER`, `PUBLISH_JWT_AUDIENCE` and `PUBLISH_JWT_SECRET`.
#[derive(Clone, Default)]
pub struct PublishJwt {
    /// The `iss` of publishers' tokens.
    pub issuer: Option<String>,
    /// The `aud` of publishers' tokens.
    pub audience: Option<String>,
    /// The HS256 secret; its bytes as they are.
    pub secret: Option<String>,
}

impl VerifierConfig {
    /// For subscribers, from Sentry conduit's variables; `None` if none of them is set.
    ///
    /// # Errors
    ///
    /// A variable that is set but empty, or an issuer or audience without a key. The key itself is
    /// looked at by [`super::Verifier::new`].
    pub fn from_gateway_jwt(jwt: GatewayJwt) -> Result<Option<Self>, KeyError> {
        let variables = Variables {
            issuer: ("GATEWAY_JWT_ISSUER", jwt.issuer),
            audience: ("GATEWAY_JWT_AUDIENCE", jwt.audience),
            key: ("GATEWAY_JWT_PUBLIC_KEY", jwt.public_key),
        };
        variables.resolve(Role::Subscriber, |text| {
            let is_jwks = text.trim_start().starts_with('{');
            if is_jwks { KeyMaterial::Jwks(text) } else { KeyMaterial::PublicPem(text) }
        })
    }

    /// For publishers, from Sentry conduit's variables; `None` if none of them is set.
    ///
    /// # Errors
    ///
    /// As for [`VerifierConfig::from_gateway_jwt`].
    pub fn from_publish_jwt(jwt: PublishJwt) -> Result<Option<Self>, KeyError> {
        let variables = Variables {
            issuer: ("PUBLISH_JWT_ISSUER", jwt.issuer),
            audience: ("PUBLISH_JWT_AUDIENCE", jwt.audience),
            key: ("PUBLISH_JWT_SECRET", jwt.secret),
        };
        variables.resolve(Role::Publisher, |secret| KeyMaterial::Secret(SecretText::new(secret)))
    }
}

/// Three variables by name and value.
struct Variables {
    issuer: (&'static str, Option<String>),
    audience: (&'static str, Option<String>),
    key: (&'static str, Option<String>),
}

impl Variables {
    fn resolve(
        self,
        role: Role,
        material: impl FnOnce(String) -> KeyMaterial,
    ) -> Result<Option<VerifierConfig>, KeyError> {
        for (name, value) in [&self.issuer, &self.audience, &self.key] {
            if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
                return Err(KeyError::new(*name, KeyProblem::Empty));
            }
        }
        let (key_name, key) = self.key;
        let Some(key) = key else {
            return match [self.issuer, self.audience].iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(KeyError::new(key_name, KeyProblem::RequiredBy(name))),
                None => Ok(None),
            };
        };
        Ok(Some(VerifierConfig {
            role,
            issuer: self.issuer.1,
            audience: self.audience.1,
            keys: vec![KeySource { name: key_name.to_owned(), material: material(key) }],
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn nothing_set_is_no_configuration() {
        assert!(VerifierConfig::from_gateway_jwt(GatewayJwt::default()).unwrap().is_none());
        assert!(VerifierConfig::from_publish_jwt(PublishJwt::default()).unwrap().is_none());
    }

    #[test]
    fn a_key_alone_is_enough() {
        let jwt = PublishJwt { secret: text("s3cret-of-a-publisher"), ..PublishJwt::default() };
        let config = VerifierConfig::from_publish_jwt(jwt).unwrap().unwrap();
        assert_eq!((config.role, &config.issuer), (Role::Publisher, &None));
        assert_eq!(config.keys[0].name, "PUBLISH_JWT_SECRET");
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn a_public_key_may_be_pem_or_a_set() {
        let material = |key: &str| {
            let jwt = GatewayJwt { public_key: text(key), ..GatewayJwt::default() };
            VerifierConfig::from_gateway_jwt(jwt).unwrap().unwrap().keys.remove(0).material
        };
        assert!(matches!(material("-----BEGIN PUBLIC KEY-----"), KeyMaterial::PublicPem(_)));
        assert!(matches!(material("\n {\"keys\":[]}"), KeyMaterial::Jwks(_)));
    }

    #[test]
    fn what_cannot_be_right_is_named() {
        let jwt = GatewayJwt { audience: text("a"), ..GatewayJwt::default() };
        assert_eq!(
            VerifierConfig::from_gateway_jwt(jwt).unwrap_err().to_string(),
            "GATEWAY_JWT_PUBLIC_KEY: is required, since GATEWAY_JWT_AUDIENCE is set"
        );
        let jwt = PublishJwt { issuer: text(" "), secret: text("x"), ..PublishJwt::default() };
        assert_eq!(
            VerifierConfig::from_publish_jwt(jwt).unwrap_err().to_string(),
            "PUBLISH_JWT_ISSUER: is set, but empty"
        );
    }
}
