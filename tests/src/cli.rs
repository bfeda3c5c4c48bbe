//! The `xdpchain` binary, run as its users run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Netns;

/// What one run of the binary gave.
#[derive(Debug)]
pub struct Run {
    /// Exit status; 128 and up by a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// This run, when it ended with `status`.
    ///
    /// # Panics
    /// When it ended with another one, with everything it printed.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// The binary under test: `XDPCHAIN_BIN`, else what `cargo xtask build` or `cargo build -p xdpchain` made.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("XDPCHAIN_BIN") {
        return PathBuf::from(path);
    }
    let target = target_dir();
    ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("xdpchain"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no xdpchain binary in `{}`\nhelp: cargo xtask build", target.display()))
}

/// The top folder of the repository.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the workspace")
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Where `cargo xtask build` puts objects: `XDPCHAIN_EBPF_DIR`, else `ebpf` beside the binary's folder.
pub fn objects() -> PathBuf {
    std::env::var_os("XDPCHAIN_EBPF_DIR").map_or_else(|| target_dir().join("ebpf"), PathBuf::from)
}

/// Every file in `folder` and below, sorted; none when there is no such folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// Runs `xdpchain ARGS` in namespace `ns` and folder `dir`.
pub fn xdpchain(ns: &Netns, dir: &Path, args: &[&str]) -> Run {
    let mut command = Command::new(binary());
    command.args(args).current_dir(dir).env("NO_COLOR", "1").env_remove("RUST_LOG");
    run(ns, &mut command)
}

/// A namespace and a folder to run `xdpchain` in. The folder has the objects of `bpf/`, and goes away with its value.
#[derive(Debug)]
pub struct Shell<'a> {
    ns: &'a Netns,
    folder: TempDir,
}

impl<'a> Shell<'a> {
    /// A shell in `ns`, with `chains_yaml` in its folder.
    pub fn new(ns: &'a Netns, chains_yaml: &str) -> Self {
        let shell = Self { ns, folder: tempfile::tempdir().expect("a folder can be made") };
        object::write_all(shell.path());
        shell.write("chains.yaml", chains_yaml);
        shell
    }

    /// The namespace.
    pub fn netns(&self) -> &'a Netns {
        self.ns
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    /// Runs `xdpchain ARGUMENTS`.
    pub fn xdpchain(&self, arguments: &[&str]) -> Run {
        xdpchain(self.ns, self.path(), arguments)
    }

    /// Runs `xdpchain ARGUMENTS -o json`.
    ///
    /// # Panics
    /// When it fails.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        self.json_with_status(arguments, 0)
    }

    /// Runs `xdpchain ARGUMENTS -o json`, which is to end with `status`.
    ///
    /// # Panics
    /// When it ends with another one.
    pub fn json_with_status(&self, arguments: &[&str], status: i32) -> serde_json::Value {
        let run = self.xdpchain(&[arguments, &["-o", "json"]].concat()).expect(status);
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
    }

    /// Every pin and file that `xdpchain` has for the namespace.
    pub fn left(&self) -> Vec<PathBuf> {
        [self.ns.pins(), self.ns.manifests()].iter().flat_map(|folder| files_below(folder)).collect()
    }
}

/// Runs any command in namespace `ns`.
pub fn run(ns: &Netns, command: &mut Command) -> Run {
    use std::os::unix::process::ExitStatusExt;
    let output = ns.output(command);
    Run {
        status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Objects of modules for the tests, from `bpf/`.
pub mod object {
    use std::path::Path;

    macro_rules! objects {
        ($($(#[$doc:meta])+ $name:ident = $file:literal;)+) => {
            $($(#[$doc])+ pub static $name: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/", $file));)+

            /// Writes every object into `folder`.
            pub fn write_all(folder: &Path) {
                $(std::fs::write(folder.join($file), $name).expect("the test's folder can be written");)+
            }
        };
    }
    objects! {
        /// Passes everything and counts it in its map `passed`.
        PASSING = "passing.o";
        /// Drops everything.
        DROPPING = "dropping.o";
        /// Stamps packets, and checks the stamp: programs stamp1 to stamp8 and check1 to check8.
        MARKS = "marks.o";
        /// Begins the packet context as its map `wanted` says.
        PRESET = "preset.o";
        /// Notes the length and first octets of the packet, wherever octets were skipped before.
        LOOKS = "looks.o";
        /// The same, by a module that tail calls.
        LOOKS_CALLED = "looks_called.o";
        /// The same, of all of the frame, with skipped octets.
        LOOKS_HEEDING = "looks_heeding.o";
        /// Two XDP programs.
        TWO = "two.o";
        /// No XDP program.
        NONE = "none.o";
        /// The verifier refuses it.
        REFUSED = "refused.o";
        /// The verifier takes it once, but not twice in one program.
        HEAVY = "heavy.o";
        /// Needs nearly all of the stack that a program has.
        DEEP = "deep.o";
        /// Takes packets in several buffers, passes and counts them.
        FRAGS = "frags.o";
        /// Tail calls programs of its own.
        JUMPS = "jumps.o";
        /// Counts flows in maps of many types.
        FLOWS_V1 = "flows_v1.o";
        /// The same with another layout of their values.
        FLOWS_V2 = "flows_v2.o";
        /// The same with counters of 8 bits.
        FLOWS_NARROW = "flows_narrow.o";
        /// Reads the flows that the first of these counts, when its map `seen` is that.
        FLOWS_READER = "flows_reader.o";
    }
}
