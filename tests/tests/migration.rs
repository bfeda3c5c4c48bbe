//! Entries carried over when another build of a module lays them out differently, with traffic flowing all the while.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use xdpchain_tests::{Netns, Port, Shell, cli, kernel, veth};

/// The first build; `migrate` is what tells how to get to the second one.
const FIRST: &str = "\
version: 1
modules:
  flows: { object: ./flows_v1.o }
chains:
  edge: { interfaces: [eth1], slots: [flows] }
";

fn second() -> String {
    let how = "{ renames: { bytes: octets }, newest: [kind] }";
    let maps = ["flows", "sparse", "recent", "totals", "slots", "lanes", "routes"];
    let migrate: Vec<String> = maps.iter().map(|map| format!("{map}: {how}")).collect();
    FIRST.replace("./flows_v1.o", &format!("./flows_v2.o, migrate: {{ {} }}", migrate.join(", ")))
}

/// Numbers that frames carry.
const KEYS: u32 = 200;
/// Maps that count every frame.
const COUNTERS: [&str; 6] = ["flows", "sparse", "recent", "totals", "slots", "lanes"];

fn pair() -> (Netns, Netns) {
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    (node, far)
}

fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    frame.extend(number.to_le_bytes());
    frame.resize(64, 0);
    frame
}

/// Sends frames of every number in turn until `stop`, not faster than a queue of a veth takes them; how many it sent.
fn send_until(port: &Port, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..16 {
            // Some numbers come first when others have been counted for a while.
            let span = if sent < 20_000 { KEYS / 2 } else { KEYS };
            port.send(&frame(sent as u32 % span));
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(150));
    }
    sent
}

/// Every entry of a map: its key, and fields of its value.
fn entries(shell: &Shell<'_>, map: &str) -> Vec<(Value, Value)> {
    let run = shell.xdpchain(&["map", "export", &format!("flows/{map}")]).expect(0);
    let lines = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.map(|mut line| (line["key"].take(), line["value"].take())).collect()
}

/// Packets and octets that a map has counted by number, those that are none left out.
fn counts(shell: &Shell<'_>, map: &str, octets: &str) -> BTreeMap<u64, (u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let all = entries(shell, map).into_iter();
    all.map(|(key, value)| (number(&key), (number(&value["packets"]), number(&value[octets]))))
        .filter(|(_, count)| count.0 != 0)
        .collect()
}

fn status(shell: &Shell<'_>, ifname: &str) -> Value {
    shell.json(&["status", ifname])["interfaces"][0].take()
}

/// Packets and octets that the chain has counted at its only slot.
fn ended(shell: &Shell<'_>) -> (u64, u64) {
    let told = status(shell, "eth1");
    let drops = &told["slots"][0]["ended"]["drop"];
    let number = |what: &str| drops[what].as_u64().unwrap_or_else(|| panic!("no `{what}` in {told}"));
    (number("packets"), number("bytes"))
}

fn sum(counts: &BTreeMap<u64, (u64, u64)>) -> (u64, u64) {
    counts.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
}

fn set_routes(shell: &Shell<'_>) {
    for number in 0..16 {
        let key = format!(r#"{{"prefixlen": 32, "address": "0x0a0000{number:02x}"}}"#);
        let value = r#"{"packets": 0, "bytes": 0, "spare": 1, "kind": 3}"#;
        shell.xdpchain(&["map", "set", "flows/routes", &key, value]).expect(0);
    }
}

#[test]
fn entries_of_every_kind_of_map_are_carried_over_under_traffic_and_every_packet_is_counted() {
    let (node, far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    set_routes(&shell);
    let port = Port::open(&far, "far1");
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&port, &stop));
        let mut builds = vec![second(), FIRST.to_owned(), second(), FIRST.to_owned(), second()];
        std::thread::sleep(Duration::from_millis(150));
        for yaml in builds.drain(..) {
            shell.write("chains.yaml", &yaml);
            let run = shell.xdpchain(&["attach", "eth1"]);
            if run.status != 0 {
                stop.store(true, Ordering::Relaxed);
                run.expect(0);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("the sender ends")
    });
    std::thread::sleep(Duration::from_millis(100));
    let wanted = ended(&shell);
    assert!(sent > 20_000 && wanted.0 > sent / 2, "{wanted:?} of {sent} frames were counted");
    let flows = counts(&shell, "flows", "octets");
    assert_eq!(flows.len(), KEYS as usize);
    for map in COUNTERS {
        let counted = counts(&shell, map, "octets");
        assert_eq!(sum(&counted), wanted, "`{map}` has counted as many as the chain");
        assert_eq!(counted, flows, "`{map}` and `flows` agree on every number");
    }
    let routes = entries(&shell, "routes");
    assert_eq!(routes.len(), 16);
    for (key, value) in routes {
        let number = u64::from_str_radix(&key["address"].as_str().expect("octets")[8..], 16).unwrap();
        let count = (value["packets"].as_u64().unwrap(), value["octets"].as_u64().unwrap());
        assert_eq!(count, flows[&number], "route {key}");
        assert_eq!((&value["kind"], &value["age"]), (&Value::from(3), &Value::from(0)));
    }
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

/// A chain of the first build that has counted a few frames.
fn counted(shell: &Shell<'_>, far: &Netns, each: u32) {
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let port = Port::open(far, "far1");
    for sent in 0..each * 8 {
        port.send(&frame(sent % 8));
        if sent % 16 == 15 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    while ended(shell).0 < u64::from(each * 8) {
        assert!(Instant::now() < end, "the frames arrive");
    }
}

/// Everything that a change could have changed.
fn snapshot(shell: &Shell<'_>) -> (Option<u32>, Vec<PathBuf>, Vec<Value>) {
    let maps = shell.json(&["map", "list"])["maps"].take();
    let ids = maps.as_array().expect("a list").iter().map(|map| map["id"].clone()).collect();
    (shell.netns().xdp_program("eth1"), shell.left(), ids)
}

#[test]
fn a_change_says_what_becomes_of_the_fields_and_a_rehearsal_changes_nothing() {
    let (node, far) = pair();
    let shell = Shell::new(&node, FIRST);
    counted(&shell, &far, 4);
    assert_eq!(entries(&shell, "kept_last")[0].1["octets"], Value::from(64));
    let before = snapshot(&shell);
    shell.write("chains.yaml", &second());
    let says = [
        "map flows/flows: 8 entries",
        "`octets` was `bytes`",
        "`octets` becomes u64, from u32",
        "`packets` becomes u64, from u32",
        "`age` is new, and zero",
        "`spare` is gone, and its values are dropped",
    ];
    for arguments in [&["attach", "eth1", "--dry-run"][..], &["attach", "eth1"]] {
        assert_eq!(snapshot(&shell), before);
        let run = shell.xdpchain(arguments).expect(0);
        for text in says {
            assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
        }
    }
    assert_eq!(counts(&shell, "flows", "octets")[&7], (4, 4 * 64));
    // What is only kept begins anew, though nothing could become of a struct that is an array.
    assert_eq!(entries(&shell, "kept_last"), [(Value::from(0), Value::from(vec![0, 0]))]);
    // Going back to the generation before goes back to its layout, and keeps what was counted.
    shell.xdpchain(&["rollback", "eth1"]).expect(0);
    assert_eq!(counts(&shell, "flows", "bytes")[&7], (4, 4 * 64));
    assert_eq!(sum(&counts(&shell, "lanes", "bytes")), ended(&shell));
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn what_does_not_fit_is_refused_with_numbers_and_the_old_map_stays() {
    let (node, far) = pair();
    let shell = Shell::new(&node, FIRST);
    counted(&shell, &far, 300);
    let before = snapshot(&shell);
    let refuses = |yaml: &str, says: &[&str]| {
        shell.write("chains.yaml", yaml);
        let run = shell.xdpchain(&["attach", "eth1"]).expect(8);
        for text in says.iter().chain(&["help: "]) {
            assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
        }
        assert_eq!(snapshot(&shell), before);
    };
    refuses(
        &FIRST.replace("v1", "narrow"),
        &[
            "cannot be migrated: the entry with key 0x",
            "`packets`: 300 does not fit into u8",
            "and 7 entries more",
        ],
    );
    for map in ["flows", "recent"] {
        let small = format!("./flows_v1.o, maps: {{ {map}: {{ max_entries: 5 }} }}");
        let full =
            format!("map `flows/{map}` cannot be migrated: it has 8 entries, and is to have room for 5");
        refuses(&FIRST.replace("./flows_v1.o", &small), &[&full, "`max_entries` of at least 8"]);
    }
    refuses(
        &FIRST.replace("./flows_v1.o", "./flows_v1.o, maps: { slots: { max_entries: 3 } }"),
        &["map `flows/slots` cannot be migrated: it has 8 entries, and is to have room for 3"],
    );
    refuses(
        &second().replace("bytes: octets", "bites: octets"),
        &["`bites`: is to become `octets`, but not both layouts have such a field"],
    );
    // Larger is only larger.
    let large = FIRST.replace("./flows_v1.o", "./flows_v1.o, maps: { flows: { max_entries: 9000 } }");
    shell.write("chains.yaml", &large);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    assert_eq!(counts(&shell, "flows", "bytes")[&7], (300, 300 * 64));
    let maps = shell.json(&["map", "list"])["maps"].take();
    let flows = maps.as_array().unwrap().iter().find(|map| map["map"] == "flows/flows").unwrap();
    assert_eq!(flows["maxEntries"], 9000);
}

#[test]
fn interfaces_that_share_a_module_go_together_or_not_at_all() {
    let (node, far) = pair();
    veth((&node, "eth2"), (&far, "far2"));
    let both = FIRST.replace("[eth1]", "[eth1, eth2]");
    let shell = Shell::new(&node, &both);
    shell.xdpchain(&["attach", "eth2"]).expect(0);
    counted(&shell, &far, 4);
    let before = snapshot(&shell);
    shell.write("chains.yaml", &second().replace("[eth1]", "[eth1, eth2]"));
    let run = shell.xdpchain(&["attach", "eth1"]).expect(8);
    for text in ["the chain on `eth2` uses it as it is", "help: ", "xdpchain apply"] {
        assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
    }
    assert_eq!(snapshot(&shell), before);
    shell.xdpchain(&["apply"]).expect(0);
    assert_eq!(counts(&shell, "flows", "octets")[&7], (4, 4 * 64));
    let maps = shell.json(&["map", "list"])["maps"].take();
    for map in maps.as_array().unwrap().iter().filter(|map| map["map"] == "flows/flows") {
        assert_eq!(map["interfaces"], Value::from(vec!["eth1", "eth2"]));
    }
    for ifname in ["eth1", "eth2"] {
        assert_eq!(status(&shell, ifname)["problems"], Value::Array(Vec::new()));
        shell.xdpchain(&["detach", ifname]).expect(0);
    }
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_command_that_is_killed_leaves_the_old_map_or_the_new_one_and_every_packet_counted() {
    let (node, far) = pair();
    let shell = Shell::new(&node, FIRST);
    let start = Instant::now();
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let took = start.elapsed();
    let port = Port::open(&far, "far1");
    let stop = AtomicBool::new(false);
    let (mut was_old, mut was_new) = (0, 0);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&port, &stop));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut builds = [(second(), "octets"), (FIRST.to_owned(), "bytes")].into_iter().cycle();
            let (mut yaml, mut octets) = builds.next().unwrap();
            let mut before = "bytes";
            // The command is killed at later and later moments, until it is done before.
            let mut pause = took / 20;
            for _ in 0..60 {
                shell.write("chains.yaml", &yaml);
                let mut command = Command::new(cli::binary());
                command.args(["attach", "eth1"]).current_dir(shell.path());
                command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
                let mut child = node.run(|| command.spawn()).expect("the binary runs");
                std::thread::sleep(pause);
                pause = if child.try_wait().unwrap().is_some() {
                    took / 20
                } else {
                    child.kill().expect("it runs");
                    pause + took / 10
                };
                child.wait().expect("it was started");
                shell.xdpchain(&["recover"]).expect(0);
                assert_eq!(status(&shell, "eth1")["problems"], Value::Array(Vec::new()));
                let left = shell.left();
                assert!(left.iter().all(|path| !path.to_string_lossy().contains("next")), "{left:?}");
                let value = entries(&shell, "flows").into_iter().next().map(|(_, value)| value);
                let now = match value {
                    Some(value) if value.get("octets").is_some() => "octets",
                    Some(_) => "bytes",
                    None => before,
                };
                if now == octets {
                    was_new += 1;
                    before = now;
                    (yaml, octets) = builds.next().unwrap();
                } else {
                    assert_eq!(now, before);
                    was_old += 1;
                }
            }
            before
        }));
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("the sender ends");
        let octets = checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        std::thread::sleep(Duration::from_millis(100));
        eprintln!("killed: old {was_old}, new {was_new}, the chain counted {:?}", ended(&shell));
        assert!(was_old > 0 && was_new > 0);
        for map in COUNTERS {
            assert_eq!(sum(&counts(&shell, map, octets)), ended(&shell), "`{map}`");
        }
    });
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_command_that_is_killed_between_two_interfaces_loses_no_count_of_either() {
    let (node, far) = pair();
    veth((&node, "eth2"), (&far, "far2"));
    let both = |yaml: String| yaml.replace("[eth1]", "[eth1, eth2]");
    let shell = Shell::new(&node, &both(FIRST.to_owned()));
    shell.xdpchain(&["apply"]).expect(0);
    let ports = [Port::open(&far, "far1"), Port::open(&far, "far2")];
    let stop = AtomicBool::new(false);
    let (mut apart, mut done) = (0, 0);
    std::thread::scope(|scope| {
        let senders: Vec<_> = ports.iter().map(|port| scope.spawn(|| send_until(port, &stop))).collect();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..16 {
                let yaml = if round % 2 == 0 { second() } else { FIRST.to_owned() };
                shell.write("chains.yaml", &both(yaml));
                // Killed once the first of the two runs another program, or a little before or after.
                let before = node.xdp_program("eth1");
                let mut command = Command::new(cli::binary());
                command.arg("apply").current_dir(shell.path());
                command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
                let mut child = node.run(|| command.spawn()).expect("the binary runs");
                while node.xdp_program("eth1") == before && child.try_wait().unwrap().is_none() {}
                std::thread::sleep(Duration::from_micros(200 * (round / 4)));
                child.kill().expect("it runs, or was not waited for");
                done += u32::from(child.wait().expect("it was started").success());
                shell.xdpchain(&["recover"]).expect(0);
                let builds = ["eth1", "eth2"].map(|ifname| {
                    let status = status(&shell, ifname);
                    assert_eq!(status["problems"], Value::Array(Vec::new()));
                    status["slots"][0]["digest"].as_str().expect("a digest").to_owned()
                });
                apart += u32::from(builds[0] != builds[1]);
                let run = shell.xdpchain(&["apply"]);
                assert_eq!(run.status, 0, "round {round}, {builds:?}: {run:?}");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| assert!(sender.join().expect("the sender ends") > 0));
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    std::thread::sleep(Duration::from_millis(100));
    eprintln!("{apart} of 16 left the interfaces apart, {done} were done");
    let ended = ["eth1", "eth2"].map(|ifname| {
        let status = status(&shell, ifname);
        let drops = &status["slots"][0]["ended"]["drop"];
        (drops["packets"].as_u64().expect("a number"), drops["bytes"].as_u64().expect("a number"))
    });
    let wanted = (ended[0].0 + ended[1].0, ended[0].1 + ended[1].1);
    for map in COUNTERS {
        assert_eq!(sum(&counts(&shell, map, "bytes")), wanted, "`{map}`");
    }
    for ifname in ["eth1", "eth2"] {
        shell.xdpchain(&["detach", ifname]).expect(0);
    }
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

/// Goes to the second build, back, and to the second again under traffic, by an engine.
fn carries_over_by(engine: &str) {
    let (node, far) = pair();
    let with_engine = |yaml: String| {
        let yaml = yaml.replace("slots: [flows]", &format!("engine: {engine}, slots: [passing, flows]"));
        yaml.replace("modules:", "modules:\n  passing: ./passing.o")
    };
    let shell = Shell::new(&node, &with_engine(FIRST.to_owned()));
    let run = shell.xdpchain(&["attach", "eth1"]);
    if run.status == 5 && run.stderr.contains("does not run libxdp's dispatcher") {
        return kernel::lacks(
            "migration, libxdp",
            "extension programs, which libxdp's dispatcher is made of",
        );
    }
    run.expect(0);
    let port = Port::open(&far, "far1");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&port, &stop));
        std::thread::sleep(Duration::from_millis(100));
        let runs: Vec<_> = [second(), FIRST.to_owned(), second()]
            .into_iter()
            .map(|yaml| {
                shell.write("chains.yaml", &with_engine(yaml));
                shell.xdpchain(&["attach", "eth1"])
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("the sender ends");
        runs.into_iter().for_each(|run| drop(run.expect(0)));
    });
    std::thread::sleep(Duration::from_millis(100));
    let passed = shell.json(&["map", "get", "passing/passed", "0"])["value"].as_u64().expect("a number");
    for map in COUNTERS {
        let counted = sum(&counts(&shell, map, "octets"));
        assert_eq!(counted, (passed, passed * 64), "`{map}`, engine {engine}");
    }
    assert_eq!(status(&shell, "eth1")["problems"], Value::Array(Vec::new()));
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn programs_that_call_each_other_get_the_new_map_all_at_once() {
    carries_over_by("tail");
}

#[test]
fn programs_of_libxdps_dispatcher_get_the_new_map() {
    carries_over_by("libxdp");
}

#[test]
fn a_million_entries_are_carried_over_under_traffic() {
    const ENTRIES: u64 = 1_000_000;
    let (node, far) = pair();
    let large = |yaml: String| {
        let sizes = "maps: { flows: { max_entries: 1200000 } }";
        yaml.replace(".o", &format!(".o, {sizes}"))
    };
    let shell = Shell::new(&node, &large(FIRST.to_owned()));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let mut rows = "key,packets,bytes,spare,kind\n".to_owned();
    for key in 0..ENTRIES {
        rows.push_str(&format!("{key},{},{},1,3\n", key % 1000, key * 3));
    }
    shell.write("rows.csv", &rows);
    shell.xdpchain(&["map", "import", "flows/flows", "rows.csv"]).expect(0);
    let port = Port::open(&far, "far1");
    let stop = AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&port, &stop));
        std::thread::sleep(Duration::from_millis(100));
        shell.write("chains.yaml", &large(second()));
        let start = Instant::now();
        let run = shell.xdpchain(&["attach", "eth1", "-o", "json"]);
        eprintln!("the whole command took {:?}", start.elapsed());
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("the sender ends");
        run.expect(0)
    });
    eprintln!("{}", run.stderr);
    let change: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let migrated = change["migrated"].as_array().expect("a list");
    let flows = migrated.iter().find(|map| map["map"] == "flows/flows").expect("it was migrated");
    assert_eq!(flows["entries"].as_u64(), Some(ENTRIES));
    std::thread::sleep(Duration::from_millis(100));
    // What the frames counted is on top of what was there.
    let counted = counts(&shell, "slots", "octets");
    assert_eq!(sum(&counted), ended(&shell));
    for key in [0, 1, 7, u64::from(KEYS) - 1, 4321, ENTRIES - 1] {
        let value = shell.json(&["map", "get", "flows/flows", &key.to_string()])["value"].take();
        let more = counted.get(&key).copied().unwrap_or_default();
        let count = (value["packets"].as_u64().unwrap(), value["octets"].as_u64().unwrap());
        assert_eq!(count, (key % 1000 + more.0, key * 3 + more.1), "key {key}");
        assert_eq!(value["kind"], 3);
    }
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}
