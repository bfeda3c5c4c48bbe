//! The root tests inside other kernels.
//!
//! Everything is built on the host. The guest copies the test programs, the binary and the objects into its memory, for
//! reading them page by page from the host takes long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Kernel, Task, quoted};
use crate::ci;
use crate::run::{cargo, output, target_dir, workspace};
use crate::test::{Lines, SKIPPED, Tally};

/// How long the tests may take in one guest.
const LIMIT: Duration = Duration::from_secs(1800);

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Name of the file in `tests/tests`.
    pub(crate) name: String,
    executable: PathBuf,
}

/// Builds the root tests and returns the programs, in the order of their names; those in `only`, when that is not empty.
pub(crate) fn programs(only: &[&str]) -> anyhow::Result<Vec<Program>> {
    let arguments = ["test", "-p", "xdpchain-tests", "--tests", "--no-run", "--message-format=json"];
    let messages = output(cargo(&arguments).stderr(std::process::Stdio::inherit()))
        .context("building the root tests failed")?;
    let mut programs: Vec<_> = messages.lines().filter_map(program).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(name) = only.iter().find(|name| !programs.iter().any(|p| p.name == **name)) {
        bail!("there is no test program `{name}`");
    }
    programs.retain(|program| only.is_empty() || only.contains(&program.name.as_str()));
    Ok(programs)
}

/// The test program that a message of cargo's is about.
fn program(message: &str) -> Option<Program> {
    #[derive(Deserialize)]
    struct Message {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let message: Message = serde_json::from_str(message).ok()?;
    let executable = message.executable?;
    // Unit tests of the harness need no other kernel.
    message
        .target
        .kind
        .iter()
        .any(|kind| kind == "test")
        .then_some(Program { name: message.target.name, executable })
}

/// Runs test programs in `kernel`, with only the tests whose name contains `filter`; adds their results to `tally`.
pub(crate) fn test(
    kernel: Kernel,
    programs: &[Program],
    filter: Option<&str>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let script = script(programs, filter)?;
    let task = Task { kernel, script: &script, limit: LIMIT, verbose: false };
    let mut lines = Lines::new(tally);
    let status = super::run(&task, &mut lines)?;
    lines.end(status == 0);
    Ok(())
}

/// What the guest runs: each program in turn, status 0 when all of them ended with 0.
fn script(programs: &[Program], filter: Option<&str>) -> anyhow::Result<String> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let objects = text(&ci::objects())?;
    let binary = text(&target_dir().join("release/xdpchain"))?;
    let mut script = String::from("failed=0\nmkdir -p /run/xdpchain-tests\ncd /run/xdpchain-tests\n");
    script.push_str(&format!(
        "cp -r {} ebpf\ncp {} xdpchain\n",
        quoted([objects.as_str()]),
        quoted([binary.as_str()])
    ));
    script.push_str(
        "export XDPCHAIN_EBPF_DIR=$PWD/ebpf XDPCHAIN_BIN=$PWD/xdpchain XDPCHAIN_SKIPPED=$PWD/skipped\n",
    );
    script.push_str(&format!("cd {}\n", quoted([text(&workspace().join("tests"))?.as_str()])));
    for program in programs {
        let executable = text(&program.executable)?;
        script.push_str(&format!(
            "echo 'running {name}'\ncp {from} /run/xdpchain-tests/{name}\n/run/xdpchain-tests/{name} {filter} || failed=1\n\
             rm /run/xdpchain-tests/{name}\n",
            name = program.name,
            from = quoted([executable.as_str()]),
            filter = quoted(filter),
        ));
    }
    script.push_str(&format!(
        "[ ! -e $XDPCHAIN_SKIPPED ] || sed 's/^/{SKIPPED}/' $XDPCHAIN_SKIPPED\nexit $failed\n"
    ));
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_root_tests_are_taken_from_cargos_messages() {
        let compose = r#"{"reason":"compiler-artifact","target":{"name":"compose","kind":["test"]},"executable":"/t/compose-1"}"#;
        let unit = r#"{"reason":"compiler-artifact","target":{"name":"xdpchain_tests","kind":["lib"]},"executable":"/t/lib-1"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"libc","kind":["lib"]},"executable":null}"#;
        let expected = Program { name: "compose".into(), executable: "/t/compose-1".into() };
        assert_eq!(program(compose), Some(expected));
        assert_eq!(program(unit), None);
        assert_eq!(program(library), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
