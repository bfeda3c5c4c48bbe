//! Chains in libxdp's dispatcher, on real interfaces by the real binary, with `xdp-loader` as the other user of it: who sees
//! what, what stays whose, and that packets see a chain whole. On a kernel that does not let programs replace functions
//! of others these tests are skipped.
#![forbid(unsafe_code)]

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use xdpchain_host::sys::{self, TestRun};
use xdpchain_tests::cli::objects;
use xdpchain_tests::{Netns, Port, Shell, cli, kernel, plan, veth};
use xdpchain_wire::checksum::Sum;

/// A program of the dispatcher, as `xdp-loader status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    priority: u64,
    name: String,
    id: u64,
    tag: String,
    actions: String,
}

/// Two namespaces with a link, eth1 of the first to far1 of the second. Whatever is in the dispatcher at the end goes away.
struct Pair {
    ns: Netns,
    peer: Netns,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.loader(&["unload", "eth1", "--all"]);
    }
}

impl Pair {
    /// The pair for `test`; none when this kernel has no use for it.
    fn new(test: &str) -> Option<Self> {
        let (ns, peer) = (Netns::new("libxdp"), Netns::new("peer"));
        veth((&ns, "eth1"), (&peer, "far1"));
        let pair = Self { ns, peer };
        if pair.dispatches() {
            return Some(pair);
        }
        kernel::lacks(&format!("libxdp, {test}"), "extension programs, which libxdp's dispatcher is made of");
        None
    }

    /// Whether this kernel runs libxdp's dispatcher.
    fn dispatches(&self) -> bool {
        let shell = Shell::new(&self.ns, "version: 1\n");
        let features = shell.json(&["features"]);
        let engines = features["engines"].as_array().expect("a list").iter();
        engines.filter(|engine| engine["engine"] == "libxdp").any(|engine| engine["runs"] == true)
    }

    /// Runs `xdp-loader`.
    fn loader(&self, arguments: &[&str]) -> cli::Run {
        // Its own lock gives up when it meets another one that is about to start or to end.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        cli::run(&self.ns, Command::new("xdp-loader").args(arguments))
    }

    /// The programs that `xdp-loader` finds in the dispatcher on eth1, in the order in which they run.
    fn shown(&self) -> Vec<Shown> {
        let text = self.loader(&["status", "eth1"]).expect(0).stdout;
        let line = |line: &str| {
            let words: Vec<&str> = line.trim().strip_prefix("=>")?.split_whitespace().collect();
            let [priority, name, id, tag, rest @ ..] = words.as_slice() else { panic!("`{line}`") };
            Some(Shown {
                priority: priority.parse().expect("a number"),
                name: (*name).to_owned(),
                id: id.parse().expect("a number"),
                tag: (*tag).to_owned(),
                actions: rest.join(" "),
            })
        };
        text.lines().filter_map(line).collect()
    }

    /// A frame that arrives at eth1 when every program lets it.
    fn frame(&self) -> Vec<u8> {
        plan::frame([0xff; 6], self.peer.mac("far1"), 0x88b5, &[7; 50])
    }

    /// Whether a frame gets through.
    fn passes(&self) -> bool {
        let (into, out) = (Port::open(&self.ns, "eth1"), Port::open(&self.peer, "far1"));
        let frame = self.frame();
        out.send(&frame);
        into.receive_where(Duration::from_millis(500), |f| f == frame).is_some()
    }

    /// The directories of libxdp's that hold one of these programs.
    fn directories(&self, ids: &[u64]) -> Vec<PathBuf> {
        let holds = |directory: &Path| {
            cli::files_below(directory).iter().any(|pin| {
                let info = xdpchain_host::sys::open_pin(pin).and_then(|fd| sys::prog_info(fd.as_fd()));
                info.is_ok_and(|info| ids.contains(&u64::from(info.id)))
            })
        };
        let found = std::fs::read_dir("/sys/fs/bpf/xdp").into_iter().flatten().flatten();
        found.map(|entry| entry.path()).filter(|path| holds(path)).collect()
    }
}

fn status(shell: &Shell<'_>) -> Value {
    shell.json(&["status", "eth1"])["interfaces"][0].take()
}

/// What `xdpchain status` shows of the dispatcher, as `xdp-loader` would.
fn components(status: &Value) -> Vec<(Option<String>, Shown)> {
    let actions = |list: &Value| {
        let names = list.as_array().expect("a list").iter();
        names
            .map(|name| format!("XDP_{}", name.as_str().expect("a verdict").to_uppercase()))
            .collect::<Vec<_>>()
            .join(",")
    };
    let shown = |component: &Value| {
        let text = |key: &str| component[key].as_str().map(str::to_owned);
        let shown = Shown {
            priority: component["priority"].as_u64().expect("a number"),
            name: text("program").expect("a name"),
            id: component["id"].as_u64().expect("a number"),
            tag: text("tag").expect("a tag"),
            actions: actions(&component["chainCallActions"]),
        };
        (text("slot"), shown)
    };
    status["components"].as_array().expect("a list").iter().map(shown).collect()
}

fn slots_of(components: &[(Option<String>, Shown)]) -> Vec<Option<&str>> {
    components.iter().map(|(slot, _)| slot.as_deref()).collect()
}

/// An IPv4 packet of UDP to `port`.
fn udp(port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
    let sum = Sum::new().slice(&packet).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x9c, 0x40]);
    packet.extend(port.to_be_bytes());
    packet.extend([0; 16]);
    plan::frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], 0x0800, &packet)
}

/// Three modules by other authors: one marks, one filters, one counts.
fn third_parties(engine: &str) -> String {
    let object = |name: &str| objects().join(format!("{name}.o")).display().to_string();
    format!(
        "version: 1\nmodules:\n  mark: {{ object: {} }}\n  filter: {{ object: {} }}\n  count: {{ object: {} }}\n\
         chains:\n  edge:\n    interfaces: [eth1]\n    engine: {engine}\n    slots: [mark, filter, count]\n",
        object("rust-dscp"),
        object("portfilter"),
        object("pktcount"),
    )
}

#[test]
fn a_chain_does_what_it_does_in_one_program() {
    let Some(pair) = Pair::new("third-party modules") else { return };
    let run = |engine: &str| {
        let shell = Shell::new(&pair.ns, &third_parties(engine));
        shell.xdpchain(&["attach", "eth1"]).expect(0);
        shell.xdpchain(&["map", "set", "mark/DSCP", "17", "46"]).expect(0);
        shell.xdpchain(&["map", "set", "filter/blocked", "53", "0"]).expect(0);
        let id = pair.ns.xdp_program("eth1").expect("a program is attached");
        let program = sys::prog_by_id(id).expect("it is loaded");
        let mut seen = Vec::new();
        for packet in [udp(53), udp(54), pair.frame(), udp(7)] {
            let test = TestRun { packet: &packet, ..TestRun::default() };
            let result = sys::prog_test_run(program.as_fd(), &test).expect("it runs");
            seen.push((result.verdict, result.packet));
        }
        let counted = shell.json(&["map", "get", "count/counts", "17"])["value"].clone();
        let status = status(&shell);
        assert_eq!(status["problems"], Value::Array(vec![]));
        assert_eq!(status["engine"], engine);
        let left = |shell: &Shell<'_>| {
            shell.xdpchain(&["detach", "eth1"]).expect(0);
            assert_eq!(shell.left(), Vec::<PathBuf>::new());
            assert_eq!(pair.ns.xdp_program("eth1"), None);
        };
        left(&shell);
        (seen, counted, status)
    };
    let (fused, counted, _) = run("fused");
    let verdicts: Vec<u32> = fused.iter().map(|(verdict, _)| *verdict).collect();
    assert_eq!(verdicts, [1, 2, 2, 2]);
    assert_eq!(fused[1].1[15], 46 << 2, "the first module has marked the packet");
    let (dispatched, also_counted, status) = run("libxdp");
    assert_eq!(dispatched, fused);
    assert_eq!(also_counted, counted);
    assert_eq!((&status["counted"], &status["programs"]), (&false.into(), &4.into()));
}

/// A program of somebody else on the interface first, and ours beside it.
#[test]
fn programs_of_xdp_loader_stay_and_both_tools_show_both() {
    let Some(pair) = Pair::new("beside xdp-loader") else { return };
    let shell = Shell::new(
        &pair.ns,
        "version: 1\nmodules:\n  one: { object: ./passing.o }\n  two: { object: ./passing.o }\nchains:\n  edge:\n    \
         interfaces: [eth1]\n    engine: libxdp\n    slots: [one: { proceed_on: [pass, tx] }, two]\n",
    );
    let filter = "/usr/lib/x86_64-linux-gnu/bpf/xdpfilt_alw_all.o";
    pair.loader(&["load", "eth1", filter]).expect(0);
    pair.loader(&["load", "eth1", "-P", "60", &shell.path().join("passing.o").display().to_string()])
        .expect(0);
    let theirs = pair.shown();
    assert_eq!(theirs.iter().map(|shown| shown.priority).collect::<Vec<_>>(), [10, 60]);

    // Another engine does not take the interface, and says what would.
    shell.write("fused.yaml", &third_parties("fused"));
    let refused = shell.xdpchain(&["attach", "eth1", "-f", "fused.yaml"]).expect(7);
    assert!(refused.stderr.contains("libxdp"), "{}", refused.stderr);

    shell.xdpchain(&["attach", "eth1", "--dry-run"]).expect(0);
    assert_eq!(pair.shown(), theirs);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let ours = status(&shell);
    let components = components(&ours);
    assert_eq!(slots_of(&components), [None, Some("one"), Some("two"), None]);
    let seen: Vec<Shown> = components.iter().map(|(_, shown)| shown.clone()).collect();
    assert_eq!(pair.shown(), seen, "both tools see the same");
    assert_eq!([&seen[0], &seen[3]], [&theirs[0], &theirs[1]], "what was there stays as it was");
    assert_eq!(seen[1].actions, "XDP_PASS,XDP_TX");
    assert_eq!(ours["slots"][0]["program"], seen[1].id);
    assert!(pair.passes());
    for map in ["one/passed", "two/passed"] {
        assert_eq!(shell.json(&["map", "get", map, "0"])["value"], 1, "{map}");
    }

    // The other tool adds one more while our chain is there, and takes it away.
    let dropping = shell.path().join("dropping.o").display().to_string();
    pair.loader(&["load", "eth1", "-P", "5", &dropping]).expect(0);
    let told = status(&shell);
    assert_eq!(told["problems"], Value::Array(vec![]));
    assert_ne!(told["program"]["id"], ours["program"]["id"], "there is another dispatcher");
    assert!(!pair.passes());
    let last = pair.shown()[0].clone();
    assert_eq!((last.priority, last.name.as_str()), (5, "dropping"));
    pair.loader(&["unload", "eth1", "-i", &last.id.to_string()]).expect(0);
    assert!(pair.passes());
    assert_eq!(pair.shown(), seen);

    // A change of ours leaves theirs alone, and so does the end of ours.
    shell.xdpchain(&["add", "eth1", "passing.o", "--name", "three", "--after", "one"]).expect(0);
    let changed = components_of(&shell);
    assert_eq!(slots_of(&changed), [None, Some("one"), Some("three"), Some("two"), None]);
    assert_eq!(changed[1].1.priority, seen[1].priority, "slots that stay keep their priority");
    shell.xdpchain(&["remove", "eth1", "one"]).expect(0);
    shell.xdpchain(&["replace", "eth1", "two", "dropping.o"]).expect(0);
    assert!(!pair.passes());
    assert_eq!(status(&shell)["generation"], 4);
    let ids: Vec<u64> = components_of(&shell).iter().filter(|c| c.0.is_some()).map(|c| c.1.id).collect();
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(pair.shown(), theirs);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    assert_eq!(pair.directories(&ids), Vec::<PathBuf>::new());
    let kept = pair.directories(&[theirs[0].id]);
    assert_eq!(kept.len(), 1, "one dispatcher is pinned: {kept:?}");
    assert!(pair.passes());
}

fn components_of(shell: &Shell<'_>) -> Vec<(Option<String>, Shown)> {
    components(&status(shell))
}

const CHAIN: &str = "\
version: 1
modules:
  one: { object: ./passing.o }
  two: { object: ./passing.o, imports: { passed: one/passed } }
chains:
  edge:
    interfaces: [eth1]
    engine: libxdp
    slots: [one, two]
";

#[test]
fn what_xdp_loader_unloads_is_noticed_and_can_be_attached_again() {
    let Some(pair) = Pair::new("unloaded by xdp-loader") else { return };
    let shell = Shell::new(&pair.ns, CHAIN);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let first = pair.shown();
    pair.loader(&["unload", "eth1", "-i", &first[0].id.to_string()]).expect(0);
    let told = shell.xdpchain(&["status", "eth1"]).expect(1);
    assert!(told.stderr.contains("slot `one` was unloaded by something else"), "{}", told.stderr);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let again = components_of(&shell);
    assert_eq!(slots_of(&again), [Some("one"), Some("two")]);
    assert_eq!(status(&shell)["generation"], 2);
    assert_eq!(pair.shown().len(), 2);
    assert!(pair.directories(&[first[1].id]).is_empty(), "the programs before are gone");

    // All of it: then there is no chain any more.
    pair.loader(&["unload", "eth1", "--all"]).expect(0);
    let gone = shell.xdpchain(&["status", "eth1"]).expect(1);
    assert!(gone.stderr.contains("dispatcher is gone"), "{}", gone.stderr);
    let recovered = shell.json(&["recover"]);
    assert_eq!(recovered["interfaces"][0]["what"], "gone");
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    shell.xdpchain(&["status", "eth1"]).expect(1);
}

#[test]
fn modules_share_a_map_of_the_size_that_was_asked_for() {
    let Some(pair) = Pair::new("a shared map") else { return };
    let sized = CHAIN.replace(
        "one: { object: ./passing.o }",
        "one: { object: ./passing.o, maps: { passed: { max_entries: 3 } } }",
    );
    let shell = Shell::new(&pair.ns, &sized);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    for _ in 0..3 {
        assert!(pair.passes());
    }
    assert_eq!(shell.json(&["map", "get", "one/passed", "0"])["value"], 6, "both modules count in it");
    let maps = status(&shell)["maps"].take();
    assert_eq!(maps.as_array().map(Vec::len), Some(1), "{maps}");
    assert_eq!((&maps[0]["map"], &maps[0]["maxEntries"]), (&"one/passed".into(), &3.into()));
    // It outlives the programs that use it.
    shell.xdpchain(&["replace", "eth1", "two", "passing.o"]).expect(0);
    assert!(pair.passes());
    assert_eq!(shell.json(&["map", "get", "one/passed", "0"])["value"], 8);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

/// The first slot drops everything, whatever becomes of the others: a packet that gets through has seen half a chain.
#[test]
fn packets_see_a_chain_whole_while_it_changes() {
    let Some(pair) = Pair::new("changes under traffic") else { return };
    let guarded = CHAIN
        .replace("slots: [one, two]", "slots: [guard, one, two]")
        .replace("modules:\n", "modules:\n  guard: { object: ./dropping.o }\n");
    let shell = Shell::new(&pair.ns, &guarded);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let (into, out) = (Port::open(&pair.ns, "eth1"), Port::open(&pair.peer, "far1"));
    let frame = pair.frame();
    /// Ends the sender, also when the test fails.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0u32;
            while !done.load(Ordering::Relaxed) {
                out.send(&frame);
                sent += 1;
                if sent.is_multiple_of(16) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            sent
        });
        let end = Done(&done);
        let passing = shell.path().join("passing.o").display().to_string();
        for _ in 0..3 {
            shell.xdpchain(&["replace", "eth1", "two", "passing.o"]).expect(0);
            shell.xdpchain(&["add", "eth1", "passing.o", "--name", "three"]).expect(0);
            // Somebody else's exchanges of the dispatcher are as whole.
            pair.loader(&["load", "eth1", &passing]).expect(0);
            shell.xdpchain(&["remove", "eth1", "three"]).expect(0);
            let theirs = pair.shown().last().expect("theirs runs last").id.to_string();
            pair.loader(&["unload", "eth1", "-i", &theirs]).expect(0);
        }
        drop(end);
        sender.join().expect("the sender ends")
    });
    assert!(sent > 100, "{sent} frames");
    assert_eq!(into.receive_where(Duration::from_millis(200), |f| f == frame), None, "a frame got through");
    assert_eq!(status(&shell)["generation"], 10);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert!(pair.passes());
}

#[test]
fn a_command_that_was_cut_short_is_finished_or_cleared_away() {
    let Some(pair) = Pair::new("recovery") else { return };
    let shell = Shell::new(&pair.ns, CHAIN);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    // As if the first change had ended after its commit and before it was recorded.
    let manifests = pair.ns.manifests().join("interfaces/eth1");
    std::fs::remove_file(manifests.join("current")).expect("a generation is current");
    std::fs::rename(manifests.join("gen-1.json"), manifests.join("staged.json")).expect("it is recorded");
    let recovered = shell.json(&["recover"]);
    assert_eq!(
        (&recovered["interfaces"][0]["what"], &recovered["interfaces"][0]["generation"]),
        (&"finished".into(), &1.into())
    );
    assert_eq!(status(&shell)["problems"], Value::Array(vec![]));
    assert!(pair.passes());

    // As if another one had ended before its commit.
    let text = std::fs::read_to_string(manifests.join("gen-1.json")).expect("it is recorded");
    let mut staged: Value = serde_json::from_str(&text).expect("JSON");
    staged["generation"] = 2.into();
    for component in staged["components"].as_array_mut().expect("a list") {
        component["id"] = (component["id"].as_u64().expect("a number") + 1_000_000).into();
    }
    std::fs::write(manifests.join("staged.json"), staged.to_string()).expect("the folder can be written");
    assert_eq!(shell.json(&["recover"])["interfaces"][0]["what"], "cleared");
    assert!(pair.passes());
    assert_eq!(pair.shown().len(), 2, "the generation before runs on");

    // The interface goes away, and with it all that was for it.
    let ids: Vec<u64> = pair.shown().iter().map(|shown| shown.id).collect();
    assert_eq!(pair.directories(&ids).len(), 1);
    pair.ns.ip("link del dev eth1");
    assert_eq!(shell.json(&["recover"])["interfaces"][0]["what"], "gone");
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    assert_eq!(pair.directories(&ids), Vec::<PathBuf>::new());
}

#[test]
fn a_chain_is_found_under_another_name_and_in_generic_mode() {
    let Some(pair) = Pair::new("modes and names") else { return };
    let shell = Shell::new(&pair.ns, CHAIN);
    shell.xdpchain(&["attach", "eth1", "--mode", "generic"]).expect(0);
    assert_eq!(status(&shell)["mode"], "generic");
    assert!(pair.passes());
    assert_eq!(shell.json(&["map", "get", "one/passed", "0"])["value"], 2);
    let refused = shell.xdpchain(&["attach", "eth1", "--mode", "native"]).expect(8);
    assert!(refused.stderr.contains("cannot be changed to native"), "{}", refused.stderr);
    shell.write("fused.yaml", &CHAIN.replace("engine: libxdp", "engine: fused"));
    let refused = shell.xdpchain(&["attach", "eth1", "-f", "fused.yaml"]).expect(8);
    assert!(
        refused.stderr.contains("runs by engine libxdp and cannot be changed to fused"),
        "{}",
        refused.stderr
    );

    pair.ns.ip("link set dev eth1 down");
    pair.ns.ip("link set dev eth1 name wan");
    pair.ns.ip("link set dev wan up");
    shell.xdpchain(&["recover"]).expect(0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(pair.ns.xdp_program("wan"), None);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_dispatcher_without_room_is_left_alone() {
    let Some(pair) = Pair::new("a full dispatcher") else { return };
    let shell = Shell::new(&pair.ns, CHAIN);
    let passing = shell.path().join("passing.o").display().to_string();
    let nine = vec![passing.as_str(); 9];
    pair.loader(&[&["load", "eth1"], nine.as_slice()].concat()).expect(0);
    let theirs = pair.shown();
    assert_eq!(theirs.len(), 9);
    let full = shell.xdpchain(&["attach", "eth1"]).expect(7);
    assert!(full.stderr.contains("9 of others are there: no room for 2 slots"), "{}", full.stderr);
    assert_eq!(pair.shown(), theirs);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

/// On every kernel, and without touching anything.
#[test]
fn what_libxdp_cannot_say_is_refused_with_a_reason() {
    let ns = Netns::new("libxdp");
    let peer = Netns::new("peer");
    veth((&ns, "eth1"), (&peer, "far1"));
    let mut chains = vec![
        ("observer: true", "slots: [one, two: { observer: true }]", "observers"),
        ("at: exit", "slots: [one, two: { at: exit }]", "`at: exit`"),
        ("on_unknown", "slots: [one: { on_unknown: drop }, two]", "`on_unknown`"),
        (
            "default: drop",
            "default: drop\n    slots: [one, two]",
            "passes a packet after which every program",
        ),
        ("the packet context", "slots: [context, two]", "the packet context"),
    ];
    let many = format!("slots: [{}]", (0..11).map(|i| format!("m{i}")).collect::<Vec<_>>().join(", "));
    chains.push(("11 slots", &many, "a chain of 11 slots"));
    let modules: String = (0..11).map(|i| format!("  m{i}: {{ object: ./passing.o }}\n")).collect();
    for (what, slots, reason) in chains {
        let shell = Shell::new(
            &ns,
            &format!(
                "version: 1\nmodules:\n  one: {{ object: ./passing.o }}\n  two: {{ object: ./passing.o }}\n  \
                 context: {{ object: \"builtin:acl\" }}\n{modules}chains:\n  edge:\n    interfaces: [eth1]\n    \
                 engine: libxdp\n    {slots}\n"
            ),
        );
        for command in [&["attach", "eth1"][..], &["check"]] {
            let refused = shell.xdpchain(command).expect(3);
            assert!(refused.stderr.contains(reason), "{what}: {}", refused.stderr);
            assert!(refused.stderr.contains("\nhelp: "), "{what}: {}", refused.stderr);
        }
        assert_eq!(shell.left(), Vec::<PathBuf>::new(), "{what}");
        assert_eq!(ns.xdp_program("eth1"), None, "{what}");
    }
}

#[test]
fn a_module_may_have_all_of_the_stack() {
    let Some(pair) = Pair::new("a module with all of the stack") else { return };
    let chain = "version: 1\nmodules: { deep: ./deep.o }\n\
                 chains: { edge: { interfaces: [eth1], engine: libxdp, slots: [deep] } }\n";
    let shell = Shell::new(&pair.ns, chain);
    let told = shell.json(&["check"]);
    let engines = told["chains"][0]["engines"].as_array().expect("a list");
    let runs: Vec<_> = engines.iter().map(|engine| (engine["engine"].as_str(), &engine["runs"])).collect();
    let (no, yes) = (Value::from(false), Value::from(true));
    assert_eq!(runs, [(Some("fused"), &no), (Some("tail"), &no), (Some("libxdp"), &yes)]);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    assert_eq!(pair.shown().iter().map(|shown| shown.name.as_str()).collect::<Vec<_>>(), ["deep"]);
}

/// A kernel without what the dispatcher needs is named as the reason, and other engines as the way out.
#[test]
fn a_kernel_that_cannot_is_told_apart_from_a_chain_that_cannot() {
    let ns = Netns::new("libxdp");
    let peer = Netns::new("peer");
    veth((&ns, "eth1"), (&peer, "far1"));
    let pair = Pair { ns, peer };
    let shell = Shell::new(&pair.ns, CHAIN);
    if pair.dispatches() {
        let checked = shell.json(&["check"]);
        let engines = checked["chains"][0]["engines"].as_array().expect("a list").iter();
        assert!(
            engines.filter(|engine| engine["engine"] == "libxdp").all(|engine| engine["runs"] == true),
            "{checked}"
        );
        return;
    }
    for command in [&["attach", "eth1"][..], &["check"]] {
        let refused = shell.xdpchain(command).expect(5);
        assert!(refused.stderr.contains("does not run libxdp's dispatcher"), "{}", refused.stderr);
        assert!(refused.stderr.contains("help: use `engine: fused` or `engine: tail`"), "{}", refused.stderr);
    }
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    assert_eq!(pair.ns.xdp_program("eth1"), None);
}
