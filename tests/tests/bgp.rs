//! FRR's BGP through the inside of a customer's GRE tunnel: one end beside the chain, on the kernel's GRE device of the node, the
//! other on that of the customer's router. The chain leaves the session to the kernel while users' packets take the same tunnel,
//! by the very routes that the session brings.
#![forbid(unsafe_code)]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use xdpchain_abi::Reason;
use xdpchain_tests::{
    frr::{Frr, Speaker},
    judged::agreed,
    kernel,
    operator::{GRE, INSIDE, INSIDE_LEN, Operator, Tunnel},
    plan::{NODE_CLOUD, SERVER, gateway},
    transfer::{file, ping},
    tshark::sound,
};

/// How long the daemons may take for one step: the machine may be slow, and busy.
const WAIT: Duration = Duration::from_secs(120);
/// Octets of a file that goes there and back between two looks at the session.
const FILE: usize = 1 << 18;
/// Keepalives that have to arrive while packets flow: so many thirds of what a session lives without any.
const KEEPALIVES: u64 = 4;

const NODE: Speaker<'_> = Speaker {
    number: 64512,
    address: INSIDE[0],
    neighbour: INSIDE[1],
    neighbours_number: 64513,
    announced: "172.16.0.0/16",
    keepalive: 3,
};
const CUSTOMER: Speaker<'_> = Speaker {
    number: 64513,
    address: INSIDE[1],
    neighbour: INSIDE[0],
    neighbours_number: 64512,
    announced: "192.0.2.0/24",
    keepalive: 3,
};

fn keepalives(neighbour: &Value) -> u64 {
    neighbour["messageStats"]["keepalivesRecv"].as_u64().unwrap_or(0)
}

/// Waits for a route that `namespace` is to learn.
fn learns(ns: &xdpchain_tests::Netns, route: &str) {
    let end = Instant::now() + WAIT;
    while !ns.ip(&format!("route show {route} proto bgp")).contains(GRE) {
        assert!(Instant::now() < end, "{route} is not there:\n{}", ns.ip("route show"));
        std::thread::yield_now();
    }
}

#[test]
fn an_ebgp_session_with_ttl_2_stays_up_while_packets_flow() {
    let test = "an_ebgp_session_with_ttl_2_stays_up_while_packets_flow";
    if kernel::lacks_devices(test, &[kernel::GTP, kernel::GRE]) {
        return;
    }
    let operator = Operator::new();
    let (ran, node, cloud) = (&operator.links.ran, &operator.links.node, &operator.links.cloud);
    let (local, remote) = (NODE_CLOUD, gateway(1));
    node.ip(&format!("link add {GRE} type gre local {local} remote {remote} ttl 64"));
    node.ip(&format!("link set dev {GRE} addrgenmode none up"));
    operator.router();
    for (ns, address) in [(node, INSIDE[0]), (cloud, INSIDE[1])] {
        ns.ip(&format!("addr add {address}/{INSIDE_LEN} dev {GRE}"));
    }
    operator.gnb();
    operator.server();
    operator.tunnel(Tunnel::of(1));
    let printed = ping(cloud, INSIDE[0].into(), &["-c", "2"]);
    assert!(printed.contains(" 0% packet loss"), "{printed}");

    let ends = [(Frr::start(node, NODE), NODE), (Frr::start(cloud, CUSTOMER), CUSTOMER)];
    let established = |neighbour: &Value| {
        neighbour["bgpState"] == "Established"
            && neighbour["addressFamilyInfo"]["ipv4Unicast"]["acceptedPrefixCounter"].as_u64() > Some(0)
    };
    let before = ends.each_ref().map(|(frr, speaker)| frr.neighbour(speaker, WAIT, established));
    // The customer's only way to the users, and the node's to the customer's networks.
    learns(cloud, NODE.announced);
    learns(node, CUSTOMER.announced);

    let (mut sent, end) = (0, Instant::now() + WAIT);
    let after = loop {
        file(ran, cloud, IpAddr::from(SERVER), FILE);
        sent += 2 * FILE;
        let now = ends.each_ref().map(|(frr, speaker)| frr.neighbour(speaker, WAIT, |_| true));
        if now.iter().zip(&before).all(|(now, before)| keepalives(now) >= keepalives(before) + KEEPALIVES) {
            break now;
        }
        assert!(Instant::now() < end, "keepalives do not arrive: {now:#?}");
    };
    for (now, before) in after.iter().zip(&before) {
        assert!(established(now), "{now:#?}");
        for unchanged in ["/connectionsEstablished", "/connectionsDropped", "/messageStats/notificationsRecv"]
        {
            assert_eq!(now.pointer(unchanged), before.pointer(unchanged), "{unchanged} after {sent} octets");
        }
    }
    // Everything that came for the inside address is the kernel's, and nothing else was.
    let control = operator.counted("gre-decap", Reason::GreControl);
    assert!(control >= keepalives(&after[0]), "{control}");
    assert_eq!(operator.reasons(), [("gre-decap", Reason::GreControl, control)]);

    let [at_gnb, at_cloud] = operator.crossed();
    sound(&at_gnb, &[]);
    let rows = sound(&at_cloud, &["frame.protocols", "ip.ttl", "ip.src"]);
    let bgp: Vec<_> = rows.iter().filter(|row| row[0].ends_with(":tcp:bgp")).collect();
    let toward_node = bgp.iter().filter(|row| row[2].ends_with(&format!(",{}", INSIDE[1]))).count();
    assert!(toward_node as u64 > keepalives(&after[0]), "{toward_node} of {}", bgp.len());
    assert!(bgp.iter().all(|row| row[1] == "64,2"), "{bgp:?}");
    drop(ends);
    agreed("FRR", &["R10"]);
    agreed("GRE device", &["R10"]);
}
