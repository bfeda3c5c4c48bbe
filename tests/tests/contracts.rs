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
