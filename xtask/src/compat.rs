//! docs/compatibility.md: which objects run how, on this kernel and on those of virtual machines.
//!
//! Each kernel has a section, which the trial prints on it; the others stay as they are.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::run::{cargo, run, show, target_dir, workspace};
use crate::test::Kernels;
use crate::vm::{self, Task};
use crate::{ci, ebpf};

/// How long the trial may take in one guest.
const LIMIT: Duration = Duration::from_secs(1800);

const HEADER: &str = "\
# Which objects run how

Made by `cargo xtask compat` and `cargo xtask compat --vm all`; the test program `compat` checks the same on every kernel.

Each program is loaded alone by libbpf, alone by us, and by each engine as the only module of a chain and between two that let
everything pass, each time with maps of its own, and given some thirty packets. *yes* means that it runs and that verdicts,
octets and what its maps hold afterwards are what they are alone. *no* has its reason below the table. libxdp's column is
about its dispatcher with the program between two others; *-* stands where the kernel does not let programs take the place of
functions, so that it cannot be tried.

Objects are the fixtures of `chain/compose/tests/fixtures/objects`, each about one feature; the examples of
`programs/examples`; and what Debian's packages libxdp1 and xdp-tools install.
";

const SECTION: &str = "\n## Linux ";

/// Tries every object, here or in each of `kernels`, and writes down what came of it.
pub(crate) fn write(kernels: Option<&Kernels>) -> anyhow::Result<()> {
    ebpf::build_examples(&ci::objects())?;
    run(&mut cargo(&["build", "--quiet", "--package", "xdpchain-tests", "--bin", "compat"]))?;
    let sections = match kernels {
        None => vec![here()?],
        Some(kernels) => kernels.iter().map(|kernel| there(*kernel)).collect::<anyhow::Result<_>>()?,
    };
    let path = workspace().join("docs/compatibility.md");
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    for section in sections {
        text = with_section(&text, &section)?;
    }
    fs::write(&path, text).with_context(|| format!("writing `{}`", path.display()))
}

/// Fails when the document says of this kernel what is not so any more. Of a kernel that it does not have it says nothing.
pub(crate) fn check() -> anyhow::Result<()> {
    ebpf::build_examples(&ci::objects())?;
    run(&mut cargo(&["build", "--quiet", "--package", "xdpchain-tests", "--bin", "compat"]))?;
    let path = workspace().join("docs/compatibility.md");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    let found = here()?;
    let Some(stale) = stale(&text, &found) else {
        eprintln!("compat: docs/compatibility.md says what is so here, or nothing about this kernel");
        return Ok(());
    };
    bail!("docs/compatibility.md is out of date:\n{}\nhelp: cargo xtask compat", stale.join("\n"))
}

/// Rows of the section about the same kernel that are not those of `found`, and the other way round; none when the text has
/// no such section, or they are the same.
fn stale(text: &str, found: &str) -> Option<Vec<String>> {
    let heading = found.lines().next()?;
    let marker = SECTION.trim_start();
    let mut sections = text.split(SECTION).skip(1).map(|rest| format!("{marker}{rest}"));
    let old = sections.find(|old| old.lines().next() == Some(heading))?;
    let rows = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("| ")).map(str::to_owned).collect()
    };
    let (old, new) = (rows(&old), rows(found));
    let gone = old.iter().filter(|row| !new.contains(row)).map(|row| format!("- {row}"));
    let come = new.iter().filter(|row| !old.contains(row)).map(|row| format!("+ {row}"));
    let differences: Vec<_> = gone.chain(come).collect();
    (!differences.is_empty()).then_some(differences)
}

fn here() -> anyhow::Result<String> {
    let mut command = crate::run::command(&program()?, &[]);
    command.env("XDPCHAIN_EBPF_DIR", ci::objects()).stderr(Stdio::inherit());
    let shown = show(&command);
    let output = command.output().with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).context("the trial printed what is not UTF-8")
}

fn there(kernel: vm::Kernel) -> anyhow::Result<String> {
    let program = program()?;
    let objects = ci::objects().to_str().context("a folder's name is not UTF-8")?.to_owned();
    // From the guest's memory: reading page by page from the host takes long.
    let script = format!(
        "mkdir /run/compat\ncp -r {} /run/compat/ebpf\ncp {} /run/compat\n\
         XDPCHAIN_EBPF_DIR=/run/compat/ebpf exec /run/compat/compat",
        vm::quoted([&*objects]),
        vm::quoted([&*program])
    );
    let mut output = Vec::new();
    let status = vm::run(&Task::new(kernel, &script, LIMIT), &mut output)?;
    if status != 0 {
        bail!("the trial failed on {} (exit status {status})", kernel.version());
    }
    String::from_utf8(output).context("the trial printed what is not UTF-8")
}

fn program() -> anyhow::Result<String> {
    let path = target_dir().join("debug/compat");
    path.to_str().map(str::to_owned).context("a folder's name is not UTF-8")
}

/// `text` with this section in the place of the one about the same kernel; sections by version, the newest first.
fn with_section(text: &str, section: &str) -> anyhow::Result<String> {
    let version = |section: &str| -> Option<(u32, u32)> {
        let (major, minor) = section.lines().next()?.strip_prefix(SECTION.trim_start())?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let new = version(section).context("the trial printed no section about a kernel")?;
    let marker = SECTION.trim_start();
    let old = text.split(SECTION).skip(1).map(|rest| format!("{marker}{}\n", rest.trim_end()));
    let mut sections: Vec<String> = old.filter(|old| version(old).is_some_and(|v| v != new)).collect();
    sections.push(format!("{}\n", section.trim_end()));
    sections.sort_by_key(|section| std::cmp::Reverse(version(section)));
    Ok(format!("{HEADER}\n{}", sections.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_changed_are_told_of_the_same_kernel_alone() {
        let text = "\n## Linux 6.12\n\n| a.o | yes |\n| b.o | yes |\n\n## Linux 6.1\n\n| a.o | no |\n";
        assert_eq!(stale(text, "## Linux 6.12\n\nother words\n| a.o | yes |\n| b.o | yes |\n"), None);
        assert_eq!(stale(text, "## Linux 7.0\n\n| a.o | no |\n"), None);
        let changed = stale(text, "## Linux 6.1\n\n| a.o | yes |\n");
        assert_eq!(changed, Some(vec!["- | a.o | no |".to_owned(), "+ | a.o | yes |".to_owned()]));
    }

    #[test]
    fn a_section_takes_the_place_of_the_one_about_the_same_kernel() {
        let one = with_section("", "## Linux 6.1\n\nold\n").expect("a section");
        assert_eq!(one, format!("{HEADER}\n## Linux 6.1\n\nold\n"));
        let two = with_section(&one, "## Linux 6.12\n\nother\n").expect("a section");
        let three = with_section(&two, "## Linux 6.1\n\nnew\n").expect("a section");
        assert_eq!(three, format!("{HEADER}\n## Linux 6.12\n\nother\n\n## Linux 6.1\n\nnew\n"));
        assert!(with_section(&three, "nothing").is_err());
    }
}
