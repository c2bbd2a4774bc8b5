//! The keys of a development server: made on its first start, kept in its data directory.
//!
//! ```text
//! keys/subscribe.ed25519.pem       private key that signs subscribers' tokens    0600
//! keys/subscribe.ed25519.pub.pem   its public key, to give to other tools        0644
//! keys/publish.secret              secret of publishers' tokens, 64 hex digits   0600
//! ```
//!
//! They are as strong as any; what makes them unfit for production is that the server which checks
//! tokens can make them. The secret is the text of the digits, as it would stand in
//! `PUBLISH_JWT_SECRET`, not the 32 bytes that they spell.
//!
//! **Creation is atomic.** A file is written under another name, synced, and linked to its own
//! name, which fails if that exists. So of two servers that start together both use the keys of
//! one, and after a crash at any point a file is whole or absent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};

use super::keys::{KeyMaterial, KeySource, SecretText};
use super::{MintKey, MinterConfig, Role, VerifierConfig};

/// The `iss` of development tokens.
pub const DEV_ISSUER: &str = "forebay-dev";

/// The `aud` of subscribers' development tokens.
pub const DEV_SUBSCRIBE_AUDIENCE: &str = "forebay-dev-subscribe";

/// The `aud` of publishers' development tokens.
pub const DEV_PUBLISH_AUDIENCE: &str = "forebay-dev-publish";

const KEYS_DIR: &str = "keys";
const SUBSCRIBE_PRIVATE: &str = "subscribe.ed25519.pem";
const SUBSCRIBE_PUBLIC: &str = "subscribe.ed25519.pub.pem";
const PUBLISH_SECRET: &str = "publish.secret";

/// Bytes of randomness in the publish secret, and in an Ed25519 key.
const SECRET_BYTES: usize = 32;

const MODE_PRIVATE: u32 = 0o600;
const MODE_PUBLIC: u32 = 0o644;
const MODE_DIR: u32 = 0o700;

/// Development keys, loaded.
#[derive(Clone, Debug)]
pub struct DevKeys {
    /// Where they are, for what is shown to the operator.
    pub dir: PathBuf,
    /// PEM of the public key that verifies subscribers' tokens.
    pub subscribe_public_pem: String,
    subscribe_private_pem: SecretText,
    publish_secret: SecretText,
}

/// Why there are no development keys.
#[derive(Debug, thiserror::Error)]
pub enum DevKeysError {
    /// A file or directory could not be made, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what was written there; delete it for a new one.
    #[error("{}: is no development key; delete it, and a new one is made", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("no randomness for new keys: {0}")]
    Random(getrandom::Error),
}

impl DevKeys {
    /// Loads the keys in `data_dir`, after making those that are missing.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, DevKeysError> {
        let dir = data_dir.join(KEYS_DIR);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(MODE_DIR).create(&dir).map_err(io_error(&dir))?;

        let path = dir.join(SUBSCRIBE_PRIVATE);
        let new_private = || Ok(private_pem(&SigningKey::from_bytes(&random_bytes()?)));
        let private_pem = load_or_create(&path, MODE_PRIVATE, new_private)?;
        let signing = SigningKey::from_pkcs8_pem(&private_pem)
            .map_err(|_| DevKeysError::Malformed { path })?;

        let path = dir.join(PUBLISH_SECRET);
        let secret = load_or_create(&path, MODE_PRIVATE, || Ok(hex(&random_bytes()?) + "\n"))?;
        let secret = secret.trim().to_owned();
        let is_hex = secret.bytes().all(|digit| digit.is_ascii_hexdigit());
        if secret.len() != 2 * SECRET_BYTES || !is_hex {
            return Err(DevKeysError::Malformed { path });
        }

        // Nothing reads the public key back: what counts is what the private one says.
        let path = dir.join(SUBSCRIBE_PUBLIC);
        let public_pem = signing
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .expect("an Ed25519 public key has a DER form");
        if load_or_create(&path, MODE_PUBLIC, || Ok(public_pem.clone()))? != public_pem {
            fs::remove_file(&path).map_err(io_error(&path))?;
            load_or_create(&path, MODE_PUBLIC, || Ok(public_pem.clone()))?;
        }

        Ok(DevKeys {
            dir,
            subscribe_public_pem: public_pem,
            subscribe_private_pem: SecretText::new(private_pem),
            publish_secret: SecretText::new(secret),
        })
    }

    /// How to verify subscribers' tokens.
    pub fn subscriber_config(&self) -> VerifierConfig {
        let material = KeyMaterial::PublicPem(self.subscribe_public_pem.clone());
        self.config(Role::Subscriber, SUBSCRIBE_PUBLIC, material)
    }

    /// How to verify publishers' tokens.
    pub fn publisher_config(&self) -> VerifierConfig {
        let material = KeyMaterial::Secret(self.publish_secret.clone());
        self.config(Role::Publisher, PUBLISH_SECRET, material)
    }

    /// How to make tokens of a role.
    pub fn minter_config(&self, role: Role) -> MinterConfig {
        let key = match role {
            Role::Subscriber => MintKey::Ed25519Pem(self.subscribe_private_pem.clone()),
            Role::Publisher => MintKey::Secret(self.publish_secret.clone()),
        };
        let (issuer, audience) = (Some(DEV_ISSUER.to_owned()), Some(audience(role).to_owned()));
        MinterConfig { role, issuer, audience, key }
    }

    fn config(&self, role: Role, file: &str, material: KeyMaterial) -> VerifierConfig {
        VerifierConfig {
            role,
            issuer: Some(DEV_ISSUER.to_owned()),
            audience: Some(audience(role).to_owned()),
            keys: vec![KeySource { name: self.dir.join(file).display().to_string(), material }],
        }
    }
}

fn audience(role: Role) -> &'static str {
    match role {
        Role::Subscriber => DEV_SUBSCRIBE_AUDIENCE,
        Role::Publisher => DEV_PUBLISH_AUDIENCE,
    }
}

/// The private key alone (PKCS #8 version 1): OpenSSL does not read the form that has the public
/// key too.
fn private_pem(key: &SigningKey) -> String {
    let bytes = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let pem = bytes.to_pkcs8_pem(LineEnding::LF).expect("an Ed25519 key has a DER form");
    pem.as_str().to_owned()
}

fn random_bytes() -> Result<[u8; SECRET_BYTES], DevKeysError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(DevKeysError::Random)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a file, which is made first if it does not exist.
fn load_or_create(
    path: &Path,
    mode: u32,
    new_text: impl FnOnce() -> Result<String, DevKeysError>,
) -> Result<String, DevKeysError> {
    match fs::read_to_string(path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(path)(error)),
    }
    let unique = hex(&random_bytes()?[..8]);
    create(path, &path.with_extension(format!("{unique}.new")), mode, &new_text()?)
        .map_err(io_error(path))?;
    // What is there now may be another process's.
    fs::read_to_string(path).map_err(io_error(path))
}

/// Makes a file with its full text, by way of the name `beside`; one that exists is left as it is.
fn create(path: &Path, beside: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(beside, path));
    fs::remove_file(beside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DevKeysError {
    let path = path.to_owned();
    move |source| DevKeysError::Io { path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use super::super::{Grant, Minter, Verifier};
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    #[test]
    fn tokens_that_they_make_are_good() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DevKeys::load_or_create(dir.path()).unwrap();
        let configs = [keys.subscriber_config(), keys.publisher_config()];
        for config in configs {
            let minter = Minter::new(keys.minter_config(config.role)).unwrap();
            let grant = Grant { org: Some("o"), channels: &["c"], ttl_s: 60, now_s: NOW_S };
            let token = minter.mint(&grant).unwrap();
            let verifier = Verifier::new(config).unwrap();
            assert!(verifier.authorize(&token, "o", &["c"], NOW_S).is_ok());
        }
    }

    #[test]
    fn they_are_private_and_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let first = DevKeys::load_or_create(dir.path()).unwrap();
        let mode =
            |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("keys"), 0o700);
        assert_eq!(mode("keys/subscribe.ed25519.pem"), 0o600);
        assert_eq!(mode("keys/publish.secret"), 0o600);
        assert_eq!(fs::read_dir(&first.dir).unwrap().count(), 3);

        let second = DevKeys::load_or_create(dir.path()).unwrap();
        assert_eq!(first.publish_secret, second.publish_secret);
        assert_eq!(first.subscribe_private_pem, second.subscribe_private_pem);

        let debug = format!("{first:?}");
        assert!(!debug.contains(first.publish_secret.expose()));
        assert!(!debug.contains("PRIVATE KEY"));
    }

    #[test]
    fn a_public_key_that_does_not_fit_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DevKeys::load_or_create(dir.path()).unwrap();
        let path = dir.path().join("keys/subscribe.ed25519.pub.pem");
        fs::write(&path, "other").unwrap();
        DevKeys::load_or_create(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), keys.subscribe_public_pem);
    }

    #[test]
    fn servers_that_start_together_use_the_same_keys() {
        const SERVERS: usize = 8;
        let dir = tempfile::tempdir().unwrap();
        let barrier = Barrier::new(SERVERS);
        let load = || {
            barrier.wait();
            let keys = DevKeys::load_or_create(dir.path()).unwrap();
            (keys.publish_secret.expose().to_owned(), keys.subscribe_public_pem)
        };
        let keys = std::thread::scope(|scope| {
            let servers = [(); SERVERS].map(|()| scope.spawn(load));
            servers.map(|server| server.join().unwrap())
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 3);
    }

    #[test]
    fn a_broken_file_is_named() {
        for file in ["keys/subscribe.ed25519.pem", "keys/publish.secret"] {
            let dir = tempfile::tempdir().unwrap();
            DevKeys::load_or_create(dir.path()).unwrap();
            fs::write(dir.path().join(file), "abc").unwrap();
            let text = DevKeys::load_or_create(dir.path()).unwrap_err().to_string();
            assert!(text.contains(file) && text.contains("delete it"), "{text}");
        }
    }
}
