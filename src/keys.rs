//! Whose tokens are trusted: from flags and the environment, or development keys from a data directory.

use std::path::{Path, PathBuf};

use clap::Args;
use forebay_handlers::auth::{
    DevKeys, GatewayJwt, Grant, KeyError, KeyMaterial, KeyProblem, KeySource, Minter, PublishJwt,
    Role, SecretText, Verifier, VerifierConfig,
};

use forebay_handlers::roles::Roles;

use crate::{Failure, time};

/// Keys and what else tokens must say. Those of the environment have the names that Sentry conduit gave them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct KeyArgs {
    /// The iss that subscribers' tokens must have
    #[arg(long, env = "GATEWAY_JWT_ISSUER", value_name = "TEXT")]
    gateway_jwt_issuer: Option<String>,

    /// The aud that subscribers' tokens must have
    #[arg(long, env = "GATEWAY_JWT_AUDIENCE", value_name = "TEXT")]
    gateway_jwt_audience: Option<String>,

    /// Public keys of subscribers' tokens: PEM (RSA, P-256 or Ed25519) or a JWK Set
    #[arg(long, env = "GATEWAY_JWT_PUBLIC_KEY", value_name = "PEM|JWKS", hide_env_values = true)]
    gateway_jwt_public_key: Option<String>,

    /// HS256 secret of subscribers' tokens, instead of or beside public keys
    #[arg(long, env = "FOREBAY_GATEWAY_JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    gateway_jwt_secret: Option<SecretText>,

    /// The iss that publishers' tokens must have
    #[arg(long, env = "PUBLISH_JWT_ISSUER", value_name = "TEXT")]
    publish_jwt_issuer: Option<String>,

    /// The aud that publishers' tokens must have
    #[arg(long, env = "PUBLISH_JWT_AUDIENCE", value_name = "TEXT")]
    publish_jwt_audience: Option<String>,

    /// HS256 secret of publishers' tokens
    #[arg(long, env = "PUBLISH_JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    publish_jwt_secret: Option<SecretText>,

    /// Public keys of publishers' tokens, instead of or beside the secret: PEM or a JWK Set
    #[arg(
        long,
        env = "FOREBAY_PUBLISH_JWT_PUBLIC_KEY",
        value_name = "PEM|JWKS",
        hide_env_values = true
    )]
    publish_jwt_public_key: Option<String>,
}

impl KeyArgs {
    /// How subscribers' tokens are verified; `None` if nothing was said.
    fn subscriber(&self) -> Result<Option<VerifierConfig>, Failure> {
        let config = VerifierConfig::from_gateway_jwt(GatewayJwt {
            issuer: self.gateway_jwt_issuer.clone(),
            audience: self.gateway_jwt_audience.clone(),
            public_key: self.gateway_jwt_public_key.clone(),
        });
        let secret = self.gateway_jwt_secret.clone().map(|secret| KeySource {
            name: "FOREBAY_GATEWAY_JWT_SECRET".to_owned(),
            material: KeyMaterial::Secret(secret),
        });
        let claims = (self.gateway_jwt_issuer.clone(), self.gateway_jwt_audience.clone());
        join(Role::Subscriber, config, secret, claims)
    }

    /// How publishers' tokens are verified; `None` if nothing was said.
    fn publisher(&self) -> Result<Option<VerifierConfig>, Failure> {
        let config = VerifierConfig::from_publish_jwt(PublishJwt {
            issuer: self.publish_jwt_issuer.clone(),
            audience: self.publish_jwt_audience.clone(),
            secret: self.publish_jwt_secret.as_ref().map(|secret| secret.expose().to_owned()),
        });
        let key = self.publish_jwt_public_key.clone().map(|text| KeySource {
            name: "FOREBAY_PUBLISH_JWT_PUBLIC_KEY".to_owned(),
            material: public(text),
        });
        let claims = (self.publish_jwt_issuer.clone(), self.publish_jwt_audience.clone());
        join(Role::Publisher, config, key, claims)
    }

    /// How the tokens of these roles are verified: as was said, or with the development keys of a directory. A role that
    /// the process does not have needs no keys. A process that has WebSockets, those with the fanout role, can do without
    /// publishers' keys, but is the better for them: then clients publish by its WebSockets too.
    pub(crate) fn resolve(&self, data_dir: Option<&Path>, roles: Roles) -> Result<Keys, Failure> {
        let (subscriber, publisher) = (self.subscriber()?, self.publisher()?);
        for config in [&subscriber, &publisher].into_iter().flatten() {
            Verifier::new(config.clone()).map_err(|error| Failure::usage(error.to_string()))?;
        }
        let lacks_subscriber = roles.fanout && subscriber.is_none();
        let lacks_publisher = (roles.publish || roles.cleanup) && publisher.is_none();
        let may_trust_publishers = roles.fanout && data_dir.is_some() && publisher.is_none();
        let mut development = None;
        if lacks_subscriber || lacks_publisher || may_trust_publishers {
            let missing =
                if lacks_subscriber { "GATEWAY_JWT_PUBLIC_KEY" } else { "PUBLISH_JWT_SECRET" };
            let data_dir = data_dir.ok_or_else(|| {
                Failure::usage(format!(
                    "no keys: set {missing}, or --data-dir for development keys"
                ))
            })?;
            let lacking = [
                (Role::Subscriber, lacks_subscriber),
                (Role::Publisher, lacks_publisher || may_trust_publishers),
            ];
            let roles = lacking.into_iter().filter(|(_, lacks)| *lacks).map(|(role, _)| role);
            let keys = DevKeys::load_or_create(data_dir)?;
            development = Some(Development { keys, roles: roles.collect() });
        }
        let or_development = |config: Option<VerifierConfig>, role| {
            let keys = development.as_ref().filter(|development| development.roles.contains(&role));
            config.or_else(|| keys.map(|development| development.config(role))).unwrap_or_else(
                || {
                    // The process does not have the role.
                    VerifierConfig { role, issuer: None, audience: None, keys: Vec::new() }
                },
            )
        };
        Ok(Keys {
            subscriber: or_development(subscriber, Role::Subscriber),
            publisher: or_development(publisher, Role::Publisher),
            development,
        })
    }
}

type Claims = (Option<String>, Option<String>);

/// Adds a key of the other kind to what Sentry's variables say.
fn join(
    role: Role,
    config: Result<Option<VerifierConfig>, KeyError>,
    more: Option<KeySource>,
    (issuer, audience): Claims,
) -> Result<Option<VerifierConfig>, Failure> {
    let config = match config {
        // The issuer alone is no error when the other kind of key is there.
        Err(KeyError { problem: KeyProblem::RequiredBy(_), .. }) if more.is_some() => None,
        config => config.map_err(|error| Failure::usage(error.to_string()))?,
    };
    Ok(match (config, more) {
        (Some(mut config), more) => {
            config.keys.extend(more);
            Some(config)
        }
        (None, Some(key)) => Some(VerifierConfig { role, issuer, audience, keys: vec![key] }),
        (None, None) => None,
    })
}

fn public(text: String) -> KeyMaterial {
    if text.trim_start().starts_with('{') {
        KeyMaterial::Jwks(text)
    } else {
        KeyMaterial::PublicPem(text)
    }
}

/// How tokens are verified.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) subscriber: VerifierConfig,
    pub(crate) publisher: VerifierConfig,
    /// The development keys, if any of them is trusted.
    pub(crate) development: Option<Development>,
}

/// Development keys, and what they are trusted for.
#[derive(Debug)]
pub(crate) struct Development {
    keys: DevKeys,
    roles: Vec<Role>,
}

impl Development {
    /// How tokens that they sign are verified.
    fn config(&self, role: Role) -> VerifierConfig {
        match role {
            Role::Subscriber => self.keys.subscriber_config(),
            Role::Publisher => self.keys.publisher_config(),
        }
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.keys.dir
    }

    /// A token, if these keys are the ones that are trusted for its role.
    pub(crate) fn mint(&self, role: Role, grant: &Grant<'_>) -> Result<Option<String>, Failure> {
        if !self.roles.contains(&role) {
            return Ok(None);
        }
        Ok(Some(Minter::new(self.keys.minter_config(role))?.mint(grant)?))
    }
}

/// Where a client command gets its token from.
#[derive(Args, Clone, Debug)]
pub(crate) struct TokenSource {
    /// The token; without it one is made with the development keys of the data directory
    #[arg(long, env = "FOREBAY_TOKEN", value_name = "JWT", hide_env_values = true)]
    token: Option<SecretText>,

    /// The data directory of `forebay up`, for its development keys
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR", default_value = "./forebay-data")]
    data_dir: PathBuf,
}

/// How long a token lasts that a client command makes for itself.
const CLIENT_TOKEN_TTL_S: u64 = 24 * 3600;

impl TokenSource {
    /// The token that was given, or one made for these channels.
    pub(crate) fn token(
        &self,
        role: Role,
        org: &str,
        channels: &[&str],
    ) -> Result<String, Failure> {
        if let Some(token) = &self.token {
            return Ok(token.expose().to_owned());
        }
        // A client makes no keys: nobody would trust them.
        if !self.data_dir.join("keys").is_dir() {
            return Err(Failure::usage(format!(
                "no token: give --token or FOREBAY_TOKEN, or --data-dir with the development keys of forebay up \
                 (there are none in {})",
                self.data_dir.display()
            )));
        }
        let minter = Minter::new(DevKeys::load_or_create(&self.data_dir)?.minter_config(role))?;
        let now_s = time::unix_s();
        let grant = Grant { org: Some(org), channels, ttl_s: CLIENT_TOKEN_TTL_S, now_s };
        Ok(minter.mint(&grant)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        keys: KeyArgs,
    }

    fn resolve(arguments: &[&str], roles: Roles) -> Result<Keys, Failure> {
        let arguments = std::iter::once("command").chain(arguments.iter().copied());
        Command::try_parse_from(arguments).unwrap().keys.resolve(None, roles)
    }

    #[test]
    fn a_role_needs_its_own_keys_only() {
        let fanout = Roles { fanout: true, ..Roles::NONE };
        let secret = "--gateway-jwt-secret=a secret of sixteen bytes or more";
        assert!(resolve(&[secret], fanout).is_ok());
        assert!(resolve(&[], Roles::NONE).is_ok());
        let missing = |arguments: &[&str], roles| resolve(arguments, roles).unwrap_err().text;
        assert!(missing(&[], fanout).contains("GATEWAY_JWT_PUBLIC_KEY"));
        for roles in [Roles::ALL, Roles { cleanup: true, ..Roles::NONE }] {
            assert!(missing(&[secret], roles).contains("PUBLISH_JWT_SECRET"));
        }
    }

    #[test]
    fn who_has_websockets_takes_publishers_keys_if_there_are_any() {
        let fanout = Roles { fanout: true, ..Roles::NONE };
        let subscriber = "--gateway-jwt-secret=a secret of sixteen bytes or more";
        let publisher = "--publish-jwt-secret=another secret of sixteen bytes or more";
        assert!(resolve(&[subscriber], fanout).unwrap().publisher.keys.is_empty());
        assert_eq!(resolve(&[subscriber, publisher], fanout).unwrap().publisher.keys.len(), 1);
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["command", subscriber];
        let keys = Command::try_parse_from(arguments).unwrap().keys;
        let keys = keys.resolve(Some(dir.path()), fanout).unwrap();
        assert_eq!((keys.subscriber.keys.len(), keys.publisher.keys.len()), (1, 1));
        assert_eq!(keys.development.unwrap().roles, [Role::Publisher]);
    }

    #[test]
    fn a_bad_setting_is_not_hidden_by_a_good_one() {
        let fanout = Roles { fanout: true, ..Roles::NONE };
        let secret = "--gateway-jwt-secret=a secret of sixteen bytes or more";
        let issuer = resolve(&[secret, "--gateway-jwt-issuer=https://issuer"], fanout).unwrap();
        assert_eq!(issuer.subscriber.issuer.as_deref(), Some("https://issuer"));
        for bad in ["--gateway-jwt-issuer=", "--gateway-jwt-public-key="] {
            assert!(resolve(&[secret, bad], fanout).is_err(), "{bad}");
        }
    }
}
