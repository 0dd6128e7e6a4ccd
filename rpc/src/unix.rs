//! Unix sockets, as far as adapters would write the same: the file that a listener makes and takes away again, and what
//! is said when something is wrong with it.
//!
//! A process that was killed leaves its socket's file behind, and nobody can listen there before it is gone. It is
//! removed if no socket is bound to it any more, which is asked with a socket of another type: the kernel refuses such a
//! connection if nobody is there, and says that the types differ if somebody is. So it neither waits in a full queue nor
//! shows up at a live server. Processes that start at once on a file that was left behind would remove one another's;
//! therefore each holds a lock while it looks and binds, in a file beside the socket's that goes away with it.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
        net::{UnixDatagram, UnixListener},
    },
    path::{Path, PathBuf},
};

/// Octets of a path that the kernel takes: its field, less the end of it.
const MOST_OCTETS: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };
/// How often the lock may vanish because another process has just finished with it.
const TRIES: usize = 16;

/// The file of a listening socket. Dropping it removes the file, if it is still the one that was made: keep it as long
/// as the listener, and drop it first, so that nobody reaches a socket that is about to close.
#[derive(Debug)]
pub struct SocketFile {
    address: String,
    /// Does not depend on the working directory, which may change.
    path: PathBuf,
    /// What the file was when it was made.
    made: Option<(u64, u64)>,
}

impl SocketFile {
    /// The address that a client dials: `unix:` and the path, as it was given.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.made.is_some() && identity(fs::symlink_metadata(&self.path)) == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: io::Result<Metadata>) -> Option<(u64, u64)> {
    file.ok().map(|file| (file.dev(), file.ino()))
}

/// Listens on `path` and returns the listener, which does not block, and the file that it made. A file that a process
/// left behind is removed before. Who may connect is decided by the permissions of the directory.
///
/// # Errors
/// * `InvalidInput`: the path is empty, has an octet 0, or is too long.
/// * `AddrInUse`: somebody listens there, or is about to.
/// * `AlreadyExists`: the file is no socket. It is left alone.
/// * `NotFound`, `PermissionDenied` and others of the system: the directory does not exist, or is closed to this user.
pub fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    check(path)?;
    let _turn = Turn::take(path)?;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_if_stale(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let file = SocketFile {
        address: format!("unix:{}", path.display()),
        path: std::path::absolute(path)?,
        made: identity(fs::symlink_metadata(path)),
    };
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

/// Whether `path` can be one of a Unix socket at all. To be asked before dialling: what the system says of it says less.
///
/// # Errors
/// `InvalidInput`: it is empty, has an octet 0, or is too long.
pub fn check(path: &Path) -> io::Result<()> {
    let octets = path.as_os_str().as_bytes();
    let what = match octets.len() {
        0 => "the path is empty".to_owned(),
        len if len > MOST_OCTETS => {
            format!("the path has {len} octets, but a Unix socket's has {MOST_OCTETS} at most")
        }
        _ if octets.contains(&0) => "the path has an octet 0".to_owned(),
        _ => return Ok(()),
    };
    Err(io::Error::new(ErrorKind::InvalidInput, what))
}

/// What an error of dialling means, if the system's words say little: a full queue is "temporarily unavailable".
#[must_use]
pub fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => {
            io::Error::new(ErrorKind::WouldBlock, "the node does not keep up with accepting connections")
        }
        ErrorKind::ConnectionRefused => io::Error::new(
            ErrorKind::ConnectionRefused,
            "the socket was left behind, and nobody listens on it",
        ),
        _ => error,
    }
}

/// Removes the file of a socket that nobody has bound.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Whatever else it is, somebody is there.
        _ => Err(io::Error::new(ErrorKind::AddrInUse, "somebody listens on it")),
    }
}

/// The right to look at a socket's file and to make another one.
struct Turn {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl Turn {
    fn take(socket: &Path) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..TRIES {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Who had it before may have removed the file that was opened here.
            let locked = identity(file.metadata());
            if locked.is_some() && locked == identity(fs::symlink_metadata(&path)) {
                return Ok(Self { path, _file: file });
            }
        }
        Err(io::Error::new(ErrorKind::AddrInUse, "another process is about to listen on it"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        os::unix::net::UnixStream,
        sync::{
            Barrier,
            atomic::{AtomicU32, Ordering},
        },
        thread,
    };

    use super::*;

    /// A directory that goes away with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("tieline-{}-{number}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("node.sock")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// As a process leaves it that was killed.
    fn leave_behind(path: &Path) {
        drop(UnixListener::bind(path).unwrap());
        assert!(path.exists());
    }

    #[test]
    fn a_listener_takes_its_file_away() {
        let directory = Directory::new();
        let path = directory.socket();
        let (listener, file) = listen(&path).unwrap();
        assert_eq!(file.address(), format!("unix:{}", path.display()));
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(directory.names(), ["node.sock"], "the lock is gone");
        drop(file);
        assert!(directory.names().is_empty());
    }

    #[test]
    fn what_was_left_behind_is_removed_and_what_is_used_is_not() {
        let directory = Directory::new();
        let path = directory.socket();
        leave_behind(&path);
        let (listener, file) = listen(&path).unwrap();
        let error = listen(&path).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::AddrInUse, "somebody listens on it"));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "looking does not show");
        UnixStream::connect(&path).unwrap();
        drop((file, listener));
        listen(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_another_is_left_alone() {
        let directory = Directory::new();
        let path = directory.socket();
        let (_listener, file) = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "important").unwrap();
        drop(file);
        let error = listen(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"important");
        assert_eq!(directory.names(), ["node.sock"]);
    }

    #[test]
    fn one_of_many_that_start_at_once_has_it() {
        let directory = Directory::new();
        let path = directory.socket();
        for _ in 0..50 {
            leave_behind(&path);
            let barrier = Barrier::new(4);
            let results: Vec<_> = thread::scope(|scope| {
                let start = || {
                    barrier.wait();
                    listen(&path)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
            assert_eq!(refused.len(), 3, "{refused:?}");
            assert!(refused.iter().all(|error| error.kind() == ErrorKind::AddrInUse), "{refused:?}");
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn a_lock_that_was_left_behind_locks_nobody_out() {
        let directory = Directory::new();
        fs::write(directory.0.join("node.sock.lock"), "").unwrap();
        let _listening = listen(&directory.socket()).unwrap();
        assert_eq!(directory.names(), ["node.sock"]);
    }

    #[test]
    fn what_cannot_be_a_socket_is_said() {
        let directory = Directory::new();
        let longest = directory.0.join("x".repeat(MOST_OCTETS - directory.0.as_os_str().len() - 1));
        listen(&longest).unwrap();
        let long = directory.0.join("x".repeat(MOST_OCTETS));
        for (path, words) in [(&*long, "at most"), (Path::new(""), "empty"), (Path::new("/a\0b"), "octet 0")]
        {
            let error = listen(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(words), "{error}");
        }
        let nowhere = directory.0.join("nowhere").join("node.sock");
        assert_eq!(listen(&nowhere).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
