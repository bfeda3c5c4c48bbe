//! The C programs of `benches/bpf`, compiled for a case.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use xdpchain_ebpf_build::workspace_root;

/// Compiles `bpf/<source>.c` with these macros and returns the object.
///
/// # Errors
/// When clang is missing or refuses.
pub fn compile(source: &str, macros: &[(&str, usize)]) -> anyhow::Result<Vec<u8>> {
    let folder = workspace_root().join("benches/bpf");
    let out = tempfile::NamedTempFile::new()?;
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-c"]);
    // Debian keeps `asm/types.h` below the machine's triplet, where clang does not look for a BPF target.
    let triplet = Path::new("/usr/include").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    if triplet.is_dir() {
        clang.arg(format!("-I{}", triplet.display()));
    }
    for (name, value) in macros {
        clang.arg(format!("-D{name}={value}"));
    }
    clang.arg(folder.join(source).with_extension("c")).arg("-o").arg(out.path());
    let status = clang.status().context("cannot run clang; `cargo xtask setup` installs it")?;
    ensure!(status.success(), "clang could not build {source}.c");
    Ok(std::fs::read(out.path())?)
}
