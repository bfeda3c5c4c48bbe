//! Builds the C programs in `bpf/`, which are the far ends of test links and modules for the tests, and a program that loads
//! objects as libbpf does.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=bpf");
    for entry in std::fs::read_dir("bpf").expect("the folder is part of this crate") {
        let source = entry.expect("it can be listed").path();
        if source.extension().is_some_and(|e| e == "c") {
            compile(&source, &out);
        }
    }
    let source = Path::new("libbpf/alone.c");
    println!("cargo:rerun-if-changed={}", source.display());
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror"]).arg(source).arg("-o").arg(out.join("alone")).arg("-lbpf");
    run(&mut cc, source);
}

fn compile(source: &Path, out: &Path) {
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"]);
    // Debian keeps `asm/types.h` below the machine's triplet, where clang does not look for a BPF target.
    let triplet = Path::new("/usr/include").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    if triplet.is_dir() {
        clang.arg(format!("-I{}", triplet.display()));
    }
    let object = out.join(source.file_name().expect("a file has a name")).with_extension("o");
    run(clang.arg("-c").arg(source).arg("-o").arg(object), source);
}

fn run(compiler: &mut Command, source: &Path) {
    let status = compiler.status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "`{}` could not build {}: {status:?}\nhelp: cargo xtask setup",
        compiler.get_program().to_string_lossy(),
        source.display()
    );
}
