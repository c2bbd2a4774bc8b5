//! Whose tokens are trusted: from flags and the environment, or development keys from a data directory.

use std::path::{Path, PathBuf};

use clap::Args;
use forebay_handlers::auth::{
    DevKeys, GatewayJwt, Grant, KeyMaterial, KeySource, Minter, PublishJwt, Role, SecretText,
    VerifierConfig,
};

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

    /// Both, where each must have been said, or come from the development keys of a directory.
    pub(crate) fn resolve(&self, data_dir: Option<&Path>) -> Result<Keys, Failure> {
        let (subscriber, publisher) = (self.subscriber()?, self.publisher()?);
        if let (Some(subscriber), Some(publisher)) = (&subscriber, &publisher) {
            let (subscriber, publisher) = (subscriber.clone(), publisher.clone());
            return Ok(Keys { subscriber, publisher, development: None });
        }
        let Some(data_dir) = data_dir else {
            let missing =
                if subscriber.is_none() { "GATEWAY_JWT_PUBLIC_KEY" } else { "PUBLISH_JWT_SECRET" };
            return Err(Failure::usage(format!(
                "no keys: set {missing}, or --data-dir for development keys"
            )));
        };
        let keys = DevKeys::load_or_create(data_dir)?;
        let roles =
            [(Role::Subscriber, subscriber.is_none()), (Role::Publisher, publisher.is_none())];
        Ok(Keys {
            subscriber: subscriber.unwrap_or_else(|| keys.subscriber_config()),
            publisher: publisher.unwrap_or_else(|| keys.publisher_config()),
            development: Some(Development {
                keys,
                roles: roles.into_iter().filter(|(_, used)| *used).map(|(role, _)| role).collect(),
            }),
        })
    }
}

type Claims = (Option<String>, Option<String>);

/// Adds a key of the other kind to what Sentry's variables say.
fn join(
    role: Role,
    config: Result<Option<VerifierConfig>, forebay_handlers::auth::KeyError>,
    more: Option<KeySource>,
    (issuer, audience): Claims,
) -> Result<Option<VerifierConfig>, Failure> {
    match (config, more) {
        (Ok(None), None) => Ok(None),
        (Ok(Some(mut config)), more) => {
            config.keys.extend(more);
            Ok(Some(config))
        }
        // The issuer alone is no error when the other kind of key is there.
        (_, Some(key)) => Ok(Some(VerifierConfig { role, issuer, audience, keys: vec![key] })),
        (Err(error), None) => Err(Failure::usage(error.to_string())),
    }
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
