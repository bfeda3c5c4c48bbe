//! The programs that the root tests are, built by cargo and run without it.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::run::{cargo, output};

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Name of the file in `tests/tests`.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
}

/// Builds the root tests and returns the programs, in the order of their names; those in `only`, when that is not empty.
pub(crate) fn programs(only: &[&str]) -> anyhow::Result<Vec<Program>> {
    let arguments = ["test", "-p", "xdpchain-tests", "--tests", "--no-run", "--message-format=json"];
    let messages =
        output(cargo(&arguments).stderr(Stdio::inherit())).context("building the root tests failed")?;
    let mut programs: Vec<_> = messages.lines().filter_map(program).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(name) = only.iter().find(|name| !programs.iter().any(|p| p.name == **name)) {
        let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        bail!("there is no test program `{name}`\nhelp: there are {}", names.join(", "));
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
