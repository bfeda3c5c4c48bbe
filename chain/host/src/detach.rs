//! Chains taken off their interfaces.

use std::os::fd::AsFd;

use xdpchain_spec::Mode;

use crate::attach::{self, PinnedLink};
use crate::error::{Error, Result};
use crate::host::{Host, by_dispatcher};
use crate::interface::Interface;
use crate::manifest::{AttachMode, Manifest};
use crate::recover::Recovered;
use crate::sys;
use crate::transaction::Leaving;
use crate::undo::Undo;

/// What became of a chain that was taken off.
#[derive(Clone, Debug, Default)]
pub struct Detached {
    /// The generation that ran, when its manifest could be read.
    pub manifest: Option<Manifest>,
    /// Why the program that the chain had adopted could not be put back.
    pub not_restored: Option<String>,
}

impl Host {
    /// Takes the chain off an interface, which may have been renamed or be gone, and removes everything that only it used.
    /// A program that it had adopted is put back.
    ///
    /// # Errors
    /// [`Error::NoChain`], [`Error::NoInterface`] when there is neither a chain nor an interface, [`Error::Permission`].
    pub fn detach(&self, ifname: &str) -> Result<Detached> {
        let lock = self.lock()?;
        if let Ok(interface) = Interface::by_name(ifname) {
            self.follow_name(&interface)?;
        }
        // A manifest that cannot be read must not keep the chain on the interface.
        let recovered = match self.recover_interface(ifname) {
            Err(Error::Manifest { .. }) => None,
            other => other?,
        };
        self.check_trial(ifname)?;
        let link = PinnedLink::open(&self.at.link(ifname))?;
        let manifest = self.store().current(ifname);
        let nothing = link.is_none() && matches!(&manifest, Ok(None));
        if nothing && !matches!(recovered, Some(Recovered::Gone { .. })) {
            Interface::by_name(ifname)?;
            return Err(Error::NoChain { ifname: ifname.to_owned() });
        }
        let detached = match manifest.unwrap_or_default() {
            Some(manifest) => {
                let mut undo = Undo::default();
                let done = self.leave(&Leaving { ifname: ifname.to_owned(), link, manifest }, &mut undo);
                match done {
                    Ok(detached) => {
                        undo.keep();
                        detached
                    }
                    Err(error) => return Err(undo.fail(error)),
                }
            }
            None => {
                if let Some(link) = link {
                    link.detach(&self.at.link(ifname))?;
                    sys::wait_for_programs();
                }
                Detached::default()
            }
        };
        self.store().remove(ifname)?;
        self.tidy(ifname);
        self.sweep();
        drop(lock);
        Ok(detached)
    }

    /// Takes a chain off; what is pinned and written of it stays.
    pub(crate) fn leave<'a>(&'a self, chain: &Leaving, undo: &mut Undo<'a>) -> Result<Detached> {
        let Leaving { ifname, link, manifest } = chain;
        let path = self.at.link(ifname);
        let mut not_restored = None;
        if by_dispatcher(manifest) {
            self.detach_by_dispatcher(manifest)?;
        } else if let Some(adopted) = &manifest.adopted {
            not_restored = adopted.restore(link.as_ref(), &path, manifest.ifindex)?;
        } else if let Some(link) = link {
            let program = sys::prog_by_id(link.info.prog_id).map_err(Error::query("the chain's program"))?;
            let ifindex = link.ifindex();
            link.detach(&path)?;
            undo.visible();
            let mode = match manifest.mode {
                AttachMode::Native => Mode::Native,
                AttachMode::Generic => Mode::Generic,
            };
            undo.push("put the chain back", move || {
                let Some(ifindex) = ifindex else { return Ok(()) };
                let interface = Interface::by_index(ifindex).map_err(Error::query("the interface"))?;
                // As it was, whatever the driver says by now.
                let attached = attach::attach(program.as_fd(), &interface, mode, false)?;
                sys::pin(attached.link.as_fd(), &path).map_err(Error::io("pin", &path))
            });
        }
        if link.is_some() {
            // A packet may be about to look into a program array that goes away.
            sys::wait_for_programs();
        }
        Ok(Detached { manifest: Some(manifest.clone()), not_restored })
    }
}
