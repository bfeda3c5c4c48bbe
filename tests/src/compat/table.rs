//! What came of every object, as a section of docs/compatibility.md.

use std::fmt::Write as _;

use super::{Entry, Outcome};

/// Version of the running kernel: `6.1`.
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The section about `kernel`. `unread` are objects that could not be read, with the reason.
pub fn section(kernel: &str, entries: &[Entry], unread: &[(String, String)]) -> String {
    let mut text = format!("## Linux {kernel}\n\n{}\n\n", summary(entries));
    text.push_str("| object | program | what it is about | libbpf | alone | fused | tail | libxdp |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for entry in entries {
        let Entry { object, program, feature, .. } = entry;
        let cells = columns(entry).map(|(_, outcome)| cell(outcome)).join(" | ");
        let _ = writeln!(text, "| {object} | {program} | {} | {cells} |", feature.replace('|', "\\|"));
    }
    text.push_str("\nWhy not:\n\n");
    for entry in entries {
        let mut said: Vec<(String, Vec<&str>)> = Vec::new();
        for (column, outcome) in columns(entry) {
            let (Outcome::Refused(why) | Outcome::Differs(why)) = outcome else { continue };
            let why = first_line(why);
            match said.iter_mut().find(|(other, _)| *other == why) {
                Some((_, columns)) => columns.push(column),
                None => said.push((why, vec![column])),
            }
        }
        for (why, columns) in said {
            let _ = writeln!(text, "- {}, {} ({}): {why}", entry.object, entry.program, columns.join(", "));
        }
    }
    for (object, why) in unread {
        let _ = writeln!(text, "- {object} cannot be read: {}", first_line(why));
    }
    text
}

fn columns(entry: &Entry) -> [(&'static str, &Outcome); 5] {
    [
        ("libbpf", &entry.libbpf),
        ("alone", &entry.alone),
        ("fused", &entry.fused),
        ("tail", &entry.tail),
        ("libxdp", &entry.libxdp),
    ]
}

fn cell(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Works => "yes",
        Outcome::Refused(_) => "no",
        Outcome::Differs(_) => "**differs**",
        Outcome::Unknown => "-",
    }
}

/// The first line, without the names that the trial itself gave.
fn first_line(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default();
    let line = line.strip_prefix("module `object`: ").unwrap_or(line);
    match line.strip_prefix("the kernel refused program `").and_then(|rest| rest.split_once(": ")) {
        Some((_, reason)) => format!("the kernel refuses it: {reason}"),
        None => line.replace("slot `object`", "it"),
    }
}

fn summary(entries: &[Entry]) -> String {
    let ours: Vec<&Entry> = entries.iter().filter(|entry| !entry.foreign).collect();
    let loads: Vec<_> = ours.iter().filter(|e| e.libbpf.works() || e.alone.works()).collect();
    let count = |works: fn(&Entry) -> bool| loads.iter().filter(|entry| works(entry)).count();
    format!(
        "{} programs for interfaces, of which {} run alone. Of these {} run fused, {} by tail calls, {} by one or the other. \
         {} programs of cpumap and devmap entries are refused.",
        ours.len(),
        loads.len(),
        count(|e| e.fused.works()),
        count(|e| e.tail.works()),
        count(|e| e.fused.works() || e.tail.works()),
        entries.len() - ours.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_a_line_for_each_program_and_a_reason_for_each_no() {
        let refused = Outcome::Refused(
            "the kernel refused program `p` in module `object`: too deep\nhelp: less".into(),
        );
        let entry = Entry {
            object: "a.o".into(),
            program: "p".into(),
            feature: "Frames".into(),
            foreign: false,
            libbpf: Outcome::Works,
            alone: Outcome::Works,
            fused: refused,
            tail: Outcome::Works,
            libxdp: Outcome::Unknown,
        };
        assert_eq!(entry.problems(), Vec::<String>::new());
        let text = section("6.1", &[entry], &[("b.o".into(), "no ELF".into())]);
        assert!(
            text.starts_with(
                "## Linux 6.1\n\n1 programs for interfaces, of which 1 run alone. Of these 0 run"
            )
        );
        assert!(text.contains("| a.o | p | Frames | yes | yes | no | yes | - |\n"), "{text}");
        assert!(text.contains("- a.o, p (fused): the kernel refuses it: too deep\n- b.o cannot be read"));
    }
}
