//! `plan` on real interfaces: what differs is told, by text and to programs, and nothing is changed.

use serde_json::{Value, json};
use xdpchain_tests::{Netns, Shell, veth};

const CHAIN: &str = "\
version: 1
modules:
  passing: ./passing.o
  dropping: ./dropping.o
  frags: ./frags.o
  four: ./dropping.o
chains:
  edge:
    interfaces: [eth1, eth2]
    slots: [passing, frags, dropping, four]
";

const OTHER: &str = "\
version: 1
modules:
  passing: { object: ./passing.o, maps: { passed: { max_entries: 2 } } }
  dropping: ./frags.o
  four: ./dropping.o
  late: ./passing.o
chains:
  edge:
    interfaces: [eth2]
    engine: fused
    watch: { max_aborted: 0 }
    slots: [passing: { proceed_on: [drop] }, four, dropping, late: { observer: true }]
";

fn namespace() -> Netns {
    let ns = Netns::new("plan");
    veth((&ns, "eth1"), (&ns, "peer1"));
    veth((&ns, "eth2"), (&ns, "peer2"));
    ns
}

#[test]
fn a_plan_tells_what_differs_and_changes_nothing() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let first = shell.xdpchain(&["plan"]).expect(1).stdout;
    assert!(first.starts_with("eth1: attach chain `edge`\n  + slot passing: /"), "{first}");
    assert!(first.contains("eth2: attach chain `edge`\n"), "{first}");

    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["plan", "eth1"]).expect(0);
    let half = shell.xdpchain(&["plan"]).expect(1).stdout;
    assert!(
        half.starts_with("eth1: chain `edge` runs as it is wanted, generation 1\neth2: attach"),
        "{half}"
    );
    shell.xdpchain(&["attach", "eth2"]).expect(0);
    let same = shell.json(&["plan"]);
    assert_eq!((&same["kind"], &same["differs"]), (&json!("Plan"), &json!(false)));

    // From another folder, and by another path, the file means the same.
    std::fs::create_dir(shell.path().join("sub")).expect("the folder is ours");
    let sub = shell.path().join("sub");
    xdpchain_tests::cli::xdpchain(&ns, &sub, &["plan", "-f", "../chains.yaml"]).expect(0);

    shell.write("chains.yaml", OTHER);
    let before = (shell.left(), ns.xdp_program("eth1"), ns.xdp_program("eth2"));
    let text = shell.xdpchain(&["plan"]).expect(1).stdout;
    assert!(!text.contains('\x1b'), "no colours without a terminal: {text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "eth2: change chain `edge`, generation 1");
    for line in [
        "  ~ engine: auto -> fused",
        "  ~ watch: none -> { window: 10s, max_aborted: 0 }",
        "  ~ module passing: max_entries of passed as in the object -> 2",
        "  ~ slot passing: proceed_on as in the object -> [drop]",
        "  > slot dropping: moved, was behind frags",
        "  - slot frags",
        "  + slot late (observer)",
        "eth1: detach chain `edge`, generation 1",
    ] {
        assert!(lines.contains(&line), "`{line}` is not in:\n{text}");
    }
    assert!(text.contains("dropping.o (sha256 ") && text.contains(" -> /"), "{text}");

    let run = shell.xdpchain(&["plan", "eth2", "-o", "json"]).expect(1);
    let json: Value = serde_json::from_str(&run.stdout).expect("it is JSON");
    let interfaces = json["interfaces"].as_array().expect("a list");
    assert_eq!(interfaces.len(), 1);
    assert_eq!(interfaces[0]["action"], "change");
    assert_eq!(interfaces[0]["generation"], 1);
    let steps = interfaces[0]["steps"].as_array().expect("a list");
    let engine = json!({ "step": "change-chain", "field": "engine", "from": "auto", "to": "fused" });
    assert!(steps.contains(&engine), "{steps:#?}");
    let yaml = shell.xdpchain(&["plan", "eth1", "-o", "yaml"]).expect(1).stdout;
    assert!(yaml.contains("action: detach"), "{yaml}");
    assert_eq!(before, (shell.left(), ns.xdp_program("eth1"), ns.xdp_program("eth2")));
}

#[test]
fn a_plan_of_what_cannot_be_is_refused() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let error = shell.xdpchain(&["plan", "eth7"]).expect(2).stderr;
    assert!(error.contains("for interface `eth7`, and none runs there\nhelp: "), "{error}");
    assert!(error.contains("`eth1`, `eth2`"), "{error}");
    shell.write("chains.yaml", &CHAIN.replace("./frags.o", "./none.o"));
    let error = shell.xdpchain(&["plan"]).expect(2).stderr;
    assert!(error.contains("chains.yaml: object `") && error.contains("none.o`"), "{error}");
    let imports = CHAIN
        .replace("frags: ./frags.o", "frags: { object: ./frags.o, imports: { nothing: passing/passed } }");
    shell.write("chains.yaml", &imports);
    shell.xdpchain(&["plan"]).expect(3);
}

/// A chain on `eth1` with comments that must stay.
const SAVED: &str = "\
version: 1
modules:
  passing: ./passing.o   # passes
  dropping: { object: ./dropping.o } # drops
chains:
  edge:
    interfaces: [eth1, eth2] # both
    slots:
      # first
      - passing
      # last
      - dropping
";

#[test]
fn edits_are_saved_with_the_comments_kept() {
    let ns = namespace();
    let shell = Shell::new(&ns, SAVED);
    let file = || std::fs::read_to_string(shell.path().join("chains.yaml")).expect("it is there");
    shell.xdpchain(&["attach", "eth1"]).expect(0);

    let told =
        shell.xdpchain(&["move", "eth1", "dropping", "--first", "--save", "--dry-run"]).expect(0).stderr;
    assert!(told.contains("dry run: would save it to chains.yaml"), "{told}");
    assert_eq!(file(), SAVED);
    shell.xdpchain(&["move", "eth1", "dropping", "--before", "passing"]).expect(0);
    assert_eq!(file(), SAVED, "not without --save");
    shell.xdpchain(&["plan", "eth1"]).expect(1);
    shell.xdpchain(&["move", "eth1", "dropping", "--last"]).expect(0);
    shell.xdpchain(&["plan", "eth1"]).expect(0);

    let told = shell.xdpchain(&["move", "eth1", "dropping", "--first", "--save"]).expect(0).stderr;
    assert!(told.contains("saved it to chains.yaml") && told.contains("is for `eth2` as well"), "{told}");
    shell.xdpchain(&["plan", "eth1"]).expect(0);
    let add = ["add", "eth1", "./frags.o", "--after", "dropping", "--observer", "--save"];
    shell.xdpchain(&add).expect(0);
    shell.xdpchain(&["plan", "eth1"]).expect(0);
    shell
        .xdpchain(&["replace", "eth1", "passing", "./two.o", "--program", "first_of_two", "--save"])
        .expect(0);
    shell.xdpchain(&["plan", "eth1"]).expect(0);
    shell.xdpchain(&["remove", "eth1", "dropping", "--save"]).expect(0);
    // The module stays declared, and no slot has it.
    shell.xdpchain(&["plan", "eth1"]).expect(0);
    let expected = "\
version: 1
modules:
  passing: { object: \"./two.o\", program: first_of_two }   # passes
  dropping: { object: ./dropping.o } # drops
  frags: { object: \"./frags.o\" }
chains:
  edge:
    interfaces: [eth1, eth2] # both
    slots:
      # last
      - frags: { observer: true }
      # first
      - passing
";
    assert_eq!(file(), expected);
    let running = shell.json(&["status", "eth1"]);
    let slots =
        running["interfaces"][0]["slots"].as_array().expect("a list").iter().map(|slot| slot["slot"].clone());
    assert_eq!(slots.collect::<Vec<_>>(), [json!("frags"), json!("passing")]);
}

#[test]
fn what_cannot_be_saved_is_told_before_anything_changes() {
    let ns = namespace();
    let shell = Shell::new(&ns, SAVED);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let program = ns.xdp_program("eth1");
    let aliased = SAVED.replace("    slots:\n", "    slots: &s\n") + "  other: { slots: *s }\n";
    for (text, status, said) in [
        (aliased.as_str(), 2, "chains.yaml` cannot be edited in place"),
        (&SAVED.replace("  edge:", "  core:"), 2, "chains.yaml` has no chain `edge`"),
        (&SAVED.replace("      - dropping\n", ""), 2, "has no slot `dropping`"),
        (&SAVED.replace("version: 1", "version: 1\nmodulse: {}"), 3, "unknown key `modulse`"),
    ] {
        shell.write("chains.yaml", text);
        let error = shell.xdpchain(&["move", "eth1", "dropping", "--first", "--save"]).expect(status).stderr;
        assert!(error.contains(said) && error.contains("\nhelp: "), "{error}");
        assert_eq!(std::fs::read_to_string(shell.path().join("chains.yaml")).expect("it is there"), text);
        assert_eq!(ns.xdp_program("eth1"), program);
    }
    let error = shell.xdpchain(&["move", "eth1", "dropping", "--after", "dropping"]).expect(2).stderr;
    assert!(error.contains("cannot be put beside itself"), "{error}");
}
