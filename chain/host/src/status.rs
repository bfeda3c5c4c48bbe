//! What runs on an interface now: the manifest beside what the kernel says.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use xdpchain_compose::{EXIT_MAP, MapOwner};

use crate::attach::PinnedLink;
use crate::error::{Error, Result};
use crate::exits::{self, Exits};
use crate::host::{Host, by_dispatcher};
use crate::interface::Interface;
use crate::libxdp::ComponentStatus;
use crate::lock::NetnsLock;
use crate::manifest::Manifest;
use crate::sys::{self, LinkInfo, MapInfo, ProgInfo};

/// How long a command that changes something may leave what is not as the manifest says, until it is told as a problem.
const SETTLE: Duration = Duration::from_secs(2);

/// The chain on an interface.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChainStatus {
    /// The committed generation.
    pub manifest: Manifest,
    /// The interface; none when it is gone.
    pub interface: Option<Interface>,
    /// The link; none when its pin is gone.
    pub link: Option<LinkInfo>,
    /// The program that the link runs.
    pub program: Option<ProgInfo>,
    /// What became of the packets; no slots when the chain does not count.
    pub exits: Exits,
    /// For a chain of libxdp's: every program that the dispatcher calls, in the order in which they run.
    pub components: Vec<ComponentStatus>,
    /// The maps.
    pub maps: Vec<MapStatus>,
    /// What is not as the manifest says, in words.
    pub problems: Vec<String>,
}

/// A map of a chain.
#[derive(Clone, Debug)]
pub struct MapStatus {
    /// Whose it is.
    pub owner: MapOwner,
    /// Its name in the object.
    pub name: String,
    /// What the kernel says about it.
    pub info: MapInfo,
    /// Octets of memory that the kernel counts for it.
    pub memory: u64,
}

impl Host {
    /// The chain on an interface, and whether it is as it should be. Nothing is changed, and the lock is taken only for a
    /// second look at what is not as it should be: a change that is half made is no problem.
    ///
    /// # Errors
    /// [`Error::NoChain`], [`Error::NoInterface`] when there is neither a chain nor an interface, [`Error::Permission`].
    pub fn status(&self, ifname: &str) -> Result<ChainStatus> {
        let former = match Interface::by_name(ifname) {
            Ok(interface) => self.former_name(&interface)?,
            Err(_) => None,
        };
        let ifname = former.as_deref().unwrap_or(ifname);
        let start = Instant::now();
        let mut status = self.settled(ifname)?;
        while !status.problems.is_empty() && start.elapsed() < SETTLE {
            let Ok(lock) = NetnsLock::try_acquire(&self.at) else { break };
            status = self.settled(ifname)?;
            if lock.is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(status)
    }

    /// The chain on an interface, of one generation.
    fn settled(&self, ifname: &str) -> Result<ChainStatus> {
        // A change in between would put the rows of one generation beside the manifest of another.
        let mut tries = 5;
        loop {
            let status = self.status_once(ifname)?;
            let now = self.store().current(ifname)?;
            if now.is_none_or(|now| now.generation == status.manifest.generation) || tries == 0 {
                return Ok(status);
            }
            tries -= 1;
        }
    }

    /// What became of the packets of the chain on an interface; nothing when the chain does not count.
    ///
    /// # Errors
    /// [`Error::NoChain`], [`Error::Permission`].
    pub fn exits(&self, ifname: &str) -> Result<Exits> {
        self.exits_of(&self.manifest(ifname)?)
    }

    pub(crate) fn exits_of(&self, manifest: &Manifest) -> Result<Exits> {
        match self.chain_map(&manifest.ifname, EXIT_MAP) {
            Ok(counters) => exits::read(&counters, manifest),
            Err(Error::NoMap { .. }) => Ok(Exits::default()),
            Err(error) => Err(error),
        }
    }

    fn status_once(&self, ifname: &str) -> Result<ChainStatus> {
        let link = PinnedLink::open(&self.at.link(ifname))?;
        let Some(manifest) = self.store().current(ifname)? else {
            Interface::by_name(ifname)?;
            return Err(Error::NoChain { ifname: ifname.to_owned() });
        };
        let interface = Interface::by_name(ifname).ok();
        let dispatched = match by_dispatcher(&manifest) {
            true => Some(self.dispatched(&manifest)?),
            false => None,
        };
        let program = match &link {
            _ if dispatched.is_some() => None,
            Some(link) => sys::prog_by_id(link.info.prog_id).and_then(|fd| sys::prog_info(fd.as_fd())).ok(),
            None => None,
        };
        let mut maps = Vec::new();
        let mut counters = None;
        let mut problems = problems(&manifest, interface.as_ref());
        let (program, components) = match dispatched {
            Some(dispatched) => {
                problems.extend(dispatched.problems);
                (dispatched.program, dispatched.components)
            }
            None => {
                problems.extend(link_problems(link.as_ref()));
                if let Some(link) = &link {
                    problems.extend(self.differences(&manifest, link)?);
                }
                (program, Vec::new())
            }
        };
        for record in &manifest.maps {
            let owner = record.owner();
            match self.open_record(ifname, record) {
                Ok(map) => {
                    let memory = map.memory()?;
                    maps.push(MapStatus {
                        owner,
                        name: record.name.clone(),
                        info: map.info().clone(),
                        memory,
                    });
                    if record.module.is_none() && record.name == EXIT_MAP {
                        counters = Some(map);
                    }
                }
                Err(Error::NoMap { .. }) if record.generation.is_some() => {}
                Err(Error::NoMap { .. }) => {
                    problems.push(format!("the pin of map `{}` is gone", record.name))
                }
                Err(error) => return Err(error),
            }
        }
        let exits = counters.map(|map| exits::read(&map, &manifest)).transpose()?.unwrap_or_default();
        Ok(ChainStatus {
            manifest,
            interface,
            link: link.map(|l| l.info),
            program,
            exits,
            components,
            maps,
            problems,
        })
    }
}

fn problems(manifest: &Manifest, interface: Option<&Interface>) -> Vec<String> {
    let mut found = Vec::new();
    match interface {
        None => found.push(match Interface::by_index(manifest.ifindex) {
            Ok(now) => format!(
                "the interface is named `{}` now, and so will the chain's be at the next change of it",
                now.name
            ),
            Err(_) => "the interface is gone".to_owned(),
        }),
        Some(now) if now.index != manifest.ifindex => found.push(format!(
            "the chain was put on interface {}, and `{}` is interface {} now",
            manifest.ifindex, manifest.ifname, now.index
        )),
        Some(_) => {}
    }
    found
}

fn link_problems(link: Option<&PinnedLink>) -> Vec<String> {
    let mut found = Vec::new();
    match link {
        None => found.push("the pinned link is gone, and the chain with it".to_owned()),
        Some(link) => {
            if link.ifindex().is_none() {
                found.push("the link was detached".to_owned());
            }
        }
    }
    found
}
