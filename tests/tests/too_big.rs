//! What the chain, the kernel and the far ends do together about packets that do not fit the way out: what may be fragmented
//! arrives in fragments that the kernel makes, of what may not be the sender is told in the tunnel that it came from.
#![forbid(unsafe_code)]

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    time::{Duration, Instant},
};

use xdpchain_abi::{GTPU_PORT, Ipv4, Reason};
use xdpchain_tests::{
    Netns, Port, Shell,
    cli::xdpchain,
    plan::{self, Session},
    rows,
    world::Links,
};
use xdpchain_wire::{
    checksum::Sum,
    ethernet::ethertype,
    gre,
    gtpu::{self, message},
    icmp, ipv4, protocol, udp,
};

const WAIT: Duration = Duration::from_secs(5);
/// Octets that the ways out take.
const MTU: usize = 1000;
/// Octets of an inner packet that fits neither.
const LONG: usize = 1200;
/// Session 1 has a QoS flow, so GTP-U has everything in front that it can.
const SESSION: Session = Session { number: 1 };
/// Octets in front of an inner packet on either way.
const GRE: usize = ipv4::LEN + gre::LEN;
const GTPU: usize = ipv4::LEN + udp::LEN + gtpu::LEN + gtpu::OPTIONAL_LEN + gtpu::PduSession::LEN;

/// The data path on both interfaces, out of which no packets go that are longer than [`MTU`].
fn node() -> (Links, tempfile::TempDir) {
    let links = Links::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("chains.yaml"), plan::chains_yaml(8)).unwrap();
    for (interface, network) in [("n3", "10.10.0.0/24"), ("n6", "10.20.0.0/24")] {
        // Of the route, because an interface with such an MTU takes no longer packets either.
        links
            .node
            .ip(&format!("route replace {network} dev {interface} proto kernel scope link mtu lock {MTU}"));
        xdpchain(&links.node, folder.path(), &["attach", interface]).expect(0);
    }
    for (map, table) in rows::data_path(8) {
        fs::write(folder.path().join("rows.csv"), table.csv()).unwrap();
        xdpchain(&links.node, folder.path(), &["map", "import", map, "rows.csv"]).expect(0);
    }
    // A veth interface takes what the other end transmits by XDP only when it has a program of its own.
    for (end, interface) in [(&links.ran, "ran0"), (&links.cloud, "cloud0")] {
        let passing = "version: 1\nmodules: { passing: ./passing.o }\nchains: { end: { interfaces: [ran0, cloud0], slots: [passing] } }\n";
        Shell::new(end, passing).xdpchain(&["attach", interface]).expect(0);
    }
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

/// An IPv4 packet of `len` octets; what it carries is UDP without checksum.
fn packet(source: Ipv4, destination: Ipv4, len: usize, dont_fragment: bool) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
    let header = ipv4::Repr {
        total_len: len as u16,
        id: 77,
        dont_fragment,
        ttl: plan::TTL,
        protocol: protocol::UDP,
        source,
        destination,
        ..ipv4::Repr::default()
    };
    header.emit(packet.first_chunk_mut().unwrap());
    let udp =
        udp::Repr { source_port: 4000, destination_port: 7, len: (len - ipv4::LEN) as u16, checksum: 0 };
    udp.emit(packet[ipv4::LEN..].first_chunk_mut().unwrap());
    packet
}

/// What the session sends, in GTP-U.
fn uplink(dont_fragment: bool) -> (Vec<u8>, Vec<u8>) {
    let inner = packet(SESSION.address(), plan::abi(plan::SERVER), LONG, dont_fragment);
    let header = gtpu::Repr {
        message_type: message::G_PDU,
        len: inner.len() as u16,
        teid: SESSION.uplink().0.teid,
        ..gtpu::Repr::default()
    };
    let mut octets = [0; gtpu::LEN];
    header.emit(&mut octets);
    ([&octets[..], &inner].concat(), inner)
}

/// What the cloud sends to the session, as a frame with GRE.
fn downlink(dont_fragment: bool) -> (Vec<u8>, Vec<u8>) {
    let inner = packet(plan::abi(plan::SERVER), SESSION.address(), LONG, dont_fragment);
    let header = ipv4::Repr {
        total_len: (GRE + inner.len()) as u16,
        id: 1,
        ttl: 64,
        protocol: protocol::GRE,
        source: plan::abi(plan::gateway(SESSION.customer())),
        destination: plan::abi(plan::NODE_CLOUD),
        ..ipv4::Repr::default()
    };
    let mut outer = [0; GRE];
    header.emit(outer.first_chunk_mut().unwrap());
    outer[22..24].copy_from_slice(&ethertype::IPV4.to_be_bytes());
    let packet = [&outer[..], &inner].concat();
    (plan::frame(plan::mac(plan::NODE_CLOUD), plan::mac(plan::CLOUD), ethertype::IPV4, &packet), inner)
}

/// `inner` with one hop less to live.
fn forwarded(mut inner: Vec<u8>) -> Vec<u8> {
    ipv4::decrement_ttl(inner.first_chunk_mut().unwrap());
    inner
}

/// How often a module counted a reason.
fn counted(node: &Netns, folder: &Path, module: &str, reason: Reason) -> u64 {
    let map = format!("{module}/xdpchain_reason");
    let run = xdpchain(node, folder, &["map", "get", &map, &(reason as u32).to_string()]).expect(0);
    run.stdout.trim().parse().expect("the sum of all CPUs' counters")
}

/// Checks that `packet` tells the sender of `about` that `mtu` octets would have fitted.
fn tells(packet: &[u8], about: &[u8], mtu: usize) {
    let header = ipv4::View(packet.first_chunk().unwrap());
    let asked = ipv4::View(about.first_chunk().unwrap());
    assert!(header.checksum_is_right());
    assert_eq!((header.protocol(), usize::from(header.total_len())), (protocol::ICMP, packet.len()));
    assert_eq!((header.source(), header.destination()), (asked.destination(), asked.source()));
    let message = &packet[ipv4::LEN..];
    assert_eq!(Sum::new().slice(message).folded(), 0xffff);
    let told = icmp::View(message.first_chunk().unwrap());
    assert!(told.is_fragmentation_needed());
    // Kernels before 5.12 do not say what the way out takes.
    let fits = u32::from_be_bytes(told.rest()) as usize;
    assert!([mtu, about.len() - 64].contains(&fits), "{fits} is not {mtu}");
    assert_eq!(message[icmp::LEN..], about[..512]);
}

fn is_gre(frame: &[u8]) -> bool {
    frame[12..14] == ethertype::IPV4.to_be_bytes() && frame[23] == protocol::GRE
}

#[test]
fn the_kernel_fragments_what_is_too_long_for_the_way_to_the_cloud() {
    let (links, folder) = node();
    let cloud = Port::open(&links.cloud, "cloud0");
    let socket = links.ran.run(|| UdpSocket::bind((plan::RAN, GTPU_PORT))).unwrap();
    let (message, inner) = uplink(false);
    socket.send_to(&message, (plan::NODE_RAN, GTPU_PORT)).unwrap();
    let mut whole: Vec<u8> = Vec::new();
    let mut ids = Vec::new();
    loop {
        let frame = cloud.receive_where(WAIT, is_gre).expect("every fragment arrives");
        let header = ipv4::View(frame[14..].first_chunk().unwrap());
        let total = usize::from(header.total_len());
        assert!(total <= MTU && !header.dont_fragment());
        let at = usize::from(header.fragment_offset()) * 8;
        assert_eq!(at, whole.len(), "they come in order");
        whole.extend(&frame[14 + ipv4::LEN..14 + total]);
        ids.push(header.id());
        if !header.more_fragments() {
            break;
        }
    }
    assert!(ids.len() > 1 && ids.iter().all(|id| *id == ids[0] && *id != 0), "{ids:?}");
    assert_eq!(whole[gre::LEN..], forwarded(inner));
    assert_eq!(counted(&links.node, folder.path(), "gre-steer", Reason::NeedsFragmentation), 1);
}

#[test]
fn the_kernel_fragments_what_is_too_long_for_the_way_to_the_radio_network() {
    let (links, folder) = node();
    let socket = links.ran.run(|| UdpSocket::bind((plan::RAN, GTPU_PORT))).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let (frame, inner) = downlink(false);
    Port::open(&links.cloud, "cloud0").send(&frame);
    // The radio side's own kernel puts the fragments together.
    let mut message = vec![0; 2 * LONG];
    let (len, from) = socket.recv_from(&mut message).expect("the datagram arrives");
    assert_eq!(from.ip(), plan::NODE_RAN);
    assert_eq!(message[len - LONG..len], forwarded(inner));
    assert_eq!(len - LONG, GTPU - ipv4::LEN - udp::LEN);
    assert_eq!(counted(&links.node, folder.path(), "gtp-encap", Reason::NeedsFragmentation), 1);
}

#[test]
fn who_sends_too_much_to_the_cloud_is_told_in_its_session_and_not_too_often() {
    const SENT: u32 = 100;
    let (links, folder) = node();
    let socket = links.ran.run(|| UdpSocket::bind((plan::RAN, GTPU_PORT))).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let (sent, inner) = uplink(true);
    let start = Instant::now();
    for _ in 0..SENT {
        socket.send_to(&sent, (plan::NODE_RAN, GTPU_PORT)).unwrap();
    }
    let mut message = vec![0; 2 * LONG];
    let (len, _) = socket.recv_from(&mut message).expect("an answer arrives");
    let header = gtpu::View(message.first_chunk().unwrap());
    assert_eq!(header.teid(), SESSION.downlink()[0].1.teid);
    // The answer has lost a hop of its own.
    let answer = &message[GTPU - ipv4::LEN - udp::LEN..len];
    assert_eq!(answer[8], 63);
    tells(answer, &inner, MTU - GRE);
    while counted(&links.node, folder.path(), "gre-steer", Reason::TooBig) < SENT.into() {
        assert!(start.elapsed() < 10 * WAIT, "every packet is counted");
    }
    let took = start.elapsed();
    socket.set_nonblocking(true).unwrap();
    let mut answers = 1;
    while socket.recv_from(&mut message).is_ok() {
        answers += 1;
    }
    // One in 8.4 ms, and one more, as the first may come at the end of its time.
    assert!(answers <= took.as_nanos() / (1 << 23) + 2, "{answers} answers in {took:?}");
    assert_eq!(counted(&links.node, folder.path(), "gtp-encap", Reason::TooBig), 0);
}

#[test]
fn who_sends_too_much_to_the_radio_network_is_told_in_its_tunnel() {
    let (links, folder) = node();
    let cloud = Port::open(&links.cloud, "cloud0");
    let (frame, inner) = downlink(true);
    cloud.send(&frame);
    let answer = cloud
        .receive_where(WAIT, |frame| is_gre(frame) && frame[26..30] == plan::NODE_CLOUD.octets())
        .expect("an answer arrives");
    let outer = ipv4::View(answer[14..].first_chunk().unwrap());
    assert!(outer.checksum_is_right());
    assert_eq!(outer.destination(), plan::abi(plan::gateway(SESSION.customer())));
    tells(&answer[14 + GRE..14 + usize::from(outer.total_len())], &inner, MTU - GTPU);
    assert_eq!(counted(&links.node, folder.path(), "gtp-encap", Reason::TooBig), 1);
}
