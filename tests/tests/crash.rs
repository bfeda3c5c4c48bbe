//! Changes that are cut short: the kernel or a file system refuses one call after another, the command is killed at each of
//! them and at random moments, and many commands run at once. Packets see one generation whole, and nothing is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use xdpchain_tests::cli::{binary, run};
use xdpchain_tests::trickle::Trickle;
use xdpchain_tests::{Netns, Run, Shell, cli, veth};

/// Chain `number` of eight that mark packets differently. `check` drops what another chain has marked.
fn chain(number: usize, engine: &str) -> String {
    format!(
        "\
version: 1
modules:
  stamp: {{ object: ./marks.o, program: stamp{number} }}
  between: {{ object: ./passing.o }}
  check: {{ object: ./marks.o, program: check{number} }}
chains:
  edge:
    interfaces: [eth1]
    engine: {engine}
    slots: [stamp, between, check]
"
    )
}

fn pair() -> (Netns, Netns) {
    let (ns, peer) = (Netns::new("crash"), Netns::new("peer"));
    veth((&ns, "eth1"), (&peer, "far1"));
    (ns, peer)
}

/// How much to do, by an environment variable.
fn amount(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The pins and files that the present state needs, with generations' numbers and objects left out.
fn needed(shell: &Shell<'_>) -> Vec<String> {
    let of_past = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("gen-") || name == "lock" || path.components().any(|c| c.as_os_str() == "objects")
    };
    let kept = shell.left().into_iter().filter(|path| !of_past(path));
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    kept.map(text).map(|path| without_number(&path)).collect()
}

/// A pin's path without the number of a generation behind its name.
fn without_number(path: &str) -> String {
    match path.rsplit_once("%2E") {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        _ => path.to_owned(),
    }
}

/// How a call is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The kernel answers with this error instead of doing it.
    Error(&'static str),
    /// The command is killed before it is done.
    Kill,
}

/// Runs `xdpchain ARGUMENTS` with the `nth` call of `call` going wrong; none when there is no such call.
fn faulty(shell: &Shell<'_>, arguments: &[&str], call: &str, nth: u64, fault: Fault) -> Option<Run> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let log = shell.path().join(format!("trace-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let injected = match fault {
        Fault::Error(error) => format!("inject={call}:error={error}:when={nth}"),
        Fault::Kill => format!("inject={call}:signal=KILL:when={nth}"),
    };
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &injected, "-o"]).arg(&log);
    command.arg(binary()).args(arguments).current_dir(shell.path()).env("NO_COLOR", "1");
    let ended = run(shell.netns(), &mut command);
    let text = std::fs::read_to_string(&log).expect("strace writes its log");
    std::fs::remove_file(log).expect("it was just read");
    (text.contains("INJECTED") || text.contains("killed by SIGKILL")).then_some(ended)
}

/// Calls that change something, or that a change depends on.
const CALLS: [&str; 14] = [
    "bpf",
    "openat",
    "read",
    "write",
    "rename",
    "symlink",
    "unlink",
    "mkdir",
    "rmdir",
    "sendto",
    "recvfrom",
    "flock",
    "membarrier",
    "fcntl",
];

/// Lets each call go wrong in turn, every `stride`th of them, and looks at what is left each time. `prepare` makes the state
/// that the command starts from, by a command of its own.
fn every_call_goes_wrong(shell: &Shell<'_>, prepare: &[&[&str]], arguments: &[&str], stride: u64) -> u32 {
    let reset = || {
        shell.xdpchain(&["recover"]).expect(0);
        let again = shell.xdpchain(&["recover"]).expect(0);
        assert!(again.stderr.contains("nothing to recover"), "{}", again.stderr);
        for arguments in prepare {
            let run = shell.xdpchain(arguments);
            let fine = run.status == 0 || (run.status == 1 && arguments[0] == "detach");
            assert!(fine, "{arguments:?}: {run:?}");
        }
    };
    reset();
    let before = needed(shell);
    let mut faults = 0;
    let only = std::env::var("XDPCHAIN_FAULT_CALLS").ok();
    let calls =
        CALLS.iter().filter(|call| only.as_ref().is_none_or(|only| only.split(',').any(|c| c == **call)));
    for fault in [Fault::Kill, Fault::Error("ENOMEM"), Fault::Error("EPERM")] {
        for call in calls.clone().copied() {
            if fault == Fault::Error("EPERM") && call != "bpf" {
                continue;
            }
            for nth in (1..).step_by(stride as usize) {
                let Some(ended) = faulty(shell, arguments, call, nth, fault) else { break };
                faults += 1;
                let what = format!("{arguments:?}, {fault:?} at {call} number {nth}: {ended:?}");
                match fault {
                    Fault::Kill => assert_eq!(ended.status, 128 + 9, "{what}"),
                    // Whoever loads the command needs files, too.
                    Fault::Error(_) if [0, 127].contains(&ended.status) => {}
                    Fault::Error(_) => {
                        // What cannot be written is not read either.
                        assert!(call == "write" || ended.stderr.contains("error: "), "{what}");
                        assert!(!ended.stderr.contains("panicked"), "{what}");
                    }
                }
                reset();
                assert_eq!(needed(shell), before, "{what}");
            }
        }
    }
    faults
}

#[test]
fn wherever_a_change_goes_wrong_the_old_or_the_new_chain_runs_whole() {
    // With 1, every call; that takes a while.
    let stride = amount("XDPCHAIN_FAULT_STRIDE", 16);
    for engine in ["fused", "tail"] {
        let (ns, peer) = pair();
        let shell = Shell::new(&ns, &chain(1, engine));
        shell.write("two.yaml", &chain(2, engine));
        let traffic = Trickle::start((&peer, "far1"), (&ns, "eth1"));
        let one: &[&str] = &["apply"];
        let mut faults = every_call_goes_wrong(&shell, &[one], &["apply", "-f", "two.yaml"], stride);
        faults += every_call_goes_wrong(&shell, &[one], &["remove", "eth1", "between"], stride);
        faults += every_call_goes_wrong(&shell, &[one], &["detach", "eth1"], stride);
        faults += every_call_goes_wrong(&shell, &[&["detach", "eth1"]], &["attach", "eth1"], stride);
        shell.xdpchain(&["detach", "eth1"]).expect(0);
        let arrived = traffic.stop();
        println!("{engine}: {faults} faults, {} packets", arrived.sent);
        assert!(faults >= 12, "{faults}");
        assert_eq!((arrived.lost(), arrived.duplicated()), (0, 0), "{:?}", arrived.marks);
        assert_eq!(shell.left(), Vec::<PathBuf>::new());
    }
}

#[test]
fn commands_killed_at_random_moments_leave_a_whole_chain() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, &chain(1, "auto"));
    for number in 2..=8 {
        shell
            .write(&format!("{number}.yaml"), &chain(number, if number % 2 == 0 { "fused" } else { "tail" }));
    }
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let before = needed(&shell).iter().filter(|path| path.contains("/modules/")).count();
    let traffic = Trickle::start((&peer, "far1"), (&ns, "eth1"));
    let kills = amount("XDPCHAIN_KILLS", 60);
    let mut done = 0;
    for number in 0..kills {
        let file = format!("{}.yaml", 2 + number % 7);
        let mut command = Command::new(binary());
        command.args(["apply", "-f", &file]).current_dir(shell.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = ns.run(|| command.spawn()).expect("it runs");
        // By multiplication modulo a prime the moments are spread over the time that a change takes.
        std::thread::sleep(Duration::from_micros(number * 7919 % 45_000));
        child.kill().expect("it can be killed, or has ended");
        let status = child.wait().expect("it ends");
        done += u64::from(status.success());
        if number % 16 == 0 {
            shell.xdpchain(&["recover"]).expect(0);
            shell.xdpchain(&["status", "eth1"]).expect(0);
        }
    }
    shell.xdpchain(&["recover"]).expect(0);
    shell.xdpchain(&["status", "eth1"]).expect(0);
    let arrived = traffic.stop();
    println!("{kills} kills, of which {done} came too late; {} packets, {:?}", arrived.sent, arrived.marks);
    assert!(done < kills, "some were killed in time");
    assert_eq!((arrived.lost(), arrived.duplicated()), (0, 0));
    assert_eq!(needed(&shell).iter().filter(|path| path.contains("/modules/")).count(), before);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn eight_commands_at_once_make_one_history_and_no_packet_meets_two_chains() {
    let (ns, peer) = pair();
    let shell = Shell::new(&ns, &chain(1, "fused"));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let traffic = Trickle::start((&peer, "far1"), (&ns, "eth1"));
    let end = Instant::now() + Duration::from_secs(amount("XDPCHAIN_CHURN_SECONDS", 4));
    let committed: Vec<u32> = std::thread::scope(|scope| {
        let one = |number: usize| {
            let (ns, folder) = (&ns, shell.path());
            let file = format!("{number}.yaml");
            shell.write(&file, &chain(number, if number.is_multiple_of(3) { "tail" } else { "fused" }));
            scope.spawn(move || {
                let mut committed = 0;
                while Instant::now() < end {
                    let run = cli::xdpchain(ns, folder, &["apply", "-f", &file, "-o", "json"]);
                    assert!([0, 8].contains(&run.status), "{run:?}");
                    assert_ne!((run.status, run.stderr.contains("changed meanwhile")), (8, false), "{run:?}");
                    committed += u32::from(run.status == 0 && run.stdout.contains("\"generation\""));
                }
                committed
            })
        };
        let all: Vec<_> = (1..=8).map(one).collect();
        // To somebody who only looks, a change that is half made is no problem.
        while Instant::now() < end {
            shell.xdpchain(&["status"]).expect(0);
            shell.xdpchain(&["status", "eth1"]).expect(0);
        }
        all.into_iter().map(|process| process.join().expect("no panic")).collect()
    });
    let arrived = traffic.stop();
    let history = shell.json(&["history", "eth1"]);
    let numbers: Vec<u64> = history["generations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["generation"].as_u64().expect("a number"))
        .collect();
    println!("{committed:?} committed, {} packets, {:?}", arrived.sent, arrived.marks);
    assert_eq!(numbers.last(), Some(&u64::from(1 + committed.iter().sum::<u32>())));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert_eq!((arrived.lost(), arrived.duplicated()), (0, 0));
    assert!(arrived.marks.keys().all(|mark| (1..=8).contains(mark)), "{:?}", arrived.marks);
    let mixed = shell.json(&["map", "get", "check/mixed", "0"]);
    assert!(mixed.to_string().contains(":0") || mixed.to_string().contains(": 0"), "{mixed}");
    shell.xdpchain(&["status", "eth1"]).expect(0);
}
