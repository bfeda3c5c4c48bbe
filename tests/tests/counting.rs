//! Packets that each CPU holds back before it adds them to their sessions' counters: none is lost or counted twice, and who sends
//! little is counted at once.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use xdpchain_abi::PENDING;
use xdpchain_tests::{Shell, World, plan, rows};

const SESSIONS: u32 = 6;
/// Longer than packets are held back while others come.
const WHILE: Duration = Duration::from_millis(120);
const DIRECTIONS: [&str; 2] = ["uplink", "downlink"];

/// Packets and octets by session and direction.
type Counts = BTreeMap<(u64, &'static str), (u64, u64)>;

/// The data path with counts held back.
fn raise(world: &World) -> Shell<'_> {
    let shell = Shell::new(&world.links.node, &plan::chains_yaml(SESSIONS));
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["attach", interface]).expect(0);
    }
    for (map, table) in rows::data_path(SESSIONS) {
        shell.write("rows.csv", &table.csv());
        shell.xdpchain(&["map", "import", map, "rows.csv"]).expect(0);
    }
    hold_back(&shell, 1);
    shell
}

/// Says whether counts are held back.
fn hold_back(shell: &Shell<'_>, whether: u8) {
    let config = format!(r#"{{"hold_back": {whether}}}"#);
    shell.xdpchain(&["map", "set", "stats/config", "0", &config]).expect(0);
}

/// CPUs that this thread may run on.
fn cpus() -> Vec<usize> {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).collect()
}

/// Runs this thread, and what its packets set off, on one CPU.
fn stay_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).expect("a thread may choose its CPU");
}

/// The entries of a map.
fn entries(shell: &Shell<'_>, map: &str) -> Vec<serde_json::Value> {
    let run = shell.xdpchain(&["map", "export", map]).expect(0);
    run.stdout.lines().map(|line| serde_json::from_str(line).expect("an entry is a line of JSON")).collect()
}

/// What sessions' counters have.
fn added(shell: &Shell<'_>) -> Counts {
    let mut counts = Counts::new();
    for entry in entries(shell, "stats/sessions") {
        for direction in DIRECTIONS {
            let number = |what: &str| entry["value"][direction][what].as_u64().unwrap();
            counts.insert((entry["key"].as_u64().unwrap(), direction), (number("packets"), number("bytes")));
        }
    }
    counts
}

/// What CPUs hold back, and on how many of them anything has been added.
fn held(shell: &Shell<'_>) -> (Counts, usize) {
    let (mut counts, mut cpus) = (Counts::new(), 0);
    for entry in entries(shell, "stats/sessions_pending") {
        let value = &entry["value"];
        let count = value["count"].as_u64().unwrap() as usize;
        assert!(count < PENDING, "{entry}");
        cpus += usize::from(value["since"].as_u64().unwrap() > 0);
        for packet in &value["packets"].as_array().unwrap()[..count] {
            let number = |what: &str| packet[what].as_u64().unwrap();
            let direction = DIRECTIONS[number("direction") as usize - 1];
            let counted = counts.entry((number("session"), direction)).or_default();
            *counted = (counted.0 + 1, counted.1 + number("bytes"));
        }
    }
    (counts, cpus)
}

/// Both together.
fn all(shell: &Shell<'_>) -> Counts {
    let mut counts = added(shell);
    for (whose, (packets, bytes)) in held(shell).0 {
        let counted = counts.entry(whose).or_default();
        *counted = (counted.0 + packets, counted.1 + bytes);
    }
    counts
}

#[test]
fn what_is_held_back_is_neither_lost_nor_counted_twice() {
    let world = World::new(1 << 16);
    let shell = raise(&world);
    let mut sender = world.sender(SESSIONS);
    let cpus = cpus();
    let cpus = &cpus[..cpus.len().min(2)];
    for round in 0..6 {
        stay_on(cpus[round % cpus.len()]);
        // No multiple of what is held, so that something is left each time.
        sender.send(&world, 707);
        if round == 3 {
            shell.xdpchain(&["replace", "n3", "stats", "builtin:stats"]).expect(0);
        }
    }
    sender.settle(&world);
    assert_eq!(world.ran_end.right(), u64::from(sender.sent()), "every packet came back");

    let (held, on) = held(&shell);
    assert_eq!(on, cpus.len(), "as many CPUs held packets back as sent any");
    assert!(held.values().map(|(packets, _)| packets).sum::<u64>() > 0);
    let counted = all(&shell);
    for number in 0..SESSIONS {
        let sent = (number..sender.sent()).step_by(SESSIONS as usize);
        let octets: u64 = sent.clone().map(|at| plan::Session { number }.inner(at).len() as u64).sum();
        for direction in DIRECTIONS {
            let counted = counted[&(number.into(), direction)];
            assert_eq!(counted, (sent.len() as u64, octets), "session {number}, {direction}");
        }
    }
}

#[test]
fn what_is_held_back_is_added_when_nothing_is_to_be() {
    let world = World::new(1 << 16);
    let shell = raise(&world);
    let mut sender = world.sender(SESSIONS);
    stay_on(cpus()[0]);
    while held(&shell).0.is_empty() {
        sender.send(&world, 5);
        sender.settle(&world);
    }
    hold_back(&shell, 0);
    sender.send(&world, 1);
    sender.settle(&world);
    assert_eq!(held(&shell).0, Counts::new());
    let packets: u64 = added(&shell).values().map(|(packets, _)| packets).sum();
    assert_eq!(packets, u64::from(sender.sent()) * 2, "each packet came back");
}

#[test]
fn who_sends_little_is_counted_at_once() {
    let world = World::new(1 << 16);
    let shell = raise(&world);
    let mut sender = world.sender(1);
    stay_on(cpus()[0]);
    for sent in 1..=5 {
        thread::sleep(WHILE);
        sender.send(&world, 1);
        sender.settle(&world);
        assert_eq!(added(&shell)[&(0, "uplink")].0, sent);
        // Its answer comes right behind it.
        assert_eq!(all(&shell)[&(0, "downlink")].0, sent);
    }
}
