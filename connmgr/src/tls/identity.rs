//! An identity: a certificate chain and its private key, as two files of a directory.
//!
//! `NAME.crt` has the chain in PEM, the server's own certificate first; `NAME.key` has the key in PEM, as PKCS#8, PKCS#1
//! or SEC1. (The names and the format are Condure's.) What is read here is whole or an error: a key that is not that of
//! the certificate is refused, so that nothing is served that no client would take.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc::O_NONBLOCK;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Bytes of one file of an identity. Chains have some 10 KiB; whatever is larger is something else, and not read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of the name of an identity: the longest name of the DNS (RFC 1035 §2.3.4), and a file name with its extension.
const NAME_BYTES_MAX: usize = 250;

/// Why an identity cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of its files cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// One of its files is a directory, a pipe or the like.
    #[error("{path} is no file", path = path.display())]
    NotAFile {
        /// What is none.
        path: PathBuf,
    },
    /// One of its files is too large.
    #[error("{path} has more than {FILE_BYTES_MAX} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is no PEM, or is cut.
    #[error("{path} cannot be parsed as PEM: {reason}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: pem::Error,
    },
    /// A PEM file without what it is for.
    #[error("there is no {what} in {path}", path = path.display())]
    Missing {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The key is of a kind that is not supported, or it is not that of the certificate, or that is malformed.
    #[error("{certificate} and {key} cannot be used", certificate = certificate.display(), key = key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// Whether a name can be that of an identity: one part of a path, visible, and not too long. It is asked of what operators
/// type. What clients say never becomes a path: it is only looked up among the names that are loaded.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let is_refused = |c: char| c == '/' || c.is_control();
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(is_refused)
}

/// Where the files of an identity are.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Paths {
    pub(super) fn new(dir: &Path, name: &str) -> Self {
        Paths { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    /// Reads the identity.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(super) fn load(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, IdentityError> {
        let (certificate, key) = (&self.certificate, &self.key);
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        let chain = chain.map_err(|reason| pem_error(certificate, "certificate", reason))?;
        if chain.is_empty() {
            return Err(IdentityError::Missing { what: "certificate", path: certificate.clone() });
        }
        let key_der = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|reason| pem_error(key, "private key", reason))?;
        let unusable = |source| IdentityError::Unusable {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        };
        Ok(Arc::new(CertifiedKey::from_der(chain, key_der, provider).map_err(unusable)?))
    }

    /// What the files are now. Equal to an earlier one only if nothing was written meanwhile.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps { certificate: Stamp::of(&self.certificate), key: Stamp::of(&self.key) }
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.certificate.display(), self.key.display())
    }
}

/// [`Stamp`]s of both files of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps {
    certificate: Option<Stamp>,
    key: Option<Stamp>,
}

/// What changes when a file is written or replaced, also through a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Also changes when the time of modification is set back.
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if there is no such file, or it cannot be seen.
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn pem_error(path: &Path, what: &'static str, reason: pem::Error) -> IdentityError {
    let path = path.to_owned();
    match reason {
        pem::Error::NoItemsFound => IdentityError::Missing { what, path },
        reason => IdentityError::Pem { path, reason },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let refused = |source| IdentityError::Read { path: path.to_owned(), source };
    // To open a pipe would wait for who writes to it.
    if !fs::metadata(path).map_err(refused)?.is_file() {
        return Err(IdentityError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    // Nor may one that was put there since.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(O_NONBLOCK).open(path).map_err(refused)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(IdentityError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::log::Causes;
    use crate::tls::test_support::{Pair, provider};

    /// The files of an identity, as far as they are there, and how the error begins.
    type Case<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, &'a str);

    /// The error of an identity with these files.
    fn error_of(certificate: Option<&[u8]>, key: Option<&[u8]>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), "a");
        for (path, content) in [(&paths.certificate, certificate), (&paths.key, key)] {
            if let Some(content) = content {
                fs::write(path, content).unwrap();
            }
        }
        let error = paths.load(&provider()).unwrap_err();
        Causes(&error).to_string().replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn names_are_one_part_of_a_path() {
        for name in ["a", "default_443", "_.example.com", "a b", "é", &"x".repeat(250)] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", ".", "..", ".a", "a/b", "/a", "../a", "a\0b", "a\nb", &"x".repeat(251)] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_pair_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair::new("a.test");
        pair.write(dir.path(), "a");
        let identity = Paths::new(dir.path(), "a").load(&provider()).unwrap();
        assert_eq!(identity.cert.len(), 1);
        assert_eq!(identity.cert[0], pair.certificate);
    }

    #[test]
    fn errors_name_file_and_reason() {
        let pair = Pair::new("a.test");
        let (certificate, key) = (pair.certificate_pem.as_bytes(), pair.key_pem.as_bytes());
        let other_key = Pair::new("a.test").key_pem;
        let cut = &certificate[..certificate.len() - 40];
        let large = vec![b'x'; 1024 * 1024 + 1];
        let table: [Case<'_>; 8] = [
            (None, Some(key), "cannot read DIR/a.crt: No such file or directory (os error 2)"),
            (Some(certificate), None, "cannot read DIR/a.key: No such file"),
            (Some(b"text"), Some(key), "there is no certificate in DIR/a.crt"),
            (Some(certificate), Some(certificate), "there is no private key in DIR/a.key"),
            (Some(cut), Some(key), "DIR/a.crt cannot be parsed as PEM: "),
            (Some(certificate), Some(b""), "there is no private key in DIR/a.key"),
            (Some(&large), Some(key), "DIR/a.crt has more than 1048576 bytes"),
            (
                Some(certificate),
                Some(other_key.as_bytes()),
                "DIR/a.crt and DIR/a.key cannot be used: keys may not be consistent: KeyMismatch",
            ),
        ];
        for (certificate, key, text) in table {
            let error = error_of(certificate, key);
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        Pair::new("a.test").write(dir.path(), "a");
        let paths = Paths::new(dir.path(), "a");
        fs::remove_file(&paths.certificate).unwrap();
        let _socket = UnixListener::bind(&paths.certificate).unwrap();
        let error = paths.load(&provider()).unwrap_err();
        assert!(matches!(error, IdentityError::NotAFile { .. }), "{error}");
    }

    #[test]
    fn stamps_tell_a_change_of_the_same_size() {
        let dir = tempfile::tempdir().unwrap();
        Pair::new("a.test").write(dir.path(), "a");
        let paths = Paths::new(dir.path(), "a");
        let before = paths.stamps();
        assert_eq!(before, paths.stamps());
        let copy = dir.path().join("copy");
        fs::copy(&paths.key, &copy).unwrap();
        fs::rename(&copy, &paths.key).unwrap();
        assert_ne!(before, paths.stamps());
    }
}
