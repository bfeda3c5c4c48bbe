//! What packets meet: the chain, the maps of each case, the network.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use xdpchain_golden::{Entry, Fixture};
use xdpchain_reference::{Module, Outcome, Tables, tables};
use xdpchain_wire::ethernet::Link;

/// The data path.
pub(crate) const CHAINS: &str = "\
version: 1
modules:
  gtp-decap: { object: ./gtp-decap.o }
  gre-decap: { object: ./gre-decap.o }
  acl: { object: ./acl.o }
  gre-steer: { object: ./gre-steer.o }
  gtp-encap: { object: ./gtp-encap.o, imports: { tunnels: gre-steer/tunnels } }
  stats: { object: ./stats.o }
chains:
  edge:
    interfaces: [eth1]
    slots: [gtp-decap, gre-decap, acl, gre-steer, gtp-encap, stats: { at: exit }]
";

/// Entries of the maps that a fixture says nothing about: customer 7 with a session and a tunnel, and 8 with others.
const WORLD: &str = "\
description: what is there whatever the case
maps:
  gtp-decap/endpoints:
    - { key: 192.0.2.1, value: { flags: 0 } }
  gtp-decap/sessions:
    - key: { local: 192.0.2.1, teid: 0x101 }
      value: { customer: 7, session: 42, peer: 192.0.2.2, inner4: 10.45.0.9, inner6: '2001:db8:45:9::', inner6_len: 64 }
    - key: { local: 192.0.2.1, teid: 0x102 }
      value: { customer: 8, session: 43, peer: 192.0.2.2, inner4: 10.45.0.9 }
  gre-decap/tunnels:
    - key: { remote: 233.252.0.7, local: 203.0.113.1 }
      value: { customer: 7, tunnel: 3, inside: 169.254.6.0, inside_len: 29 }
  acl/config:
    - { key: 0, value: { default_action: 0 } }
  gre-steer/customers:
    - { key: 7, value: { tunnels: [3, 4, 5, 0], count: 3 } }
  gre-steer/tunnels:
    - { key: 3, value: { local: 203.0.113.1, remote: 233.252.0.7 } }
    - { key: 4, value: { local: 203.0.113.1, remote: 203.0.113.2, key: 7, flags: 1 } }
    - { key: 5, value: { local: 203.0.113.1, remote: 203.0.113.2, ttl: 9 } }
  gtp-encap/sessions:
    - key: { customer: 7, address: 10.45.0.9 }
      value: { session: 42, teid: 0xabcd0001, peer: 198.51.100.7, local: 192.0.2.1 }
    - key: { customer: 7, address: '2001:db8:45:9::' }
      value: { session: 42, teid: 0xabcd0001, peer: 192.0.2.2, local: 192.0.2.1, flags: 2, qfi: 9 }
input: '00'
expect: { verdict: pass }
";

/// Addresses that mean something somewhere.
const HOSTS: [[u8; 4]; 15] = [
    [192, 0, 2, 1],
    [192, 0, 2, 2],
    [192, 0, 2, 99],
    [203, 0, 113, 1],
    [203, 0, 113, 2],
    [233, 252, 0, 7],
    [198, 51, 100, 7],
    [10, 45, 0, 9],
    [10, 200, 1, 2],
    [169, 254, 6, 1],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
    [0, 0, 0, 0],
    [127, 0, 0, 1],
    [0, 0, 2, 1],
];

/// A packet, and the maps that it meets.
pub(crate) struct Case {
    pub(crate) name: String,
    /// By `module/map`.
    pub(crate) maps: IndexMap<String, Vec<Entry>>,
    pub(crate) packet: Vec<u8>,
    /// The interface that it comes in by.
    pub(crate) ingress: String,
    pub(crate) hosts: Vec<[u8; 4]>,
}

impl Case {
    /// What its maps hold, typed.
    pub(crate) fn tables(&self) -> Tables {
        let mut fixture = Fixture::parse(WORLD).expect("it is a fixture");
        fixture.maps.clone_from(&self.maps);
        tables(&fixture, None).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The case with another packet, as a fixture that says what the reference says.
    pub(crate) fn fixture(&self, packet: &[u8], expected: &Outcome) -> String {
        let hex = |octets: &[u8]| {
            let words: Vec<String> = octets
                .chunks(4)
                .map(|word| word.iter().map(|octet| format!("{octet:02x}")).collect())
                .collect();
            words.chunks(10).map(|line| format!("    {}", line.join(" "))).collect::<Vec<_>>().join("\n")
        };
        let mut text = format!("description: drawn from {}\nmaps:\n", self.name);
        for (name, entries) in &self.maps {
            text += &format!("  {name}:\n");
            for entry in entries {
                text += &format!("    - {{ key: {}, value: {} }}\n", entry.key, entry.value);
            }
        }
        text += &format!("ingress: {}\ninput: |\n{}\n", self.ingress, hex(packet));
        let end = if expected.ended { "+final" } else { "" };
        text += &format!("expect:\n  verdict: {}{end}\n", expected.verdict.name());
        if expected.packet != packet {
            text += &format!("  output: |\n{}\n", hex(&expected.packet));
        }
        if let Some((_, reason)) = expected.reasons.last() {
            text += &format!("  reason: {}\n", reason.name());
        }
        text
    }
}

/// A case of every fixture.
pub(crate) fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of fixtures is part of the crate")
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let cases: Vec<_> = paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(path).expect("a fixture is text");
            case(&name, &Fixture::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}")))
        })
        .collect();
    assert!(cases.len() > 300, "{}", cases.len());
    cases
}

fn case(name: &str, fixture: &Fixture) -> Case {
    let program = fixture.program.as_deref().expect("a fixture of a module");
    let module = Module::named(program).expect("one of ours");
    let mut maps = Fixture::parse(WORLD).expect("it is a fixture").maps;
    for (map, entries) in &fixture.maps {
        // What is counted decides nothing, and is not looked at.
        match (program, map.as_str()) {
            ("stats", _) | (_, "hits") => {}
            // `gtp-encap` has those of `gre-steer`.
            ("gtp-encap", "tunnels") => drop(maps.insert("gre-steer/tunnels".to_owned(), entries.clone())),
            _ => drop(maps.insert(format!("{program}/{map}"), entries.clone())),
        }
    }
    let mut packet = fixture.input().expect("a fixture that was read");
    let context = |field: &str| fixture.context.get(field).cloned().unwrap_or_default();
    let customer = context("customer").as_u64().unwrap_or(0);
    let mut ingress = if module == Module::GreDecap { "cloud0" } else { "access0" };
    // Behind the decapsulators, a packet has come by a tunnel.
    match context("direction").as_str() {
        Some("uplink") => {
            if let Some((wrapped, source)) = wrap(&packet, &GTP) {
                packet = wrapped;
                let session = serde_json::json!({
                    "customer": customer, "session": 42, "peer": "192.0.2.2", source.0: source.1,
                    "inner6_len": if source.0 == "inner6" { 128 } else { 0 },
                });
                let key = serde_json::json!({ "local": "192.0.2.1", "teid": 0x777 });
                maps["gtp-decap/sessions"].push(Entry { key, value: session });
            }
        }
        Some("downlink") => {
            ingress = "cloud0";
            if let Some((wrapped, _)) = wrap(&packet, &GRE) {
                packet = wrapped;
                let number = context("tunnel").as_u64().unwrap_or(9);
                let tunnel = serde_json::json!({ "customer": customer, "tunnel": number });
                let key = serde_json::json!({ "remote": "233.252.0.9", "local": "203.0.113.1" });
                maps["gre-decap/tunnels"].push(Entry { key, value: tunnel });
            }
        }
        _ => {}
    }
    let ingress = fixture.ingress.as_deref().unwrap_or(ingress).to_owned();
    Case { name: name.to_owned(), maps, packet, ingress, hosts: HOSTS.to_vec() }
}

/// Outer headers, with lengths as of nothing inside: from 192.0.2.2 to us, TEID 0x777; from 233.252.0.9 to us.
const GTP: [u8; 36] = [
    0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1, 0x08, 0x68, 0x08, 0x68, 0, 16, 0,
    0, 0x30, 255, 0, 0, 0, 0, 0x07, 0x77,
];
const GRE: [u8; 24] =
    [0x45, 0, 0, 24, 0, 1, 0, 0, 64, 47, 0, 0, 233, 252, 0, 9, 203, 0, 113, 1, 0, 0, 0x08, 0];

/// The inner packet behind other headers, with its source by the name of the session's field; none of what is not IP.
fn wrap(packet: &[u8], outer: &[u8]) -> Option<(Vec<u8>, (&'static str, String))> {
    let link = Link::parse(packet)?;
    let inner = &packet[link.network..];
    let source = match link.ethertype {
        0x0800 => ("inner4", std::net::Ipv4Addr::from(*inner.get(12..)?.first_chunk::<4>()?).to_string()),
        0x86dd => ("inner6", std::net::Ipv6Addr::from(*inner.get(8..)?.first_chunk::<16>()?).to_string()),
        _ => return None,
    };
    let mut wrapped = [&packet[..12], &[0x08, 0x00], outer, inner].concat();
    let mut grow = |at: usize| {
        let old = u16::from_be_bytes([wrapped[14 + at], wrapped[15 + at]]);
        let new = (old + inner.len() as u16).to_be_bytes();
        wrapped[14 + at..16 + at].copy_from_slice(&new);
    };
    grow(2);
    if outer.len() == GTP.len() {
        grow(24);
        grow(30);
    } else if link.ethertype == 0x86dd {
        wrapped[36..38].copy_from_slice(&[0x86, 0xdd]);
    }
    Some((wrapped, source))
}
