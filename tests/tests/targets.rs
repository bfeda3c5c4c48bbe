//! Modules that tail call programs of their own: in a chain they mean what they mean alone, whatever the engine, and a
//! chain that they leave takes their programs with it.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use xdpchain_compose::object::Object;
use xdpchain_compose::{Chain, ComposeError, Image, Module, Slot, fused, tail};
use xdpchain_host::load::load;
use xdpchain_host::sys::{self, TestRun};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec, Verdict, VerdictSet};
use xdpchain_tests::cli::object;
use xdpchain_tests::{Netns, Port, Shell, plan, veth};

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

fn spec(program: &str) -> ModuleSpec {
    let mut spec = ModuleSpec::new(ObjectRef::File("test.o".into()));
    spec.program = Some(program.to_owned());
    spec
}

/// Verdict and octets of packets that begin with each number behind the Ethernet header.
fn runs(image: &Image) -> Vec<(u32, Vec<u8>)> {
    let loaded = load(image, &mut |_| Ok(None)).unwrap_or_else(|error| panic!("{error}"));
    let mut results = Vec::new();
    for index in 0..12 {
        let mut packet = vec![7; 64];
        packet[14] = index;
        let run = TestRun { packet: &packet, ..TestRun::default() };
        let result = sys::prog_test_run(loaded.program.as_fd(), &run).expect("it runs");
        results.push((result.verdict, result.packet));
    }
    results
}

#[test]
fn a_module_that_tail_calls_means_the_same_alone_and_between_others() {
    let jumps = Object::parse(object::JUMPS).expect("an object");
    let passing = Object::parse(object::PASSING).expect("an object");
    let (mut filled, pass) = (spec("jumps"), spec("passing"));
    filled.programs.entry("later".into()).or_default().insert(1, "drop".into());
    let module = |name, object, spec| Module { name, object, spec, digest: "0123" };
    let alone = runs(&fused::compose_bare(&module("jumps", &jumps, &filled)).expect("composes"));
    let verdicts: Vec<u32> = alone.iter().map(|result| result.0).collect();
    let (drop, pass_, tx) = (Verdict::Drop as u32, Verdict::Pass as u32, Verdict::Tx as u32);
    assert_eq!(verdicts, [pass_, drop, tx, pass_, tx, tx, tx, tx, pass_, drop, pass_, pass_]);
    assert_eq!((alone[0].1[15], alone[3].1[15], alone[2].1[15]), (0x18, 0x19, 7));

    let mut jumping = SlotSpec::new("jumps");
    jumping.proceed_on = Some([Verdict::Pass].into_iter().collect::<VerdictSet>());
    let slots = [SlotSpec::new("before"), jumping, SlotSpec::new("after")];
    let engines: [Engine; 2] = [fused::compose, tail::compose];
    for engine in engines {
        let chain = Chain {
            name: "test",
            default: ChainDefault::Keep,
            modules: vec![
                module("before", &passing, &pass),
                module("jumps", &jumps, &filled),
                module("after", &passing, &pass),
            ],
            slots: slots.iter().enumerate().map(|(i, spec)| Slot { spec, row: i as u32 }).collect(),
        };
        let image = engine(&chain).expect("composes");
        // Three programs of `table`, of which one is that of `later` too.
        assert_eq!(image.fills.iter().filter(|fill| !image.maps[fill.map].renewed()).count(), 4);
        assert_eq!(runs(&image), alone);
    }
}

#[test]
fn what_program_arrays_are_to_hold_is_checked() {
    let jumps = Object::parse(object::JUMPS).expect("an object");
    let refused = |map: &str, index: u32, program: &str| {
        let mut spec = spec("jumps");
        spec.programs.entry(map.into()).or_default().insert(index, program.into());
        let module = Module { name: "jumps", object: &jumps, spec: &spec, digest: "0123" };
        fused::compose_bare(&module).expect_err("it cannot be").to_string()
    };
    assert!(refused("tables", 0, "mark").contains("has no map `tables`"));
    assert!(refused(".bss", 0, "mark").contains("`.bss` of module `jumps` is no program array"));
    assert!(refused("later", 2, "mark").contains("has entries 0 to 1, and none number 2"));
    let missing = refused("later", 1, "marc");
    assert!(missing.contains("module `jumps`") && missing.contains("`marc`"), "{missing}");
}

const CHAIN: &str = "\
version: 1
modules:
  before: ./passing.o
  jumps:
    object: ./jumps.o
    program: jumps
    programs: { later: { 0: mark } }
  after: ./passing.o
chains:
  edge:
    interfaces: [eth1]
    engine: ENGINE
    slots: [before, jumps, after]
";

#[test]
fn a_module_comes_and_goes_with_the_programs_that_it_calls() {
    let (ns, peer) = (Netns::new("targets"), Netns::new("peer"));
    veth((&ns, "eth1"), (&peer, "far1"));
    let (into, out) = (Port::open(&ns, "eth1"), Port::open(&peer, "far1"));
    let send = |index: u8| {
        let mut payload = [7; 50];
        payload[0] = index;
        out.send(&plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &payload));
        let got = into.receive_where(Duration::from_millis(500), |f| f[12..15] == [0x88, 0xb5, index]);
        got.map(|frame| frame[15])
    };
    for engine in ["fused", "tail"] {
        let shell = Shell::new(&ns, &CHAIN.replace("ENGINE", engine));
        shell.xdpchain(&["attach", "eth1"]).expect(0);
        assert_eq!([0, 1, 3, 8, 9].map(send), [Some(0x18), None, Some(0x19), Some(0x18), Some(7)]);
        // A change beside it leaves its programs alone; another build of it has its own.
        let held = |shell: &Shell<'_>| {
            let pins = xdpchain_tests::cli::files_below(&ns.pins());
            let pin = pins.iter().find(|pin| pin.to_string_lossy().contains("jumps/table"));
            let path = pin.and_then(|pin| pin.to_str()).expect("the array is pinned").to_owned();
            let shown = shell.netns().sh("bpftool", &["-j", "map", "dump", "pinned", &path]);
            let entries: serde_json::Value = serde_json::from_str(&shown).expect("bpftool prints JSON");
            (path, entries)
        };
        let before = held(&shell);
        shell.xdpchain(&["replace", "eth1", "after", "dropping.o"]).expect(0);
        assert_eq!(held(&shell), before);
        assert_eq!([0, 1].map(send), [None, None]);
        shell.xdpchain(&["replace", "eth1", "after", "passing.o"]).expect(0);
        let mut other = object::JUMPS.to_vec();
        other.push(0);
        std::fs::write(shell.path().join("other.o"), other).expect("the folder is ours");
        shell.xdpchain(&["replace", "eth1", "jumps", "other.o"]).expect(0);
        assert_ne!(held(&shell).0, before.0);
        assert_eq!([0, 1, 3, 8, 9].map(send), [Some(0x18), None, Some(0x19), Some(0x18), Some(7)]);
        let told = shell.json(&["status", "eth1"])["interfaces"][0].take();
        assert_eq!(told["problems"], serde_json::json!([]));
        // Each engine in its turn: what went on to the last slot is what the module passed.
        let reached: Vec<_> = (0..3).map(|slot| told["slots"][slot]["reached"].as_u64()).collect();
        assert_eq!(reached, [Some(12), Some(12), Some(9)]);
        let programs: Vec<u64> =
            told["slots"].as_array().into_iter().flatten().filter_map(|s| s["program"].as_u64()).collect();
        shell.xdpchain(&["detach", "eth1"]).expect(0);
        assert_eq!(shell.left(), Vec::<PathBuf>::new());
        for id in programs {
            let gone = (0..50).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                !Command::new("bpftool")
                    .args(["prog", "show", "id", &id.to_string()])
                    .output()
                    .expect("bpftool runs")
                    .status
                    .success()
            });
            assert!(gone, "program {id} is still there");
        }
    }
}
