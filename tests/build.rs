//! Builds the C programs in `bpf/`, which the far ends of test links run.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=bpf");
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"]);
    // Debian keeps `asm/types.h` below the machine's triplet, where clang does not look for a BPF target.
    let triplet = Path::new("/usr/include").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    if triplet.is_dir() {
        clang.arg(format!("-I{}", triplet.display()));
    }
    clang.args(["-c", "bpf/far_end.c", "-o"]).arg(out.join("far_end.o"));
    let status = clang.status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "`clang` could not build bpf/far_end.c: {status:?}\nhelp: cargo xtask setup"
    );
}
