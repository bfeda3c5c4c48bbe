//! The access list: the first rule that matches decides.

use xdpchain_abi::{AclRule, Reason, acl_action, direction};
use xdpchain_acl::Packet;
use xdpchain_wire::ethernet::{Link, ethertype};
use xdpchain_wire::flow::Flow;
use xdpchain_wire::ipv6::{self, UpperLayer};

use crate::Row;
use crate::chain::{Return, Visit};

pub(super) fn run(visit: &mut Visit<'_>) -> Return {
    let claimed = visit.context.direction != direction::NONE;
    if !claimed && visit.tables.acl.all_packets == 0 {
        return visit.pass(Row::Acl, "no decapsulator claimed the packet, and only such packets are judged");
    }
    let Some(link) = Link::parse(&visit.frame[..]) else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within its Ethernet header");
    };
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return visit.pass(Row::B11, format!("EtherType {:#06x} is not judged", link.ethertype));
    }
    let whole = upper_is_there(&visit.frame, link);
    let flow = Flow::parse(&visit.frame[..], link.ethertype, link.network).filter(|_| whole);
    let Some(flow) = flow else {
        visit.note(Row::Acl, "what cannot be judged is dropped whatever the rules say");
        let why = "what the rules ask about is cut short, or behind more headers than are walked";
        return visit.drop(Row::B12, Reason::Truncated, why);
    };
    let packet = Packet {
        source: flow.source,
        destination: flow.destination,
        customer: visit.context.customer,
        direction: visit.context.direction,
        protocol: flow.protocol,
        ipv4: link.ethertype == ethertype::IPV4,
        ports: flow.ports.map(|ports| [ports.source, ports.destination]),
    };
    let rules: Vec<(u32, AclRule)> = visit.tables.rules.iter().map(|(key, rule)| (*key, *rule)).collect();
    let (action, who) = match xdpchain_acl::decide(&rules, &packet) {
        Some(key) => (visit.tables.rules[&key].action, format!("rule {key}")),
        None => (visit.tables.acl.default_action, "no rule matches, and the default".to_owned()),
    };
    if action == acl_action::ALLOW {
        visit.pass(Row::Acl, format!("{who} allows it"))
    } else {
        visit.drop(Row::Acl, Reason::AclDenied, format!("{who} denies it"))
    }
}

/// Whether the headers of the IP packet behind `link` end within the frame, options and extension headers included.
fn upper_is_there(frame: &[u8], link: Link) -> bool {
    let octet = |at: usize| frame.get(link.network + at).copied().unwrap_or_default();
    let upper = match link.ethertype {
        ethertype::IPV4 => Some(link.network + usize::from(octet(0) & 0xf) * 4),
        _ => UpperLayer::parse(frame, octet(6), link.network + ipv6::LEN).map(|upper| upper.offset),
    };
    upper.is_some_and(|upper| upper <= frame.len())
}
