//! The recipe that turns the packet programs into ELF objects.
//!
//! One recipe for `cargo xtask build` and for the build script that embeds the objects, so that what is tested is what
//! is shipped. Output depends on the sources and the tools only: no path of the machine is left in an object.
#![forbid(unsafe_code)]

mod c;
mod error;
mod rust;
mod strip;
mod tools;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

pub use c::{C_EXAMPLES, build_c_examples};
pub use error::Error;
pub use rust::{PROGRAMS, RUST_EXAMPLES, build, build_for_size};

/// The folder of the workspace's Cargo.toml, as it was when this crate was built.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, else `target` of the workspace.
#[must_use]
pub fn target_dir() -> PathBuf {
    let root = workspace_root();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

/// Prints the lines by which a build script asks cargo to run it again when a program, or the linker, changes.
pub fn rerun_if_changed() {
    let root = workspace_root();
    for path in ["programs", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    // A path that does not exist would make cargo run the script each time.
    let linker = tools::local_linker();
    if linker.exists() {
        println!("cargo:rerun-if-changed={}", linker.display());
    }
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_DIR");
}

/// Puts `bytes` at `path` unless they are there already, so that an unchanged object rebuilds nothing.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // A rename, so that a reader never sees half an object.
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || -> io::Result<()> {
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| Error::Write { path: path.to_path_buf(), source })
}

fn create_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_path_buf(), source })
}
