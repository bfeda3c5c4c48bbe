//! Ordinary programs over ways that are narrower than they think, with the kernel's gtp device as the gNB and its GRE device as
//! the customer's router: what is too big is answered, the answers are obeyed, and with a clamp there is nothing to answer.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use xdpchain_abi::Reason;
use xdpchain_tests::{
    judged::agreed,
    kernel,
    operator::{Operator, SESSION},
    plan::SERVER,
    transfer::{file, iperf3, ping},
    tshark::sound,
};
use xdpchain_wire::{gre, gtpu, ipv4, tcp, udp};

/// Octets that the node's ways out take.
const MTU: usize = 1000;
/// What is left of them for an inner packet toward the cloud, and toward the gNB.
const UP: usize = MTU - ipv4::LEN - gre::LEN;
const DOWN: usize = MTU - ipv4::LEN - udp::LEN - gtpu::LEN;
/// Octets of a file: more than two thousand packets each way.
const FILE: usize = 2 << 20;
const AT_SERVER: IpAddr = IpAddr::V4(SERVER);

fn at_user() -> IpAddr {
    SESSION.address().octets.into()
}

/// The network with a gNB and a customer, over ways that take [`MTU`] octets; nothing where the kernel has no such devices.
fn narrow(test: &str) -> Option<Operator> {
    if kernel::lacks_devices(test, &[kernel::GTP, kernel::GRE]) {
        return None;
    }
    let operator = Operator::new();
    operator.gnb();
    operator.server();
    operator.router();
    operator.route_to_users();
    operator.narrow(MTU);
    Some(operator)
}

/// How often each direction counted `reason`: toward the cloud, toward the gNB.
fn counted(operator: &Operator, reason: Reason) -> [u64; 2] {
    ["gre-steer", "gtp-encap"].map(|module| operator.counted(module, reason))
}

#[test]
fn who_sends_too_much_is_told_and_obeys_in_both_directions() {
    let test = "who_sends_too_much_is_told_and_obeys_in_both_directions";
    let Some(operator) = narrow(test) else { return };
    let (ran, cloud) = (&operator.links.ran, &operator.links.cloud);
    assert_eq!(Operator::path_mtu(ran, AT_SERVER), None);
    file(ran, cloud, AT_SERVER, FILE);

    // The kernels at both ends believe what the chain said.
    assert_eq!(Operator::path_mtu(ran, AT_SERVER), Some(UP));
    assert_eq!(Operator::path_mtu(cloud, at_user()), Some(DOWN));
    let told = counted(&operator, Reason::TooBig);
    assert!(told.iter().all(|count| *count > 0), "{told:?}");
    // Now they know, and send nothing more that is too big.
    file(ran, cloud, AT_SERVER, FILE / 8);
    assert_eq!(counted(&operator, Reason::TooBig), told);
    assert_eq!(counted(&operator, Reason::NeedsFragmentation), [0, 0]);

    let [at_gnb, at_cloud] = operator.crossed();
    for (frames, source, mtu) in [(&at_gnb, AT_SERVER, UP), (&at_cloud, at_user(), DOWN)] {
        let rows = sound(frames, &["icmp.type", "icmp.code", "icmp.mtu", "ip.src"]);
        let answers: Vec<_> = rows.iter().filter(|row| row[0] == "3" && row[1] == "4").collect();
        assert!(!answers.is_empty());
        for answer in answers {
            // Behind the outer source, and before that of the packet that it is about.
            assert_eq!(answer[3].split(',').nth(1), Some(&*source.to_string()), "{answer:?}");
            assert_eq!(answer[2], mtu.to_string());
        }
    }
    agreed("TCP", &["B02"]);
    agreed("gtp device", &["B02"]);
    agreed("GRE device", &["B02"]);
}

#[test]
fn with_a_clamp_nobody_sends_too_much() {
    const BEHIND: usize = ipv4::LEN + tcp::LEN;
    let Some(operator) = narrow("with_a_clamp_nobody_sends_too_much") else { return };
    let (ran, cloud) = (&operator.links.ran, &operator.links.cloud);
    operator.clamp_mss(DOWN as u16);
    file(ran, cloud, AT_SERVER, FILE);
    for back in [false, true] {
        // Its receiver stops counting when the sender says that it is done, with the last blocks still under way.
        let arrived = iperf3(ran, cloud, AT_SERVER, FILE, back);
        assert!(arrived > FILE as u64 / 2, "{arrived} octets arrived");
    }
    // Not one answer, here or by ping or what else: both ends sent what fits from the first packet on.
    assert_eq!(operator.reasons(), [], "everything was just forwarded");
    // A device may tell its own end what itself takes, which is more.
    for known in [Operator::path_mtu(ran, AT_SERVER), Operator::path_mtu(cloud, at_user())] {
        assert!(known.is_none_or(|mtu| mtu > MTU), "{known:?}");
    }

    // The file's connection, two of iperf3's each time, and two SYNs each.
    const SYNS: usize = 2 * (1 + 2 + 2);
    let fits = (DOWN - BEHIND).to_string();
    let fields = ["tcp.options.mss_val", "ip.src", "tcp.flags.syn"];
    let [at_gnb, at_cloud] = operator.crossed();
    for (frames, coming) in [(&at_gnb, at_user()), (&at_cloud, AT_SERVER)] {
        let rows = sound(frames, &fields);
        let syns: Vec<_> = rows.iter().filter(|row| !row[0].is_empty()).collect();
        assert!(syns.len() >= SYNS, "{syns:?}");
        for syn in syns {
            // As an end sent it, where it comes to the node; lowered, where the other end gets it.
            if syn[1].split(',').nth(1) == Some(&*coming.to_string()) {
                assert!(syn[0].parse::<usize>().unwrap() > DOWN, "{syn:?}");
            } else {
                assert_eq!(syn[0], fits, "{syn:?}");
            }
        }
    }
    agreed("TCP", &["B04"]);
    agreed("iperf3", &["B04"]);
}

#[test]
fn pings_that_are_too_big_are_fragmented_or_answered_as_they_ask() {
    let test = "pings_that_are_too_big_are_fragmented_or_answered_as_they_ask";
    let Some(operator) = narrow(test) else { return };
    let (ran, cloud) = (&operator.links.ran, &operator.links.cloud);
    for (from, to) in [(ran, AT_SERVER), (cloud, at_user())] {
        let printed = ping(from, to, &["-c", "3", "-s", "1200", "-M", "dont"]);
        assert!(printed.contains(" 0% packet loss"), "{printed}");
    }
    // There and back, each way twice three.
    assert_eq!(counted(&operator, Reason::NeedsFragmentation), [6, 6]);
    assert_eq!(counted(&operator, Reason::TooBig), [0, 0]);
    for (from, to, mtu) in [(ran, AT_SERVER, UP), (cloud, at_user(), DOWN)] {
        let printed = ping(from, to, &["-c", "1", "-s", "1200", "-M", "do"]);
        assert!(printed.contains(&format!("From {to}")), "{printed}");
        assert!(printed.contains(&format!("mtu = {mtu}")), "{printed}");
        assert_eq!(Operator::path_mtu(from, to), Some(mtu));
    }
    assert_eq!(counted(&operator, Reason::TooBig), [1, 1]);
    sound(&operator.crossed().concat(), &[]);
    agreed("ping", &["B02", "B03"]);
}
