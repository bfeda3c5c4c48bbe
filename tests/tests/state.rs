//! What maps hold, saved to a file, restored from it, compared with it, with bpftool as the referee of every octet.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use xdpchain_tests::far_end::Account;
use xdpchain_tests::net::sh;
use xdpchain_tests::{Netns, Port, Shell, World, cli, plan, rows, veth};

/// A module that counts in maps of every kind that is saved, in its first layout.
const FIRST: &str = "\
version: 1
modules:
  flows: { object: ./flows_v1.o }
chains:
  edge: { interfaces: [eth1], slots: [flows] }
";
const KINDS: [&str; 7] = ["flows", "lanes", "recent", "routes", "slots", "sparse", "totals"];
const SESSIONS: u32 = 30;

fn pair() -> (Netns, Netns) {
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    (node, far)
}

/// The octets of each key and value of a map, as bpftool has them.
type Dump = BTreeMap<String, String>;

/// What bpftool says of a map: the octets, and each entry as it prints it by its types.
fn bpftool(shell: &Shell<'_>, map: &str) -> (Dump, Vec<Value>) {
    let list = shell.json(&["map", "list"])["maps"].take();
    let found = list.as_array().expect("a list").iter().find(|found| found["map"] == map);
    let id = found.unwrap_or_else(|| panic!("no map {map} in {list}"))["id"].to_string();
    let text = sh("bpftool", &["-j", "map", "dump", "id", &id]);
    let entries: Value = serde_json::from_str(&text).expect("bpftool prints JSON");
    let mut dump = Dump::new();
    let mut formatted = Vec::new();
    for mut entry in entries.as_array().expect("a list").iter().cloned() {
        let value = if entry["values"].is_null() { entry["value"].take() } else { entry["values"].take() };
        dump.insert(entry["key"].to_string(), value.to_string());
        formatted.push(entry["formatted"].take());
    }
    (dump, formatted)
}

fn dumps(shell: &Shell<'_>) -> BTreeMap<&'static str, Dump> {
    KINDS.iter().map(|map| (*map, bpftool(shell, &format!("flows/{map}")).0)).collect()
}

/// Puts something of its own into every map, `add` on top of each number.
fn fill(shell: &Shell<'_>, count: u32, add: u32) {
    for map in KINDS {
        let mut table = "key,packets,bytes,spare,kind\n".to_owned();
        if map == "routes" {
            table = "prefixlen,address,packets,bytes,spare,kind\n".to_owned();
        }
        for number in 0..count {
            let key = match map {
                "routes" => format!("32,0x0a00{number:04x}"),
                _ => number.to_string(),
            };
            table.push_str(&format!("{key},{},{},{number},3\n", number + add, u64::from(number) * 3 + 1));
        }
        shell.write("rows.csv", &table);
        shell.xdpchain(&["map", "import", &format!("flows/{map}"), "rows.csv"]).expect(0);
    }
}

fn path(shell: &Shell<'_>, name: &str) -> String {
    shell.path().join(name).to_str().expect("UTF-8").to_owned()
}

/// The data path on both interfaces of a world's node, with nothing in its maps yet.
fn attached<'a>(world: &'a World, shell: Shell<'a>) -> Shell<'a> {
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["attach", interface]).expect(0);
    }
    assert_eq!(shell.netns().name(), world.links.node.name());
    shell
}

#[test]
fn a_chain_moves_to_another_host_and_its_sessions_forward_at_the_first_packet() {
    const PACKETS: u32 = 3_000;
    let chains = plan::chains_yaml(SESSIONS);
    let first = World::new(PACKETS);
    let shell = attached(&first, Shell::new(&first.links.node, &chains));
    for (map, table) in rows::data_path(SESSIONS) {
        shell.write("rows.csv", &table.csv());
        shell.xdpchain(&["map", "import", map, "rows.csv"]).expect(0);
    }
    let rule = r#"{"customer": 1, "dst_port": [23, 23], "src": "::", "src_len": 0, "dst": "::", "dst_len": 0,
        "src_port": [0, 0], "protocol": 0, "action": 1, "flags": 19, "direction": 0}"#;
    shell.xdpchain(&["map", "set", "acl/rules", "0", rule]).expect(0);
    let mut sender = first.sender(SESSIONS);
    sender.send(&first, 500);
    sender.settle(&first);
    assert_eq!(first.ran_end.account(500), Account::default(), "the first host forwards");
    let file = path(&shell, "chain.state");
    let run = shell.xdpchain(&["state", "save", &file, "--twice", "-o", "json"]).expect(0);
    let saved: Value = serde_json::from_str(&run.stdout).expect("JSON");
    for map in saved["maps"].as_array().expect("a list") {
        assert_eq!(map["instant"], true, "nothing is written any more: {map}");
    }
    let left: Vec<_> =
        saved["leftOut"].as_array().expect("a list").iter().map(|left| left["map"].to_string()).collect();
    for map in ["acl/rules_compiled", "acl/scratch", "chain/xdpchain_exits"] {
        assert!(left.contains(&format!("\"{map}\"")), "{map} is in {left:?}");
    }

    let second = World::new(PACKETS);
    let other = attached(&second, Shell::new(&second.links.node, &chains));
    assert!(
        other.xdpchain(&["state", "diff", &file]).expect(1).stdout.contains("gtp-decap/sessions: 0 the same")
    );
    other.xdpchain(&["state", "restore", &file]).expect(0);
    let diff = other.xdpchain(&["state", "diff", &file]).expect(0);
    assert!(diff.stdout.starts_with("the same: "), "{}", diff.stdout);
    for map in [
        "gtp-decap/endpoints",
        "gtp-decap/sessions",
        "gtp-encap/sessions",
        "gre-steer/customers",
        "acl/rules",
    ] {
        let (octets, printed) = bpftool(&other, map);
        assert!(octets == bpftool(&shell, map).0 && !octets.is_empty(), "{map}");
        if map == "gtp-decap/sessions" {
            addresses_are_printed_as_such(&other, map, &printed);
        }
    }
    let mut sender = second.sender(SESSIONS);
    sender.send(&second, PACKETS / 2);
    sender.settle(&second);
    for account in [second.ran_end.account(PACKETS / 2), second.cloud_end.account(PACKETS / 2)] {
        assert_eq!(account, Account::default(), "every packet arrived, from the first on");
    }
    // The access list came with it, and is in force.
    let shown = other.xdpchain(&["map", "show", "acl/rules"]).expect(0);
    assert!(!shown.stderr.contains("somebody else"), "{}", shown.stderr);
    // What was counted there is counted on here.
    let packets = |shell: &Shell<'_>| {
        let rows = shell.xdpchain(&["map", "export", "stats/customers"]).expect(0).stdout;
        let count = |row: &str| {
            let row: Value = serde_json::from_str(row).expect("JSON lines");
            row["value"]["packets"].as_u64().expect("a number")
        };
        rows.lines().map(count).sum::<u64>()
    };
    assert_eq!(packets(&other), packets(&shell) + u64::from(PACKETS / 2) * 2);
    for shell in [&shell, &other] {
        for interface in ["n3", "n6"] {
            shell.xdpchain(&["detach", interface]).expect(0);
        }
        assert_eq!(shell.left(), Vec::<PathBuf>::new());
    }
}

/// What bpftool prints as lists of octets, for types of Rust as of C, is printed here as the address or number that it is.
fn addresses_are_printed_as_such(shell: &Shell<'_>, map: &str, theirs: &[Value]) {
    let octets = |value: &Value| -> Vec<u8> {
        let list = value["octets"].as_array().unwrap_or_else(|| panic!("no octets in {value}"));
        list.iter().map(|octet| octet.as_u64().expect("an octet") as u8).collect()
    };
    let v4 = |value: &Value| Ipv4Addr::from(<[u8; 4]>::try_from(octets(value)).expect("four")).to_string();
    let rows = shell.xdpchain(&["map", "export", map]).expect(0).stdout;
    let ours: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).expect("JSON lines")).collect();
    assert_eq!(ours.len(), theirs.len());
    for theirs in theirs {
        let teid = u32::from_be_bytes(octets(&theirs["key"]["teid"]).try_into().expect("four"));
        let ours = ours.iter().find(|ours| ours["key"]["teid"] == teid).expect("the same entries");
        let (key, value) = (&theirs["key"], &theirs["value"]);
        assert_eq!(ours["key"]["local"], v4(&key["local"]), "{ours}");
        assert_eq!(ours["value"]["peer"], v4(&value["peer"]), "{ours}");
        assert_eq!(ours["value"]["inner4"], v4(&value["inner4"]), "{ours}");
        let inner6 = Ipv6Addr::from(<[u8; 16]>::try_from(octets(&value["inner6"])).expect("sixteen"));
        assert_eq!(ours["value"]["inner6"], inner6.to_string(), "{ours}");
        for number in ["customer", "session", "inner6_len", "flags"] {
            assert_eq!(ours["value"][number], value[number], "{ours}");
        }
    }
}

#[test]
fn maps_of_every_kind_are_what_they_were_octet_for_octet() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    fill(&shell, 100, 7);
    let before = dumps(&shell);
    assert!(before.values().all(|dump| dump.len() >= 100));
    shell.xdpchain(&["state", "save", "a.state"]).expect(0);
    shell.xdpchain(&["state", "diff", "a.state"]).expect(0);

    // Some entries change, some are new, and some go.
    fill(&shell, 120, 8);
    for map in KINDS.iter().filter(|map| !["lanes", "slots"].contains(map)) {
        let key = if *map == "routes" { "prefixlen=32,address=0x0a000005" } else { "5" };
        shell.xdpchain(&["map", "del", &format!("flows/{map}"), key]).expect(0);
    }
    let between = dumps(&shell);
    let diff = shell.json_with_status(&["state", "diff", "a.state"], 1);
    for map in diff["maps"].as_array().expect("a list") {
        let array = ["flows/lanes", "flows/slots"].iter().any(|array| map["map"] == **array);
        let counts = ["changed", "onlyFirst", "onlySecond"].map(|what| map[what].as_u64().expect("a number"));
        assert_eq!(counts, if array { [120, 0, 0] } else { [99, 1, 20] }, "{map}");
    }
    shell.xdpchain(&["state", "save", "b.state"]).expect(0);
    let files = shell.json_with_status(&["state", "diff", "a.state", "b.state"], 1);
    assert_eq!(files["maps"], diff["maps"]);

    // A rehearsal changes nothing.
    shell.xdpchain(&["state", "restore", "a.state", "--dry-run"]).expect(0);
    assert_eq!(dumps(&shell), between);
    let run =
        shell.xdpchain(&["state", "restore", "a.state", "--map", "flows/totals", "-o", "json"]).expect(0);
    let told: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let totals = &told["maps"][0];
    let counts =
        ["entries", "new", "changed", "removed"].map(|what| totals[what].as_u64().expect("a number"));
    assert_eq!(counts, [100, 1, 99, 20], "{told}");
    for (map, dump) in dumps(&shell) {
        assert_eq!(dump, if map == "totals" { &before } else { &between }[map], "{map}");
    }
    shell.xdpchain(&["state", "restore", "a.state"]).expect(0);
    assert_eq!(dumps(&shell), before);
    // What the file does not have stays when it is asked to.
    fill(&shell, 120, 8);
    shell.xdpchain(&["state", "restore", "a.state", "--merge"]).expect(0);
    for (map, dump) in dumps(&shell) {
        let kept = between[map].iter().filter(|(key, _)| !before[map].contains_key(*key));
        let wanted: Dump = before[map].iter().chain(kept).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !["lanes", "slots"].contains(&map) {
            assert_eq!(dump, wanted, "{map}");
        }
    }
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn what_is_printed_is_what_bpftool_prints_and_rows_are_taken_back_octet_for_octet() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    fill(&shell, 50, 1);
    let before = dumps(&shell);
    for map in KINDS {
        let name = format!("flows/{map}");
        fill(&shell, 50, 1);
        let exported = shell.xdpchain(&["map", "export", &name, "out.jsonl"]).expect(0);
        assert_eq!(exported.stdout, "");
        let text = fs::read_to_string(shell.path().join("out.jsonl")).expect("it was written");
        let ours: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        let (_, theirs) = bpftool(&shell, &name);
        assert_eq!(ours.len(), theirs.len());
        for theirs in theirs {
            // bpftool prints a list for octets, and padding too; and the value of each CPU.
            let ours = ours.iter().find(|ours| match map {
                "routes" => {
                    let octets = theirs["key"]["address"].as_array().expect("octets").iter();
                    let text: String =
                        octets.map(|o| format!("{:02x}", o.as_u64().expect("an octet"))).collect();
                    ours["key"]["address"] == format!("0x{text}")
                }
                _ => ours["key"] == theirs["key"],
            });
            let ours = ours.unwrap_or_else(|| panic!("{map}: {theirs} is missing"));
            for field in ["packets", "bytes", "spare", "kind"] {
                let number = match theirs["values"].as_array() {
                    None => theirs["value"][field].as_u64().expect("a number"),
                    Some(cpus) => cpus.iter().map(|c| c["value"][field].as_u64().expect("a number")).sum(),
                };
                assert_eq!(ours["value"][field].as_u64(), Some(number), "{map}, {field}: {ours} {theirs}");
            }
        }
        for file in ["out.jsonl", "out.csv"] {
            shell.xdpchain(&["map", "export", &name, file]).expect(0);
            fill(&shell, 50, 77);
            shell.xdpchain(&["map", "import", &name, file]).expect(0);
            let after = bpftool(&shell, &name).0;
            let other = after.iter().find(|(key, value)| before[map].get(*key) != Some(*value));
            assert_eq!((after.len(), other), (before[map].len(), None), "{map}, {file}");
        }
    }
}

#[test]
fn the_values_of_each_cpu_are_set_as_they_are_printed() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    fill(&shell, 2, 1);
    let entry = shell.json(&["map", "get", "flows/totals", "1"]);
    let mut cpus = entry["cpus"].clone();
    for (number, value) in cpus.as_array_mut().expect("a list").iter_mut().enumerate() {
        value["packets"] = Value::from(10 + number);
    }
    shell.xdpchain(&["map", "set", "flows/totals", "1", &cpus.to_string()]).expect(0);
    assert_eq!(shell.json(&["map", "get", "flows/totals", "1"])["cpus"], cpus);
    shell.xdpchain(&["state", "save", "a.state"]).expect(0);
    shell.xdpchain(&["map", "del", "flows/totals", "1"]).expect(0);
    shell.xdpchain(&["state", "restore", "a.state"]).expect(0);
    assert_eq!(shell.json(&["map", "get", "flows/totals", "1"])["cpus"], cpus);
    let few = r#"[{"packets": 1, "bytes": 2, "spare": 3, "kind": 4}]"#;
    if cpus.as_array().map(Vec::len) != Some(1) {
        shell.xdpchain(&["map", "set", "flows/totals", "1", few]).expect(2);
    }
}

/// The second build, with what tells how to get there.
fn second() -> String {
    let how = "{ renames: { bytes: octets } }";
    let migrate: Vec<String> = KINDS.iter().map(|map| format!("{map}: {how}")).collect();
    FIRST.replace("./flows_v1.o", &format!("./flows_v2.o, migrate: {{ {} }}", migrate.join(", ")))
}

#[test]
fn a_file_goes_into_a_newer_layout_by_the_names_of_fields_and_no_field_is_lost_unasked() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    fill(&shell, 300, 0);
    let file = path(&shell, "v1.state");
    shell.xdpchain(&["state", "save", &file]).expect(0);

    let (newer, _far) = pair();
    let other = Shell::new(&newer, &second());
    other.xdpchain(&["attach", "eth1"]).expect(0);
    let before = dumps(&other);
    let refuses = |shell: &Shell<'_>, arguments: &[&str], says: &[&str]| {
        let run = shell.xdpchain(&[&["state", "restore", &file], arguments].concat()).expect(8);
        for text in says.iter().chain(&["\nhelp: nothing was changed"]) {
            assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
        }
    };
    refuses(&other, &[], &["would be lost: flows/flows/spare, flows/lanes/spare"]);
    refuses(&other, &["--allow-loss", "flows/flows/spare"], &["would be lost: flows/lanes/spare"]);
    assert_eq!(dumps(&other), before);
    let run = other.xdpchain(&["state", "restore", &file, "--allow-loss", "spare"]).expect(0);
    for text in [
        "flows/flows: `octets` was `bytes`",
        "`packets` becomes u64, from u32",
        "`age` is new",
        "`spare` is gone",
    ] {
        assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
    }
    for map in KINDS {
        let key = if map == "routes" { "prefixlen=32,address=0x0a00012b" } else { "299" };
        let value = other.json(&["map", "get", &format!("flows/{map}"), key])["value"].take();
        let wanted = serde_json::json!({"kind": 3, "version": 0, "age": 0, "packets": 299, "octets": 898});
        assert_eq!(value, wanted, "{map}");
    }
    // Counters of 8 bits do not hold 299.
    other.xdpchain(&["detach", "eth1"]).expect(0);
    other.write("chains.yaml", &FIRST.replace("v1", "narrow"));
    other.xdpchain(&["attach", "eth1"]).expect(0);
    let narrow = dumps(&other);
    refuses(&other, &["--allow-loss", "spare"], &["the entry with key ", "does not fit into u8"]);
    assert_eq!(dumps(&other), narrow);
}

#[test]
fn a_file_that_is_cut_short_or_altered_changes_nothing() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    fill(&shell, 100, 1);
    shell.xdpchain(&["state", "save", "good.state"]).expect(0);
    fill(&shell, 110, 2);
    let before = dumps(&shell);
    let good = fs::read(shell.path().join("good.state")).expect("it was written");
    let refused = |octets: &[u8]| {
        fs::write(shell.path().join("bad.state"), octets).expect("the folder is ours");
        for command in ["restore", "diff"] {
            let run = shell.xdpchain(&["state", command, "bad.state"]).expect(2);
            assert!(
                run.stderr.contains("`bad.state`: ") && run.stderr.contains("\nhelp: "),
                "{}",
                run.stderr
            );
        }
    };
    for part in 0..8 {
        refused(&good[..good.len() * part / 8]);
        let mut altered = good.clone();
        altered[good.len() * part / 8] ^= 0x10;
        refused(&altered);
    }
    refused(&[&good[..], b"more"].concat());
    assert_eq!(dumps(&shell), before);
    let run = shell.xdpchain(&["state", "restore", "good.state", "--map", "flows/none"]).expect(2);
    assert!(run.stderr.contains("has no map `flows/none`\nhelp: it has flows/flows, "), "{}", run.stderr);
    shell.xdpchain(&["state", "restore", "none.state"]).expect(2);
    let run = shell.xdpchain(&["state", "save", "x.state", "--map", "chain/xdpchain_exits"]).expect(2);
    assert!(run.stderr.contains("cannot be saved: it is the chain's own"), "{}", run.stderr);
    shell.xdpchain(&["state", "save", "none/x.state"]).expect(8);
    assert!(!shell.path().join("x.state").exists());
}

#[test]
fn when_a_later_map_fails_those_before_it_get_back_what_they_had() {
    let (node, _far) = pair();
    // `sparse` comes after most of the others, and has room for 300.
    let small = FIRST.replace("./flows_v1.o", "./flows_v1.o, maps: { sparse: { max_entries: 300 } }");
    let shell = Shell::new(&node, &small);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    fill(&shell, 200, 1);
    shell.xdpchain(&["state", "save", "a.state"]).expect(0);
    let saved = dumps(&shell);
    // 200 others.
    let mut table = "key,packets,bytes,spare,kind\n".to_owned();
    (1000..1200).for_each(|key| table.push_str(&format!("{key},1,1,1,3\n")));
    shell.write("others.csv", &table);
    for map in ["flows", "sparse"] {
        for key in 0..200 {
            shell.xdpchain(&["map", "del", &format!("flows/{map}"), &key.to_string()]).expect(0);
        }
        shell.xdpchain(&["map", "import", &format!("flows/{map}"), "others.csv"]).expect(0);
    }
    let before = dumps(&shell);
    let run = shell.xdpchain(&["state", "restore", "a.state", "--merge"]).expect(8);
    for text in ["map `flows/sparse` is full", "note: every map has again what it had before"] {
        assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
    }
    assert_eq!(dumps(&shell), before);
    // Without keeping the others there is room, though not for both at once.
    shell.xdpchain(&["state", "restore", "a.state"]).expect(0);
    assert_eq!(dumps(&shell), saved);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_restoring_that_is_killed_is_put_back_by_the_next_command() {
    let (node, _far) = pair();
    let large = FIRST.replace("./flows_v1.o", "./flows_v1.o, maps: { flows: { max_entries: 100000 } }");
    let shell = Shell::new(&node, &large);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let import = |add: u32| {
        let mut table = "key,packets,bytes,spare,kind\n".to_owned();
        (0..100_000).for_each(|key: u32| table.push_str(&format!("{key},{},1,1,3\n", key % 1000 + add)));
        shell.write("rows.csv", &table);
        shell.xdpchain(&["map", "import", "flows/flows", "rows.csv"]).expect(0);
    };
    import(5);
    shell.xdpchain(&["state", "save", "a.state"]).expect(0);
    import(6);
    let before = dumps(&shell);
    let kept = node.manifests().join("restore.before");
    let mut interrupted = 0;
    for command in ["recover", "restore"] {
        let mut restore = Command::new(cli::binary());
        restore.args(["state", "restore", "a.state"]).current_dir(shell.path());
        restore.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = node.run(|| restore.spawn()).expect("the binary runs");
        // It is there from before the first map is written until after the last.
        while !kept.exists() && child.try_wait().expect("it was started").is_none() {
            std::hint::spin_loop();
        }
        let _ = child.kill();
        child.wait().expect("it was started");
        interrupted += u32::from(kept.exists());
        if command == "recover" {
            shell.xdpchain(&["recover"]).expect(0);
            assert!(!kept.exists());
            assert_eq!(dumps(&shell), before);
        } else {
            shell.xdpchain(&["state", "restore", "a.state"]).expect(0);
            shell.xdpchain(&["state", "diff", "a.state"]).expect(0);
        }
    }
    assert!(interrupted > 0, "no restoring was interrupted");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn what_is_written_while_maps_are_read_is_told() {
    let (node, far) = pair();
    let shell = Shell::new(&node, FIRST);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let port = Port::open(&far, "far1");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5, 1, 0, 0, 0]);
    frame.resize(64, 0);
    let changing = |told: &Value| -> Vec<String> {
        let maps = told["maps"].as_array().expect("a list").iter();
        maps.filter(|map| map["instant"] == false).map(|map| map["map"].to_string()).collect()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                port.send(&frame);
            }
        });
        // Frames come as fast as this machine gives the sender time: some saving meets one.
        let found = (0..200).any(|_| {
            let told = shell.json(&["state", "save", "a.state", "--twice"]);
            changing(&told).contains(&"\"flows/flows\"".to_owned())
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(found, "no saving met a frame");
    });
    let once = shell.json(&["state", "save", "a.state"]);
    assert_eq!(changing(&once).len(), once["maps"].as_array().expect("a list").len());
    assert_eq!(fs::metadata(shell.path().join("a.state")).map(|m| mode(&m)).ok(), Some(0o600));
    assert!(!Path::new(&path(&shell, "a.state.unfinished")).exists());
}

/// Maps whose entries come and go.
const FILLING: [&str; 5] = ["flows", "recent", "routes", "sparse", "totals"];

#[test]
fn status_tells_how_full_maps_are_and_how_soon_they_will_be() {
    let (node, _far) = pair();
    let small = FIRST.replace("./flows_v1.o", "./flows_v1.o, maps: { flows: { max_entries: 1000 } }");
    let shell = Shell::new(&node, &small);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let level = |map: &str| -> Value {
        let mut told = shell.json(&["status", "eth1"]);
        let maps = told["interfaces"][0]["maps"].as_array_mut().expect("a list");
        let name = format!("flows/{map}");
        maps.iter_mut().find(|found| found["map"] == *name).expect("the chain has it").take()
    };
    for count in [0, 500] {
        fill(&shell, count, 0);
        for map in FILLING {
            assert_eq!(level(map)["entries"], count, "{map}");
        }
    }
    assert_eq!(level("flows")["fill"], 0.5);
    for array in ["slots", "lanes"] {
        assert!(level(array)["entries"].is_null() && level(array)["fill"].is_null());
    }
    fill(&shell, 600, 0);
    // Two looks have to be a second apart before there is a rate.
    let told = std::iter::repeat_with(|| level("flows"))
        .find(|told| told["entriesPerSecond"].as_f64().is_some_and(|rate| rate > 0.0))
        .expect("it never ends");
    let (rate, left) = (told["entriesPerSecond"].as_f64(), told["fullInSeconds"].as_f64());
    let (rate, left) = rate.zip(left).expect("it grows");
    assert!((rate * left - 400.0).abs() < 1e-6, "{told}");
    let evicting = level("recent");
    assert!(evicting["fullInSeconds"].is_null(), "it makes room by itself: {evicting}");
    let wide = shell.xdpchain(&["status", "eth1", "-o", "wide"]).expect(0).stdout;
    assert!(wide.lines().any(|line| line.starts_with("flows/flows ") && line.contains("60.0 %")), "{wide}");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

fn mode(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o777
}
