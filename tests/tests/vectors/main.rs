//! Packet vectors: each file of `tests/fixtures` is one packet through one program by `BPF_PROG_TEST_RUN`: alone, and as a slot of
//! a chain of each engine that composes; and across a veth pair.
//!
//! A file is named after the row of the conformance table that it is about, for rows of both directions also after the
//! program, and says:
//!
//! ```yaml
//! description: one sentence
//! row: G01
//! program: gtp-decap                # package of the program; its object is <package>.o
//! maps:                             # entries put in before; fields not named are 0
//!   sessions:
//!     - key: { local: 192.0.2.1, teid: 0x101 }
//!       value: { customer: 7, session: 42, peer: 192.0.2.2, inner4: 10.45.0.9 }
//! context: { direction: downlink, customer: 7 }   # the packet context before; default all 0
//! ingress: access0                  # interface that the packet comes in on; default lo
//! headroom: 8                       # octets in front of the packet that may be used; default as the kernel gives
//! input: |                          # hexadecimal; white space and what follows # on a line do not count
//!   020000000101 020000000102 0800  # Ethernet
//! expect:
//!   verdict: pass                   # aborted, drop, pass, tx, redirect; +final when the chain ends there
//!   output: unchanged               # or hexadecimal; default unchanged
//!   reason: teid_zero               # counted once, and no other; left in the context unless it is a mere remark
//!   context: { customer: 7 }        # fields that differ from before; the others must not
//!   maps: { hits: [ { key: 3, value: 1 } ] }      # entries afterwards, per-CPU ones summed up; others are not looked at
//! ```
//!
//! The types of keys and values, and so the fields' names, are those of `xdpchain-abi`; see `layout.rs`.
//!
//! The program sees a network namespace with forwarding on and
//!
//! | interface | its address | neighbour | routes |
//! |---|---|---|---|
//! | access0, 02:00:00:00:01:01 | 192.0.2.1/24 | 192.0.2.2 at 02:00:00:00:01:02 | 198.51.100.0/24 via 192.0.2.2 |
//! | cloud0, 02:00:00:00:02:01 | 203.0.113.1/24 | 203.0.113.2 at 02:00:00:00:02:02 | 233.252.0.0/24 via 203.0.113.2 |
//!
//! In IPv6 the same, with 2001:db8:a::, 2001:db8:64::, 2001:db8:cb:: and 2001:db8:e9:: in place of 192.0.2.0, 198.51.100.0,
//! 203.0.113.0 and 233.252.0.0. The ways to 198.51.100.128/25 and 233.252.0.128/25 take 600 octets, those to
//! 2001:db8:64::80/121 and 2001:db8:e9::80/121 take 1280.
//!
//! The link-layer addresses of 192.0.2.99 and 203.0.113.99 are not known; 198.51.100.66 is unreachable. Prohibited is everything
//! from 192.0.2.66 and 203.0.113.66, and everything with TOS 0x04, by rules in front of the table.
//! Objects are taken from `XDPCHAIN_EBPF_DIR`, else from `ebpf` in cargo's target folder.
#![forbid(unsafe_code)]

mod chains;
mod layout;
mod maps;
mod run;
mod wire;

use std::{fs, path::Path, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use xdpchain_golden::Fixture;
use xdpchain_tests::{Netns, kernel, veth};

use self::chains::Chains;

fn main() {
    let arguments = Arguments::from_args();
    let fixtures = fixtures();
    // Listing needs no namespace, and so no root.
    let network = (!arguments.list).then(|| Arc::new(network()));
    let chains = Arc::new(Chains::default());
    let trials = fixtures.into_iter().map(|(name, text)| {
        let (network, chains) = (network.clone(), chains.clone());
        let skipped = name.clone();
        Trial::test(name, move || {
            let network = network.ok_or("listed only")?;
            let fixture = Fixture::parse(&text).map_err(|error| error.to_string())?;
            if fixture.row.as_deref().is_none_or(|row| row.trim().is_empty()) {
                return Err("`row` is missing".into());
            }
            if fixture.needs_context() && !kernel::test_run_has_context() {
                kernel::lacks(&skipped, "context for test runs of XDP programs");
                return Ok(());
            }
            // What takes the headroom away is metadata.
            if fixture.headroom.is_some() && !kernel::test_run_has_long_metadata() {
                kernel::lacks(&skipped, "room for more than 32 octets of metadata in test runs");
                return Ok(());
            }
            let run = || run::run(&network, &fixture).and_then(|()| chains.run(&network, &fixture));
            network.run(run).map_err(Failed::from)
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(network);
    conclusion.exit();
}

/// Name and text of every fixture, in order.
fn fixtures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let entries = fs::read_dir(&folder).expect("the folder of fixtures is part of the crate");
    let mut fixtures: Vec<_> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a fixture is text");
            (name, text)
        })
        .collect();
    fixtures.sort();
    assert!(!fixtures.is_empty(), "no fixtures in `{}`", folder.display());
    fixtures
}

/// The namespace that the table above describes.
fn network() -> Netns {
    let ns = Netns::new("vectors");
    for (name, far, number) in [("access0", "access1", 1), ("cloud0", "cloud1", 2)] {
        veth((&ns, name), (&ns, far));
        ns.ip(&format!("link set dev {name} address 02:00:00:00:{number:02}:01"));
        // The far end of a router's interface would join groups, and report that to the chain.
        ns.run(|| fs::write(format!("/proc/sys/net/ipv6/conf/{far}/disable_ipv6"), "1"))
            .expect("an interface need not have IPv6");
    }
    for command in [
        "addr add 192.0.2.1/24 dev access0",
        "addr add 203.0.113.1/24 dev cloud0",
        "neigh replace 192.0.2.2 lladdr 02:00:00:00:01:02 dev access0 nud permanent",
        "neigh replace 203.0.113.2 lladdr 02:00:00:00:02:02 dev cloud0 nud permanent",
        "route add 198.51.100.0/24 via 192.0.2.2",
        "route add unreachable 198.51.100.66/32",
        "route add 233.252.0.0/24 via 203.0.113.2",
        "rule add from 192.0.2.66 prohibit",
        "rule add from 203.0.113.66 prohibit",
        "rule add tos 0x04 prohibit",
        "route add 198.51.100.128/25 via 192.0.2.2 mtu lock 600",
        "route add 233.252.0.128/25 via 203.0.113.2 mtu lock 600",
        "-6 addr add 2001:db8:a::1/64 dev access0 nodad",
        "-6 addr add 2001:db8:cb::1/64 dev cloud0 nodad",
        "-6 neigh replace 2001:db8:a::2 lladdr 02:00:00:00:01:02 dev access0 nud permanent",
        "-6 neigh replace 2001:db8:cb::2 lladdr 02:00:00:00:02:02 dev cloud0 nud permanent",
        "-6 route add 2001:db8:64::/64 via 2001:db8:a::2",
        "-6 route add unreachable 2001:db8:64::42/128",
        "-6 route add 2001:db8:e9::/64 via 2001:db8:cb::2",
        "-6 route add 2001:db8:64::80/121 via 2001:db8:a::2 mtu lock 1280",
        "-6 route add 2001:db8:e9::80/121 via 2001:db8:cb::2 mtu lock 1280",
        "-6 rule add from 2001:db8:a::42 prohibit",
        "-6 rule add from 2001:db8:cb::42 prohibit",
        "-6 rule add tos 0x04 prohibit",
    ] {
        ns.ip(command);
    }
    for family in ["ipv4/conf", "ipv6/conf"] {
        ns.run(|| fs::write(format!("/proc/sys/net/{family}/all/forwarding"), "1"))
            .expect("a namespace can be a router");
    }
    ns
}
