//! The root tests inside other kernels.
//!
//! Everything is built on the host. The guest copies the test programs, the binary and the objects into its memory, for
//! reading them page by page from the host takes long.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::{Gone, Kernel, Task, quoted};
use crate::ci;
use crate::run::{target_dir, workspace};
use crate::test::{Lines, PROGRAM, Program, SKIPPED, Tally};

/// How long the tests may take in one guest: all of them over an hour.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Chains that the model draws unless told: emulated, each takes ten times as long.
const MODEL_CASES: &str = "150";

/// Packets that are compared with the reference unless told, for the same reason.
const REFERENCE_PACKETS: &str = "20000";

/// Which calls go wrong unless told, and every how many of them: only these differ between kernels, and each fault takes
/// five commands, one under strace.
const FAULT_CALLS: &str = "bpf";
const FAULT_STRIDE: &str = "64";

/// Runs test programs in `kernel`, with only the tests whose name contains `filter`; adds their results to `tally`, also when the
/// guest ends before it has run them all.
pub(crate) fn test(
    kernel: Kernel,
    programs: &[Program],
    filter: Option<&str>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let script = script(kernel, programs, filter)?;
    let task = Task::new(kernel, &script, LIMIT);
    let from = tally.len();
    let mut lines = Lines::named(tally, kernel.version());
    match super::run(&task, &mut lines) {
        Ok(status) => lines.end(status == 0),
        Err(error) if error.is::<Gone>() => {
            eprintln!("warning: kernel {}: {error:#}", kernel.version());
            lines.cut(&format!("{error:#}"));
        }
        Err(error) => return Err(error),
    }
    // Also where its time was over, of which the guest makes an ordinary end.
    tally.add_missing(kernel.version(), from, programs.iter().map(|program| program.name.as_str()));
    Ok(())
}

/// What the guest runs: each program in turn, status 0 when all of them ended with 0.
fn script(kernel: Kernel, programs: &[Program], filter: Option<&str>) -> anyhow::Result<String> {
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
    // Process ids of a guest are the same each time, and so would be a seed made from one.
    let seed = std::process::id().to_string();
    for (name, default) in [
        ("XDPCHAIN_MODEL_CASES", MODEL_CASES),
        ("XDPCHAIN_MODEL_SEED", seed.as_str()),
        ("XDPCHAIN_REFERENCE_PACKETS", REFERENCE_PACKETS),
        ("XDPCHAIN_REFERENCE_SEED", seed.as_str()),
        ("XDPCHAIN_FAULT_CALLS", FAULT_CALLS),
        ("XDPCHAIN_FAULT_STRIDE", FAULT_STRIDE),
    ] {
        let value = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        script.push_str(&format!("export {name}={}\n", quoted([value.as_str()])));
    }
    script.push_str(&format!("cd {}\n", quoted([text(&workspace().join("tests"))?.as_str()])));
    for program in programs {
        let executable = text(&program.executable)?;
        // The line before may be one that a program did not end.
        script.push_str(&format!(
            "printf '\\n{PROGRAM}%s\\n' {name}\ncp {from} /run/xdpchain-tests/{name}\n\
             {before}/run/xdpchain-tests/{name} {filter} || failed=1\n\
             rm /run/xdpchain-tests/{name}\n\
             [ ! -e $XDPCHAIN_SKIPPED ] || sed 's/^/{SKIPPED}/' $XDPCHAIN_SKIPPED\nrm -f $XDPCHAIN_SKIPPED\n",
            name = program.name,
            before = kernel.before(&program.name),
            from = quoted([executable.as_str()]),
            filter = quoted(filter),
        ));
    }
    script.push_str("exit $failed\n");
    Ok(script)
}
