//! docs/side-by-side.md and its plots: what `bench side-by-side` saw last, read from target/bench.
//!
//! Every number and every message in them is one that the benchmark wrote down; what it did not is said to be missing.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;

use crate::performance::{filled, number};
use crate::plot::{Bar, bars};
use crate::report::{self, Report, Row};
use crate::run::workspace;

/// The benchmark's name.
pub(crate) const BENCH: &str = "side-by-side";

const CHAIN: &str = "#1b7f5c";
const DPDK: &str = "#b3541e";

/// A plot: its file, its title, and the cases of its bars with what they are called.
type Plot = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const PLOTS: [Plot; 4] = [
    (
        "side-by-side-rate.svg",
        "Packets a second through one CPU",
        &[
            ("chain/rate-of-one", "XDP, forward alone"),
            ("chain/rate", "chain of four modules"),
            ("chain/rate-of-five", "chain of five modules"),
            ("dpdk/rate-of-one", "DPDK, one process, packet sockets"),
            ("dpdk/rate-of-one-af-xdp", "DPDK, one process, AF_XDP"),
            ("dpdk/rate", "DPDK, four processes, vhost"),
            ("dpdk/rate-memif", "DPDK, four processes, memif"),
        ],
    ),
    (
        "side-by-side-cpu.svg",
        "Percent of the CPU that is taken",
        &[
            ("chain/cpu-idle", "chain, no packets"),
            ("chain/cpu-loaded", "chain, 10,000 packets/s"),
            ("dpdk/cpu-idle", "DPDK, no packets"),
            ("dpdk/cpu-loaded", "DPDK, 10,000 packets/s"),
        ],
    ),
    (
        "side-by-side-fifth.svg",
        "Packets lost at 10,000 a second while a fifth application is added",
        &[
            ("chain/add/lost", "chain"),
            ("dpdk/add/lost", "DPDK, ended and started"),
            ("dpdk/add-prepared/lost", "DPDK, started before"),
        ],
    ),
    (
        "side-by-side-crash.svg",
        "Longest time without a packet, ms",
        &[
            ("chain/unchanged/longest-gap", "chain, nothing happens"),
            ("chain/agent-killed/longest-gap", "chain, agent killed"),
            ("chain/command-killed/longest-gap", "chain, command killed"),
            ("chain/module-refused/longest-gap", "chain, broken module refused"),
            ("chain/module-aborts/longest-gap", "chain, aborting module in for 500 ms"),
            ("dpdk/unchanged/longest-gap", "DPDK, nothing happens"),
            ("dpdk/crash/longest-gap", "DPDK, one killed, started again"),
        ],
    ),
];

/// Makes the document and its plots anew, where the benchmark has run.
pub(crate) fn rewrite() -> anyhow::Result<()> {
    report::read(BENCH)?.map_or(Ok(()), |report| write(&report))
}

fn write(report: &Report) -> anyhow::Result<()> {
    let docs = workspace().join("docs");
    fs::create_dir_all(docs.join("plots")).context("making `docs/plots`")?;
    for (file, title, cases) in PLOTS {
        let path = docs.join("plots").join(file);
        fs::write(&path, bars(title, &report.bars(cases)))
            .with_context(|| format!("writing `{}`", path.display()))?;
    }
    let path = docs.join("side-by-side.md");
    fs::write(&path, report.document()).with_context(|| format!("writing `{}`", path.display()))
}

impl Report {
    fn row(&self, case: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case)
    }

    /// A number as the document has it.
    fn of(&self, case: &str) -> String {
        self.row(case).map_or_else(|| "not measured".to_owned(), |row| shown(row.value))
    }

    /// What was said, in the document.
    fn said(&self, of: &str) -> String {
        let note = self.notes.iter().find(|note| note.of == of);
        note.map_or_else(|| "not seen".to_owned(), |note| format!("`{}`", note.said.replace('`', "'")))
    }

    fn bars(&self, cases: &[(&str, &str)]) -> Vec<Bar> {
        let bar = |(case, label): &(&str, &str)| {
            let row = self.row(case)?;
            let colour = if case.starts_with("chain/") { CHAIN } else { DPDK };
            Some(Bar { label: (*label).to_owned(), value: row.value, text: shown(row.value), colour })
        };
        cases.iter().filter_map(bar).collect()
    }

    fn document(&self) -> String {
        let mut text = String::from("# Side by side with DPDK\n\n");
        let mut paragraph = |words: &str| {
            let _ = write!(text, "{}\n\n", filled(words));
        };
        paragraph(
            "Made by `cargo xtask bench side-by-side`: four applications that know nothing of each other, on one interface and one \
             CPU, as a chain of xdpchain and as processes of DPDK. Every number and message is from its last run.",
        );
        let version = self.notes.iter().find(|note| note.of == "dpdk/version");
        let load = self.notes.iter().find(|note| note.of == "machine/load");
        paragraph(&format!(
            "{}, Linux {}, {} as Debian has it. The machine is a virtual one with two CPUs, with a load of {} when this began (`/proc/loadavg`); the benchmark asks the scheduler for a larger share for all of itself alike. Medians, of {} runs.",
            self.cpu,
            self.kernel,
            version.map_or("DPDK", |note| &note.said),
            load.map_or("unknown height, shared with other work,", |note| &note.said),
            self.row("chain/rate").map_or(0, |row| row.runs),
        ));
        text.push_str(&self.summary());
        text.push_str(&self.sections());
        text.push_str("## Everything that was measured\n\n| case | median | least | unit | runs |\n|---|---:|---:|---|---:|\n");
        for row in &self.rows {
            let (value, min) = (shown(row.value), shown(row.min));
            let _ = writeln!(text, "| {} | {value} | {min} | {} | {} |", row.case, row.unit, row.runs);
        }
        text
    }

    fn summary(&self) -> String {
        let of = |case: &str| self.of(case);
        let rows = [
            (
                "packets a second, four applications, one CPU",
                of("chain/rate"),
                format!("{} by vhost, {} by memif", of("dpdk/rate"), of("dpdk/rate-memif")),
            ),
            (
                "CPU while no packet comes",
                format!("{} %", of("chain/cpu-idle")),
                format!("{} %", of("dpdk/cpu-idle")),
            ),
            (
                "CPU at 10,000 packets a second",
                format!("{} %", of("chain/cpu-loaded")),
                format!("{} %", of("dpdk/cpu-loaded")),
            ),
            (
                "packets lost by adding a fifth, at 10,000 a second",
                of("chain/add/lost"),
                format!(
                    "{}; {} when all was started before",
                    of("dpdk/add/lost"),
                    of("dpdk/add-prepared/lost")
                ),
            ),
            (
                "longest time without a packet meanwhile, ms",
                of("chain/add/longest-gap"),
                format!(
                    "{}; {} when all was started before",
                    of("dpdk/add/longest-gap"),
                    of("dpdk/add-prepared/longest-gap")
                ),
            ),
            (
                "packets lost when one crashes and is started again at once",
                format!("{}: no process of ours is in the way", of("chain/agent-killed/lost")),
                of("dpdk/crash/lost"),
            ),
            (
                "a second author wants the interface",
                "is added to the chain".to_owned(),
                format!(
                    "refused, or each packet is there {} times a second later",
                    of("dpdk/copies-with-two-owners")
                ),
            ),
        ];
        let mut text = String::from("| | chain | DPDK |\n|---|---|---|\n");
        for (what, chain, dpdk) in rows {
            let _ = writeln!(text, "| {what} | {chain} | {dpdk} |");
        }
        text.push('\n');
        text
    }

    fn sections(&self) -> String {
        let of = |case: &str| self.of(case);
        let mut text = String::new();
        let mut put = |part: Part<'_>| match part {
            Part::Title(title) => {
                let _ = write!(text, "## {title}\n\n");
            }
            Part::Words(words) => {
                let _ = write!(text, "{}\n\n", filled(words));
            }
            Part::Plot(file) => {
                let title = PLOTS.iter().find(|plot| plot.0 == file).map_or("", |plot| plot.1);
                let _ = write!(text, "![{title}](plots/{file})\n\n");
            }
        };
        put(Part::Title("What is compared, and what is not"));
        put(Part::Words(
            "Both sides get the same packets, 64 octets, on the same interface, a veth; they leave by another. The **chain** is a port \
             filter and a next hop in C, a DSCP marker in Rust, and the built-in access list with a rule; the fifth is a packet counter. \
             Those that are not built in are objects that load with any loader. **DPDK** is a row of four `dpdk-testpmd`, each handing on what it gets \
             (`--forward-mode=io`): they do less with a packet than the modules do, which is in favour of DPDK. The first owns the one \
             interface, the last the other, and between them are virtio-user and vhost, or memif.",
        ));
        put(Part::Words(
            "A veth is not what DPDK is made for. On a network card with a poll mode driver a process owns the port by its PCI address, \
             the kernel does not see it, and no packet passes a socket as it does here (`net_af_packet`, `net_af_xdp`). No such card is in this machine, so that is not measured, and the rates of one process say \
             nothing about one. What is the same on a card: a port has one owner; applications of several authors are stages behind it, \
             each of which polls; and stages are connected as here. There are no huge pages here either (`--no-huge`).",
        ));
        put(Part::Words(
            "All that is measured has one CPU, and what sends has the other. What arrives is counted on the first, on both sides. The chain runs in the kernel thread that receives on \
             the interface (`threaded`), which is kept to the CPU and is what its use is read from. With DPDK the kernel's part of receiving, which copies packets to the first process, is done by the CPU that sends, again in favour of DPDK.",
        ));
        put(Part::Title("Packets a second"));
        put(Part::Plot("side-by-side-rate.svg"));
        put(Part::Words(&format!(
            "More is sent than gets through; what arrives is counted. The chain's modules are one program, so that a packet stays in one \
             place: {} a second for one program alone, {} for four modules, {} for five. Processes on one CPU take turns, and a packet \
             waits for each: {} a second by vhost, {} by memif. With a CPU for each process they would not wait; they would take four. \
             What else runs on the machine moves these numbers more than a module does; the table has the least of each.",
            of("chain/rate-of-one"),
            of("chain/rate"),
            of("chain/rate-of-five"),
            of("dpdk/rate"),
            of("dpdk/rate-memif"),
        )));
        put(Part::Title("CPU"));
        put(Part::Plot("side-by-side-cpu.svg"));
        put(Part::Words(&format!(
            "The kernel runs a chain when a packet comes. Processes of DPDK ask all the time. The most that the chain took in any run \
             without packets was {} %.",
            of("chain/cpu-idle-worst"),
        )));
        put(Part::Title("A fifth application"));
        put(Part::Plot("side-by-side-fifth.svg"));
        put(Part::Words(&format!(
            "Numbered packets come at 10,000 a second; which of them arrived, and when, is noted at the other end. `xdpchain add` composes \
             and verifies the new chain beside the old one, and exchanges them in one step: it took {} ms, lost {} packets, and {} in the \
             worst run. The longest time without a packet was {} ms; it was {} ms when nothing was changed. The fifth process comes before \
             the last, which has to have another port: that is, the last is ended, and the fifth and a new last one are started: {} \
             packets lost in {} ms without any. Where both are started before, so that they only have to take the place: {} packets, {} ms.",
            of("chain/add/takes"),
            of("chain/add/lost"),
            of("chain/add/lost-worst"),
            of("chain/add/longest-gap"),
            of("chain/unchanged/longest-gap"),
            of("dpdk/add/lost"),
            of("dpdk/add/longest-gap"),
            of("dpdk/add-prepared/lost"),
            of("dpdk/add-prepared/longest-gap"),
        )));
        put(Part::Words(
            "Applications that are written for it can take on a port while they run, with `rte_dev_probe`; that takes the help of both \
             neighbours' authors, and is not measured.",
        ));
        put(Part::Title("A crash"));
        put(Part::Plot("side-by-side-crash.svg"));
        put(Part::Words(&format!(
            "A module cannot crash: the verifier saw to that before. Refusing one that reads beyond a packet ({}) lost {} packets. The \
             agent killed (`kill -9`): {} lost. A command killed in the midst of its change, at another instant in each run: {} lost, {} \
             in the worst run. What a module can do is to give a wrong verdict: one that answers XDP_ABORTED for every packet loses every \
             packet while it is in, here {} in 500 ms and the time of two commands. Golden packets find such a module before (`gate:`, \
             [golden packets](golden-packets.md)).",
            self.said("chain/module-refused"),
            of("chain/module-refused/lost"),
            of("chain/agent-killed/lost"),
            of("chain/command-killed/lost"),
            of("chain/command-killed/lost-worst"),
            of("chain/module-aborts/lost"),
        )));
        put(Part::Words(&format!(
            "One process of DPDK killed, and started again at once: {} packets lost, {} ms without any. Its neighbours went on ({} of them \
             ended with it at the median), since vhost connects again. With memif, {} of three neighbours ended with it at the median, and \
             the row {} once the process was back: a client of memif connects when its port is started, and not again by itself.",
            of("dpdk/crash/lost"),
            of("dpdk/crash/longest-gap"),
            of("dpdk/crash/neighbours-ended"),
            of("dpdk/memif-crash/neighbours-ended"),
            match self.row("dpdk/memif-crash/works-again") {
                None => "was not looked at",
                Some(row) if row.value > 0.0 => "worked again",
                Some(_) => "did not work again",
            },
        )));
        put(Part::Title("A second author wants the interface"));
        put(Part::Words(&format!(
            "With xdpchain he adds a module. Another program by other means is refused by the kernel, since the chain holds the interface \
             by a link (`ip link set … xdpdrv`): {}",
            self.said("chain/second-author")
        )));
        put(Part::Words(&format!(
            "With DPDK, a second process with the same `--file-prefix` as a first one: {}. As the second process of the first: {} (shared \
             memory of several processes needs huge pages). With a prefix of its own, on packet sockets: {}, and a packet sent once is \
             there {} times after a second, where it is {} times with one owner: each gets a copy of what comes. On AF_XDP sockets: {}. On a card with a poll mode driver, the second process would not find the port.",
            self.said("dpdk/second-primary"),
            self.said("dpdk/second-secondary"),
            self.said("dpdk/second-with-own-prefix"),
            of("dpdk/copies-with-two-owners"),
            of("dpdk/copies-with-one-owner"),
            self.said("dpdk/second-af-xdp"),
        )));
        put(Part::Title("Where DPDK is better"));
        put(Part::Words(&format!(
            "One application that has a port, and a CPU, for itself. On these sockets one process forwards {} a second by packet sockets and \
             {} by AF_XDP, without any module's work; a card with a poll mode driver is what it is made for, and was not at hand. It polls, so no \
             interrupt is between a packet and it. It may use any library, all memory, vector instructions, cryptography and regular \
             expressions in hardware; a module has what the verifier takes, 512 octets of stack, and a million verified instructions. A process \
             can be debugged and profiled by any tool. And where an author's code cannot be trusted to give right verdicts, a process of its \
             own, with a CPU of its own, keeps its loops from others' packets.",
            of("dpdk/rate-of-one"),
            of("dpdk/rate-of-one-af-xdp"),
        )));
        text
    }
}

/// A part of the document.
enum Part<'a> {
    Title(&'static str),
    Words(&'a str),
    Plot(&'static str),
}

/// As many digits as say something, in groups of three.
fn shown(value: f64) -> String {
    let plain = number(value);
    let (sign, digits) = plain.strip_prefix('-').map_or(("", &*plain), |digits| ("-", digits));
    if digits.contains('.') || digits.len() < 5 {
        return plain;
    }
    let grouped: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{sign}{}", grouped.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_groups() {
        assert_eq!(
            [0.0, 1.25, 9999.0, 10_000.0, 1_037_373.4].map(shown),
            ["0", "1.25", "9999", "10,000", "1,037,373"].map(str::to_owned)
        );
    }

    #[test]
    fn what_was_not_measured_has_no_number() {
        let report = Report { cpu: "c".into(), kernel: "k".into(), rows: Vec::new(), notes: Vec::new() };
        let text = report.document();
        assert!(text.contains("not measured") && text.contains("not seen"));
        assert!(report.bars(PLOTS[0].2).is_empty());
    }
}
