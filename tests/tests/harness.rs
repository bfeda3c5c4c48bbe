//! The harness itself: if these fail, no other result here means anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use xdpchain_tests::far_end::{FarEnd, Role};
use xdpchain_tests::plan::{self, Session};
use xdpchain_tests::{Netns, Port, World, veth};

const WAIT: Duration = Duration::from_secs(2);

#[test]
fn a_frame_sent_on_one_end_arrives_on_the_other_as_it_was() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    veth((&left, "eth0"), (&right, "eth0"));
    let (out, into) = (Port::open(&left, "eth0"), Port::open(&right, "eth0"));
    let mut frame = Vec::new();
    frame.extend(right.mac("eth0"));
    frame.extend(left.mac("eth0"));
    frame.extend([0x88, 0xb5]);
    frame.extend((0..50).map(|n: u8| n));
    out.send(&frame);
    let got = into.receive_where(WAIT, |f| f[12..14] == [0x88, 0xb5]);
    assert_eq!(got.as_deref(), Some(&frame[..]));
}

#[test]
fn a_namespace_goes_away_with_its_value_also_by_a_panic() {
    let mut path = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let ns = Netns::new("panics");
        path = Some(ns.path());
        assert!(ns.path().exists());
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(!path.expect("the closure ran").exists());
}

#[test]
fn what_runs_inside_sees_only_what_is_inside() {
    let ns = Netns::new("alone");
    let names = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("readable");
    assert!(names.contains("lo:"));
    assert_eq!(names.lines().count(), 3, "two heading lines and loopback: {names}");
    assert_eq!(ns.ifindex("lo"), 1);
    assert_eq!(ns.xdp_program("lo"), None);
}

#[test]
fn the_cloud_counts_and_answers_what_is_right_and_names_what_is_not() {
    let world = World::new(8);
    // A veth takes what its peer sends back by XDP_TX only with a program of its own; this one passes GRE on.
    let _passing = FarEnd::attach(&world.links.node, "n6", Role::Ran, 1);
    let port = Port::open(&world.links.node, "n6");
    let (near, far) = (world.links.node.mac("n6"), world.links.cloud.mac("cloud0"));
    let send = |packet: &[u8]| port.send(&plan::frame(far, near, 0x0800, packet));
    let answer = || port.receive_where(WAIT, |f| f[..6] == near && f[23] == 47);

    // Once over IPv4, once over IPv6, and the latter twice.
    for number in [2, 3, 3] {
        send(&Session { number: 4 }.gre(number));
        let answer = answer().expect("an answer");
        assert_eq!(answer[26..30], plan::gateway(2).octets());
        assert_eq!(answer[30..34], plan::NODE_CLOUD.octets());
    }
    assert_eq!((world.cloud_end.right(), world.cloud_end.answered()), (3, 3));
    assert_eq!(world.cloud_end.wrong(), []);
    let account = world.cloud_end.account(4);
    assert_eq!((account.lost, account.duplicated, account.first_lost), (2, 1, Some(0)));

    // To another customer's gateway; with the inner TTL untouched; with a number that nobody sends.
    let mut to_other = Session { number: 5 }.gre(0);
    to_other[..20].copy_from_slice(&Session { number: 4 }.gre(0)[..20]);
    let mut untouched = Session { number: 5 }.gre(1);
    untouched[24..].copy_from_slice(&Session { number: 5 }.inner(1));
    for packet in [to_other, untouched, Session { number: 5 }.gre(8)] {
        send(&packet);
    }
    assert_eq!(port.receive_where(Duration::from_millis(200), |f| f[..6] == near && f[23] == 47), None);
    assert_eq!(world.cloud_end.wrong(), [("tunnel", 1), ("TTL", 1), ("number beyond the count", 1)]);
}
