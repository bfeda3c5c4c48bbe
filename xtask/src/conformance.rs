//! docs/conformance.md: the rows of the conformance table, the packets of each, who judged them, and the kernels that they
//! passed on.
//!
//! All but the last is made from the rows of the reference and the packets of tests/fixtures, so that nothing of it can go
//! out of date unseen. Which packets passed on a kernel is written down when they run there, and only then.

mod judged;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use xdpchain_golden::Fixture;
use xdpchain_reference::{EXPLAINED, Row};

use crate::ci;
use crate::run::{command, output, show, workspace};
use crate::test::{Kernels, programs};
use crate::vm::{self, Task, quoted};
use judged::Judged;

/// How long the packets may take in one guest.
const LIMIT: Duration = Duration::from_secs(2700);

/// Rows that are not built yet, which have no packet. To be empty.
const NOT_BUILT: &[Row] = &[];

const HEADER: &str = "\
# Conformance

Made by `cargo xtask conformance`; CI fails when it is out of date, and when a row has no packet.

One row is one promise. Each has packets, in `tests/fixtures`: a file says what is there before, the packet, and what has to become
of it. The same packets run through the program they are about, alone and in chains of the fused and the tail engine, by
`BPF_PROG_TEST_RUN`, and across a veth pair.

*Judges* are those who agree with the files about the packets of a row. **reference** is a second implementation in Rust
(`chain/reference`), written from the rows and not from the programs: it says the same of every packet here, and of mutants of them, of
which a million were tried at once. **tshark** dissects every frame that leaves, finds nothing malformed in it and no checksum that
is wrong. **scapy** builds the packets that come in out of what they are, and gets the same octets. The others are peers on
the wire: the kernel's **gtp device** as a gNB and its **GRE device**s as customers' routers, over IPv4 and IPv6, with keys, and
\"external\"; **TCP**, **iperf3** and **ping** of the kernels and programs behind them; **FRR**, whose BGP runs inside a tunnel.

*Kernels* are those on which all packets of a row passed; where only some did, their number stands beside.
";

const RECORDS: &str = "\n## Kernels\n";

/// A row's packets that passed on a kernel, by the kernel's version.
type Records = BTreeMap<(u32, u32), BTreeMap<String, usize>>;

/// Files of packets by row.
type Packets = BTreeMap<Row, Vec<(String, Fixture)>>;

/// Runs the packets, unless there are to be peers only, and the tests with peers, here or in each of `kernels`; writes down what
/// passed, and makes the document anew.
pub(crate) fn write(kernels: Option<&Kernels>, peers_only: bool) -> anyhow::Result<()> {
    let packets = packets()?;
    let path = workspace().join("docs/conformance.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let (mut records, mut judged) = (parse_records(&old), judged::parse(&old));
    ci::build()?;
    let places = kernels.map_or(vec![None], |kernels| kernels.iter().copied().map(Some).collect());
    for place in places {
        let release = match place {
            None => output(&mut command("uname", &["-r"])).context("asking for the kernel's release")?,
            Some(kernel) => kernel.version().to_owned(),
        };
        let version = version(&release)?;
        if !peers_only {
            let printed = place.map_or_else(here, there)?;
            records.insert(version, passed(&packets, &printed));
        }
        judged.insert(version, place.map_or_else(judged::here, judged::there)?);
    }
    fs::write(&path, document(&packets, &records, &judged)?)
        .with_context(|| format!("writing `{}`", path.display()))
}

/// Makes the document anew with what was written down before; nothing runs.
pub(crate) fn rewrite() -> anyhow::Result<()> {
    let path = workspace().join("docs/conformance.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, document(&packets()?, &parse_records(&old), &judged::parse(&old))?)
        .with_context(|| format!("writing `{}`", path.display()))
}

/// Fails when the document is not what it would be made anew. It runs no packets.
pub(crate) fn check() -> anyhow::Result<()> {
    let path = workspace().join("docs/conformance.md");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    let new = document(&packets()?, &parse_records(&text), &judged::parse(&text))?;
    let Some((old, new)) = text.lines().zip(new.lines()).find(|(old, new)| old != new) else {
        if text.lines().count() == new.lines().count() {
            eprintln!("conformance: every row has packets, and docs/conformance.md says which");
            return Ok(());
        }
        bail!("docs/conformance.md is out of date: it is longer or shorter\nhelp: cargo xtask conformance");
    };
    bail!("docs/conformance.md is out of date:\n- {old}\n+ {new}\nhelp: cargo xtask conformance")
}

/// Every file of packets, by its row.
fn packets() -> anyhow::Result<Packets> {
    let folder = workspace().join("tests/fixtures");
    let mut packets = Packets::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading `{}`", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
        let fixture = Fixture::parse(&text).with_context(|| format!("`{}`", path.display()))?;
        let row = fixture.row.as_deref().and_then(Row::named);
        let row = row.with_context(|| format!("`{name}`: `row` is none of the table"))?;
        packets.entry(row).or_default().push((name, fixture));
    }
    for of_row in packets.values_mut() {
        of_row.sort_by(|a, b| a.0.cmp(&b.0));
    }
    Ok(packets)
}

/// The whole document.
fn document(packets: &Packets, records: &Records, judged: &Judged) -> anyhow::Result<String> {
    let missing: Vec<&str> = Row::ALL
        .iter()
        .filter(|row| !packets.contains_key(row) && !NOT_BUILT.contains(row))
        .map(|row| row.id())
        .collect();
    if !missing.is_empty() {
        bail!(
            "rows without a packet: {}\nhelp: add one to tests/fixtures, with `row:` in it",
            missing.join(", ")
        );
    }
    if let Some(row) = NOT_BUILT.iter().find(|row| packets.contains_key(row)) {
        bail!("{} has packets and is said not to be built\nhelp: take it off the list in xtask", row.id());
    }
    let path = workspace().join("tests/fixtures/scapy_inputs.py");
    let scapy = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    let mut text = HEADER.to_owned();
    let mut section = None;
    for &row in Row::ALL {
        if section != Some(row.section()) {
            section = Some(row.section());
            write!(text, "\n## {}\n\n", row.section().title())?;
            text.push_str(
                "| row | what comes in | what must happen | standard | reasons | packets | judges | kernels |\n\
                 |---|---|---|---|---|---|---|---|\n",
            );
        }
        let none = Vec::new();
        let of_row = packets.get(&row).unwrap_or(&none);
        let reasons: Vec<String> = EXPLAINED
            .iter()
            .filter(|explained| explained.rows.contains(&row))
            .map(|explained| format!("`{}`", explained.reason.name()))
            .collect();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.id(),
            row.input(),
            row.outcome(),
            row.standard(),
            reasons.join(", "),
            if of_row.is_empty() { "not built".to_owned() } else { of_row.len().to_string() },
            judges(of_row, &scapy, judged::of(judged, row)),
            kernels(records, row, of_row.len()),
        )?;
    }
    text.push_str("\n## Packets\n\nFiles of `tests/fixtures`.\n\n| row | packets |\n|---|---|\n");
    for (row, of_row) in packets {
        let names: Vec<&str> = of_row.iter().map(|(name, _)| name.as_str()).collect();
        writeln!(text, "| {} | {} |", row.id(), names.join(", "))?;
    }
    text.push_str(&judged::section(judged)?);
    text.push_str(RECORDS);
    text.push_str(
        "\nWhat passed, as it was written down when it ran: by row, how many packets. Packets that need what a kernel does not have\n\
         are left out there.\n\n| Linux | packets | by row |\n|---|---|---|\n",
    );
    for ((major, minor), rows) in records.iter().rev() {
        let by_row: Vec<String> = rows.iter().map(|(row, count)| format!("{row} {count}")).collect();
        writeln!(text, "| {major}.{minor} | {} | {} |", rows.values().sum::<usize>(), by_row.join(", "))?;
    }
    Ok(text)
}

/// Who judged the packets of a row, `peers` among them; `scapy` is the script by which scapy builds some.
fn judges<'a>(of_row: &[(String, Fixture)], scapy: &str, peers: impl IntoIterator<Item = &'a str>) -> String {
    if of_row.is_empty() {
        return String::new();
    }
    let mut judges = vec!["reference"];
    let leaves = |fixture: &Fixture| {
        ["pass", "tx", "redirect"].iter().any(|verdict| fixture.expect.verdict.starts_with(verdict))
            && fixture.output().ok() != fixture.input().ok()
    };
    if of_row.iter().any(|(_, fixture)| leaves(fixture)) {
        judges.push("tshark");
    }
    // What it builds over IPv4 it builds over IPv6 too.
    let built = |name: &str| scapy.contains(&format!("\"{}\"", name.trim_start_matches("g34-")));
    if of_row.iter().any(|(name, _)| built(name)) {
        judges.push("scapy");
    }
    judges.extend(peers);
    judges.join(", ")
}

/// The kernels on which a row's packets passed.
fn kernels(records: &Records, row: Row, count: usize) -> String {
    let mut kernels = Vec::new();
    for ((major, minor), rows) in records.iter().rev() {
        match rows.get(row.id()) {
            Some(passed) if *passed == count => kernels.push(format!("{major}.{minor}")),
            Some(passed) => kernels.push(format!("{major}.{minor} ({passed} of {count})")),
            None => {}
        }
    }
    kernels.join(", ")
}

/// The records at the end of a document.
fn parse_records(text: &str) -> Records {
    let mut records = Records::new();
    let Some((_, table)) = text.split_once(RECORDS) else { return records };
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, kernel, _, by_row, _] = cells[..] else { continue };
        let Ok(version) = version(kernel) else { continue };
        let rows = by_row.split(", ").filter_map(|entry| {
            let (row, count) = entry.split_once(' ')?;
            Some((row.to_owned(), count.parse().ok()?))
        });
        records.insert(version, rows.collect());
    }
    records
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> anyhow::Result<(u32, u32)> {
    let mut parts = release.trim().split(['.', '-']).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("`{release}` is no kernel's release"),
    }
}

/// How many packets of each row passed, by what the test program printed.
fn passed(packets: &Packets, printed: &str) -> BTreeMap<String, usize> {
    let ok: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix("... ok"))
        .map(str::trim)
        .collect();
    let mut rows = BTreeMap::new();
    for (row, of_row) in packets {
        let skipped =
            |name: &str| printed.lines().any(|line| line.starts_with(&format!("skipped: {name}: ")));
        let count = of_row.iter().filter(|(name, _)| ok.contains(&name.as_str()) && !skipped(name)).count();
        if count > 0 {
            rows.insert(row.id().to_owned(), count);
        }
    }
    rows
}

/// What the packets' test program prints here; with a line for each that this kernel cannot run.
fn here() -> anyhow::Result<String> {
    let program = programs(&["vectors"])?.remove(0);
    let path = program.executable.to_str().context("a path is not UTF-8")?.to_owned();
    let mut command = command(&path, &[]);
    command.current_dir(workspace().join("tests")).env("XDPCHAIN_EBPF_DIR", ci::objects());
    let shown = show(&command);
    eprintln!("$ {shown}");
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("cannot run `{shown}`"))?;
    let printed = [output.stdout, output.stderr].concat();
    finished(output.status.success(), String::from_utf8(printed).context("tests print UTF-8")?)
}

/// The same on another kernel.
fn there(kernel: vm::Kernel) -> anyhow::Result<String> {
    let program = programs(&["vectors"])?.remove(0);
    let path = program.executable.to_str().context("a path is not UTF-8")?;
    let objects = ci::objects().to_str().context("a folder's name is not UTF-8")?.to_owned();
    let tests = workspace().join("tests");
    // From the guest's memory: reading page by page from the host takes long.
    let script = format!(
        "mkdir /run/conformance\ncp -r {} /run/conformance/ebpf\ncp {} /run/conformance/vectors\ncd {}\n\
         XDPCHAIN_EBPF_DIR=/run/conformance/ebpf exec {}/run/conformance/vectors 2>&1",
        quoted([&*objects]),
        quoted([path]),
        quoted([tests.to_str().context("a path is not UTF-8")?]),
        kernel.before(&program.name)
    );
    let mut printed = Vec::new();
    let status = vm::run(&Task::new(kernel, &script, LIMIT), &mut printed)?;
    finished(status == 0, String::from_utf8(printed).context("tests print UTF-8")?)
}

/// Shows what failed. What passed is written down all the same.
fn finished(well: bool, printed: String) -> anyhow::Result<String> {
    if !printed.contains("test result: ") {
        std::io::stderr().write_all(printed.as_bytes())?;
        bail!("the packets did not run to their end");
    }
    if !well {
        for line in printed.lines().filter(|line| line.ends_with("FAILED")) {
            eprintln!("warning: {line}");
        }
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let rows = BTreeMap::from([("G01".to_owned(), 1), ("R15".to_owned(), 2)]);
        let records = Records::from([((5, 10), rows.clone()), ((6, 18), rows)]);
        let packets = packets().expect("the project's own");
        let text = document(&packets, &records, &Judged::new()).expect("every row has a packet");
        assert_eq!(parse_records(&text), records);
        assert!(text.contains("| 6.18 (2 of "), "{text}");
        assert_eq!(parse_records("nothing"), Records::new());
    }

    #[test]
    fn what_passed_is_what_ran_and_was_not_skipped() {
        let packets = packets().expect("the project's own");
        let g01: Vec<&str> = packets[&Row::G01].iter().map(|(name, _)| name.as_str()).collect();
        let mut printed = format!("test {:<40} ... ok\n", g01[0]);
        assert_eq!(passed(&packets, &printed), BTreeMap::from([("G01".to_owned(), 1)]));
        printed += &format!("skipped: {}: this kernel has no context\n", g01[0]);
        assert_eq!(passed(&packets, &printed), BTreeMap::new());
        assert_eq!(passed(&packets, &format!("test {} ... FAILED\n", g01[0])), BTreeMap::new());
    }
}
