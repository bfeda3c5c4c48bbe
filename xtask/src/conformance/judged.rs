//! What peers that nobody here wrote agreed with: the kernel's tunnels, TCP, ping, iperf3 and FRR, in root tests that say so row by
//! row when they have seen it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use xdpchain_reference::Row;

use crate::ci;
use crate::run::{command, show, target_dir, workspace};
use crate::test::{Program, programs};
use crate::vm::{self, Task, quoted};

/// The test programs in which peers judge.
const PROGRAMS: [&str; 3] = ["bgp", "devices", "transfers"];
/// How long they may take in one guest.
const LIMIT: Duration = Duration::from_secs(1800);
/// What a line begins with that tells of a row and a judge, in a guest's output.
const AGREED: &str = "agreed: ";
/// Heads the section of the document.
pub(super) const SECTION: &str = "\n## Peers\n";

/// The rows that each judge agreed with, by the kernel's version.
pub(super) type Judged = BTreeMap<(u32, u32), BTreeMap<String, BTreeSet<String>>>;

/// The section of the document.
pub(super) fn section(judged: &Judged) -> anyhow::Result<String> {
    let mut text = SECTION.to_owned();
    text.push_str(
        "\nWhat they agreed with while packets went through the whole data path, as it was written down when it ran.\n\n\
         | Linux | judge | rows |\n|---|---|---|\n",
    );
    for ((major, minor), judges) in judged.iter().rev() {
        for (judge, rows) in judges {
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            writeln!(text, "| {major}.{minor} | {judge} | {} |", rows.join(", "))?;
        }
    }
    Ok(text)
}

/// The section of a document as it was written.
pub(super) fn parse(text: &str) -> Judged {
    let mut judged = Judged::new();
    let Some((_, rest)) = text.split_once(SECTION) else { return judged };
    let table = rest.split_once("\n## ").map_or(rest, |(table, _)| table);
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, kernel, judge, rows, _] = cells[..] else { continue };
        let Ok(version) = super::version(kernel) else { continue };
        let rows = rows.split(", ").map(str::to_owned).collect();
        judged.entry(version).or_default().insert(judge.to_owned(), rows);
    }
    judged
}

/// The judges that agreed with a row on some kernel.
pub(super) fn of(judged: &Judged, row: Row) -> BTreeSet<&str> {
    let judges = judged.values().flatten();
    judges.filter(|(_, rows)| rows.contains(row.id())).map(|(judge, _)| judge.as_str()).collect()
}

/// Runs the programs here, and returns what the judges agreed with.
pub(super) fn here() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let file = target_dir().join(format!("judged-{}", std::process::id()));
    for program in programs(&PROGRAMS)? {
        let path = program.executable.to_str().context("a path is not UTF-8")?.to_owned();
        let mut command = command(&path, &[]);
        command.current_dir(workspace().join("tests")).env("XDPCHAIN_EBPF_DIR", ci::objects());
        command.env("XDPCHAIN_BIN", target_dir().join("release/xdpchain")).env("XDPCHAIN_JUDGED", &file);
        let shown = show(&command);
        eprintln!("$ {shown}");
        let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
        warn(&program, status.success());
    }
    // There is none when no kernel's device is there.
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    Ok(rows(text.lines()))
}

/// The same on another kernel.
pub(super) fn there(kernel: vm::Kernel) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let programs = programs(&PROGRAMS)?;
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    // From the guest's memory: reading page by page from the host takes long.
    let mut script = format!(
        "mkdir /run/judges\ncp -r {} /run/judges/ebpf\ncp {} /run/judges/xdpchain\ncd {}\n\
         export XDPCHAIN_EBPF_DIR=/run/judges/ebpf XDPCHAIN_BIN=/run/judges/xdpchain XDPCHAIN_JUDGED=/run/judges/judged\n\
         failed=0\n",
        quoted([&*text(&ci::objects())?]),
        quoted([&*text(&target_dir().join("release/xdpchain"))?]),
        quoted([&*text(&workspace().join("tests"))?])
    );
    for program in &programs {
        let executable = quoted([&*text(&program.executable)?]);
        writeln!(script, "cp {executable} /run/judges/program\n/run/judges/program 1>&2 || failed=1")?;
    }
    writeln!(
        script,
        "[ ! -e $XDPCHAIN_JUDGED ] || sed 's/^/{AGREED}/' $XDPCHAIN_JUDGED\necho\necho failed: $failed\nexit 0"
    )?;
    let mut printed = Vec::new();
    vm::run(&Task::new(kernel, &script, LIMIT), &mut printed)?;
    let printed = String::from_utf8(printed).context("tests print UTF-8")?;
    if !printed.contains("failed: 0") {
        eprintln!("warning: not every judge agreed on {}", kernel.version());
    }
    Ok(rows(printed.lines().filter_map(|line| line.strip_prefix(AGREED))))
}

/// What did not agree is not written down, and what else did is.
fn warn(program: &Program, well: bool) {
    if !well {
        eprintln!("warning: `{}` failed", program.name);
    }
}

/// Lines of a row and a judge.
fn rows<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, BTreeSet<String>> {
    let mut judges = BTreeMap::<_, BTreeSet<_>>::new();
    for (row, judge) in lines.filter_map(|line| line.split_once(' ')) {
        judges.entry(judge.to_owned()).or_default().insert(row.to_owned());
    }
    judges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_judges_agreed_with_is_read_as_it_is_written() {
        let lines = ["R10 FRR", "R10 GRE device", "R01 GRE device", "R10 FRR"];
        let judged = Judged::from([((6, 1), rows(lines.into_iter()))]);
        let text = section(&judged).expect("text can be written") + "\n## Kernels\n\n| 6.12 | 7 | G01 7 |\n";
        assert_eq!(parse(&text), judged);
        assert_eq!(of(&judged, Row::R10), BTreeSet::from(["FRR", "GRE device"]));
        assert_eq!(of(&judged, Row::R01), BTreeSet::from(["GRE device"]));
        assert_eq!(parse("nothing"), Judged::new());
    }
}
