//! What nothing refers to any more, removed. The lock of the network namespace is held meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::attach::PinnedLink;
use crate::error::Result;
use crate::libxdp;
use crate::lock::NetnsLock;
use crate::migrate::{DONE, NEXT, next_pin, pinned_id};
use crate::netns;
use crate::places::{NetnsPlaces, escape, unescape};
use crate::recover::Recovered;
use crate::store::{Store, names, remove_empty, remove_file, remove_unfinished};
use crate::sys;

/// Removes the state of chains whose link is dead, in a network namespace that is not ours, with this inode number.
pub(crate) fn sweep(at: &NetnsPlaces, inode: u64) -> Result<Vec<Recovered>> {
    let mut found = Vec::new();
    let Some(lock) = NetnsLock::try_acquire(at)? else { return Ok(found) };
    for ifname in known_interfaces(at)? {
        let path = at.link(&ifname);
        let link = PinnedLink::open(&path)?;
        if link.as_ref().is_some_and(|link| link.ifindex().is_some()) {
            continue;
        }
        // Which interface a dispatcher is on can be asked in its namespace only; what is loaded may be in use there.
        if Store(at).current(&ifname)?.is_some_and(|manifest| libxdp::is_loaded(&manifest)) {
            continue;
        }
        // Nor can a program be put back from here of which an interrupted command had taken the place.
        let manifests = [Store(at).staged(&ifname)?, Store(at).current(&ifname)?];
        let owed = manifests.iter().flatten().filter_map(|manifest| manifest.adopted.as_ref());
        if link.is_none()
            && owed.map(|it| it.id).any(|id| sys::prog_by_id(id).is_ok())
            && netns::is_found(inode)
        {
            continue;
        }
        if let Some(link) = link {
            link.detach(&path)?;
        }
        Store(at).remove(&ifname)?;
        found.push(Recovered::Gone { ifname });
    }
    collect(at)?;
    drop(lock);
    Ok(found)
}

/// The interfaces that have pins or manifests.
pub(crate) fn known_interfaces(at: &NetnsPlaces) -> Result<BTreeSet<String>> {
    let mut found: BTreeSet<String> = Store(at).interfaces()?.into_iter().collect();
    found.extend(names(&at.chain_root())?.iter().filter_map(|name| unescape(name)));
    Ok(found)
}

/// Removes the pins and objects that no manifest of the namespace refers to, and empty directories.
pub(crate) fn collect(at: &NetnsPlaces) -> Result<()> {
    let store = Store(at);
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut chains: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ifname in store.interfaces()? {
        for manifest in store.current(&ifname)?.into_iter().chain(store.staged(&ifname)?) {
            for map in &manifest.maps {
                let of = match &map.module {
                    Some(module) => modules.entry(escape(module)).or_default(),
                    None => chains.entry(escape(&ifname)).or_default(),
                };
                of.insert(escape(&map.pin()));
                // One that is to take another one's place is live as soon as a generation knows it.
                let next = next_pin(&at.record(&ifname, map));
                if map.module.is_some() && pinned_id(&next) == Some(map.id) {
                    of.extend([NEXT, DONE].map(|beside| escape(&map.pin()) + &escape(beside)));
                }
            }
        }
    }
    let none = BTreeSet::new();
    for module in names(&at.module_root())? {
        collect_pins(&at.module_root().join(&module), modules.get(&module).unwrap_or(&none))?;
    }
    for chain in names(&at.chain_root())? {
        let directory = at.chain_root().join(&chain);
        collect_pins(&directory.join("maps"), chains.get(&chain).unwrap_or(&none))?;
        remove_empty(&[&directory]);
    }
    for ifname in names(&at.manifest_root())? {
        let directory = at.manifest_root().join(ifname);
        remove_unfinished(&directory)?;
        remove_empty(&[&directory]);
    }
    remove_unfinished(&at.run)?;
    store.collect_objects()
}

/// Removes the pins of a directory that are not `live`, and the directory when nothing is left.
fn collect_pins(directory: &Path, live: &BTreeSet<String>) -> Result<()> {
    for name in names(directory)? {
        if !live.contains(&name) {
            remove_file(&directory.join(name))?;
        }
    }
    remove_empty(&[directory]);
    Ok(())
}
