//! Map entries of the data path for as many sessions as a benchmark asks for, as octets.

use std::mem::offset_of;

use xdpchain_abi::{
    Be32, Customer, DenseSession, DownlinkKey, DownlinkSession, Endpoint, GreIngress, GreKey, GreTunnel,
    Ipv4, UplinkKey, UplinkSession, UserAddress, session_flags, tunnel_flags,
};
use xdpchain_host::Entries;
use xdpchain_tests::plan::{self, CUSTOMERS, NODE_CLOUD, NODE_RAN, QFI, RAN, abi};

use crate::frames::{ADDRESS_BASE, KEY, TEID_BASE, prefix};

/// TEIDs that the radio side gave out.
const DOWNLINK_TEID: u32 = 0x8000_0000;

/// Appends an entry's octets: those of a struct of which these fields are set, and the rest is zero.
macro_rules! append {
    ($to:expr, $type:ty, { $($field:ident: $octets:expr),+ $(,)? }) => {{
        let start = $to.len();
        $to.resize(start + size_of::<$type>(), 0);
        $({
            let octets = $octets;
            let at = start + offset_of!($type, $field);
            $to[at..at + octets.len()].copy_from_slice(&octets);
        })+
    }};
}

/// `gtp-decap`'s sessions `numbers`, all of customer 1 to [`CUSTOMERS`] in turn, with an IPv4 address and an IPv6 prefix.
pub fn uplink(numbers: std::ops::Range<u32>) -> Entries {
    let mut entries = Entries::default();
    for number in numbers {
        append!(entries.keys, UplinkKey, {
            local: NODE_RAN.octets(),
            teid: (TEID_BASE + number).to_be_bytes(),
        });
        append!(entries.values, UplinkSession, {
            customer: (1 + number % CUSTOMERS).to_ne_bytes(),
            session: number.to_ne_bytes(),
            peer: RAN.octets(),
            inner4: (ADDRESS_BASE + number).to_be_bytes(),
            inner6: prefix(number).octets,
            inner6_len: [64],
        });
    }
    entries
}

/// The same sessions for `gtp-decap`'s array by TEID.
pub fn dense(numbers: std::ops::Range<u32>) -> Entries {
    let Entries { keys, values } = uplink(numbers.clone());
    let mut entries = Entries::default();
    let sessions = keys.chunks(size_of::<UplinkKey>()).zip(values.chunks(size_of::<UplinkSession>()));
    for (number, (key, value)) in numbers.zip(sessions) {
        entries.keys.extend(DenseSession::index(Be32::new(TEID_BASE + number)).to_ne_bytes());
        entries.values.extend([key, value].concat());
    }
    entries
}

/// `gtp-encap`'s sessions `numbers`, all of customer 1, by their IPv4 addresses.
pub fn downlink(numbers: std::ops::Range<u32>, container: bool) -> Entries {
    let mut entries = Entries::default();
    for number in numbers {
        let address = Ipv4 { octets: (ADDRESS_BASE + number).to_be_bytes() };
        append!(entries.keys, DownlinkKey, {
            customer: 1u32.to_ne_bytes(),
            address: UserAddress::v4(address).octets,
        });
        append!(entries.values, DownlinkSession, {
            session: number.to_ne_bytes(),
            teid: (DOWNLINK_TEID | number).to_be_bytes(),
            peer: RAN.octets(),
            local: NODE_RAN.octets(),
            qfi: [QFI],
            flags: [if container { session_flags::HAS_QFI } else { 0 }],
        });
    }
    entries
}

/// `gtp-decap`'s endpoint.
pub fn endpoints() -> Entries {
    let mut entries = Entries { keys: NODE_RAN.octets().to_vec(), ..Entries::default() };
    append!(entries.values, Endpoint, { flags: 0u32.to_ne_bytes() });
    entries
}

/// `gre-decap`'s tunnels, with keys when they are to be `keyed`.
pub fn ingress(keyed: bool) -> Entries {
    let mut entries = Entries::default();
    for customer in 1..=CUSTOMERS {
        append!(entries.keys, GreKey, {
            remote: plan::gateway(customer).octets(),
            local: NODE_CLOUD.octets(),
        });
        append!(entries.values, GreIngress, {
            customer: customer.to_ne_bytes(),
            tunnel: customer.to_ne_bytes(),
            key: KEY.octets,
            flags: [if keyed { tunnel_flags::HAS_KEY } else { 0 }],
        });
    }
    entries
}

/// `gre-steer`'s customers, each with `count` tunnels: its own, and the next ones' too.
pub fn customers(count: u32) -> Entries {
    let mut entries = Entries::default();
    for customer in 1..=CUSTOMERS {
        entries.keys.extend(customer.to_ne_bytes());
        let tunnels = (0..count).flat_map(|next| (1 + (customer - 1 + next) % CUSTOMERS).to_ne_bytes());
        append!(entries.values, Customer, {
            tunnels: tunnels.collect::<Vec<_>>(),
            count: count.to_ne_bytes(),
        });
    }
    entries
}

/// `gre-steer`'s tunnels, with keys when they are to be `keyed`.
pub fn tunnels(keyed: bool) -> Entries {
    let mut entries = Entries::default();
    for customer in 1..=CUSTOMERS {
        entries.keys.extend(customer.to_ne_bytes());
        append!(entries.values, GreTunnel, {
            local: abi(NODE_CLOUD).octets,
            remote: plan::gateway(customer).octets(),
            key: KEY.octets,
            flags: [if keyed { tunnel_flags::HAS_KEY } else { 0 }],
        });
    }
    entries
}
