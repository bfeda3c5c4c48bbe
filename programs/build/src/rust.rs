//! Rust programs: nightly, `core` built from source, linked and given BTF by bpf-linker.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, create_dir, strip::strip, target_dir, tools, workspace_root, write_if_changed};

/// Packages of the six programs of the data path, and of the one that stands for somebody else's.
pub const PROGRAMS: [&str; 7] =
    ["gtp-decap", "gre-decap", "acl", "stats", "gre-steer", "gtp-encap", "adopted"];

/// Packages of the third-party examples that are written in Rust.
pub const RUST_EXAMPLES: [&str; 1] = ["rust-dscp"];

const TARGET: &str = "bpfel-unknown-none";

/// Builds `packages` and puts one object for each into `out`, as `<package>.o`. Returns their paths, in order.
///
/// # Errors
/// When a tool is missing, a package does not compile or a file cannot be written.
pub fn build(packages: &[&str], out: &Path) -> Result<Vec<PathBuf>, Error> {
    compile(packages, &[], out)
}

/// Builds `package` for size instead of speed into `out`: other instructions from the same source, for whoever needs a
/// second build of a module. Returns its path.
///
/// # Errors
/// As [`build`].
pub fn build_for_size(package: &str, out: &Path) -> Result<PathBuf, Error> {
    let config = format!("profile.release.package.{package}.opt-level='s'");
    compile(&[package], &["--config", &config], out)?;
    Ok(out.join(format!("{package}.o")))
}

fn compile(packages: &[&str], options: &[&str], out: &Path) -> Result<Vec<PathBuf>, Error> {
    let linker = tools::linker()?;
    let sysroot = tools::sysroot()?;
    // Its own target directory: an outer cargo holds the lock of the common one while a build script runs.
    let target = target_dir().join("ebpf-build");
    let mut cargo = tools::nightly("cargo");
    cargo.current_dir(workspace_root());
    cargo.args(["build", "--release", "--bins", "-Zbuild-std=core", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target).args(options);
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&linker, &sysroot));
    // The workspace's release profile is made for the binary; what the linker needs is not up to it.
    for (setting, value) in [("DEBUG", "2"), ("STRIP", "none"), ("LTO", "false"), ("PANIC", "abort")] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    // Incremental compilation splits a crate in many units whatever `codegen-units` says, and the verifier has to follow
    // every loop that is not unrolled or inlined for it.
    cargo.env("CARGO_INCREMENTAL", "0");
    let output = cargo
        .output()
        .map_err(|source| Error::NoTool { program: "rustup run nightly cargo".to_owned(), source })?;
    if !output.status.success() {
        return Err(Error::Compile {
            what: packages.join("`, `"),
            output: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
        });
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    if messages.contains("warning") {
        eprint!("{messages}");
    }
    create_dir(out)?;
    packages
        .iter()
        .map(|package| {
            let built = target.join(TARGET).join("release").join(package);
            let bytes = fs::read(&built).map_err(|source| Error::Read { path: built.clone(), source })?;
            let object = out.join(format!("{package}.o"));
            let bytes = strip(&bytes).map_err(|source| Error::Strip { path: built, source })?;
            write_if_changed(&object, &bytes)?;
            Ok(object)
        })
        .collect()
}

/// What rustc is told, in cargo's encoding (fields separated by 0x1f).
fn flags(linker: &Path, sysroot: &Path) -> OsString {
    let mut flags: Vec<OsString> = [
        // aya-ebpf chooses pt_regs by it; XDP programs never look at them, so the objects fit every machine.
        "--cfg=bpf_target_arch=\"x86_64\"",
        // BTF is made from full debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ccodegen-units=1",
        // v3 is the newest instruction set that kernel 5.10 knows in full.
        "-Ctarget-cpu=v3",
        // Every machine that runs XDP reads numbers from any place of a packet. On the stack the verifier wants them
        // aligned: what is written there as octets must not come together as a number that is not.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ]
    .map(OsString::from)
    .into();
    let mut with_path = |prefix: &str, path: &Path, suffix: &str| {
        let mut flag = OsString::from(prefix);
        flag.push(path);
        flag.push(suffix);
        flags.push(flag);
    };
    with_path("-Clinker=", linker, "");
    // The last prefix that matches wins, so the most specific one comes last.
    with_path("--remap-path-prefix=", &tools::cargo_home(), "=/cargo");
    with_path("--remap-path-prefix=", sysroot, "=/rust");
    with_path("--remap-path-prefix=", &workspace_root(), "=.");
    flags.join(&OsString::from("\x1f"))
}
