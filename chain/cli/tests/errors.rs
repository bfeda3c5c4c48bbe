//! Failures that need neither root nor an interface of their own: what is said, where, and with which exit status.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Objects that clang made.
const OBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/tests/fixtures/objects");

/// A user who may nothing, `nobody`.
const NOBODY: u32 = 65534;

/// A folder of its own for each test, which everybody may read, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("xdpchain-cli-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.join(name), text).unwrap();
        self
    }

    /// A chains.yaml with one chain of one module on `lo`.
    fn chain_of(&self, object: &str) -> &Self {
        self.write(
            "chains.yaml",
            format!(
                "version: 1\nmodules:\n  acl: {{ object: \"{object}\" }}\nchains:\n  edge: {{ interfaces: [lo], slots: [acl] }}\n"
            ),
        )
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(Path::new(env!("CARGO_BIN_EXE_xdpchain")), args))
    }

    fn command(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(args).current_dir(&self.0).env("NO_COLOR", "1").env_remove("RUST_LOG");
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Ended with `status`, with nothing on stdout, and with exactly `stderr`.
    #[track_caller]
    fn fails(&self, status: i32, stderr: &str) {
        assert_eq!((self.status, self.stdout.as_str(), self.stderr.as_str()), (Some(status), "", stderr));
    }

    /// Ended with `status` and an error that begins with `first` and helps.
    #[track_caller]
    fn fails_with(&self, status: i32, first: &str) {
        assert_eq!((self.status, self.stdout.as_str()), (Some(status), ""), "{self:?}");
        assert!(self.stderr.starts_with(first), "{self:?}");
        assert!(self.stderr.lines().any(|line| line.starts_with("help: ")), "{self:?}");
    }
}

#[test]
fn an_unknown_interface() {
    let folder = Folder::new("interface");
    folder.chain_of("builtin:acl").run(&["attach", "no-such-if0"]).fails(
        2,
        "error: no interface `no-such-if0` in this network namespace\n\
         help: `ip link` lists the interfaces; `--netns NAME` enters another namespace\n",
    );
}

#[test]
fn an_interface_without_a_chain() {
    let folder = Folder::new("no-chain");
    folder
        .write("chains.yaml", "version: 1\nmodules: { a: { object: a.o } }\nchains: { edge: { interfaces: [eth7], slots: [a] } }\n")
        .run(&["attach", "lo"])
        .fails(
            2,
            "error: no chain in `chains.yaml` is for interface `lo`\n\
             help: add it to a chain's `interfaces`, or name a chain with `--chain`; interfaces there: `eth7`\n",
        );
    folder
        .run(&["attach", "lo", "--chain", "egde"])
        .fails(2, "error: `chains.yaml` has no chain `egde`\nhelp: did you mean `edge`?\n");
}

#[test]
fn a_user_who_may_not() {
    let folder = Folder::new("permission");
    folder.chain_of("builtin:acl");
    // The target folder may be where only its owner may go. Copied by another process: a descriptor that is open for
    // writing here would be inherited by what other tests start meanwhile, and the file could not be run.
    let binary = folder.0.join("xdpchain");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_xdpchain")).arg(&binary).status().unwrap();
    assert!(copied.success());
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    // Commands that only look are allowed to say, where no chain has ever been, that there is none.
    for args in [&["attach", "lo"][..], &["detach", "lo"], &["add", "lo", "builtin:acl"]] {
        let mut command = folder.command(&binary, args);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let ran = Ran::of(command);
        ran.fails_with(4, "error: ");
    }
}

#[test]
fn a_file_that_is_no_elf() {
    let folder = Folder::new("elf");
    folder.write("note.o", "not an object").chain_of("note.o");
    folder.run(&["check", "note.o"]).fails_with(2, "error: object `note.o`: this is no ELF object: ");
    folder
        .run(&["attach", "lo"])
        .fails_with(2, "error: chains.yaml: object `note.o`: this is no ELF object: ");
    folder.run(&["add", "lo", "note.o"]).fails_with(2, "error: object `");
    folder.run(&["check", "missing.o"]).fails_with(2, "error: cannot read object `missing.o`: ");
}

#[test]
fn an_object_without_an_xdp_program() {
    let folder = Folder::new("none");
    let object = format!("{OBJECTS}/other.o");
    folder.run(&["check", &object]).fails(
        2,
        &format!(
            "error: object `{object}`: no XDP program; programs found: `egress` in `tc`\n\
             help: put the program into a section called `xdp`, or one whose name no other type of program has\n"
        ),
    );
    folder.chain_of(&object).run(&["attach", "lo"]).fails_with(2, "error: chains.yaml: object `");
}

#[test]
fn an_object_with_two_xdp_programs() {
    let folder = Folder::new("two");
    let object = format!("{OBJECTS}/several.o");
    folder.run(&["check", &object]).fails(
        2,
        &format!(
            "error: object `{object}`: 2 XDP programs: `first`, `second`\n\
             help: say which one with `program:` in chains.yaml, or `--program`\n"
        ),
    );
    folder.run(&["add", "lo", &object]).fails_with(2, "error: object `");
    folder.run(&["check", &object, "--program", "third"]).fails_with(2, "error: object `");
    assert_eq!(folder.run(&["check", &object, "--program", "second"]).status, Some(0));
}

#[test]
fn a_chains_yaml_with_an_unknown_key() {
    let folder = Folder::new("key");
    folder
        .write("chains.yaml", "version: 1\nmodules:\n  acl: { objct: \"builtin:acl\" }\n")
        .run(&["check"])
        .fails(
            3,
            "error: chains.yaml:3:10: unknown key `objct` in `modules.acl`\n 3 |   acl: { objct: \"builtin:acl\" }\n   \
             |          ^^^^^\nhelp: did you mean `object`? keys here are object, program, maps, imports, programs, exports and migrate\n",
        );
}

#[test]
fn a_chains_yaml_with_a_duplicate_key_an_unknown_module_or_a_wrong_type() {
    let folder = Folder::new("yaml");
    let modules = "version: 1\nmodules:\n  acl: { object: \"builtin:acl\" }\n";
    for (rest, first) in [
        (
            "  acl: { object: b.o }\n",
            "error: chains.yaml:4:3: duplicate key `acl` in `modules`, first given in line 3\n",
        ),
        (
            "chains:\n  edge: { interfaces: [lo], slots: [acl, alc] }\n",
            "error: chains.yaml:5:42: unknown module `alc` in `chains.edge.slots`\n",
        ),
        (
            "chains:\n  edge: { interfaces: lo, slots: [acl] }\n",
            "error: chains.yaml:5:23: wrong type for `chains.edge.interfaces`: found string \"lo\"\n",
        ),
    ] {
        folder.write("chains.yaml", format!("{modules}{rest}"));
        for args in [&["attach", "lo"][..], &["check"], &["check", "-f", "chains.yaml"]] {
            folder.run(args).fails_with(3, first);
        }
    }
}

#[test]
fn a_chains_yaml_that_is_not_there() {
    let folder = Folder::new("absent");
    folder.run(&["check", "-f", "other.yaml"]).fails_with(3, "error: cannot read `other.yaml`: ");
    if !Path::new("/etc/xdpchain/chains.yaml").exists() {
        folder.run(&["attach", "lo"]).fails_with(3, "error: no chains.yaml: ");
    }
}

#[test]
fn a_map_that_no_module_has() {
    let folder = Folder::new("map");
    folder.write(
        "chains.yaml",
        "version: 1\nmodules:\n  acl: { object: \"builtin:acl\", maps: { ruels: { max_entries: 5 } } }\nchains: { edge: { interfaces: [lo], slots: [acl] } }\n",
    );
    for args in [&["check"][..], &["attach", "lo"]] {
        folder.run(args).fails_with(3, "error: chains.yaml: module `acl` has no map `ruels`; it has: ");
    }
}

#[test]
fn a_built_in_object_that_is_not_there() {
    let folder = Folder::new("builtin");
    folder
        .run(&["check", "builtin:gtp-decamp"])
        .fails(2, "error: no built-in object `gtp-decamp`\nhelp: did you mean `builtin:gtp-decap`?\n");
    folder
        .chain_of("builtin:alc")
        .run(&["check"])
        .fails(2, "error: chains.yaml: no built-in object `alc`\nhelp: did you mean `builtin:acl`?\n");
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let folder = Folder::new("usage");
    for args in [
        &["atach", "lo"][..],
        &["attach"],
        &["add", "lo", "a.o", "--first", "--last"],
        &["add", "lo", "a.o", "--on-unknown", "XDP_DROP"],
        &["map", "get", "sessions", "1"],
        &["status", "-o", "xml"],
    ] {
        let ran = folder.run(args);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    }
}
