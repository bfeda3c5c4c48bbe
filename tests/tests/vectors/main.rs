//! Packet vectors: each file of `tests/fixtures` is one packet through one program by `BPF_PROG_TEST_RUN`: alone, and as a slot of
//! a chain of each engine that composes; and across a veth pair. Those with uplink sessions run a second time with the sessions in
//! the array by TEID.
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
mod dense;
mod layout;
mod maps;
mod run;
mod wire;

use std::{fs, path::Path, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use xdpchain_golden::Fixture;
use xdpchain_tests::{kernel, router};

use self::chains::Chains;

fn main() {
    let arguments = Arguments::from_args();
    let fixtures = fixtures();
    // Listing needs no namespace, and so no root.
    let network = (!arguments.list).then(|| Arc::new(router("vectors")));
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
            let run =
                |fixture: &Fixture| run::run(&network, fixture).and_then(|()| chains.run(&network, fixture));
            let both = || {
                run(&fixture)?;
                let Some(dense) = dense::of(&fixture)? else { return Ok(()) };
                run(&dense).map_err(|error| format!("sessions by index: {error}"))
            };
            network.run(both).map_err(|error: String| Failed::from(error))
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
