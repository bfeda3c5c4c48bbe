//! Changes as transactions, by the real binary: several interfaces at once or none, going back, changes on trial, and
//! interfaces that change their names meanwhile.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use xdpchain_host::{Compose, Error, Host, Terms, To, Want};
use xdpchain_tests::{Netns, Port, Shell, cli, plan, veth};

/// A chain of three modules for two interfaces.
const TWO: &str = "\
version: 1
modules:
  first: { object: ./passing.o }
  second: { object: ./passing.o }
  third: { object: ./passing.o }
chains:
  edge:
    interfaces: [eth1, eth2]
    slots: [first, second, third]
";

/// Two namespaces with two links, eth1 and eth2 of the first to far1 and far2 of the second.
fn pair() -> (Netns, Netns) {
    let (ns, peer) = (Netns::new("change"), Netns::new("peer"));
    for number in [1, 2] {
        veth((&ns, &format!("eth{number}")), (&peer, &format!("far{number}")));
    }
    (ns, peer)
}

fn generations(shell: &Shell<'_>, interface: &str) -> Vec<(u64, String)> {
    let history = shell.json(&["history", interface]);
    let entries = history["generations"].as_array().expect("a list").iter();
    entries
        .map(|entry| {
            let cause = entry["cause"].as_str().expect("a text").to_owned();
            (entry["generation"].as_u64().expect("a number"), cause)
        })
        .collect()
}

fn slots(shell: &Shell<'_>, interface: &str) -> Vec<String> {
    let status = shell.json(&["status", interface]);
    let slots = status["interfaces"][0]["slots"].as_array().expect("a list");
    slots.iter().map(|slot| slot["slot"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until something is so, for at most ten seconds.
#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn all_interfaces_change_or_none() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    let applied = shell.json(&["apply"]);
    assert_eq!(applied["interfaces"].as_array().map(Vec::len), Some(2));
    assert_eq!(slots(&shell, "eth1"), ["first", "second", "third"]);
    let run = shell.xdpchain(&["apply"]).expect(0);
    assert!(run.stderr.contains("nothing to do"), "{}", run.stderr);
    shell.xdpchain(&["plan"]).expect(0);

    // One plan with a removal, a move, a new mask, another default; and a second chain.
    shell.write(
        "chains.yaml",
        "\
version: 1
modules:
  first: { object: ./passing.o }
  third: { object: ./passing.o }
  other: { object: ./dropping.o }
chains:
  edge:
    interfaces: [eth1]
    default: drop
    slots: [third, first: { proceed_on: [pass, tx] }]
  side:
    interfaces: [eth2]
    slots: [other]
",
    );
    shell.xdpchain(&["plan"]).expect(1);
    let before = (ns.xdp_program("eth1"), ns.xdp_program("eth2"));
    shell.xdpchain(&["apply", "--dry-run"]).expect(0);
    assert_eq!((ns.xdp_program("eth1"), ns.xdp_program("eth2")), before);
    shell.xdpchain(&["apply"]).expect(0);
    shell.xdpchain(&["plan"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["third", "first"]);
    assert_eq!(slots(&shell, "eth2"), ["other"]);
    let told: Vec<u64> = generations(&shell, "eth1").into_iter().map(|(number, _)| number).collect();
    assert_eq!(told, [1, 2]);

    // The second interface fails in the kernel; the first stays as it is.
    shell.write(
        "chains.yaml",
        "\
version: 1
modules:
  first: { object: ./passing.o }
  bad: { object: ./refused.o }
chains:
  edge: { interfaces: [eth1], slots: [first] }
  side: { interfaces: [eth2], slots: [bad] }
",
    );
    let before = (ns.xdp_program("eth1"), ns.xdp_program("eth2"));
    let left = shell.left();
    shell.xdpchain(&["apply"]).expect(6);
    assert_eq!((ns.xdp_program("eth1"), ns.xdp_program("eth2")), before);
    assert_eq!(shell.left(), left);

    // A chain that the file does not have any more goes.
    shell.write(
        "chains.yaml",
        "version: 1\nmodules: { first: { object: ./passing.o } }\nchains: { edge: { interfaces: [eth1], slots: [first] } }\n",
    );
    shell.xdpchain(&["apply"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["first"]);
    assert_eq!(ns.xdp_program("eth2"), None);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_fails_late_takes_back_what_was_committed() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, TWO);
    // Somebody's program is on the second interface: that shows only when the first could have been changed.
    let bare = Shell::new(&peer, TWO);
    bare.xdpchain(&["status"]).expect(0);
    ns.sh(
        "ip",
        &[
            "link",
            "set",
            "dev",
            "eth2",
            "xdpgeneric",
            "obj",
            &format!("{}/passing.o", shell.path().display()),
            "sec",
            "xdp",
        ],
    );
    shell.xdpchain(&["apply"]).expect(7);
    assert_eq!(ns.xdp_program("eth1"), None);
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
    // One that only the driver refuses: loopback has no native mode, after the first interface was committed.
    ns.ip("link set dev eth2 xdpgeneric off");
    shell.write(
        "chains.yaml",
        "\
version: 1
modules: { first: { object: ./passing.o } }
chains:
  edge: { interfaces: [eth1], slots: [first] }
  side: { interfaces: [lo], mode: native, slots: [first] }
",
    );
    let run = shell.xdpchain(&["apply"]);
    assert!(run.status == 5 || run.status == 8, "{run:?}");
    assert!(run.stderr.contains("rolled back"), "{}", run.stderr);
    assert_eq!(ns.xdp_program("eth1"), None);
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
    shell.xdpchain(&["recover"]).expect(0);
}

#[test]
fn rolling_back_makes_a_new_generation_of_an_old_chain() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    shell.xdpchain(&["apply", "eth1"]).expect(0);
    assert_eq!(ns.xdp_program("eth2"), None);
    shell.xdpchain(&["rollback", "eth1"]).expect(1);
    shell.xdpchain(&["remove", "eth1", "second"]).expect(0);
    shell.xdpchain(&["add", "eth1", "./dropping.o", "--first"]).expect(0);
    shell.xdpchain(&["rollback", "eth1", "--dry-run"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["dropping", "first", "third"]);
    shell.xdpchain(&["rollback", "eth1"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["first", "third"]);
    shell.xdpchain(&["rollback", "eth1", "1"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["first", "second", "third"]);
    let causes: Vec<String> = generations(&shell, "eth1").into_iter().map(|(_, cause)| cause).collect();
    assert_eq!(causes[1..], ["remove second", "add dropping", "rollback to 2", "rollback to 1"]);
    let run = shell.xdpchain(&["rollback", "eth1", "17"]).expect(1);
    assert!(run.stderr.contains("1, 2, 3, 4, 5"), "{}", run.stderr);
    shell.xdpchain(&["rollback"]).expect(1);
    shell.xdpchain(&["confirm"]).expect(1);
}

#[test]
fn a_change_goes_back_unless_it_is_confirmed() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    // Each trial is long enough for the next command to begin on an emulated machine.
    shell.xdpchain(&["apply", "--confirm", "5s"]).expect(0);
    assert_eq!(slots(&shell, "eth2"), ["first", "second", "third"]);
    // Nobody changes what is on trial.
    let run = shell.xdpchain(&["remove", "eth1", "first"]).expect(8);
    assert!(run.stderr.contains("on trial"), "{}", run.stderr);
    eventually("both go back to nothing", || {
        ns.xdp_program("eth1").is_none() && ns.xdp_program("eth2").is_none()
    });
    eventually("nothing is left", || shell.left().is_empty());

    shell.xdpchain(&["apply", "--confirm", "5s"]).expect(0);
    shell.xdpchain(&["confirm"]).expect(0);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(slots(&shell, "eth1"), ["first", "second", "third"]);

    shell.write("chains.yaml", &TWO.replace("[first, second, third]", "[second, first]"));
    shell.xdpchain(&["apply", "--confirm", "1m"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["second", "first"]);
    shell.xdpchain(&["rollback"]).expect(0);
    assert_eq!(slots(&shell, "eth1"), ["first", "second", "third"]);
    assert_eq!(slots(&shell, "eth2"), ["first", "second", "third"]);

    // Neither does a trial outlive its watcher that is killed.
    shell.xdpchain(&["apply", "--confirm", "4s"]).expect(0);
    let trial = std::fs::read_to_string(ns.manifests().join("trial.json")).expect("a trial");
    let trial: Value = serde_json::from_str(&trial).expect("JSON");
    let killed = std::process::Command::new("pkill")
        .args(["-KILL", "-f", &format!("watch-trial {}", trial["id"])])
        .status()
        .expect("pkill runs");
    assert!(killed.success());
    std::thread::sleep(Duration::from_millis(9500));
    assert_eq!(slots(&shell, "eth1"), ["second", "first"], "nobody watches");
    let run = shell.xdpchain(&["recover"]).expect(0);
    assert!(run.stderr.contains("taken back"), "{}", run.stderr);
    assert_eq!(slots(&shell, "eth1"), ["first", "second", "third"]);
}

#[test]
fn a_terminal_that_hangs_up_ends_no_trial() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    for (time, order, then) in
        [("2s", "[second, first]", "[first, second, third]"), ("1m", "[third]", "[third]")]
    {
        shell.write("chains.yaml", TWO);
        shell.xdpchain(&["apply"]).expect(0);
        shell.write("chains.yaml", &TWO.replace("[first, second, third]", order));
        // The command has a terminal of its own, which goes away while it still is that of a foreground process.
        let command = format!("{} apply --confirm {time}; cat", cli::binary().display());
        let mut terminal = std::process::Command::new("script");
        terminal.args(["-qec", &command, "/dev/null"]).current_dir(shell.path());
        terminal.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut terminal = ns.run(|| terminal.spawn()).expect("script runs");
        eventually("the change is made", || format!("[{}]", slots(&shell, "eth2").join(", ")) == order);
        terminal.kill().expect("it runs until it is killed");
        terminal.wait().expect("it ends");
        if time == "1m" {
            shell.xdpchain(&["confirm"]).expect(0);
        }
        eventually("it goes back, unless it was confirmed", || {
            ["eth1", "eth2"].iter().all(|name| format!("[{}]", slots(&shell, name).join(", ")) == then)
        });
    }
}

#[test]
fn a_watch_takes_back_what_drops_too_much() {
    let (ns, peer) = pair();
    let chain = |object: &str, watch: &str| {
        format!(
            "version: 1\nmodules: {{ only: {{ object: ./{object}.o }} }}\n\
             chains: {{ edge: {{ interfaces: [eth1], watch: {watch}, slots: [only] }} }}\n"
        )
    };
    let shell = Shell::new(&ns, &chain("passing", "{ window: 1s, max_drop_increase: 10% }"));
    let frame = plan::frame([0xff; 6], peer.mac("far1"), 0x88b5, &[7; 50]);
    let out = Port::open(&peer, "far1");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                out.send(&frame);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        shell.xdpchain(&["apply"]).expect(0);
        shell.write("chains.yaml", &chain("dropping", "{ window: 1s, max_drop_increase: 10% }"));
        let run = shell.xdpchain(&["apply"]);
        let last = generations(&shell, "eth1").pop();
        // What drops no more than it may stays.
        shell.write("chains.yaml", &chain("dropping", "{ window: 1s, max_drop_increase: 100% }"));
        let stays = shell.xdpchain(&["apply"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let run = run.expect(8);
        assert!(run.stderr.contains("max_drop_increase"), "{}", run.stderr);
        let (number, cause) = last.expect("a generation");
        assert_eq!(number, 3);
        assert!(cause.starts_with("rollback to 1 (eth1: "), "{cause}");
        stays.expect(0);
    });
    assert_eq!(generations(&shell, "eth1").len(), 4);
}

#[test]
fn two_operators_at_once_are_told_and_never_mixed() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    shell.xdpchain(&["apply"]).expect(0);
    // A plan of one generation is not applied to another: both read, then both write.
    let tries = 12;
    let outcomes: Vec<i32> = std::thread::scope(|scope| {
        let one = |name: &'static str, order: &'static str| {
            let file = format!("{name}.yaml");
            shell.write(&file, &TWO.replace("[first, second, third]", order));
            scope.spawn({
                let shell = &shell;
                move || (0..tries).map(|_| shell.xdpchain(&["apply", "-f", &file]).status).collect::<Vec<_>>()
            })
        };
        let runs = [one("a", "[third, second, first]"), one("b", "[second, first]"), one("c", "[first]")];
        runs.into_iter().flat_map(|run| run.join().expect("no panic")).collect()
    });
    assert!(outcomes.iter().all(|status| [0, 8].contains(status)), "{outcomes:?}");
    assert!(outcomes.contains(&0), "{outcomes:?}");
    let (one, two) = (slots(&shell, "eth1"), slots(&shell, "eth2"));
    assert_eq!(one, two, "one plan has both interfaces");
    let numbers: Vec<u64> = generations(&shell, "eth1").into_iter().map(|(number, _)| number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn an_interface_that_is_to_stay_is_as_it_was_seen_or_none_changes() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    shell.xdpchain(&["apply"]).expect(0);
    // Between the look and the change somebody has given `eth1` another generation than the caller saw.
    let transact = |seen| {
        ns.run(|| {
            let compose: &Compose<'_> = &|_, _, _| panic!("nothing is composed");
            let terms = Terms { compose, gate: None, trial: None, dry_run: false };
            let same = Want { ifname: "eth1".into(), seen: Some(Some(seen)), to: To::Same };
            let leave = Want { ifname: "eth2".into(), seen: Some(Some(1)), to: To::Nothing };
            Host::open().expect("the namespace").transact(vec![leave, same], &terms).map(|done| done.len())
        })
    };
    match transact(7) {
        Err(Error::Raced { ifname, seen: Some(7), found: Some(1) }) => assert_eq!(ifname, "eth1"),
        other => panic!("{other:?}"),
    }
    assert_eq!(slots(&shell, "eth2"), ["first", "second", "third"]);
    assert_eq!(transact(1).expect("as it was seen"), 1);
    assert!(ns.xdp_program("eth1").is_some() && ns.xdp_program("eth2").is_none());
}

#[test]
fn a_chain_goes_by_the_present_name_of_its_interface() {
    let (ns, _peer) = pair();
    let shell = Shell::new(&ns, TWO);
    shell.xdpchain(&["apply"]).expect(0);
    let runs = ns.xdp_program("eth1");
    ns.ip("link set dev eth1 down");
    ns.ip("link set dev eth1 name wan0");
    for arguments in [&["status"][..], &["status", "wan0"]] {
        let run = shell.xdpchain(arguments).expect(1);
        assert!(run.stderr.contains("named `wan0` now"), "{}", run.stderr);
    }
    // Not even `--adopt` takes it for somebody else's.
    shell.write("chains.yaml", &TWO.replace("eth1", "wan0"));
    let run = shell.xdpchain(&["attach", "wan0", "--adopt"]);
    assert_ne!(run.status, 0, "{run:?}");
    shell.xdpchain(&["remove", "wan0", "second"]).expect(0);
    assert_ne!(ns.xdp_program("wan0"), runs);
    assert_eq!(generations(&shell, "wan0").len(), 2);
    assert_eq!(slots(&shell, "wan0"), ["first", "third"]);
    for interface in ["wan0", "eth2"] {
        shell.xdpchain(&["detach", interface]).expect(0);
    }
    assert_eq!(shell.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn an_interface_that_is_made_anew_has_no_chain() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, TWO);
    shell.xdpchain(&["apply"]).expect(0);
    let index = ns.ifindex("eth1");
    ns.ip("link del eth1");
    ns.ip(&format!("link add eth1 index {index} type veth peer name far1 netns {}", peer.name()));
    let run = shell.xdpchain(&["status", "eth1"]).expect(1);
    assert!(run.stderr.contains("the link was detached"), "{run:?}");
    // A command in another namespace may have cleared it away already.
    shell.xdpchain(&["recover"]).expect(0);
    shell.xdpchain(&["status", "eth1"]).expect(1);
    assert!(shell.left().iter().all(|path| !path.to_string_lossy().contains("/eth1/")));
    assert_eq!(ns.xdp_program("eth1"), None);
    shell.xdpchain(&["apply"]).expect(0);
    assert_eq!(generations(&shell, "eth1").len(), 1);
    assert_eq!(slots(&shell, "eth2").len(), 3);
}
