//! The harness itself: if these fail, no other result here means anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use xdpchain_tests::{Netns, Port, veth};

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
