//! The router that packet fixtures are about: one namespace with two interfaces, neighbours, routes and rules, as the table at
//! the top of `tests/tests/vectors` has them.

use std::fs;

use crate::{Netns, veth};

/// Builds it; `label` is what shows in the namespace's name.
///
/// # Panics
/// Without root, or when `ip` is missing.
pub fn router(label: &str) -> Netns {
    let ns = Netns::new(label);
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
