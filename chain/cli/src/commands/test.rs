//! `xdpchain test`: golden packets through what chains.yaml says, without touching anything that runs.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Serialize;
use xdpchain_golden::Fixture;
use xdpchain_spec::{ChainSpec, Config};

use crate::args::Common;
use crate::assemble;
use crate::config;
use crate::error::{Error, Result, exit};
use crate::golden::{self, Known, Report, Subject};
use crate::output::{Output, Page, write};

/// Chains and modules that packets went through already.
struct Subjects<'a> {
    /// The file and what it says, when there is one.
    config: Option<&'a (Config, PathBuf)>,
    /// The chain that was named on the command line.
    chain: Option<&'a str>,
    known: IndexMap<String, Subject>,
}

pub(crate) fn run(
    common: &Common,
    out: Output,
    chain: Option<&str>,
    paths: &[PathBuf],
    explain: bool,
) -> Result<u8> {
    let read = match config::read(common.file.as_deref()) {
        // Built-in modules need no file.
        Err(Error::NoConfig) if !paths.is_empty() && chain.is_none() => None,
        other => Some(other?),
    };
    let mut subjects = Subjects { config: read.as_ref(), chain, known: IndexMap::new() };
    let mut reports = Vec::new();
    for (path, of) in packets(read.as_ref(), chain, paths)? {
        if golden::is_capture(&path) {
            let expected = golden::expected_beside(&path).map(|path| golden::capture(&path)).transpose()?;
            let packets = golden::capture(&path)?;
            let subject = subjects.chain(of.as_deref())?;
            let mut new = golden::run_capture(&path, &packets, expected.as_deref(), subject)?;
            for (report, packet) in new.iter_mut().zip(&packets).filter(|_| explain) {
                explained(report, packet, None, subject);
            }
            reports.extend(new);
        } else if golden::is_fixture(&path) {
            let fixture = golden::fixture(&path)?;
            let subject = match &fixture.program {
                Some(module) => subjects.module(module)?,
                None => subjects.chain(fixture.chain.as_deref().or(of.as_deref()))?,
            };
            let mut report = golden::run_fixture(&path, &fixture, subject, true)?;
            if explain {
                let packet = fixture.input().unwrap_or_default();
                explained(&mut report, &packet, Some(&fixture), subject);
            }
            reports.push(report);
        } else {
            return Err(Error::UnknownPackets { path });
        }
    }
    let differ = reports.iter().filter(|report| !report.differences.is_empty()).count();
    if out.junit() {
        write(junit(&reports, differ).as_bytes())?;
    } else {
        print(out, &reports, differ)?;
    }
    Ok(if differ == 0 { exit::DONE } else { exit::NOT_READY })
}

/// Adds to a report why its packet ended as it did.
fn explained(report: &mut Report, packet: &[u8], fixture: Option<&Fixture>, subject: &Subject) {
    if let Some(ran) = &report.ran {
        let known = Known { fixture, reasons: &report.reasons };
        report.explained = golden::explain(subject, packet, &known, ran);
    }
}

/// The files of packets, with the chain that they are for where that is known: those that are named, else those of the
/// chains' gates.
fn packets(
    read: Option<&(Config, PathBuf)>,
    chain: Option<&str>,
    paths: &[PathBuf],
) -> Result<Vec<(PathBuf, Option<String>)>> {
    let mut found = Vec::new();
    for path in paths {
        found.extend(golden::files(path)?.into_iter().map(|file| (file, None)));
    }
    if !paths.is_empty() {
        return Ok(found);
    }
    let chains = read.into_iter().flat_map(|(config, _)| config.chains.values());
    for spec in chains.filter(|spec| chain.is_none_or(|chain| chain == spec.name)) {
        for path in spec.gate.iter().flat_map(|gate| gate.fixtures.iter().chain(&gate.pcap)) {
            let files = golden::files(path)?.into_iter();
            found.extend(files.map(|file| (file, Some(spec.name.clone()))));
        }
    }
    if found.is_empty() {
        return Err(Error::NothingToTest);
    }
    Ok(found)
}

impl Subjects<'_> {
    fn module(&mut self, name: &str) -> Result<&Subject> {
        let key = format!("module {name}");
        if !self.known.contains_key(&key) {
            let subject = Subject::named(name, self.config.map(|(config, _)| config))?;
            self.known.insert(key.clone(), subject);
        }
        Ok(&self.known[&key])
    }

    fn chain(&mut self, name: Option<&str>) -> Result<&Subject> {
        let Some((config, file)) = self.config else { return Err(Error::NoConfig) };
        let spec = chain_of(config, file, name.or(self.chain))?;
        let key = format!("chain {}", spec.name);
        if !self.known.contains_key(&key) {
            let (state, objects) =
                assemble::chain_state(config, spec).map_err(|error| error.in_file(file))?;
            self.known.insert(key.clone(), Subject::chain(state, objects));
        }
        Ok(&self.known[&key])
    }
}

/// The chain of that name, else the only one.
fn chain_of<'a>(config: &'a Config, file: &Path, name: Option<&str>) -> Result<&'a ChainSpec> {
    if let Some(name) = name {
        return config::chain_for(config, file, "", Some(name));
    }
    match config.chains.values().collect::<Vec<_>>().as_slice() {
        [one] => Ok(one),
        _ => {
            Err(Error::SeveralChains { file: file.to_owned(), chains: config::listed(config.chains.keys()) })
        }
    }
}

fn print(out: Output, reports: &[Report], differ: usize) -> Result<()> {
    #[derive(Serialize)]
    struct Printed<'a> {
        /// How many packets.
        packets: usize,
        /// How many of them are not as expected.
        differ: usize,
        reports: &'a [Report],
    }
    out.print("Test", &Printed { packets: reports.len(), differ, reports }, |page| {
        table(page, reports, differ)
    })
}

fn table(page: &mut Page, reports: &[Report], differ: usize) {
    let slots = |report: &Report| {
        let each = report.slots.iter().map(|step| match &step.verdict {
            Some(verdict) => format!("{} {verdict}", step.slot),
            None => format!("{} (observer)", step.slot),
        });
        each.collect::<Vec<_>>().join(" > ")
    };
    let rows = reports.iter().map(|report| {
        let result = if report.differences.is_empty() { "ok" } else { "differs" };
        vec![
            result.to_owned(),
            report.packet.clone(),
            report.through.clone(),
            report.verdict.clone().unwrap_or_else(|| "-".to_owned()),
            report.reasons.join(", "),
            slots(report),
        ]
    });
    page.table(&["RESULT", "PACKET", "THROUGH", "VERDICT", "REASON", "SLOTS"], rows);
    for report in reports.iter().filter(|report| !report.differences.is_empty()) {
        page.line("");
        page.line(match &report.description {
            Some(description) => format!("{}: {description}", report.packet),
            None => report.packet.clone(),
        });
        for line in report.differences.iter().flat_map(|text| text.lines()) {
            page.line(format!("  {line}"));
        }
    }
    for report in reports.iter().filter(|report| !report.explained.is_empty()) {
        page.line("");
        page.line(format!("{}:", report.packet));
        for line in &report.explained {
            page.line(format!("  {line}"));
        }
    }
    page.line("");
    page.line(format!("{} packets, {differ} not as expected", reports.len()));
}

/// The reports as JUnit has them, which every CI reads.
fn junit(reports: &[Report], differ: usize) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"xdpchain\" tests=\"{}\" failures=\"{differ}\">\n",
        reports.len()
    );
    for report in reports {
        let head = format!(
            "<testcase classname=\"{}\" name=\"{}\"",
            escaped(&report.through),
            escaped(&report.packet)
        );
        text.push_str(&match report.differences.first() {
            None => format!("{head}/>\n"),
            Some(first) => format!(
                "{head}><failure message=\"{}\">{}</failure></testcase>\n",
                escaped(first.lines().next().unwrap_or_default()),
                escaped(&report.differences.join("\n"))
            ),
        });
    }
    text + "</testsuite>\n</testsuites>\n"
}

/// Text as XML has it; characters that XML cannot have are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_is_well_formed_whatever_a_packet_is_called() {
        let good =
            Report { packet: "a <\"b\"> & c\u{1}".into(), through: "edge".into(), ..Report::default() };
        let bad =
            Report { differences: vec!["verdict: expected pass,\n found <drop>".into()], ..good.clone() };
        let text = junit(&[good, bad], 1);
        let name = "name=\"a &lt;&quot;b&quot;&gt; &amp; c\"";
        assert!(text.contains("tests=\"2\" failures=\"1\""), "{text}");
        assert!(text.contains(&format!("<testcase classname=\"edge\" {name}/>")), "{text}");
        let failure = "<failure message=\"verdict: expected pass,\">verdict: expected pass,\n found &lt;drop&gt;</failure>";
        assert!(
            text.contains(&format!("<testcase classname=\"edge\" {name}>{failure}</testcase>")),
            "{text}"
        );
    }
}
