//! What stands for libxdp in a build without it: every attempt says so.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::config::SIZE;

/// Fails.
pub(super) fn load_dispatcher(_config: &[u8; SIZE], _frags: bool) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Fails.
pub(super) fn exchange(
    _ifindex: u32,
    _new: Option<BorrowedFd<'_>>,
    _old: Option<BorrowedFd<'_>>,
    _mode: u32,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
