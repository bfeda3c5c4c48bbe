//! `features`, `doctor` and `check` on real interfaces: what is told is what is so.

use serde_json::Value;
use xdpchain_tests::{Netns, Shell, veth};

const CHAIN: &str = "\
version: 1
modules:
  passing: ./passing.o
  gre-steer: builtin:gre-steer
chains:
  edge:
    interfaces: [eth1]
    slots: [passing, gre-steer]
";

fn namespace() -> Netns {
    let ns = Netns::new("look");
    veth((&ns, "eth1"), (&ns, "peer1"));
    ns
}

fn engine<'a>(of: &'a Value, name: &str) -> &'a Value {
    of["engines"].as_array().and_then(|all| all.iter().find(|e| e["engine"] == name)).expect("it is listed")
}

#[test]
fn features_are_those_of_the_kernel_and_of_the_driver() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let told = shell.json(&["features", "eth1"]);
    assert_eq!(engine(&told, "fused")["runs"], true);
    let kernel = told["kernel"].as_array().expect("a list");
    let links = kernel.iter().find(|feature| feature["feature"] == "XDP links").expect("it is listed");
    assert_eq!(links["here"], true);
    // A kernel that tells says of a veth that it runs programs itself, and of a loopback that it does not.
    assert_ne!(told["interface"]["native"], false);
    assert_eq!(told["interface"]["kind"], "veth");
    assert_ne!(shell.json(&["features", "lo"])["interface"]["native"], true);
    let page = shell.xdpchain(&["features"]).expect(0).stdout;
    assert!(page.contains("tail calls in subprograms") && !page.contains("DRIVER"), "{page}");
    let error = shell.xdpchain(&["features", "eth7"]).expect(2).stderr;
    assert!(error.contains("no interface `eth7`"), "{error}");
}

#[test]
fn what_keeps_routes_from_being_found_is_told_with_what_mends_it() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let set = |key: &str, value: &str| drop(ns.sh("sysctl", &["-qw", &format!("net.ipv4.{key}={value}")]));
    set("ip_forward", "0");
    set("conf.all.accept_local", "0");
    set("conf.eth1.accept_local", "0");
    let attached = shell.xdpchain(&["attach", "eth1"]).expect(0).stderr;
    let doctor = shell.xdpchain(&["doctor"]).expect(1).stdout;
    for text in ["net.ipv4.ip_forward=1", "net.ipv4.conf.eth1.accept_local=1"] {
        assert!(attached.contains(&format!("help: sysctl -w {text}")), "{attached}");
        assert!(doctor.contains(&format!("help: sysctl -w {text}")), "{doctor}");
    }
    set("ip_forward", "1");
    set("conf.eth1.accept_local", "1");
    assert!(shell.xdpchain(&["doctor"]).expect(0).stdout.contains("no problem found"));
    assert!(!shell.xdpchain(&["attach", "eth1"]).expect(0).stderr.contains("warning"));
    // Who does not ask for routes is not told of them.
    set("ip_forward", "0");
    shell.xdpchain(&["remove", "eth1", "gre-steer"]).expect(0);
    shell.xdpchain(&["doctor"]).expect(0);
    // What the chain itself lacks is told as well.
    std::fs::remove_dir_all(ns.pins()).expect("there are pins");
    let doctor = shell.xdpchain(&["doctor"]).expect(1).stdout;
    assert!(
        doctor.contains("eth1: the pinned link is gone") && doctor.contains("xdpchain recover"),
        "{doctor}"
    );
}

#[test]
fn check_says_what_is_in_an_object_and_which_engine_takes_it() {
    let ns = namespace();
    let shell =
        Shell::new(&ns, &CHAIN.replace("builtin:gre-steer", "./heavy.o").replacen("passing", "heavy", 1));
    shell.write(
        "chains.yaml",
        "version: 1\nmodules: { a: ./heavy.o, b: ./heavy.o }\nchains: { edge: { slots: [a, b] } }\n",
    );
    let told = shell.json(&["check"]);
    let chain = &told["chains"][0];
    let (fused, tail) = (engine(chain, "fused"), engine(chain, "tail"));
    assert_eq!(fused["runs"], false);
    assert!(fused["limit"].as_str().is_some_and(|limit| limit.contains("too large")), "{fused}");
    assert_eq!((&tail["runs"], &tail["programs"]), (&true.into(), &2.into()));
    // The engine that is asked for decides.
    shell.write(
        "chains.yaml",
        "version: 1\nmodules: { a: ./heavy.o, b: ./heavy.o }\nchains: { edge: { engine: fused, slots: [a, b] } }\n",
    );
    shell.xdpchain(&["check"]).expect(6);

    let told = shell.json(&["check", "passing.o"]);
    let object = &told["objects"][0];
    assert_eq!(object["programs"][0]["helpers"], serde_json::json!(["map_lookup_elem"]));
    let depth = engine(object, "fused")["stack"][0][0].as_u64().expect("the verifier says");
    assert!((16..64).contains(&depth), "{depth}");
    let verified = engine(object, "fused")["verifiedInstructions"].as_u64();
    assert!(verified.is_some_and(|verified| verified != 1), "{object}");
    let page = shell.xdpchain(&["check", "jumps.o", "--program", "jumps"]).expect(0).stdout;
    assert!(
        page.contains("calls tail_call") && page.contains("libxdp: slot `jumps` cannot be run"),
        "{page}"
    );
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn check_says_what_an_object_is_also_when_no_engine_takes_it() {
    let ns = namespace();
    let shell = Shell::new(&ns, CHAIN);
    let checked = shell.xdpchain(&["check", "deep.o"]).expect(6);
    assert!(checked.stderr.contains("help: the stack is limited to 512 octets for the chain"), "{checked:?}");
    for text in ["504 B", "fused: the kernel refused", "tail: the kernel refused", "libxdp"] {
        assert!(checked.stdout.contains(text), "`{text}`: {checked:?}");
    }
}

#[test]
fn a_module_that_keeps_a_chain_from_large_packets_is_named() {
    let ns = namespace();
    let shell = Shell::new(&ns, &CHAIN.replace("builtin:gre-steer", "./frags.o"));
    for interface in ["eth1", "peer1"] {
        ns.ip(&format!("link set dev {interface} mtu 9000"));
    }
    let attached = shell.xdpchain(&["attach", "eth1"]).expect(0).stderr;
    assert!(attached.contains("not in native mode"), "{attached}");
    assert!(attached.contains("`xdp.frags`, and these are not: `passing`\n"), "{attached}");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    let refused = shell.xdpchain(&["attach", "eth1", "--mode", "native"]).expect(5).stderr;
    assert!(
        refused.contains("these are not: `passing`\n") && refused.contains("MTU (9000 here)"),
        "{refused}"
    );
    let all = CHAIN.replace("builtin:gre-steer", "./frags.o").replace("./passing.o", "./frags.o");
    shell.write("chains.yaml", &all);
    let attached = shell.xdpchain(&["attach", "eth1"]).expect(0).stderr;
    assert!(attached.contains("native") && !attached.contains("note"), "{attached}");
}
