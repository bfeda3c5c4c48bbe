//! A dispatcher made and put on an interface in place of the one before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use xdpchain_compose::btf::{Btf, Kind, TypeId};

use super::config::{self, Entry};
use super::ffi;
use super::pins::Pins;
use super::present::Present;
use crate::error::{Error, Result};
use crate::interface::AttachPlace;
use crate::sys::{self, ProgInfo};

/// A dispatcher that is loaded, with places for programs.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) fd: OwnedFd,
    pub(super) info: ProgInfo,
    count: usize,
    types: Btf,
}

impl Dispatcher {
    /// Loads one for programs of these entries, in the order in which they run.
    pub(super) fn load(entries: &[Entry]) -> Result<Self> {
        sys::raise_memlock();
        let frags = entries.iter().all(|entry| entry.frags);
        let load = |frags| ffi::load_dispatcher(&config::to_bytes(entries, frags), frags);
        let fd = match load(frags) {
            // A kernel before 5.18 knows no packets in several buffers.
            Err(_) if frags => load(false),
            other => other,
        };
        let fd = fd.map_err(|source| match source.kind() {
            io::ErrorKind::Unsupported => Error::NoLibxdp,
            io::ErrorKind::PermissionDenied => {
                Error::Permission { action: "load libxdp's dispatcher".to_owned(), source }
            }
            _ => Error::NoExtensions { source },
        })?;
        let info = sys::prog_info(fd.as_fd()).map_err(Error::query("the dispatcher just loaded"))?;
        let types = sys::btf_bytes(info.btf_id).map_err(Error::query("the dispatcher's BTF"))?;
        let types = Btf::parse(&types).map_err(|e| Error::Compose(e.into()))?;
        Ok(Self { fd, info, count: entries.len(), types })
    }

    /// The type of the function that the program at `index` replaces. When there is but one program, it replaces the whole
    /// dispatcher.
    pub(super) fn function(&self, index: usize) -> Result<TypeId> {
        let name = if self.count == 1 { self.info.name.clone() } else { format!("prog{index}") };
        self.types.by_name(&name, Kind::Func).ok_or_else(|| Error::NoExtensions {
            source: io::Error::new(
                io::ErrorKind::NotFound,
                format!("the dispatcher has no function `{name}`"),
            ),
        })
    }

    /// Puts a program in its place; the link that keeps it there.
    pub(super) fn put(&self, index: usize, program: BorrowedFd<'_>) -> Result<OwnedFd> {
        let function = self.function(index)?;
        sys::link_create_replacement(program, self.fd.as_fd(), function)
            .map_err(|source| Error::NoExtensions { source })
    }

    /// The functions of the dispatcher with these indices, for programs to be loaded.
    pub(super) fn targets(&self, indices: &[usize]) -> Result<Vec<(BorrowedFd<'_>, TypeId)>> {
        indices.iter().map(|index| Ok((self.fd.as_fd(), self.function(*index)?))).collect()
    }
}

/// A dispatcher complete with its programs, pinned as libxdp pins it, and not on the interface yet.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) dispatcher: Dispatcher,
    pub(super) directory: PathBuf,
}

/// Puts programs into a dispatcher, in order, and pins it for an interface.
pub(super) fn pin(
    pins: &Pins,
    ifindex: u32,
    dispatcher: Dispatcher,
    programs: &[BorrowedFd<'_>],
) -> Result<Pinned> {
    let mut links = Vec::with_capacity(programs.len());
    for (index, program) in programs.iter().enumerate() {
        let kept = program.try_clone_to_owned().map_err(Error::query("a descriptor"))?;
        links.push((dispatcher.put(index, *program)?, kept));
    }
    let directory = pins.of(ifindex, dispatcher.info.id);
    if let Err(error) = pins.pin(&directory, &links) {
        if let Err(left) = super::pins::remove(&directory) {
            tracing::warn!("{left}");
        }
        return Err(error);
    }
    Ok(Pinned { dispatcher, directory })
}

/// What an exchange on an interface came to.
#[derive(Debug)]
pub(super) enum Exchanged {
    /// It is done.
    Done,
    /// The interface does not run what it was told any more.
    Raced,
}

/// Puts `new` on the interface in place of `old`.
pub(super) fn exchange(
    ifindex: u32,
    place: AttachPlace,
    new: Option<BorrowedFd<'_>>,
    old: Option<&Present>,
) -> io::Result<Exchanged> {
    let mode = match place {
        AttachPlace::Generic => XDP_FLAGS_SKB_MODE,
        AttachPlace::Native | AttachPlace::Offload => XDP_FLAGS_DRV_MODE,
    };
    match ffi::exchange(ifindex, new, old.map(|old| old.dispatcher.as_fd()), mode) {
        Ok(()) => Ok(Exchanged::Done),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => Ok(Exchanged::Raced),
        // Somebody's link is attached, which the dispatcher that was read was not.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) && old.is_some() => Ok(Exchanged::Raced),
        Err(e) => Err(e),
    }
}
