//! The libxdp engine: chains whose slots are programs that libxdp's dispatcher calls, beside those of other tools.
//!
//! A chain of this kind has no link of ours. What holds it are libxdp's own pins, so that `xdp-loader` sees and handles
//! its programs like any other; which are ours is told by the kernel's numbers of them, in the manifest. One exchange of
//! the dispatcher on the interface commits a change: packets see all programs before it or all after it. libxdp's functions
//! add programs or remove some, each in an exchange of its own, so the exchange of a whole chain is made here, by libxdp's
//! published protocol and with its dispatcher.

mod change;
pub(crate) mod config;
#[cfg(feature = "libxdp")]
#[allow(unsafe_code, reason = "libxdp is C")]
mod ffi;
#[cfg(not(feature = "libxdp"))]
#[path = "without.rs"]
mod ffi;
mod pins;
mod present;
mod swap;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use config::Entry;
use serde::{Deserialize, Serialize};
use xdpchain_compose::{Image, ProgramImage};
use xdpchain_spec::VerdictSet;

use crate::error::Result;
use crate::load::{self, Loaded, Programs};
use crate::manifest::Manifest;
use crate::sys;

/// A slot's program as the dispatcher knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// The slot.
    pub slot: String,
    /// The kernel's number of its program.
    pub id: u32,
    /// Run priority: lower runs first.
    pub priority: u32,
    /// The verdicts after which the next program runs.
    pub calls: VerdictSet,
}

/// A program that the dispatcher on an interface calls, whosever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComponentStatus {
    /// The slot that it is the program of; none when it is somebody else's.
    pub slot: Option<String>,
    /// The kernel's number of it.
    pub id: u32,
    /// Its name, at most 15 octets.
    pub name: String,
    /// The kernel's digest of its instructions, hexadecimal.
    pub tag: String,
    /// Run priority: lower runs first.
    pub priority: u32,
    /// The verdicts after which the next program runs.
    pub calls: VerdictSet,
}

/// An image's programs in a dispatcher that is on no interface. Dropping it leaves no trace.
#[derive(Debug)]
pub struct Trial {
    _links: Vec<OwnedFd>,
    /// The image's programs and maps.
    pub loaded: Loaded,
    dispatcher: swap::Dispatcher,
}

impl Trial {
    /// The dispatcher.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.dispatcher.fd.as_fd()
    }
}

/// Loads an image's programs into a dispatcher that is not put on any interface.
///
/// # Errors
/// [`crate::Error::NoExtensions`] when this kernel does not run dispatchers, [`crate::Error::NoLibxdp`] when this build is without libxdp,
/// else as [`load`](load::load).
pub fn try_out(image: &Image) -> Result<Trial> {
    let entry = |(priority, (program, calls)): (usize, (&ProgramImage, &VerdictSet))| Entry {
        priority: priority as u32,
        calls: calls.bits(),
        frags: program.frags,
    };
    let programs = image.programs.iter().zip(&image.chain_calls);
    let entries: Vec<Entry> = programs.enumerate().map(entry).collect();
    let dispatcher = swap::Dispatcher::load(&entries)?;
    let places: Vec<usize> = (0..entries.len()).collect();
    let targets = dispatcher.targets(&places)?;
    let wanted = Programs { replaces: &targets, ..Programs::default() };
    let loaded = load::load_new(image, &mut |_| Ok(None), &wanted)?;
    let links =
        places.iter().map(|place| dispatcher.put(*place, loaded.program(*place))).collect::<Result<_>>()?;
    Ok(Trial { _links: links, loaded, dispatcher })
}

/// What the verifier says of an image's programs in a dispatcher, as the number of instructions that it looked at.
///
/// # Errors
/// As [`try_out`].
pub fn verify(image: &Image) -> Result<u32> {
    Ok(try_out(image)?.loaded.verified_insns())
}

/// Whether this build has libxdp.
pub const BUILT: bool = cfg!(feature = "libxdp");

/// Whether a program of the chain is still loaded, so that a dispatcher may call it.
pub(crate) fn is_loaded(manifest: &Manifest) -> bool {
    manifest.components.iter().any(|record| sys::prog_by_id(record.id).is_ok())
}
