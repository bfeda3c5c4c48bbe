//! Whole chains on real interfaces, by the real binary: packets octet for octet, changes under traffic, two chains at
//! once, commands that are killed, and what is left behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use xdpchain_tests::far_end::{Account, FarEnd, Role};
use xdpchain_tests::plan;
use xdpchain_tests::world::Sender;
use xdpchain_tests::{Links, Netns, Port, Shell, World, cli, rows, veth};

const WAIT: Duration = Duration::from_secs(2);
const SESSIONS: u32 = 30;
/// More packets than a test can send at the pace of [`trickle`].
const NUMBERS: u32 = 1 << 20;

/// Attaches the data path on both interfaces of the node, and fills its maps.
fn raise<'a>(links: &'a Links) -> Shell<'a> {
    let shell = Shell::new(&links.node, &plan::chains_yaml(SESSIONS));
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["attach", interface]).expect(0);
    }
    for (map, table) in rows::data_path(SESSIONS) {
        shell.write("rows.csv", &table.csv());
        shell.xdpchain(&["map", "import", map, "rows.csv"]).expect(0);
    }
    shell
}

/// Sends some packets, and takes at least a millisecond for it.
fn trickle(sender: &mut Sender, world: &World) {
    sender.send(world, 24);
    std::thread::sleep(Duration::from_millis(1));
}

/// What `status` says of one interface.
fn status(shell: &Shell<'_>, interface: &str) -> Value {
    shell.json(&["status", interface])["interfaces"][0].take()
}

/// Packets that ended in each slot with each verdict, and packets by reason, of which there were any.
fn counts(status: &Value) -> Vec<(String, u64)> {
    let mut counts = Vec::new();
    for slot in status["slots"].as_array().expect("a list") {
        for (verdict, ended) in slot["ended"].as_object().into_iter().flatten() {
            counts.push((format!("verdict {verdict}"), ended["packets"].as_u64().expect("a number")));
        }
    }
    for reason in status["reasons"].as_array().expect("a list") {
        let name = reason["reason"].as_str().expect("a name");
        counts.push((format!("reason {name}"), reason["packets"].as_u64().expect("a number")));
    }
    counts.sort();
    // The same verdict of several slots, or the same reason of several modules, is one count.
    counts
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| (same[0].0.clone(), same.iter().map(|c| c.1).sum()))
        .collect()
}

/// What rose from `before` to `after`, and by how much.
fn rise(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<(String, u64)> {
    let old = |name: &str| before.iter().find(|count| count.0 == name).map_or(0, |count| count.1);
    let risen = after.iter().map(|(name, count)| (name.clone(), count - old(name)));
    risen.filter(|(_, by)| *by > 0).collect()
}

/// A packet through the whole chain; `tests/fixtures/chain/make.py` writes them by scapy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    description: String,
    /// `ran` or `cloud`.
    from: String,
    input: String,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: String,
    reason: Option<String>,
    /// `ran` or `cloud`: who receives `output`; nobody when there is none.
    to: Option<String>,
    output: Option<String>,
    /// The outer UDP source port carries the flow's entropy: any dynamic port will do.
    #[serde(default)]
    flow_port: bool,
}

fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<_> = hexadecimal.chars().filter(|c| !c.is_whitespace()).collect();
    let octet =
        |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal");
    digits.chunks(2).map(octet).collect()
}

#[test]
fn packets_go_through_the_whole_chain_octet_for_octet() {
    let links = Links::new();
    let shell = raise(&links);
    // Customer 1 may not speak to port 23.
    let rule = r#"{"customer": 1, "dst_port": [23, 23], "src": "::", "src_len": 0, "dst": "::", "dst_len": 0,
        "src_port": [0, 0], "protocol": 0, "action": 1, "flags": 19, "direction": 0}"#;
    shell.xdpchain(&["map", "set", "acl/rules", "0", rule]).expect(0);
    let config = r#"{"default_action": 0, "all_packets": 0}"#;
    shell.xdpchain(&["map", "set", "acl/config", "0", config]).expect(0);

    // Without addresses the far ends' kernels answer nothing of their own, which would be counted too.
    links.ran.ip("addr flush dev ran0");
    links.cloud.ip("addr flush dev cloud0");
    // A veth takes what its peer sends back by XDP_TX only with a program of its own; these pass what has no number.
    let _passing = [
        FarEnd::attach(&links.ran, "ran0", Role::Ran, 1),
        FarEnd::attach(&links.cloud, "cloud0", Role::Cloud, 1),
    ];
    let (ran, cloud) = (Port::open(&links.ran, "ran0"), Port::open(&links.cloud, "cloud0"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chain");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("fixtures").map(|e| e.expect("listed").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(files.len() >= 19);
    for path in files {
        let text = fs::read_to_string(&path).expect("a fixture is text");
        let fixture: Fixture =
            serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (port, interface) = if fixture.from == "ran" { (&ran, "n3") } else { (&cloud, "n6") };
        let what = format!("{}: {}", path.display(), fixture.description);

        let before = counts(&status(&shell, interface));
        port.send(&octets(&fixture.input));
        if let Some(to) = &fixture.expect.to {
            let expected = octets(fixture.expect.output.as_deref().expect("an output goes somewhere"));
            let (receiver, from) =
                if to == "ran" { (&ran, plan::NODE_RAN) } else { (&cloud, plan::NODE_CLOUD) };
            // The node's kernel says something of its own about what was handed to it, by ARP and ICMP.
            let same_kind = |frame: &[u8]| frame[12..14] == expected[12..14] && frame[23] == expected[23];
            let got =
                receiver.receive_where(WAIT, |frame| frame[6..12] == plan::mac(from) && same_kind(frame));
            let mut got = got.unwrap_or_else(|| panic!("{what}: nothing arrived"));
            if fixture.expect.flow_port {
                assert!(got[34] >= 0xc0, "{what}: source port {:?}", &got[34..36]);
                got[34..36].copy_from_slice(&expected[34..36]);
            }
            assert_eq!(got, expected, "{what}");
        } else {
            // Nothing to wait for: the counts below say what became of it, once it was there.
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut expected = vec![(format!("verdict {}", fixture.expect.verdict), 1)];
        expected.extend(fixture.expect.reason.map(|reason| (format!("reason {reason}"), 1)));
        expected.sort();
        assert_eq!(rise(&before, &counts(&status(&shell, interface))), expected, "{what}");
    }
    assert_eq!(shell.json(&["map", "get", "acl/hits", "0"])["value"], 1);
}

#[test]
fn modules_come_and_go_under_traffic_and_no_packet_is_lost() {
    let world = World::new(NUMBERS);
    let shell = raise(&world.links);
    let mut sender = world.sender(SESSIONS);
    sender.send(&world, 1_000);
    let changes: [&[&str]; 8] = [
        &["add", "n3", "passing.o", "--first"],
        &["add", "n6", "passing.o", "--after", "gre-decap"],
        &["remove", "n3", "acl"],
        &["remove", "n3", "passing"],
        &["add", "n3", "builtin:acl", "--after", "gre-decap"],
        &["replace", "n6", "passing", "builtin:acl", "--dry-run"],
        &["remove", "n6", "passing"],
        &["attach", "n3"],
    ];
    for arguments in changes {
        let done = std::thread::scope(|scope| {
            let change = scope.spawn(|| shell.xdpchain(arguments));
            while !change.is_finished() {
                trickle(&mut sender, &world);
            }
            change.join().expect("running a command does not panic")
        });
        done.expect(0);
        sender.send(&world, 500);
    }
    sender.settle(&world);
    let nothing = Account::default();
    assert_eq!(world.cloud_end.account(sender.sent()), nothing);
    assert_eq!(world.ran_end.account(sender.sent()), nothing);
    assert_eq!((world.cloud_end.wrong(), world.ran_end.wrong()), (vec![], vec![]));
    // The sessions' counters lived through all of it: every packet is in them, both ways.
    let rows = shell.xdpchain(&["map", "export", "stats/customers"]).expect(0).stdout;
    let packets = rows.lines().map(|row| {
        let row: Value = serde_json::from_str(row).expect("JSON lines");
        row["value"]["packets"].as_u64().expect("a number")
    });
    assert_eq!(packets.sum::<u64>(), 2 * u64::from(sender.sent()), "{rows}");
}

#[test]
fn a_module_takes_effect_when_added_and_none_when_removed() {
    let world = World::new(NUMBERS);
    let shell = raise(&world.links);
    let mut sender = world.sender(SESSIONS);
    sender.send(&world, 100);
    sender.settle(&world);
    assert_eq!(world.cloud_end.right(), 100);
    shell.xdpchain(&["add", "n3", "dropping.o", "--before", "gre-steer"]).expect(0);
    sender.send(&world, 10);
    sender.settle(&world);
    assert_eq!(world.cloud_end.right(), 100);
    let slots = status(&shell, "n3")["slots"].take();
    let slot =
        slots.as_array().expect("a list").iter().find(|s| s["slot"] == "dropping").expect("it was added");
    assert_eq!(slot["ended"]["drop"]["packets"], 10);
    shell.xdpchain(&["remove", "n3", "dropping"]).expect(0);
    sender.send(&world, 100);
    sender.settle(&world);
    assert_eq!((world.cloud_end.right(), world.ran_end.right()), (200, 200));
}

#[test]
fn what_reached_a_slot_is_what_it_counted_itself_whatever_comes_and_goes() {
    let world = World::new(NUMBERS);
    let shell = raise(&world.links);
    let mut sender = world.sender(SESSIONS);
    sender.send(&world, 500);
    let changes: [&[&str]; 6] = [
        &["add", "n3", "passing.o", "--before", "gre-steer"],
        &["remove", "n3", "acl"],
        &["add", "n3", "dropping.o", "--after", "passing", "--observer"],
        &["add", "n3", "builtin:acl", "--before", "passing"],
        &["replace", "n3", "dropping", "dropping.o"],
        &["remove", "n3", "dropping"],
    ];
    let mut removed = 0;
    for arguments in changes {
        let done = std::thread::scope(|scope| {
            let change = scope.spawn(|| shell.xdpchain(arguments));
            while !change.is_finished() {
                trickle(&mut sender, &world);
            }
            change.join().expect("running a command does not panic")
        });
        done.expect(0);
        sender.send(&world, 200);
        removed += u32::from(arguments[0] == "remove");
    }
    sender.settle(&world);
    assert_eq!(removed, 2);
    let told = status(&shell, "n3");
    let slot = |name: &str| {
        let slots = told["slots"].as_array().expect("a list");
        slots.iter().find(|slot| slot["slot"] == name).expect("it is in the chain").clone()
    };
    let counted = shell.json(&["map", "get", "passing/passed", "0"])["value"].clone();
    assert!(counted.as_u64().is_some_and(|packets| packets > 1000), "{counted}");
    assert_eq!(slot("passing")["reached"], counted);
    // Every packet of the sender, whatever the chain was when it came.
    assert_eq!(slot("gtp-decap")["reached"], told["total"]["packets"]);
    assert!(slot("gtp-decap")["reached"].as_u64() >= Some(sender.sent().into()));
    assert_eq!(slot("stats")["reached"], told["total"]["packets"]);
}

const TWO_CHAINS: &str = "\
version: 1
modules:
  passing: { object: ./passing.o }
  dropping: { object: ./dropping.o }
chains:
  open: { interfaces: [eth1], slots: [passing] }
  shut: { interfaces: [eth2], slots: [dropping] }
";

#[test]
fn two_interfaces_have_two_chains_at_once() {
    let (ns, peer) = (Netns::new("two"), Netns::new("peer"));
    for (interface, other) in [("eth1", "far1"), ("eth2", "far2")] {
        veth((&ns, interface), (&peer, other));
    }
    let shell = Shell::new(&ns, TWO_CHAINS);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["attach", "eth2"]).expect(0);
    let frame = plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &[7; 50]);
    let arrives = |far: &str, near: &str| {
        let (into, out) = (Port::open(&ns, near), Port::open(&peer, far));
        out.send(&frame);
        into.receive_where(Duration::from_millis(300), |f| f == frame).is_some()
    };
    assert!(arrives("far1", "eth1"));
    assert!(!arrives("far2", "eth2"));
    assert_eq!(
        counts(&status(&shell, "eth1")).iter().find(|c| c.1 > 0),
        Some(&("verdict pass".to_owned(), 1))
    );
    assert_eq!(
        counts(&status(&shell, "eth2")).iter().find(|c| c.1 > 0),
        Some(&("verdict drop".to_owned(), 1))
    );

    // A change of one leaves the other alone, program and counts.
    // But for who uses the module's map, which more chains do then.
    let told = || {
        let mut status = status(&shell, "eth1");
        status["maps"].take();
        status
    };
    let (before, id) = (told(), ns.xdp_program("eth1"));
    shell.xdpchain(&["add", "eth2", "passing.o", "--first"]).expect(0);
    shell.xdpchain(&["remove", "eth2", "dropping"]).expect(0);
    assert_eq!((told(), ns.xdp_program("eth1")), (before, id));
    assert!(arrives("far2", "eth2"));

    // The module's map is one: both chains counted into it, and it stays while one of them has the module.
    assert_eq!(shell.json(&["map", "get", "passing/passed", "0"])["value"], 2);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(ns.xdp_program("eth1"), None);
    assert!(arrives("far1", "eth1"));
    assert_eq!(shell.json(&["map", "get", "passing/passed", "0"])["value"], 2);
    shell.xdpchain(&["detach", "eth2"]).expect(0);
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_command_that_is_killed_leaves_a_whole_chain_running() {
    let world = World::new(NUMBERS);
    let shell = raise(&world.links);
    let mut sender = world.sender(SESSIONS);
    let binary = cli::binary();
    let start = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).current_dir(shell.path()).stdout(Stdio::null()).stderr(Stdio::null());
        world.links.node.run(|| command.spawn()).expect("the binary runs")
    };
    let mut killed = 0;
    let mut present = false;
    for step in 0..24 {
        let arguments: &[&str] =
            if present { &["remove", "n3", "passing"] } else { &["add", "n3", "passing.o", "--first"] };
        let mut child = start(arguments);
        let until = std::time::Instant::now() + Duration::from_millis(step * 12);
        while std::time::Instant::now() < until {
            trickle(&mut sender, &world);
        }
        // A command that was faster than the signal is a step like any other.
        let _ = child.kill();
        killed += u32::from(!child.wait().expect("it was started").success());
        sender.send(&world, 48);
        // The next command clears away what was left, and says what runs.
        shell.xdpchain(&["recover"]).expect(0);
        let slots = status(&shell, "n3")["slots"].take();
        present = slots.as_array().expect("a list").iter().any(|slot| slot["slot"] == "passing");
    }
    assert!(killed > 0, "no command was killed in time");
    sender.settle(&world);
    assert_eq!(world.cloud_end.account(sender.sent()), Account::default());
    assert_eq!(world.ran_end.account(sender.sent()), Account::default());
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["detach", interface]).expect(0);
    }
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn bpftool_shows_the_source_lines_of_every_module() {
    let links = Links::new();
    let _shell = raise(&links);
    let program = links.node.xdp_program("n3").expect("a chain is on it").to_string();
    let shown = Command::new("bpftool").args(["prog", "dump", "xlated", "id", &program, "linum"]).output();
    let shown = shown.expect("bpftool runs");
    assert_eq!(String::from_utf8_lossy(&shown.stderr), "");
    let text = String::from_utf8_lossy(&shown.stdout);
    for module in ["gtp-decap", "gre-decap", "acl", "stats", "gre-steer", "gtp-encap"] {
        assert!(text.contains(&format!("file:{module}/./programs/{module}/src/main.rs")), "{module}");
    }
}

#[test]
fn detach_leaves_no_program_no_map_no_pin_and_no_file() {
    let links = Links::new();
    let shell = raise(&links);
    let mut programs = Vec::new();
    let mut maps = Vec::new();
    for interface in ["n3", "n6"] {
        programs.push(links.node.xdp_program(interface).expect("a chain is on it"));
        shell.xdpchain(&["add", interface, "passing.o"]).expect(0);
        programs.push(links.node.xdp_program(interface).expect("a chain is on it"));
    }
    for pin in cli::files_below(&links.node.pins()) {
        let path = pin.to_str().expect("pins have plain names").to_owned();
        let shown = Command::new("bpftool").args(["-j", "map", "show", "pinned", &path]).output();
        let shown = shown.expect("bpftool runs");
        if let Ok(map) = serde_json::from_slice::<Value>(&shown.stdout)
            && let Some(id) = map["id"].as_u64()
        {
            maps.push(id);
        }
    }
    assert!(maps.len() > 10, "{maps:?}");
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["detach", interface]).expect(0);
        assert_eq!(links.node.xdp_program(interface), None);
    }
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
    let known = |kind: &str, id: u64| {
        let shown = Command::new("bpftool").args([kind, "show", "id", &id.to_string()]).output();
        shown.expect("bpftool runs").status.success()
    };
    // The kernel frees programs and maps a little after the last reference is gone.
    let gone = |kind: &str, id: u64| {
        (0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            !known(kind, id)
        })
    };
    for id in programs {
        assert!(gone("prog", id.into()), "program {id} is still there");
    }
    for id in maps {
        assert!(gone("map", id), "map {id} is still there");
    }
    // What was there before works again: the interface takes a chain as if there had never been one.
    shell.xdpchain(&["attach", "n3"]).expect(0);
    assert_eq!(status(&shell, "n3")["generation"], 1);
}
