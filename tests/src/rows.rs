//! The plan's map entries as CSV files, for `xdpchain map import`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use xdpchain_abi::{Ipv4, Ipv6, UserAddress};

use crate::plan::{self, CUSTOMERS, Session};

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    fn row<const N: usize>(&mut self, fields: [&dyn ToString; N]) {
        assert_eq!(N, self.columns.len());
        self.rows.push(fields.iter().map(|field| field.to_string()).collect());
    }

    /// The table as CSV; no field has a comma or a quote.
    pub fn csv(&self) -> String {
        let mut text = self.columns.join(",");
        for row in &self.rows {
            text.push('\n');
            text.push_str(&row.join(","));
        }
        text.push('\n');
        text
    }
}

/// Every table of the data path, with the map that it is for.
pub fn data_path(sessions: u32) -> [(&'static str, Table); 6] {
    let sessions: Vec<_> = (0..sessions).map(|number| Session { number }).collect();
    [
        ("gtp-decap/endpoints", endpoints()),
        ("gtp-decap/sessions", uplink(&sessions)),
        ("gtp-encap/sessions", downlink(&sessions)),
        ("gre-decap/tunnels", ingress(1..=CUSTOMERS)),
        ("gre-steer/customers", customers(1..=CUSTOMERS)),
        ("gre-steer/tunnels", tunnels(1..=CUSTOMERS)),
    ]
}

fn v4(address: Ipv4) -> Ipv4Addr {
    address.octets.into()
}

fn v6(address: Ipv6) -> Ipv6Addr {
    address.octets.into()
}

/// What a user is reached by, as an address.
pub fn user(address: UserAddress) -> IpAddr {
    let octets = address.octets;
    match octets.strip_prefix(&UserAddress::V4).and_then(|four| <[u8; 4]>::try_from(four).ok()) {
        Some(four) => four.into(),
        None => {
            let mut whole = [0; 16];
            whole[..8].copy_from_slice(&octets);
            whole.into()
        }
    }
}

/// `gtp-decap`'s endpoints.
fn endpoints() -> Table {
    let mut table = Table::new(&["key", "flags"]);
    table.row([&plan::NODE_RAN, &0]);
    table
}

/// `gtp-decap`'s sessions.
fn uplink(sessions: &[Session]) -> Table {
    let columns = [
        "local",
        "teid",
        "customer",
        "session",
        "peer",
        "inner4",
        "inner6",
        "inner6_len",
        "flags",
        "vlan",
        "tags",
        "filter",
    ];
    let mut table = Table::new(&columns);
    for session in sessions {
        let (key, value) = session.uplink();
        table.row([
            &v4(key.local),
            &key.teid.value(),
            &value.customer,
            &value.session,
            &v4(value.peer),
            &v4(value.inner4),
            &v6(value.inner6),
            &value.inner6_len,
            &value.flags,
            &value.vlan,
            &value.tags,
            &value.filter,
        ]);
    }
    table
}

/// `gtp-encap`'s sessions.
fn downlink(sessions: &[Session]) -> Table {
    let columns = ["customer", "address", "session", "teid", "peer", "local", "qfi", "flags", "dscp"];
    let mut table = Table::new(&columns);
    for (key, value) in sessions.iter().flat_map(|session| session.downlink()) {
        table.row([
            &key.customer,
            &user(key.address),
            &value.session,
            &value.teid.value(),
            &v4(value.peer),
            &v4(value.local),
            &value.qfi,
            &value.flags,
            &value.dscp,
        ]);
    }
    table
}

/// `gre-decap`'s tunnels.
fn ingress(customers: RangeInclusive<u32>) -> Table {
    let columns = ["remote", "local", "customer", "tunnel", "value.key", "inside", "inside_len", "flags"];
    let mut table = Table::new(&columns);
    for (key, value) in customers.map(plan::ingress) {
        table.row([
            &v4(key.remote),
            &v4(key.local),
            &value.customer,
            &value.tunnel,
            &value.key.value(),
            &v4(value.inside),
            &value.inside_len,
            &value.flags,
        ]);
    }
    table
}

/// `gre-steer`'s customers.
fn customers(customers: RangeInclusive<u32>) -> Table {
    let mut table = Table::new(&["key", "tunnels", "count"]);
    for (key, value) in customers.map(plan::customer) {
        let tunnels = value.tunnels.map(|tunnel| tunnel.to_string()).join(" ");
        table.row([&key, &tunnels, &value.count]);
    }
    table
}

/// `gre-steer`'s tunnels.
fn tunnels(customers: RangeInclusive<u32>) -> Table {
    let mut table = Table::new(&["key", "local", "remote", "value.key", "ttl", "flags", "dscp"]);
    for (key, value) in customers.map(plan::tunnel) {
        table.row([
            &key,
            &v4(value.local),
            &v4(value.remote),
            &value.key.value(),
            &value.ttl,
            &value.flags,
            &value.dscp,
        ]);
    }
    table
}
