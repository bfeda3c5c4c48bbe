//! Chains of a program for each slot, on real interfaces by the real binary: what stays when one slot changes, no packet
//! lost, what is left behind, and when such a chain is chosen.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use xdpchain_tests::far_end::Account;
use xdpchain_tests::plan;
use xdpchain_tests::world::Sender;
use xdpchain_tests::{Links, Netns, Port, Shell, World, cli, rows, veth};

const SESSIONS: u32 = 30;
const NUMBERS: u32 = 1 << 20;

/// A chain of three slots and one at exit, of which each is a program.
const CHAIN: &str = "\
version: 1
modules:
  first: { object: ./passing.o }
  second: { object: ./passing.o }
  third: { object: ./passing.o }
  watcher: { object: ./passing.o }
chains:
  edge:
    interfaces: [eth1]
    engine: tail
    slots: [first, second, third, watcher: { at: exit }]
";

/// Two namespaces with a link, eth1 of the first to far1 of the second.
fn pair() -> (Netns, Netns) {
    let (ns, peer) = (Netns::new("tail"), Netns::new("peer"));
    veth((&ns, "eth1"), (&peer, "far1"));
    (ns, peer)
}

fn status(shell: &Shell<'_>, interface: &str) -> Value {
    shell.json(&["status", interface])["interfaces"][0].take()
}

/// The program of each slot.
fn programs(shell: &Shell<'_>) -> Vec<u64> {
    let status = status(shell, "eth1");
    let slots = status["slots"].as_array().expect("a list").iter();
    slots.map(|slot| slot["program"].as_u64().expect("each slot has one")).collect()
}

fn known(kind: &str, id: u64) -> bool {
    let shown = Command::new("bpftool").args([kind, "show", "id", &id.to_string()]).output();
    shown.expect("bpftool runs").status.success()
}

/// Whether the kernel gives an object up, which takes it a little after the last reference is gone.
fn gone(kind: &str, id: u64) -> bool {
    (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !known(kind, id)
    })
}

#[test]
fn one_slot_changes_and_the_programs_of_the_others_stay() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, CHAIN);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let first = status(&shell, "eth1");
    assert_eq!((&first["engine"], &first["programs"]), (&"tail".into(), &4.into()));
    assert_eq!(first["problems"], Value::Array(vec![]));
    let before = programs(&shell);
    let frame = plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &[7; 50]);
    let (into, out) = (Port::open(&ns, "eth1"), Port::open(&peer, "far1"));
    let arrives = || {
        out.send(&frame);
        into.receive_where(Duration::from_millis(300), |f| f == frame).is_some()
    };
    assert!(arrives());

    // An entry of the array.
    shell.xdpchain(&["replace", "eth1", "second", "dropping.o"]).expect(0);
    let after = programs(&shell);
    assert_eq!([0, 2, 3].map(|i| after[i]), [0, 2, 3].map(|i| before[i]), "the others stay");
    assert_ne!(after[1], before[1]);
    assert_eq!(ns.xdp_program("eth1").map(u64::from), Some(before[0]));
    assert!(!arrives());
    assert!(gone("prog", before[1]), "the program that was replaced is unloaded");
    // The link.
    shell.xdpchain(&["replace", "eth1", "first", "dropping.o"]).expect(0);
    let last = programs(&shell);
    assert_eq!(last[1..], after[1..]);
    assert_eq!(ns.xdp_program("eth1").map(u64::from), Some(last[0]));
    assert!(gone("prog", before[0]));
    // Back, and with the same object again, which changes no program at all.
    shell.xdpchain(&["replace", "eth1", "first", "passing.o"]).expect(0);
    shell.xdpchain(&["replace", "eth1", "second", "passing.o"]).expect(0);
    let back = programs(&shell);
    shell.xdpchain(&["replace", "eth1", "third", "passing.o"]).expect(0);
    assert_eq!(programs(&shell), back);
    assert!(arrives());
    let told = status(&shell, "eth1");
    assert_eq!(told["generation"], 6);
    let reached = |slot: usize| told["slots"][slot]["reached"].clone();
    // Three packets in all, of which one was dropped by the second slot.
    assert_eq!([0, 1, 2, 3].map(reached), [3, 3, 2, 3].map(Value::from));
    assert_eq!(shell.json(&["map", "get", "watcher/passed", "0"])["value"], 3);

    // Another order of slots is another array.
    shell.xdpchain(&["add", "eth1", "passing.o", "--before", "third"]).expect(0);
    assert!(programs(&shell).iter().all(|id| !back.contains(id)));
    assert!(arrives());
    shell.xdpchain(&["remove", "eth1", "first"]).expect(0);
    assert!(arrives());
    let running = programs(&shell);
    assert!(running.iter().all(|id| known("prog", *id)));
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    assert!(running.iter().all(|id| gone("prog", *id)));
}

#[test]
fn thirty_three_slots_are_a_chain_and_one_more_is_not() {
    let (ns, peer) = pair();
    let chain = |slots: usize| {
        let names: Vec<String> = (0..slots).map(|i| format!("m{i}")).collect();
        let modules: Vec<String> = names.iter().map(|name| format!("  {name}: ./passing.o\n")).collect();
        format!(
            "version: 1\nmodules:\n{}chains:\n  edge: {{ interfaces: [eth1], engine: tail, slots: [{}] }}\n",
            modules.concat(),
            names.join(", ")
        )
    };
    let shell = Shell::new(&ns, &chain(34));
    let refused = shell.xdpchain(&["attach", "eth1"]).expect(3);
    assert!(refused.stderr.contains("34 slots, more than 33"), "{}", refused.stderr);
    shell.write("chains.yaml", &chain(33));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let frame = plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &[7; 50]);
    let (into, out) = (Port::open(&ns, "eth1"), Port::open(&peer, "far1"));
    for _ in 0..3 {
        out.send(&frame);
        assert!(into.receive_where(Duration::from_secs(2), |f| f == frame).is_some());
    }
    let told = status(&shell, "eth1");
    assert!(told["slots"].as_array().expect("a list").iter().all(|slot| slot["reached"] == 3));
    assert_eq!(told["slots"][32]["ended"]["pass"]["packets"], 3);
    assert_eq!(shell.json(&["map", "get", "m32/passed", "0"])["value"], 3);
    // The last one alone is exchanged.
    shell.xdpchain(&["replace", "eth1", "m32", "dropping.o"]).expect(0);
    out.send(&frame);
    assert!(into.receive_where(Duration::from_millis(200), |f| f == frame).is_none());
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_map_whose_pin_somebody_removed_makes_every_program_new() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, CHAIN);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let before = programs(&shell);
    std::fs::remove_file(ns.pins().join("modules/first/passed")).expect("it is pinned");
    shell.xdpchain(&["replace", "eth1", "third", "dropping.o"]).expect(0);
    assert!(programs(&shell).iter().all(|id| !before.contains(id)));
    let out = Port::open(&peer, "far1");
    out.send(&plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &[7; 50]));
    std::thread::sleep(Duration::from_millis(50));
    // What is told and what runs is the same map.
    assert_eq!(shell.json(&["map", "get", "first/passed", "0"])["value"], 1);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn an_entry_that_something_else_changed_is_not_overwritten() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, CHAIN);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let before = programs(&shell);
    let arrays = cli::files_below(&ns.pins());
    let array = arrays.iter().find(|pin| pin.to_string_lossy().contains("xdpchain_slots"));
    let array = array.and_then(|pin| pin.to_str()).expect("it is pinned");
    let other = before[2].to_string();
    let change = ["map", "update", "pinned", array, "key", "1", "0", "0", "0", "value", "id", &other];
    assert!(Command::new("bpftool").args(change).status().expect("bpftool runs").success());
    let told = shell.xdpchain(&["status", "eth1"]).expect(1);
    assert!(told.stderr.contains(&format!("holds program {other}")), "{}", told.stderr);
    let refused = shell.xdpchain(&["replace", "eth1", "second", "dropping.o"]).expect(7);
    assert!(refused.stderr.contains("something else"), "{}", refused.stderr);
    // A whole new array does not mind.
    shell.xdpchain(&["remove", "eth1", "third"]).expect(0);
    assert_eq!(status(&shell, "eth1")["problems"], Value::Array(vec![]));
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_chain_goes_from_one_engine_to_the_other_and_back() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, CHAIN);
    let frame = plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &[7; 50]);
    let (into, out) = (Port::open(&ns, "eth1"), Port::open(&peer, "far1"));
    for (round, engine) in ["fused", "tail", "fused", "tail"].into_iter().enumerate() {
        shell.write("chains.yaml", &CHAIN.replace("engine: tail", &format!("engine: {engine}")));
        shell.xdpchain(&["attach", "eth1"]).expect(0);
        out.send(&frame);
        assert!(into.receive_where(Duration::from_secs(2), |f| f == frame).is_some());
        let told = status(&shell, "eth1");
        assert_eq!(told["engine"], engine);
        assert_eq!(told["slots"][0]["reached"], round + 1);
    }
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn auto_takes_a_program_for_each_slot_when_one_for_all_is_too_large() {
    let (ns, peer) = pair();
    let chain = CHAIN.replace("engine: tail", "engine: auto");
    let shell = Shell::new(&ns, &chain.replacen("passing", "heavy", 1));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let told = status(&shell, "eth1");
    assert_eq!((&told["engine"], &told["engineReason"]), (&"fused".into(), &Value::Null));
    // The second one makes it too large.
    let added = shell.xdpchain(&["add", "eth1", "heavy.o", "--after", "first"]).expect(0);
    assert!(added.stderr.contains("note: engine tail: the verifier refused"), "{}", added.stderr);
    let told = status(&shell, "eth1");
    assert_eq!(told["engine"], "tail");
    assert!(told["engineReason"].as_str().is_some_and(|reason| reason.contains("refused")), "{told}");
    let page = shell.xdpchain(&["status", "eth1"]).expect(0).stdout;
    assert!(page.contains("not in one program: "), "{page}");
    for kind in [0x88b5, 0x88b6] {
        let frame = plan::frame([0xff; 6], peer.mac("far1"), kind, &[7; 50]);
        let (into, out) = (Port::open(&ns, "eth1"), Port::open(&peer, "far1"));
        out.send(&frame);
        assert!(into.receive_where(Duration::from_secs(2), |f| f == frame).is_some());
    }
    // Without it, one program does again; and who insists on one is refused.
    shell.xdpchain(&["remove", "eth1", "heavy"]).expect(0);
    assert_eq!(status(&shell, "eth1")["engine"], "fused");
    let fused = CHAIN.replace("engine: tail", "engine: fused").replace("passing", "heavy");
    shell.write("chains.yaml", &fused);
    let refused = shell.xdpchain(&["attach", "eth1"]).expect(6);
    assert!(refused.stderr.contains("million instructions"), "{}", refused.stderr);
    assert_eq!(status(&shell, "eth1")["engine"], "fused");
}

/// Attaches the data path on both interfaces of the node, a program for each slot, and fills its maps.
fn raise<'a>(links: &'a Links) -> Shell<'a> {
    let chains = plan::chains_yaml(SESSIONS).replace("    slots:", "    engine: tail\n    slots:");
    let shell = Shell::new(&links.node, &chains);
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["attach", interface]).expect(0);
    }
    for (map, table) in rows::data_path(SESSIONS) {
        shell.write("rows.csv", &table.csv());
        shell.xdpchain(&["map", "import", map, "rows.csv"]).expect(0);
    }
    shell
}

fn trickle(sender: &mut Sender, world: &World) {
    sender.send(world, 24);
    std::thread::sleep(Duration::from_millis(1));
}

fn assert_nothing_lost(sender: &mut Sender, world: &World) {
    sender.settle(world);
    let nothing = Account::default();
    assert_eq!(world.cloud_end.account(sender.sent()), nothing);
    assert_eq!(world.ran_end.account(sender.sent()), nothing);
    assert_eq!((world.cloud_end.wrong(), world.ran_end.wrong()), (vec![], vec![]));
}

#[test]
fn slots_come_go_and_change_under_traffic_and_no_packet_is_lost() {
    let world = World::new(NUMBERS);
    let shell = raise(&world.links);
    let mut sender = world.sender(SESSIONS);
    sender.send(&world, 1_000);
    let changes: [&[&str]; 8] = [
        &["add", "n3", "passing.o", "--first"],
        &["add", "n6", "passing.o", "--after", "gre-decap"],
        &["replace", "n6", "passing", "two.o", "--program", "first_of_two"],
        &["replace", "n3", "passing", "two.o", "--program", "first_of_two"],
        &["replace", "n3", "passing", "passing.o"],
        &["remove", "n3", "passing"],
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
    assert_nothing_lost(&mut sender, &world);
    for interface in ["n3", "n6"] {
        let told = status(&shell, interface);
        assert_eq!(told["problems"], Value::Array(vec![]));
        assert_eq!(told["slots"][0]["reached"], told["total"]["packets"]);
        shell.xdpchain(&["detach", interface]).expect(0);
    }
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_command_that_is_killed_leaves_a_whole_chain_running() {
    let world = World::new(NUMBERS);
    let shell = raise(&world.links);
    let mut sender = world.sender(SESSIONS);
    shell.xdpchain(&["add", "n3", "passing.o", "--after", "acl"]).expect(0);
    let binary = cli::binary();
    let mut killed = 0;
    for step in 0..24 {
        let arguments: &[&str] = match step % 4 {
            0 => &["replace", "n3", "passing", "two.o", "--program", "first_of_two"],
            1 => &["remove", "n3", "acl"],
            2 => &["replace", "n3", "passing", "passing.o"],
            _ => &["add", "n3", "builtin:acl", "--before", "passing"],
        };
        let mut command = Command::new(&binary);
        command.args(arguments).current_dir(shell.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = world.links.node.run(|| command.spawn()).expect("the binary runs");
        let until = std::time::Instant::now() + Duration::from_millis(step * 12);
        while std::time::Instant::now() < until {
            trickle(&mut sender, &world);
        }
        // A command that was faster than the signal, or has nothing to do any more, is a step like any other.
        let _ = child.kill();
        killed += u32::from(child.wait().expect("it was started").code().is_none());
        sender.send(&world, 48);
        shell.xdpchain(&["recover"]).expect(0);
        assert_eq!(status(&shell, "n3")["problems"], Value::Array(vec![]), "step {step}");
    }
    assert!(killed > 0, "no command was killed in time");
    assert_nothing_lost(&mut sender, &world);
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["detach", interface]).expect(0);
    }
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}
