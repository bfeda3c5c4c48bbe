//! The network namespace that a command works in.
//!
//! A namespace is known by the inode number of its nsfs file, which is free for another one once it is gone, so that
//! its cookie, which is not, is kept beside it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::sys;

/// Where iproute2 keeps named network namespaces.
const NAMED: &str = "/run/netns";

/// Where the kernel lists processes.
const PROC: &str = "/proc";

/// The calling thread's network namespace. A thread may be in another one than the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Netns {
    /// Inode number of its nsfs file.
    pub inode: u64,
    /// A number that no other has until the next boot; none before kernel 5.14.
    pub cookie: Option<u64>,
}

impl Netns {
    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Io`] without `/proc`.
    pub fn current() -> Result<Self> {
        let inode = fs::metadata(OWN).map_err(Error::io("read", OWN))?.ino();
        Ok(Self { inode, cookie: sys::netns_cookie() })
    }

    /// Moves the calling thread into the namespace `name`, as `ip netns` names it, or a path when it has a slash. Mounts
    /// stay as they are, unlike with `ip netns exec`. To be called before other threads start.
    ///
    /// # Errors
    /// [`Error::NoNetns`], [`Error::Permission`].
    pub fn enter(name: &str) -> Result<Self> {
        let path = if name.contains('/') { PathBuf::from(name) } else { PathBuf::from(NAMED).join(name) };
        let denied =
            |source| Error::Permission { action: format!("enter network namespace `{name}`"), source };
        let unknown = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => denied(source),
            _ => Error::NoNetns { name: name.to_owned(), source },
        };
        let file = File::open(&path).map_err(unknown)?;
        sys::bind_netns(file.as_fd()).map_err(unknown)?;
        Self::current()
    }
}

/// Whether a network namespace with this inode number has a name or a process. One that is only held open, or mounted
/// elsewhere, is not found.
pub(crate) fn is_found(inode: u64) -> bool {
    let listed =
        |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_it = |path: PathBuf| fs::metadata(path).is_ok_and(|file| file.ino() == inode);
    listed(NAMED).any(is_it) || listed(PROC).any(|process| is_it(process.join("ns/net")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_identity() {
        assert_eq!(Netns::current().expect("/proc is there"), Netns::current().expect("/proc is there"));
    }

    #[test]
    fn a_namespace_with_a_process_is_found_and_one_that_never_was_is_not() {
        assert!(is_found(Netns::current().expect("/proc is there").inode));
        assert!(!is_found(u64::MAX));
    }

    #[test]
    fn an_unknown_namespace_is_a_usage_error() {
        let error = Netns::enter("no-such-namespace").expect_err("there is none");
        assert_eq!(error.class().code(), 2);
        assert!(error.to_string().contains("help: "), "{error}");
    }
}
