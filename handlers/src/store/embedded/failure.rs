//! Why nothing can be written any more, and whether it passes.
//!
//! A disk that is full, or a quota that is used up, is not damaged: when there is room again, all
//! goes on. An error of the disk itself is another thing. The operating system may have dropped
//! what it could not write, and goes on as if nothing had happened, so that what is written later
//! may stand behind a hole. Then somebody has to look.

use std::error::Error;
use std::io::{self, ErrorKind};

use crate::store::StoreError;

/// Why a write failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no room.
    Full(io::Error),
    /// What writes behind our back has given up, and doesn't say why. With a full disk it is often
    /// the first to: it needs more room at once than an append.
    Background,
    /// The disk failed, or what is on it is not what was written.
    Broken(String),
}

impl Failure {
    /// What an error of `fjall` comes from.
    #[allow(clippy::needless_pass_by_value)] // for map_err
    pub(super) fn of(error: fjall::Error) -> Self {
        if matches!(error, fjall::Error::Poisoned) {
            return Failure::Background;
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Failure::of_system(same(error));
            }
            cause = error.source();
        }
        Failure::Broken(error.to_string())
    }

    /// What an error of the system means.
    pub(super) fn of_system(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Failure::Full(error)
            }
            // The system's list, and not ours.
            _ => Failure::Broken(error.to_string()),
        }
    }

    /// Whether to try again in a while.
    pub(super) fn passes(&self) -> bool {
        match self {
            Failure::Full(_) | Failure::Background => true,
            Failure::Broken(_) => false,
        }
    }

    /// What those are told who want to write.
    pub(super) fn told(&self, directory: &str) -> StoreError {
        StoreError::Unavailable(match self {
            Failure::Full(error) => format!("the disk of {directory} is full: {error}"),
            Failure::Background => {
                format!("the disk of {directory} may be full: it could not be written to")
            }
            Failure::Broken(reason) => {
                format!("the disk of {directory} cannot be written to: {reason}")
            }
        })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Broken(error.to_string())
    }
}

/// The same error, as far as it matters here.
fn same(error: &io::Error) -> io::Error {
    let number = error.raw_os_error();
    number.map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_lack_of_room_passes() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
            assert!(Failure::of(fjall::Error::Io(kind.into())).passes(), "{kind}");
            let deeper = fjall::LsmError::Io(kind.into());
            assert!(Failure::of(fjall::Error::Storage(deeper)).passes(), "{kind}");
        }
        assert!(Failure::of(fjall::Error::Poisoned).passes());
        for kind in [ErrorKind::Other, ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            assert!(!Failure::of(fjall::Error::Io(kind.into())).passes(), "{kind}");
        }
        assert!(!Failure::of(fjall::Error::Unrecoverable).passes());
    }

    #[test]
    fn the_disk_is_named() {
        let full = Failure::of(fjall::Error::Io(io::Error::from_raw_os_error(28)));
        assert_eq!(
            full.told("/data"),
            StoreError::Unavailable(
                "the disk of /data is full: No space left on device (os error 28)".to_owned()
            )
        );
    }
}
