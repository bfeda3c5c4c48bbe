//! Interfaces that were renamed: their chains go by the new name.

use std::fs;
use std::io;
use std::path::Path;

use crate::attach::PinnedLink;
use crate::collect;
use crate::error::{Error, Result};
use crate::host::{Host, by_dispatcher};
use crate::interface::Interface;
use crate::store::make_directory;

impl Host {
    /// Lets the chain of an interface that had another name when it was put there go by the present one. The lock is held.
    pub(crate) fn follow_name(&self, interface: &Interface) -> Result<()> {
        let name = &interface.name;
        let Some(old) = self.former_name(interface)? else { return Ok(()) };
        tracing::warn!("interface `{old}` is named `{name}` now; its chain goes by that name");
        // The manifests first: the link, by which the chain is found, stays under the old name until they have moved.
        rename(&self.at.manifests(&old), &self.at.manifests(name))?;
        rename(&self.at.chain(&old), &self.at.chain(name))
    }

    /// The name by which the chain of an interface goes, when that is not the interface's. A chain that has the present
    /// name already stays, whatever interface it is on: the caller finds that out.
    pub(crate) fn former_name(&self, interface: &Interface) -> Result<Option<String>> {
        if PinnedLink::open(&self.at.link(&interface.name))?.is_some() {
            return Ok(None);
        }
        for old in collect::known_interfaces(&self.at)? {
            if old != interface.name && self.is_on(&old, interface)? {
                return Ok(Some(old));
            }
        }
        Ok(None)
    }

    /// Whether the chain that goes by the name `old` is on `interface`.
    fn is_on(&self, old: &str, interface: &Interface) -> Result<bool> {
        if let Some(link) = PinnedLink::open(&self.at.link(old))? {
            // A number is unique only within a network namespace; a program on an interface tells more.
            let runs = interface.programs.iter().any(|program| program.id == link.info.prog_id);
            return Ok(runs && link.ifindex() == Some(interface.index));
        }
        let manifest = self.store().current(old)?;
        Ok(manifest.is_some_and(|manifest| {
            by_dispatcher(&manifest)
                && manifest.ifindex == interface.index
                && manifest.netns_cookie == self.netns().cookie
        }))
    }
}

/// Moves a directory, when it is there.
fn rename(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        make_directory(parent)?;
    }
    match fs::rename(from, to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("rename", from)(e)),
        _ => Ok(()),
    }
}
