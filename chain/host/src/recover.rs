//! What interrupted commands left, finished or cleared away.
//!
//! Whether a change was committed is told by the programs that run; and a program of somebody else whose place a chain had
//! taken is put back when the chain is not there any more.

use std::collections::BTreeSet;

use crate::adopt::Adopted;
use crate::attach::PinnedLink;
use crate::collect;
use crate::error::Result;
use crate::host::{Host, by_dispatcher};
use crate::interface::Interface;
use crate::manifest::Manifest;
use crate::netns::Netns;
use crate::store::{names, remove_file};
use crate::undo::Undo;

/// What [`Host::recover`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered {
    /// A change had been committed and not recorded; it is recorded now.
    Finished {
        /// The interface.
        ifname: String,
        /// The generation.
        generation: u64,
    },
    /// A change had been prepared and not committed; it is cleared away.
    Cleared {
        /// The interface.
        ifname: String,
        /// The generation.
        generation: u64,
    },
    /// The interface, or its namespace, is gone, or something else detached the chain; its maps and files are removed.
    Gone {
        /// The interface.
        ifname: String,
    },
}

impl Host {
    /// Finishes or clears away what interrupted commands left, in every network namespace.
    ///
    /// # Errors
    /// [`crate::Error::Permission`], [`crate::Error::Io`], [`crate::Error::Manifest`].
    pub fn recover(&self) -> Result<Vec<Recovered>> {
        let lock = self.lock()?;
        let mut found = Vec::new();
        for ifname in collect::known_interfaces(&self.at)? {
            found.extend(self.recover_interface(&ifname)?);
        }
        self.settle_migrations()?;
        collect::collect(&self.at)?;
        found.extend(self.sweep());
        drop(lock);
        Ok(found)
    }

    /// Puts back a program of which a chain that is not there any more, or not yet, had taken the place.
    fn give_up(&self, ifname: &str, ifindex: u32, adopted: &Adopted, link: Option<PinnedLink>) -> Result<()> {
        let path = self.at.link(ifname);
        if link.as_ref().is_some_and(|link| link.info.prog_id == adopted.id) {
            // Its own link, which was pinned and not changed yet.
            return remove_file(&path);
        }
        let on_it = Interface::by_index(ifindex).is_ok_and(|i| i.programs.iter().any(|p| p.id == adopted.id));
        if !on_it && let Some(reason) = adopted.restore(link.as_ref(), &path, ifindex)? {
            tracing::warn!("program {} (`{}`) is not back on `{ifname}`: {reason}", adopted.id, adopted.name);
        }
        Ok(())
    }

    /// Finishes or clears away what an interrupted command left on one interface. The lock is held.
    pub(crate) fn recover_interface(&self, ifname: &str) -> Result<Option<Recovered>> {
        let known = [self.store().staged(ifname), self.store().current(ifname)];
        if known.iter().any(|manifest| matches!(manifest, Ok(Some(manifest)) if by_dispatcher(manifest))) {
            return self.recover_by_dispatcher(ifname);
        }
        let mut link = PinnedLink::open(&self.at.link(ifname))?;
        let alive = link.as_ref().is_some_and(|link| link.ifindex().is_some());
        let mut recovered = None;
        if let Some(mut staged) = self.store().staged(ifname)? {
            let (ifname, generation) = (ifname.to_owned(), staged.generation);
            let before = self.store().current(&ifname)?;
            if before.as_ref().is_some_and(|before| before.generation == generation) {
                // It was recorded, but for forgetting that it had been prepared.
                self.store().unstage(&ifname)?;
            } else if alive
                && let Some(link) = &link
                && self.differences(&staged, link)?.is_empty()
            {
                self.finish(before.as_ref(), &mut staged)?;
                recovered = Some(Recovered::Finished { ifname, generation });
            } else {
                if before.is_none()
                    && let Some(adopted) = &staged.adopted
                {
                    self.give_up(&ifname, staged.ifindex, adopted, link.take())?;
                }
                self.store().unstage(&ifname)?;
                recovered = Some(Recovered::Cleared { ifname, generation });
            }
            collect::collect(&self.at)?;
        }
        let current = match self.store().current(ifname) {
            Ok(current) => current,
            // A living chain whose manifest cannot be read is nothing to clear away.
            Err(error) if alive => return Err(error),
            Err(_) => None,
        };
        if alive || (link.is_none() && current.is_none()) {
            return Ok(recovered);
        }
        tracing::warn!(
            "the chain of `{ifname}` was detached by something else, or its interface is gone; removing its state"
        );
        if let Some((manifest, adopted)) = current.as_ref().and_then(|m| Some((m, m.adopted.as_ref()?))) {
            self.give_up(ifname, manifest.ifindex, adopted, link)?;
        } else if let Some(link) = link {
            link.detach(&self.at.link(ifname))?;
        }
        self.store().remove(ifname)?;
        collect::collect(&self.at)?;
        Ok(Some(Recovered::Gone { ifname: ifname.to_owned() }))
    }

    /// Records a generation that a command had committed when it was interrupted.
    pub(crate) fn finish(&self, before: Option<&Manifest>, staged: &mut Manifest) -> Result<()> {
        let mut undo = Undo::default();
        let done = self.publish(before, staged, &mut undo);
        // It runs; what cannot be recorded now is recorded by the next command.
        undo.keep();
        done
    }

    /// Removes old generations and what nothing refers to. What cannot be removed now is removed by the next command.
    pub(crate) fn tidy(&self, ifname: &str) {
        if let Err(error) = self.store().prune(ifname).and_then(|()| collect::collect(&self.at)) {
            tracing::warn!("some leftovers could not be removed: {error}");
        }
    }

    /// Removes the state of chains in other network namespaces whose interface is gone, which mostly are namespaces that
    /// are gone.
    pub(crate) fn sweep(&self) -> Vec<Recovered> {
        let mut found = Vec::new();
        let mut inodes: BTreeSet<String> = names(self.places.run()).unwrap_or_default().into_iter().collect();
        inodes.extend(names(self.places.pins()).unwrap_or_default());
        for inode in inodes.iter().filter_map(|name| name.parse::<u64>().ok()) {
            if inode == self.netns().inode {
                continue;
            }
            match collect::sweep(&self.places.of(Netns { inode, cookie: None }), inode) {
                Ok(swept) => found.extend(swept),
                Err(error) => tracing::debug!("network namespace {inode}: {error}"),
            }
        }
        found
    }
}
