//! The fuzz targets of `fuzz/`, run for a while each.
//!
//! What is found, and the inputs that got somewhere new, stay below `target/fuzz`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::run::{command, output, run, target_dir, workspace};

/// Flags by which the compiler tells libFuzzer what was reached, and finds what memory is misused. They want nightly.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Zsanitizer=address --cfg fuzzing";

/// Real objects, which the targets that read such begin with.
const OBJECTS: &str = "chain/compose/tests/fixtures/objects";
const READ_OBJECTS: [&str; 1] = ["compose"];

/// Seconds that one input may take, and MiB of memory.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];

/// Compiles the targets with stable, as a check that they still do.
pub(crate) fn check() -> anyhow::Result<()> {
    run(&mut crate::run::cargo(&["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"]))
}

/// Runs `target`, or each of them, for `seconds`.
pub(crate) fn fuzz(target: Option<&str>, seconds: u64) -> anyhow::Result<()> {
    let all = targets()?;
    let chosen: Vec<_> = all.iter().filter(|name| target.is_none_or(|wanted| wanted == **name)).collect();
    if chosen.is_empty() {
        bail!("there is no fuzz target `{}`\nhelp: there are {}", target.unwrap_or_default(), all.join(", "));
    }
    let folder = target_dir().join("fuzz");
    let host = host()?;
    let mut build = command("rustup", &["run", "nightly", "cargo", "build", "--release", "--locked"]);
    build.args(["--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    build.env("RUSTFLAGS", RUSTFLAGS).env("CARGO_TARGET_DIR", &folder);
    // A cargo that runs this sets the toolchain, which would hold for the one that is wanted.
    build.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    run(&mut build)?;
    for name in chosen {
        let [corpus, found] = ["corpus", "found"].map(|kind| folder.join(kind).join(name));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("making `{}`", folder.display()))?;
        }
        let mut fuzzer = Command::new(folder.join(&host).join("release").join(name));
        fuzzer.current_dir(workspace()).arg(&corpus);
        if READ_OBJECTS.contains(&name.as_str()) {
            fuzzer.arg(OBJECTS);
        }
        fuzzer.arg(format!("-max_total_time={seconds}")).args(LIMITS).arg("-print_final_stats=1");
        fuzzer.arg(format!("-artifact_prefix={}/", found.display()));
        run(&mut fuzzer).with_context(|| format!("what `{name}` met is in `{}`", found.display()))?;
    }
    Ok(())
}

/// Names of the targets, sorted.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = workspace().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("listing `{}`", folder.display()))?;
    let name = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> = files.flatten().filter_map(|file| name(&file.path())).collect();
    names.sort();
    Ok(names)
}

/// The triple of this machine: the sanitizer's flags hold for build scripts too unless a target is named.
fn host() -> anyhow::Result<String> {
    let said = output(&mut command("rustup", &["run", "nightly", "rustc", "-vV"]))
        .context("there is no nightly toolchain\nhelp: cargo xtask setup")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}
