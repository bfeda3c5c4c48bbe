//! docs/performance.md: what the benchmarks measured last, read from target/bench.
//!
//! Every number in it is one that a benchmark wrote down; a benchmark that has not run is named and has none.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;

use crate::report;
use crate::run::workspace;

const HEADER: &str = "\
# Performance

Made by `cargo xtask performance` from what the benchmarks wrote down. Each of them says on its last lines which of its bars it
kept; the numbers of one benchmark are of one run, and those of two benchmarks may be of two days.

Nanoseconds are what the kernel tells of test runs (`BPF_PROG_TEST_RUN`) on one CPU. They are of use beside each other more than
alone: the machine here is a virtual one. Where something is subtracted, round by round, the least is the least of all rounds less
the least of what was subtracted, which may be more than the median of the differences.
";

/// A benchmark: its name, and how it measures.
const BENCHES: [(&str, &str); 7] = [
    (
        "datapath",
        "Each case is one kind of packet through the chain of six modules as it is; customers and sessions are counted by number, with \
         the room that the example chains.yaml gives them. A harness puts the packet's length and headers back \
         before each run, draws one of a thousand sessions, and tail calls the chain; the same harness in front of a program that only \
         returns (`floor/tx`) is measured in turn with it and subtracted. A round counts only when the chain's own counters have every \
         packet. Programs are warm: what is measured follows runs that are not. Of chain, monolith and floors with a look-up five copies \
         take turns, each with maps of its own, since where those lie in memory matters. `uplink/monolith` is the same work for an \
         uplink packet written by hand as one function, its next hop in the tunnel's entry, with the look-up of the session for all \
         that is asked of the outer header's addresses; `monolith-fib` asks for the next hop of each packet. `floor/lookup` changes \
         the packet's length, writes a constant header and looks into one hash map, `floor/index` into one array. `uplink/prefix-3` is the chain of the first three \
         modules. Customers have one GRE tunnel each, in `uplink-tunnels/chain` two, and in `…-key/chain` one with a key; in \
         `…-tag/chain` there is a VLAN tag in front of the outer packet. Names with a number have that many octets inside, the others 64. `live/…` are packets a second that one CPU sends out of a veth and counts at its \
         other end.",
    ),
    (
        "sessions",
        "The same, for an uplink (`hash/N`) and a downlink (`hash-downlink/N`) packet of one of N sessions drawn at random, so that \
         caches miss; the maps of sessions are an array by TEID for the uplink (`dense/N`), hash maps with and without entries made \
         before, or of the kind that forgets the least recently used. `floor-hash/N` and `floor-array/N` are one look-up among as \
         many and a constant header. With 200 instructions more behind the look-up, which do nothing, the latter \
         takes far longer (`floor-array-apart/N`): so short a program the processor seems to begin for the next packet while it waits \
         for this one's entry, and a longer one not. Octets of a session are those of its entries both ways, and of its counters. Sessions are counted \
         16 packets at a time (`hold_back` of `stats/config`), in `hash-at-once/N` and `dense-at-once/N` one by one.",
    ),
    (
        "compose",
        "What a slot costs: N small modules as one hand-written function, as a fused chain with and without the counting of exits, as \
         a chain of tail calls, and as functions that call each other.",
    ),
    (
        "acl",
        "What the access list costs a packet, with N rules: an operator's, fifty for each customer (`rules/N`), a firewall's, or single \
         addresses. Three of four packets are of a rule at random, the others of nobody's; in `worst/N` they are those with the longest \
         ways. They are drawn at random from 16,384, which share the caches with the tables, and no packet tells the processor what the \
         next one will branch to.",
    ),
    (
        "churn",
        "Changes of a chain of six modules on two interfaces, by the command as an operator runs it, while numbered packets go both \
         ways.",
    ),
    ("state", "A million entries of 56 octets saved and restored, and filled from database tables."),
    (
        "side-by-side",
        "Several applications on one interface and one CPU, beside DPDK. [Side by side](side-by-side.md) says what each case is.",
    ),
];

/// Makes the document anew.
pub(crate) fn write() -> anyhow::Result<()> {
    let mut text = HEADER.to_owned();
    for (name, method) in BENCHES {
        let _ = write!(text, "\n## `cargo xtask bench {name}`\n\n{}\n", filled(method));
        let Some(report) = report::read(name)? else {
            text.push_str("\nNot measured.\n");
            continue;
        };
        let _ = write!(text, "\n{}, Linux {}\n\n", report.cpu, report.kernel);
        text.push_str("| case | median | least | unit | runs |\n|---|---:|---:|---|---:|\n");
        for row in &report.rows {
            let on = row.kernel.as_ref().map(|kernel| format!(", Linux {kernel}")).unwrap_or_default();
            let (value, min) = (number(row.value), number(row.min));
            let _ = writeln!(text, "| {}{on} | {value} | {min} | {} | {} |", row.case, row.unit, row.runs);
        }
    }
    let path = workspace().join("docs/performance.md");
    fs::write(&path, text).with_context(|| format!("writing `{}`", path.display()))
}

/// As many digits as say something.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 10.0 && value.fract() != 0.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// A paragraph in lines as long as those of the other documents.
pub(crate) fn filled(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a first one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= 130 {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_filled_and_lose_nothing() {
        let text = "word ".repeat(100);
        let filled = filled(&text);
        assert!(filled.lines().all(|line| line.len() <= 130));
        assert_eq!(filled.split_whitespace().count(), 100);
    }

    #[test]
    fn numbers_have_digits_that_say_something() {
        assert_eq!(
            [0.0, 1.25, 12.5, 1_037_373.4, -1.0].map(number),
            ["0", "1.25", "12", "1037373", "-1"].map(str::to_owned)
        );
    }
}
