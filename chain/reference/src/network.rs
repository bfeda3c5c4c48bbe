//! What the data path asks the kernel: where an outer packet goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdpchain_abi::Ipv6;
use xdpchain_wire::ethernet::Address;

/// An outer packet, as far as routing asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Outer source; IPv4 is IPv4-mapped.
    pub source: Ipv6,
    /// Outer destination; IPv4 is IPv4-mapped.
    pub destination: Ipv6,
    /// TOS octet or traffic class.
    pub tos: u8,
    /// Octets of the outer packet.
    pub total_len: usize,
}

/// A way out of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The neighbour's address, and the interface's; none as long as the neighbour's is not known.
    pub addresses: Option<(Address, Address)>,
    /// Whether it is the interface that the packet came in by.
    pub back: bool,
    /// Octets of the longest packet that it takes, where the kernel tells.
    pub mtu: Option<usize>,
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of an interface.
    Forward(Hop),
    /// The route is blackhole, unreachable or prohibit.
    Unreachable,
    /// The kernel does not forward there: no route, a local address, forwarding off.
    NotForwarded,
    /// Larger than the way out takes, which is that many octets.
    TooBig(Hop),
}

/// Whoever answers.
pub trait Network {
    /// Where the packet goes.
    fn route(&self, query: &Query) -> Route;
}

impl<F: Fn(&Query) -> Route> Network for F {
    fn route(&self, query: &Query) -> Route {
        self(query)
    }
}

/// The network that the packets of tests/fixtures see, as tests/tests/vectors/main.rs makes it: two links, each with one
/// neighbour, behind which is a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestNetwork {
    /// The interface that packets come in by: `access0`, `cloud0`, or another without a way out.
    pub ingress: String,
}

/// A route of the test network.
struct Way {
    prefix: IpAddr,
    len: u8,
    to: To,
}

/// Where it leads.
enum To {
    /// Nowhere, with a word about it.
    Unreachable,
    /// An address of ours, or of everybody on the link.
    Here,
    /// Out of a link, to whose neighbour, if that is known, and how many octets that takes.
    Out { link: usize, known: bool, mtu: usize },
}

/// The names of the links; the last but one octet of a link's two link-layer addresses is its number, from 1.
const LINKS: [&str; 2] = ["access0", "cloud0"];
/// Octets of the longest packet that the links take.
const MTU: usize = 1500;

/// Every route, as the namespace has it.
fn ways() -> Vec<Way> {
    let out = |link, known, mtu| To::Out { link, known, mtu };
    let v4 = |a, b, c, d, len, to| Way { prefix: Ipv4Addr::new(a, b, c, d).into(), len, to };
    let v6 = |net: u16, last: u16, len, to| {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, last).into();
        Way { prefix, len, to }
    };
    let mut ways = Vec::new();
    for (link, near, far, small) in
        [(0, [192, 0, 2], [198, 51, 100], 600), (1, [203, 0, 113], [233, 252, 0], 600)]
    {
        let [a, b, c] = near;
        ways.push(v4(a, b, c, 0, 24, out(link, false, MTU)));
        ways.extend([0, 1, 255].map(|last| v4(a, b, c, last, 32, To::Here)));
        ways.push(v4(a, b, c, 2, 32, out(link, true, MTU)));
        let [a, b, c] = far;
        ways.push(v4(a, b, c, 0, 24, out(link, true, MTU)));
        ways.push(v4(a, b, c, 128, 25, out(link, true, small)));
    }
    for (link, near, far) in [(0, 0xa, 0x64), (1, 0xcb, 0xe9)] {
        ways.push(v6(near, 0, 64, out(link, false, MTU)));
        ways.extend([0, 1].map(|last| v6(near, last, 128, To::Here)));
        ways.push(v6(near, 2, 128, out(link, true, MTU)));
        ways.push(v6(far, 0, 64, out(link, true, MTU)));
        ways.push(v6(far, 0x80, 121, out(link, true, 1280)));
    }
    ways.push(v4(198, 51, 100, 66, 32, To::Unreachable));
    ways.push(v6(0x64, 0x42, 128, To::Unreachable));
    ways
}

impl Way {
    fn leads_to(&self, address: IpAddr) -> bool {
        match (self.prefix, address) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                u64::from(prefix.to_bits() ^ address.to_bits()) >> (32 - self.len) == 0
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                (prefix.to_bits() ^ address.to_bits()).checked_shr(128 - u32::from(self.len)).unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl Network for TestNetwork {
    fn route(&self, query: &Query) -> Route {
        let [source, destination] =
            [query.source, query.destination].map(|address| Ipv6Addr::from(address.octets).to_canonical());
        // Rules in front of the tables. That about TOS compares three bits of DSCP for IPv4, as TOS was once.
        let prohibited: [IpAddr; 4] = [
            Ipv4Addr::new(192, 0, 2, 66).into(),
            Ipv4Addr::new(203, 0, 113, 66).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x42).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, 0x42).into(),
        ];
        let mask = if destination.is_ipv4() { 0x1c } else { 0xfc };
        let prohibited = prohibited.contains(&source) || query.tos & mask == 0x04;
        let ways = ways();
        let ways = ways.iter().filter(|way| way.leads_to(destination));
        let (link, known, mtu) = match ways.max_by_key(|way| way.len).map(|way| &way.to) {
            // The rules about addresses of ours come first.
            Some(To::Here) => return Route::NotForwarded,
            // Of IPv6 the kernel does not tell programs why.
            _ if prohibited && destination.is_ipv6() => return Route::NotForwarded,
            _ if prohibited => return Route::Unreachable,
            Some(To::Out { link, known, mtu }) => (*link, *known, *mtu),
            Some(To::Unreachable) => return Route::Unreachable,
            None => return Route::NotForwarded,
        };
        let address = |last| Address([2, 0, 0, 0, link as u8 + 1, last]);
        let hop = Hop {
            addresses: known.then(|| (address(2), address(1))),
            back: LINKS[link] == self.ingress,
            mtu: Some(mtu),
        };
        if query.total_len > mtu { Route::TooBig(hop) } else { Route::Forward(hop) }
    }
}
