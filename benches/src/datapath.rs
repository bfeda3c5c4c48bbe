//! The data path's chain with everything that it needs to forward, and what it is compared with.

use std::path::PathBuf;

use anyhow::Context as _;
use xdpchain_abi::acl_tables::{BLOCK, BLOCKS};
use xdpchain_abi::{AclRule, Ipv6, acl_action, acl_flags};
use xdpchain_acl::Compiled;
use xdpchain_compose::Image;
use xdpchain_host::Entries;
use xdpchain_host::compiled::shared_array;
use xdpchain_tests::plan::{self, CLOUD, CUSTOMERS, NODE_CLOUD};

use crate::frames::DENIED;
use crate::rig::Subject;
use crate::{entries, frames};

/// The chain, in order; the last one at its exit.
const MODULES: [&str; 6] = ["gtp-decap", "gre-decap", "acl", "gre-steer", "gtp-encap", "stats"];

/// The modules' objects.
pub struct Objects(Vec<(&'static str, Vec<u8>)>);

impl Objects {
    /// Reads them from the folder that `cargo xtask bench` names.
    ///
    /// # Errors
    /// When one is missing.
    pub fn read() -> anyhow::Result<Self> {
        let folder = std::env::var_os("XDPCHAIN_EBPF_DIR").context("run it by `cargo xtask bench`")?;
        Self::read_from(folder)
    }

    /// Reads them from `folder`.
    ///
    /// # Errors
    /// When one is missing.
    pub fn read_from(folder: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let folder = folder.into();
        let read = |name: &'static str| {
            let path = folder.join(name).with_extension("o");
            std::fs::read(&path)
                .map(|object| (name, object))
                .with_context(|| format!("reading `{}`", path.display()))
        };
        Ok(Self(MODULES.into_iter().map(read).collect::<anyhow::Result<_>>()?))
    }

    /// How many modules there are.
    #[expect(clippy::len_without_is_empty, reason = "there are always six")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Maps of `stats` whose room is that of the project's `chains.yaml`, and how much that is.
const BY_NUMBER: [&str; 2] = ["customers_dense", "sessions_percpu"];
const ROOM: u32 = 4096;

/// A chain of the first `slots` modules, with endpoints, tunnels and one rule of the access list, and without sessions;
/// `alter` may change the maps before they are made.
///
/// # Errors
/// When it cannot be loaded or filled.
pub fn chain(objects: &Objects, slots: usize, alter: impl FnOnce(&mut Image)) -> anyhow::Result<Subject> {
    let modules: Vec<_> =
        objects.0[..slots].iter().map(|(name, object)| (*name, object.as_slice())).collect();
    let chain = Subject::chain(&modules, |image| {
        for map in image.maps.iter_mut().filter(|map| BY_NUMBER.contains(&&*map.def.name)) {
            map.def.max_entries = ROOM;
        }
        alter(image);
    })?;
    chain.fill("gtp-decap", "endpoints", &entries::endpoints())?;
    chain.fill("gre-decap", "tunnels", &entries::ingress(false))?;
    chain.fill("gre-steer", "customers", &entries::customers(1))?;
    chain.fill("gre-steer", "tunnels", &entries::tunnels(false))?;
    if slots > 2 {
        let rule = AclRule {
            dst: Ipv6::mapped(plan::abi(DENIED)),
            dst_len: 128,
            action: acl_action::DENY,
            flags: acl_flags::ENABLED,
            ..AclRule::default()
        };
        let tables = Compiled::new(&[(0, rule)])?;
        let shape = shared_array(BLOCK as u32, BLOCKS as u32);
        chain.map(Some("acl"), "rules_compiled")?.replace_inner(0, &shape, |octets| tables.write(octets))?;
    }
    Ok(chain)
}

/// Gives a chain these sessions, both ways; those of the uplink by their index where the chain's map for that has room for more
/// than one, and those of the downlink with a PDU Session Container when `container` says so.
///
/// # Errors
/// When entries are refused.
pub fn add_sessions(chain: &Subject, numbers: std::ops::Range<u32>, container: bool) -> anyhow::Result<()> {
    if chain.map(Some("gtp-decap"), "sessions_dense").is_ok_and(|map| map.info().max_entries > 1) {
        chain.fill("gtp-decap", "sessions_dense", &entries::dense(numbers.clone()))?;
    } else {
        chain.fill("gtp-decap", "sessions", &entries::uplink(numbers.clone()))?;
    }
    chain.fill("gtp-encap", "sessions", &entries::downlink(numbers, container))
}

/// The floor with a look-up, by a hash or by an index (5, and 6 or 7, in floor.c), among `sessions` sessions.
///
/// # Errors
/// When it cannot be loaded or filled.
pub fn looked_up(what: usize, sessions: u32) -> anyhow::Result<Subject> {
    let floor = Subject::c("floor", &[("FLOOR", what), ("SESSIONS", sessions as usize)])?;
    if what == 5 {
        for first in (0..sessions).step_by(100_000) {
            let keys = entries::uplink(first..sessions.min(first + 100_000)).keys;
            let values = vec![0; keys.len() / 8 * 48];
            floor.own_map("sessions")?.update_all(&Entries { keys, values })?;
        }
    }
    Ok(floor)
}

/// The same work for an uplink packet written by hand as one function, for `sessions` sessions. It asks the kernel for the
/// next hop of each packet when `fib` says so, else has it with the tunnel: out of the interface `out`.
///
/// # Errors
/// When it cannot be loaded or filled.
pub fn monolith(fib: bool, out: u32, sessions: u32) -> anyhow::Result<Subject> {
    let monolith = Subject::c("uplink", &[("FIB", fib.into()), ("SESSIONS", 1 << 20)])?;
    let keys = entries::uplink(0..sessions).keys;
    let mut values = Vec::new();
    for number in 0..sessions {
        // struct session
        values.extend((1 + number % CUSTOMERS).to_ne_bytes());
        values.extend(number.to_ne_bytes());
        values.extend(plan::RAN.octets());
        values.extend((frames::ADDRESS_BASE + number).to_be_bytes());
        values.extend(&frames::prefix(number).octets[..8]);
        values.extend(0u32.to_ne_bytes());
    }
    monolith.own_map("sessions")?.update_all(&Entries { keys, values })?;
    for customer in 1..=CUSTOMERS {
        // struct tunnel
        let value = [
            &NODE_CLOUD.octets()[..],
            &plan::gateway(customer).octets(),
            &out.to_ne_bytes(),
            &plan::mac(CLOUD),
            &plan::mac(NODE_CLOUD),
        ];
        monolith.own_map("tunnels")?.update(&customer.to_ne_bytes(), &value.concat())?;
    }
    Ok(monolith)
}
