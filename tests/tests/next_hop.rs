//! What the chain and the kernel do together when the next hop's link-layer address is not known: the packet that finds
//! out is handed to the kernel as the outer packet it has become, and the kernel resolves the address and sends it on.
#![forbid(unsafe_code)]

use std::{fs, net::UdpSocket, path::Path, time::Duration};

use xdpchain_abi::{GTPU_PORT, Reason};
use xdpchain_tests::{
    Netns, Port,
    cli::xdpchain,
    plan::{self, Session},
    rows,
    world::Links,
};

const WAIT: Duration = Duration::from_secs(3);
const ETHERTYPE_IPV4: u16 = 0x0800;

/// The data path on both interfaces, and no neighbour known to the node.
fn node() -> (Links, tempfile::TempDir) {
    let links = Links::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("chains.yaml"), plan::chains_yaml(8)).unwrap();
    for interface in ["n3", "n6"] {
        xdpchain(&links.node, folder.path(), &["attach", interface]).expect(0);
    }
    for (map, table) in rows::data_path(8) {
        fs::write(folder.path().join("rows.csv"), table.csv()).unwrap();
        xdpchain(&links.node, folder.path(), &["map", "import", map, "rows.csv"]).expect(0);
    }
    links.node.ip("neigh flush nud permanent dev n3");
    links.node.ip("neigh flush nud permanent dev n6");
    // The outer source is an address of the node itself, which the kernel takes from outside only when told to.
    links.node.run(|| {
        for interface in ["n3", "n6"] {
            for (key, value) in [("accept_local", "1"), ("rp_filter", "0")] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/{key}"), value).unwrap();
            }
        }
        fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
    });
    (links, folder)
}

/// How often a module counted a reason.
fn counted(node: &Netns, folder: &Path, module: &str, reason: Reason) -> u64 {
    let map = format!("{module}/xdpchain_reason");
    let run = xdpchain(node, folder, &["map", "get", &map, &(reason as u32).to_string()]).expect(0);
    run.stdout.trim().parse().expect("the sum of all CPUs' counters")
}

#[test]
fn an_uplink_packet_resolves_its_next_hop_and_arrives() {
    let (links, folder) = node();
    let cloud = Port::open(&links.cloud, "cloud0");
    let session = Session { number: 1 };
    let socket = links.ran.run(|| UdpSocket::bind((plan::RAN, GTPU_PORT))).unwrap();
    socket.send_to(&session.gtpu(0), (plan::NODE_RAN, GTPU_PORT)).unwrap();
    let arrived = cloud
        .receive_where(WAIT, |frame| frame[12..14] == [0x08, 0x00] && frame[23] == 47)
        .expect("the kernel asks for the neighbour and sends the packet on");
    // The kernel forwarded it, which costs the outer header one hop; the rest is as the chain made it.
    let mut expected = session.gre(0);
    assert_eq!(arrived[22], expected[8] - 1);
    expected[8..12].copy_from_slice(&arrived[22..26]);
    assert_eq!(arrived[14..], expected);
    assert_eq!(counted(&links.node, folder.path(), "gre-steer", Reason::NoNeighbour), 1);
}

#[test]
fn a_downlink_packet_resolves_its_next_hop_and_arrives() {
    let (links, folder) = node();
    let ran = Port::open(&links.ran, "ran0");
    let session = Session { number: 1 };
    // What the customer's cloud sends: the inner packet of the uplink, to the session and not from it.
    let mut packet = session.gre(0);
    let (local, remote) = (plan::NODE_CLOUD, plan::gateway(session.customer()));
    packet[12..16].copy_from_slice(&remote.octets());
    packet[16..20].copy_from_slice(&local.octets());
    let inner = &mut packet[24..];
    let (source, destination): ([u8; 4], [u8; 4]) =
        (inner[12..16].try_into().unwrap(), inner[16..20].try_into().unwrap());
    inner[12..16].copy_from_slice(&destination);
    inner[16..20].copy_from_slice(&source);
    let frame = plan::frame(plan::mac(plan::NODE_CLOUD), plan::mac(plan::CLOUD), ETHERTYPE_IPV4, &packet);
    Port::open(&links.cloud, "cloud0").send(&frame);
    let arrived = ran
        .receive_where(WAIT, |frame| {
            frame[12..14] == [0x08, 0x00] && frame[23] == 17 && frame[36..38] == GTPU_PORT.to_be_bytes()
        })
        .expect("the kernel asks for the neighbour and sends the packet on");
    assert_eq!(arrived[26..34], [plan::NODE_RAN.octets(), plan::RAN.octets()].concat());
    assert_eq!(counted(&links.node, folder.path(), "gtp-encap", Reason::NoNeighbour), 1);
}
