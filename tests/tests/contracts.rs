//! Contracts between modules: an import fits or is refused before anything is loaded, and nobody reaches what is private.

use xdpchain_tests::{Netns, Shell, veth};

/// The module that owns the maps and the one that imports one of them; `owner` and `import` go into their lines.
fn chains(owner: &str, import: &str) -> String {
    format!(
        "\
version: 1
modules:
  flows: {{ object: ./flows_v1.o{owner} }}
  reader: {{ object: ./flows_reader.o, imports: {{ {import} }} }}
chains:
  edge:
    interfaces: [eth1]
    slots: [reader, flows]
"
    )
}

/// A namespace with an interface `eth1`.
fn namespace(label: &str) -> Netns {
    let ns = Netns::new(label);
    veth((&ns, "eth1"), (&ns, "peer1"));
    ns
}

/// `check` and `attach` refuse the file alike, with all of `texts`, and nothing is there afterwards.
#[track_caller]
fn refused(ns: &Netns, yaml: &str, texts: &[&str]) {
    let shell = Shell::new(ns, yaml);
    for command in [&["check"][..], &["attach", "eth1"]] {
        let run = shell.xdpchain(command).expect(3);
        for text in texts.iter().chain(&["help: "]) {
            assert!(run.stderr.contains(text), "no `{text}` in what {command:?} says:\n{}", run.stderr);
        }
    }
    assert_eq!((shell.left(), ns.xdp_program("eth1")), (Vec::new(), None));
}

#[test]
fn an_import_that_fits_is_one_map_whatever_its_types_are_called() {
    let ns = namespace("fits");
    let shell = Shell::new(&ns, &chains(", exports: [flows, routes]", "seen: flows/flows"));
    shell.xdpchain(&["check"]).expect(0);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let maps = shell.json(&["map", "list"]);
    let names: Vec<&str> =
        maps["maps"].as_array().unwrap().iter().filter_map(|m| m["map"].as_str()).collect();
    assert!(names.contains(&"flows/flows") && !names.contains(&"reader/seen"), "{names:?}");
}

#[test]
fn a_layout_that_differs_is_shown_beside_the_other_one() {
    let ns = namespace("layout");
    refused(
        &ns,
        &chains("", "seen: flows/flows").replace("flows_v1", "flows_v2"),
        &[
            "map `reader/seen` cannot be `flows/flows`: its value size is 24, but 16 is wanted",
            "    flows/flows                         reader/seen",
            "  !      8     8      __u64 packets;  !      0     4      unsigned int packets;",
            "  !     16     8      __u64 octets;   !\n",
            "  !                                   !      8     4      unsigned int spare;",
            "    hash                                hash",
            "help: build both modules against the same definition of the map",
        ],
    );
}

#[test]
fn maps_of_another_type_or_with_other_flags_are_no_import() {
    let ns = namespace("kinds");
    for (map, difference, shown) in [
        ("recent", "its type is 9, but 1 is wanted", "! lru_hash"),
        ("slots", "its type is 2, but 1 is wanted", "! array"),
        ("sparse", "its flags is 1, but 0 is wanted", "! flags 0x1"),
        ("routes", "its type is 11, but 1 is wanted", "! key of 8 octets"),
    ] {
        let difference = format!("map `reader/seen` cannot be `flows/{map}`: {difference}");
        refused(&ns, &chains("", &format!("seen: flows/{map}")), &[&difference, shown]);
    }
}

#[test]
fn what_a_module_does_not_export_is_not_imported() {
    let ns = namespace("exports");
    refused(
        &ns,
        &chains(", exports: [routes, recent]", "seen: flows/flows"),
        &[
            "chains.yaml:4:56: module `flows` does not export map `flows`; it exports `routes` and `recent`",
            "^^^^^^^^^^^",
            "add `flows` to `exports:` of module `flows`",
        ],
    );
    refused(
        &ns,
        &chains(", exports: [flws]", "seen: flows/flws"),
        &["module `flows` has no map `flws`; it has: `flows`"],
    );
    // Without the file, what runs keeps to what it was declared with.
    let shell = Shell::new(&ns, &chains(", exports: [routes]", "").replace(", imports: {  }", ""));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.write("more.yaml", &chains("", "seen: flows/flows").replace("  reader:", "  other:"));
    let more = shell.path().join("more.yaml").display().to_string().replace("[reader", "[other");
    shell.write("more.yaml", &std::fs::read_to_string(&more).unwrap().replace("[reader", "[other"));
    let run = shell.xdpchain(&["-f", &more, "add", "eth1", "./flows_reader.o", "--name", "other"]).expect(2);
    assert!(run.stderr.contains("module `flows` does not export it; it exports `routes`"), "{}", run.stderr);
}

#[test]
fn a_programs_inside_is_nobody_elses() {
    let ns = namespace("inside");
    for (import, what) in [
        ("seen: flows/.rodata", "`flows/.rodata` is the constants and variables of one build of it"),
        (".bss: flows/flows", "`reader/.bss` is the constants and variables of one build of it"),
    ] {
        refused(&ns, &chains("", import), &["cannot be imported", what, "remove the import"]);
    }
    let yaml = "\
version: 1
modules:
  acl: builtin:acl
  stats: { object: builtin:stats, imports: { MAP: acl/MAP } }
chains:
  edge: { interfaces: [eth1], slots: [acl, stats] }
";
    for (map, what) in [
        ("xdpchain_ctx", "the packet context, which is the chain's"),
        ("xdpchain_reason", "the counters of its own reasons"),
    ] {
        let yaml = yaml.replace("MAP", map);
        let shell = Shell::new(&ns, &yaml);
        let run = shell.xdpchain(&["check"]).expect(3);
        // Not each of the built-in modules has each of them.
        let has = run.stderr.contains(what) || run.stderr.contains(&format!("has no map `{map}`"));
        assert!(has, "{}", run.stderr);
    }
}

/// What `map list` says of one map; none when it is not there.
fn listed(shell: &Shell<'_>, name: &str) -> Option<serde_json::Value> {
    let maps = shell.json(&["map", "list"])["maps"].take();
    maps.as_array().expect("a list").iter().find(|map| map["map"] == name).cloned()
}

#[test]
fn a_map_lives_as_long_as_a_chain_uses_it_and_no_longer() {
    let ns = namespace("counted");
    veth((&ns, "eth2"), (&ns, "peer2"));
    let yaml = chains("", "seen: flows/flows").replace("[eth1]", "[eth1, eth2]");
    let shell = Shell::new(&ns, &yaml);
    for ifname in ["eth1", "eth2"] {
        shell.xdpchain(&["attach", ifname]).expect(0);
    }
    shell
        .xdpchain(&["map", "set", "flows/flows", "5", r#"{"packets": 9, "bytes": 1, "spare": 0, "kind": 0}"#])
        .expect(0);
    let user = |interface: &str, generation: u64, modules: &[&str]| serde_json::json!({"interface": interface, "generation": generation, "modules": modules});
    let map = listed(&shell, "flows/flows").expect("in use");
    assert_eq!(
        map["usedBy"],
        serde_json::json!([user("eth1", 1, &["reader", "flows"]), user("eth2", 1, &["reader", "flows"])])
    );
    // The module that owns it leaves one chain, and the one that imports it keeps it there.
    shell.xdpchain(&["remove", "eth1", "flows"]).expect(0);
    let map = listed(&shell, "flows/flows").expect("in use");
    assert_eq!(
        map["usedBy"],
        serde_json::json!([user("eth1", 2, &["reader"]), user("eth2", 1, &["reader", "flows"])])
    );
    assert_eq!(map["keptBy"], serde_json::json!([{"interface": "eth1", "generations": [1]}]));
    let wide = shell.xdpchain(&["map", "list", "-o", "wide"]).expect(0).stdout;
    assert!(wide.contains("eth1#2: reader; eth2#1: reader, flows"), "{wide}");
    let status = shell.json(&["status", "eth1"])["interfaces"][0].take();
    let of_status = status["maps"].as_array().unwrap().iter().find(|map| map["map"] == "flows/flows");
    assert_eq!(of_status.unwrap()["usedBy"], serde_json::json!(["eth1", "eth2"]));
    // What only the module itself uses is the other chain's alone, until that goes too.
    assert_eq!(listed(&shell, "flows/recent").expect("in use")["interfaces"], serde_json::json!(["eth2"]));
    shell.xdpchain(&["detach", "eth2"]).expect(0);
    assert_eq!(listed(&shell, "flows/recent"), None);
    assert_eq!(shell.json(&["map", "get", "flows/flows", "5"])["value"]["packets"], 9);
    // A generation that is kept does not keep a map: going back to it makes a new one, and leaks none.
    shell.xdpchain(&["add", "eth1", "./passing.o"]).expect(0);
    shell.xdpchain(&["remove", "eth1", "reader"]).expect(0);
    assert_eq!(listed(&shell, "flows/flows"), None);
    let pins =
        |shell: &Shell<'_>| shell.left().iter().filter(|path| path.ends_with("modules/flows/flows")).count();
    assert_eq!(pins(&shell), 0);
    shell.xdpchain(&["rollback", "eth1", "1"]).expect(0);
    assert_eq!(pins(&shell), 1);
    let rows = shell.xdpchain(&["map", "export", "flows/flows"]).expect(0).stdout;
    assert_eq!(rows, "", "the map is a new one");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
}
