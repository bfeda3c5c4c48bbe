//! The tools a program is built with: found, and checked before anything is compiled.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, workspace_root};

/// The toolchain that can build `core` for the BPF target.
const TOOLCHAIN: &str = "nightly";

/// Where `cargo xtask setup` installs the linker.
pub(crate) fn local_linker() -> PathBuf {
    workspace_root().join("target/tools/bin/bpf-linker")
}

/// The linker that setup installed, else the one in PATH.
pub(crate) fn linker() -> Result<PathBuf, Error> {
    let local = local_linker();
    if local.is_file() {
        return Ok(local);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join("bpf-linker")).find(|p| p.is_file()).ok_or(Error::NoLinker)
}

/// The nightly toolchain's folder, which holds the sources of `core`.
pub(crate) fn sysroot() -> Result<PathBuf, Error> {
    let output = nightly("rustc")
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| Error::NoNightly { detail: format!("`rustup`: {e}") })?;
    if !output.status.success() {
        return Err(Error::NoNightly { detail: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
        Ok(sysroot)
    } else {
        Err(Error::NoRustSrc { sysroot })
    }
}

/// A tool of the nightly toolchain, freed of what an outer cargo set for its own build.
pub(crate) fn nightly(tool: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, tool]);
    for (name, _) in env::vars_os() {
        if belongs_to_outer_build(&name) {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether an environment variable would carry an outer cargo's choices (compiler, flags, target) into this build.
fn belongs_to_outer_build(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    matches!(
        name,
        "RUSTC"
            | "RUSTC_WRAPPER"
            | "RUSTC_WORKSPACE_WRAPPER"
            | "RUSTC_LINKER"
            | "RUSTDOC"
            | "RUSTFLAGS"
            | "TARGET"
    ) || matches!(name, "CARGO" | "CARGO_ENCODED_RUSTFLAGS" | "CARGO_MAKEFLAGS" | "CARGO_TARGET_DIR")
        || [
            "CARGO_BUILD_",
            "CARGO_CFG_",
            "CARGO_FEATURE_",
            "CARGO_PKG_",
            "CARGO_PROFILE_",
            "CARGO_MANIFEST_",
            "DEP_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The folder of downloaded crates, whose paths end up in debug information.
pub(crate) fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .unwrap_or_else(|| PathBuf::from("/.cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_build_does_not_choose_this_ones_compiler_flags_or_profile() {
        for name in
            ["RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_DEBUG", "DEP_Z_ROOT"]
        {
            assert!(belongs_to_outer_build(&name.into()), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME"] {
            assert!(!belongs_to_outer_build(&name.into()), "{name}");
        }
    }
}
