//! Golden packets: `xdpchain test` tells what becomes of each, and the gate keeps a change that treats one differently
//! from running.

use std::path::Path;

use serde_json::{Value, json};
use xdpchain_abi::Reason;
use xdpchain_tests::{Netns, Shell, cli, veth};

const CHAIN: &str = "\
version: 1
modules:
  passing: ./passing.o
  dropping: ./dropping.o
chains:
  edge:
    interfaces: [eth1]
    slots: [passing, dropping: { proceed_on: [drop] }]
";

/// A frame of no known protocol.
const FRAME: &str = "020000000101 020000000102 88b5 00000000";

fn namespace() -> Netns {
    let ns = Netns::new("golden");
    veth((&ns, "eth1"), (&ns, "peer1"));
    ns
}

fn fixture(verdict: &str, rest: &str) -> String {
    format!("description: A frame.\ninput: {FRAME}\nexpect: {{ verdict: {verdict} }}\n{rest}")
}

/// A capture of these packets, as tcpdump writes it.
fn capture(shell: &Shell<'_>, name: &str, packets: &[&[u8]]) {
    let mut file: Vec<u8> =
        [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    for packet in packets {
        let length = packet.len() as u32;
        file.extend([0, 0, length, length].iter().flat_map(|n: &u32| n.to_le_bytes()));
        file.extend(*packet);
    }
    std::fs::write(shell.path().join(name), file).expect("the folder is ours");
}

fn test(shell: &Shell<'_>, arguments: &[&str], status: i32) -> Value {
    let run = shell.xdpchain(&[&["test", "-o", "json"], arguments].concat()).expect(status);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stdout))
}

#[test]
fn every_vector_of_a_module_has_the_same_outcome_from_the_command() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    // Those that ask for a route, or for larger arrays, need the network of the vectors, and those with an ingress or headroom a newer kernel.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut files: Vec<String> = Vec::new();
    for path in cli::files_below(&folder).into_iter().filter(|path| path.parent() == Some(&folder)) {
        let text = std::fs::read_to_string(&path).expect("a fixture is text");
        let of = |program: &str| text.lines().any(|line| line == format!("program: {program}"));
        if (of("gtp-decap") || of("gre-decap") || of("acl") || of("stats"))
            && !text.contains("\ningress:")
            && !text.contains("\nheadroom:")
            && !text.contains("customers_dense:")
            && !text.contains("sessions_percpu:")
        {
            files.push(path.display().to_string());
        }
    }
    assert!(files.len() > 120, "{}", files.len());
    let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    let report = test(&shell, &arguments, 0);
    assert_eq!((&report["kind"], &report["differ"]), (&json!("Test"), &json!(0)));
    assert_eq!(report["packets"], files.len());
    assert!(shell.left().is_empty(), "nothing is pinned or written");
}

#[test]
fn a_chain_is_told_slot_by_slot() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    shell.write("good.yaml", &fixture("drop", "maps: { passing/passed: [ { key: 0, value: 5 } ] }"));
    let report = test(&shell, &["good.yaml"], 0);
    let slots = json!([{ "slot": "passing", "verdict": "pass" }, { "slot": "dropping", "verdict": "drop" }]);
    assert_eq!(report["reports"][0]["slots"], slots);
    assert_eq!(report["reports"][0]["through"], "edge");

    shell.write("bad.yaml", &fixture("pass", ""));
    let page = shell.xdpchain(&["test", "bad.yaml", "good.yaml"]).expect(1).stdout;
    assert!(page.contains("verdict: expected pass, found drop"), "{page}");
    assert!(page.contains("passing pass > dropping drop") && page.contains("2 packets, 1 not as"), "{page}");
    let junit = shell.xdpchain(&["test", "bad.yaml", "good.yaml", "-o", "junit"]).expect(1).stdout;
    assert!(junit.contains("tests=\"2\" failures=\"1\"") && junit.contains("name=\"good\"/>"), "{junit}");

    // The chain ends before a slot that it does not come to.
    shell.write(
        "chains.yaml",
        &CHAIN.replace("[passing, dropping: { proceed_on: [drop] }]", "[dropping, passing]"),
    );
    let report = test(&shell, &["good.yaml"], 0);
    assert_eq!(report["reports"][0]["slots"], json!([{ "slot": "dropping", "verdict": "drop" }]));
    shell.write("counted.yaml", &fixture("drop", "maps: { passing/passed: [ { key: 9, value: 5 } ] }"));
    let page = shell.xdpchain(&["test", "counted.yaml"]).expect(1).stdout;
    assert!(page.contains("map `passed` at 9"), "{page}");

    let alone = fixture("pass", "program: passing")
        .replace("{ verdict: pass }", "{ verdict: pass, maps: { passed: [ { key: 0, value: 1 } ] } }");
    shell.write("alone.yaml", &alone);
    assert_eq!(test(&shell, &["alone.yaml"], 0)["reports"][0]["through"], "passing");
    assert!(shell.left().is_empty());
}

#[test]
fn a_capture_is_compared_with_what_is_to_leave() {
    let ns = namespace();
    let shell = Shell::new(&ns, &CHAIN.replace("[passing, dropping: { proceed_on: [drop] }]", "[passing]"));
    let packets: [&[u8]; 2] = [&[1; 60], &[2; 70]];
    capture(&shell, "busy.pcap", &packets);
    let report = test(&shell, &["busy.pcap"], 0);
    assert_eq!(report["reports"][1]["packet"], "busy 2");
    assert_eq!(report["reports"][1]["slots"], json!([{ "slot": "passing", "verdict": "pass" }]));
    capture(&shell, "busy.expected.pcap", &packets);
    test(&shell, &["busy.pcap"], 0);
    capture(&shell, "busy.expected.pcap", &[&[1; 60], &[3; 70], &[4; 80]]);
    let report = test(&shell, &["busy.pcap"], 1);
    let differences = report["reports"][1]["differences"].as_array().expect("a list");
    assert!(differences[0].as_str().is_some_and(|text| text.contains("differs from octet 0 on")), "{report}");
    assert_eq!(differences[1], "1 packets that were expected did not leave");
    // In a folder, what is expected is no packet of its own.
    std::fs::create_dir(shell.path().join("gold")).expect("the folder is ours");
    capture(&shell, "gold/busy.pcap", &packets);
    capture(&shell, "gold/busy.expected.pcap", &packets);
    assert_eq!(test(&shell, &["gold"], 0)["packets"], 2);
}

#[test]
fn what_is_no_golden_packet_is_told() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    shell.write("typo.yaml", &fixture("drop", "progam: passing"));
    shell.write("who.yaml", &fixture("drop", "program: nobody"));
    shell.write("not.pcap", "text");
    shell.write("note.txt", "text");
    for (arguments, said) in [
        (&["test"][..], "there are no packets to test"),
        (&["test", "typo.yaml"], "unknown field `progam`"),
        (&["test", "who.yaml"], "no module `nobody`"),
        (&["test", "not.pcap"], "neither pcap nor pcapng"),
        (&["test", "note.txt"], "neither a fixture nor a capture"),
        (&["test", "gone.yaml"], "cannot read packets"),
        (&["test", "not.pcap", "--chain", "core"], "neither pcap nor pcapng"),
    ] {
        let error = shell.xdpchain(arguments).expect(2).stderr;
        assert!(error.contains(said) && error.contains("\nhelp: "), "{error}");
    }
    let error = shell.xdpchain(&["status", "-o", "junit"]).expect(1).stderr;
    assert!(error.contains("only `xdpchain test` prints it"), "{error}");
}

#[test]
fn a_gate_keeps_what_differs_from_running() {
    let ns = namespace();
    let gated = CHAIN.replace("    slots:", "    gate: { fixtures: [gold], pcap: [busy.pcap] }\n    slots:");
    let shell = Shell::new(&ns, &gated);
    std::fs::create_dir(shell.path().join("gold")).expect("the folder is ours");
    shell.write("gold/frame.yaml", &fixture("pass", ""));
    capture(&shell, "busy.pcap", &[&[1; 60], &[2; 70]]);

    // On an interface without a chain there is nothing that captures could be compared with.
    let error = shell.xdpchain(&["attach", "eth1"]).expect(8).stderr;
    assert!(error.contains("the gate of chain `edge` refused the change"), "{error}");
    assert!(error.contains("gold/frame.yaml: verdict: expected pass, found drop"), "{error}");
    assert!(ns.xdp_program("eth1").is_none() && shell.left().is_empty());

    shell.write("gold/frame.yaml", &fixture("drop", ""));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let program = ns.xdp_program("eth1");
    let counted = || shell.json(&["status", "eth1"])["interfaces"][0]["total"].clone();
    let before = counted();

    // The fixture is content with this one, and the capture is not.
    let passes = gated.replace("[passing, dropping: { proceed_on: [drop] }]", "[passing]");
    shell.write("gold/frame.yaml", &fixture("pass", ""));
    shell.write("chains.yaml", &passes);
    for command in [&["apply"][..], &["attach", "eth1"], &["remove", "eth1", "dropping"]] {
        let error = shell.xdpchain(command).expect(8).stderr;
        assert!(error.contains("busy.pcap packet 1: verdict: drop before, pass after"), "{error}");
        assert!(!error.contains("frame.yaml"), "{error}");
        assert_eq!(ns.xdp_program("eth1"), program);
    }
    assert_eq!(counted(), before, "golden packets are not counted as traffic");

    // A change that treats every packet the same goes through, whatever it is made of.
    shell.write("gold/frame.yaml", &fixture("drop", ""));
    shell.write("chains.yaml", &gated.replace("[passing, dropping: { proceed_on: [drop] }]", "[dropping]"));
    shell.xdpchain(&["apply"]).expect(0);
    assert_ne!(ns.xdp_program("eth1"), program);
    assert_eq!(counted(), before);
}

#[test]
fn a_packet_is_explained_by_rows_where_its_modules_are_built_in() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let files: Vec<String> = ["g24-unknown-teid", "r05-bit-1", "g01-known-session"]
        .map(|name| folder.join(format!("{name}.yaml")).display().to_string())
        .into();
    let arguments: Vec<&str> = files.iter().map(String::as_str).chain(["--explain"]).collect();
    let report = test(&shell, &arguments, 0);
    for (i, (row, end)) in [("G24", "pass+final"), ("R05", "drop"), ("G01", "pass")].into_iter().enumerate() {
        let explained = report["reports"][i]["explained"].as_array().expect("lines").clone();
        let lines: Vec<&str> = explained.iter().filter_map(Value::as_str).collect();
        assert!(lines.iter().any(|line| line.contains(&format!(": {row}: "))), "{lines:?}");
        assert!(lines.last().is_some_and(|line| line.ends_with(&format!(" with {end}"))), "{lines:?}");
    }
    // Of what somebody else made nothing is known.
    shell.write("good.yaml", &fixture("drop", ""));
    let page = shell.xdpchain(&["test", "good.yaml", "--explain"]).expect(0).stdout;
    assert!(page.contains("cannot be explained: module `passing` is not built in"), "{page}");
}

#[test]
fn every_reason_can_be_asked_about() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let told = shell.json(&["reasons"]);
    assert_eq!(told["kind"], "Reasons");
    let reasons = told["reasons"].as_array().expect("a list");
    assert_eq!(reasons.len(), Reason::ALL.len());
    for (told, reason) in reasons.iter().zip(Reason::ALL) {
        assert_eq!(told["reason"], reason.name());
        assert!(told["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    }
    let page = shell.xdpchain(&["reasons", "ecn"]).expect(0).stdout;
    assert!(page.contains("B06") && !page.contains("truncated"), "{page}");
    shell.xdpchain(&["reasons", "nonsense"]).expect(2);
}
