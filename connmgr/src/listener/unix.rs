//! Sockets in the file system: the path, its owner and mode, and its end.
//!
//! **What is there already.** Condure removes whatever it finds at the path. That takes a running server's clients away
//! without a word, and deletes a file that someone mistyped. Here only a socket that refuses connections is removed:
//! one that its process left behind. Two processes that find the same leftover in the same moment may still take the
//! path from each other; a lock file would prevent that, and would itself be something to leave behind.
//!
//! A socket that is bound and does not listen yet looks like a leftover, too. So [`BoundSocket::listen`] looks whether the
//! path is still ours, from then on others can tell; who has lost it, to another process or to another place of its own
//! configuration, learns so instead of listening where nobody can come.
//!
//! **Who may connect** is settled between `bind` and `listen`, so that there is no moment in which others can.
//!
//! **The path goes** when the last listener on it does, but only if it still is our socket: another process may have
//! taken the path meanwhile.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{self, Path, PathBuf};

use nix::unistd::{Group, User};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, ListenError};
use crate::config::UnixSpec;

/// A path that a socket of ours is bound to. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct BoundPath {
    path: PathBuf,
    /// Tells our socket from one that has been put in its place.
    device_and_inode: (u64, u64),
}

impl BoundPath {
    fn new(path: &Path) -> io::Result<BoundPath> {
        let metadata = fs::symlink_metadata(path)?;
        let device_and_inode = (metadata.dev(), metadata.ino());
        Ok(BoundPath { path: path.to_owned(), device_and_inode })
    }

    pub(super) fn display(&self) -> path::Display<'_> {
        self.path.display()
    }

    /// Whether our socket is still there. Its inode is not given to another one while it is open.
    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == self.device_and_inode)
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if self.is_ours()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A socket that has its path, and refuses clients.
#[derive(Debug)]
pub(super) struct BoundSocket {
    socket: Socket,
    path: BoundPath,
}

/// Binds a path and listens on it. The listener does not block.
pub(crate) fn bind_path(spec: &UnixSpec) -> Result<(UnixListener, BoundPath), ListenError> {
    bind(spec)?.listen()
}

/// Binds a path.
pub(super) fn bind(spec: &UnixSpec) -> Result<BoundSocket, ListenError> {
    let path = spec.path.as_path();
    let failed = |source| ListenError::from_io(path.display(), source);
    let (user_id, group_id) = owner(spec)?;
    remove_stale(path)?;

    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    let bound = BoundSocket { socket, path: BoundPath::new(path).map_err(failed)? };
    let refused = |source| ListenError::Permissions { path: path.to_owned(), source };
    if user_id.is_some() || group_id.is_some() {
        lchown(path, user_id, group_id).map_err(refused)?;
    }
    // After the owner: a change of owner may clear bits of the mode.
    if let Some(mode) = spec.mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(refused)?;
    }
    bound.socket.set_nonblocking(true).map_err(failed)?;
    Ok(bound)
}

impl BoundSocket {
    /// Takes clients.
    pub(super) fn listen(self) -> Result<(UnixListener, BoundPath), ListenError> {
        let BoundSocket { socket, path: bound } = self;
        let path = &bound.path;
        socket.listen(BACKLOG).map_err(|source| ListenError::from_io(path.display(), source))?;
        if !bound.is_ours() {
            return Err(ListenError::AddressInUse { address: path.display().to_string() });
        }
        Ok((socket.into(), bound))
    }
}

/// The numbers of the user and the group that the spec names.
fn owner(spec: &UnixSpec) -> Result<(Option<u32>, Option<u32>), ListenError> {
    let unknown = |what: &'static str, name: &str, errno: Option<nix::errno::Errno>| {
        ListenError::UnknownOwner {
            path: spec.path.clone(),
            what,
            name: name.to_owned(),
            source: errno.map(io::Error::from),
        }
    };
    let user_id = match &spec.user {
        None => None,
        Some(name) => match User::from_name(name) {
            Ok(Some(user)) => Some(user.uid.as_raw()),
            Ok(None) => return Err(unknown("user", name, None)),
            Err(errno) => return Err(unknown("user", name, Some(errno))),
        },
    };
    let group_id = match &spec.group {
        None => None,
        Some(name) => match Group::from_name(name) {
            Ok(Some(group)) => Some(group.gid.as_raw()),
            Ok(None) => return Err(unknown("group", name, None)),
            Err(errno) => return Err(unknown("group", name, Some(errno))),
        },
    };
    Ok((user_id, group_id))
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::from_io(path.display(), source);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A live listener whose backlog is full would block the probe.
    probe.set_nonblocking(true).map_err(failed)?;
    let address = SockAddr::unix(path).map_err(failed)?;
    match probe.connect(&address).map_err(|error| (error.kind(), error)) {
        Ok(()) | Err((io::ErrorKind::WouldBlock, _)) => {
            Err(ListenError::AddressInUse { address: path.display().to_string() })
        }
        Err((io::ErrorKind::ConnectionRefused, _)) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(()),
        },
        Err((io::ErrorKind::NotFound, _)) => Ok(()),
        Err((_, error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use nix::unistd::{getgid, getuid};

    use super::*;

    fn spec(path: &Path) -> UnixSpec {
        UnixSpec { path: path.to_owned(), ..UnixSpec::default() }
    }

    #[test]
    fn the_path_is_there_while_it_is_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b.sock");
        let bound = bind(&spec(&path)).unwrap();
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let (listener, bound) = bound.listen().unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn mode_and_owner_are_applied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let user = User::from_uid(getuid()).unwrap().unwrap();
        let group = Group::from_gid(getgid()).unwrap().unwrap();
        let spec = UnixSpec {
            mode: Some(0o640),
            user: Some(user.name),
            group: Some(group.name),
            ..spec(&path)
        };
        let _bound = bind(&spec).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_eq!((metadata.uid(), metadata.gid()), (user.uid.as_raw(), group.gid.as_raw()));
    }

    #[test]
    fn an_unknown_owner_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let nobody = Some("no such name".to_owned());
        let error = bind(&UnixSpec { user: nobody.clone(), ..spec(&path) }).unwrap_err();
        let text = format!("cannot listen on {}: no user \"no such name\"", path.display());
        assert_eq!(error.to_string(), text);
        let error = bind(&UnixSpec { group: nobody, ..spec(&path) }).unwrap_err();
        assert!(error.to_string().ends_with("no group \"no such name\""), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        // std leaves the file behind, as a process does that is killed.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _bound = bind_path(&spec(&path)).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_live_socket_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let other = UnixListener::bind(&path).unwrap();
        let error = bind(&spec(&path)).unwrap_err();
        let text = format!("cannot listen on {}: address in use", path.display());
        assert_eq!(error.to_string(), text);
        UnixStream::connect(&path).unwrap();
        drop(other);
    }

    #[test]
    fn another_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "precious").unwrap();
        let error = bind(&spec(&path)).unwrap_err();
        let text =
            format!("cannot listen on {}: there is a file that is no socket", path.display());
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn what_took_our_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = bind(&spec(&path)).unwrap();
        // Ours is moved away, not removed, so that its inode cannot be given to the other.
        fs::rename(&path, directory.path().join("ours")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
    }

    #[test]
    fn who_has_lost_the_path_does_not_listen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = bind(&spec(&path)).unwrap();
        // It looks like what a killed process leaves behind.
        let second = bind(&spec(&path)).unwrap();
        let error = first.listen().unwrap_err();
        let text = format!("cannot listen on {}: address in use", path.display());
        assert_eq!(error.to_string(), text);
        let _listener = second.listen().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(200));
        let error = bind(&spec(&path)).unwrap_err();
        assert!(matches!(error, ListenError::Bind { .. }), "{error}");
    }
}
