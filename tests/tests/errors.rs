//! Errors: each says what, where and what to do, has its exit status, and changes nothing.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};
use xdpchain_tests::cli::{self, object};
use xdpchain_tests::{Netns, Run, Shell, veth};

/// A chain of one module that passes everything.
const GOOD: &str = "\
version: 1
modules:
  passing: { object: ./passing.o }
chains:
  edge:
    interfaces: [eth1]
    slots: [passing]
";

/// A namespace with an interface `eth1`.
fn namespace(label: &str) -> Netns {
    let ns = Netns::new(label);
    veth((&ns, "eth1"), (&ns, "peer1"));
    ns
}

/// A shell in such a namespace.
struct Place<'a>(Shell<'a>);

impl<'a> Deref for Place<'a> {
    type Target = Shell<'a>;

    fn deref(&self) -> &Shell<'a> {
        &self.0
    }
}

impl<'a> Place<'a> {
    fn new(ns: &'a Netns) -> Self {
        Self(Shell::new(ns, GOOD))
    }

    /// Everything that a command could have changed.
    fn snapshot(&self) -> (Option<u32>, Vec<(PathBuf, Vec<u8>)>) {
        // A pin cannot be read; its name is what counts.
        let files = self.left().into_iter().map(|path| (path.clone(), fs::read(path).unwrap_or_default()));
        (self.netns().xdp_program("eth1"), files.collect())
    }

    /// Runs a command that has to fail with `status`, to say every one of `texts` and something to do, and to change
    /// nothing.
    fn refuses(&self, arguments: &[&str], status: i32, texts: &[&str]) {
        let before = self.snapshot();
        complains(self.xdpchain(arguments), status, texts);
        let after = self.snapshot();
        let difference: Vec<_> =
            after.1.iter().filter(|file| !before.1.contains(file)).map(|file| &file.0).collect();
        assert!(after == before, "{arguments:?} changed something: {difference:?}, program {:?}", after.0);
    }
}

/// Checks one failed run.
fn complains(run: Run, status: i32, texts: &[&str]) {
    let run = run.expect(status);
    assert!(run.stdout.is_empty(), "an error is no data: {}", run.stdout);
    for text in texts.iter().chain(&["help: "]) {
        assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
    }
}

#[test]
fn an_unknown_interface() {
    let ns = namespace("no-iface");
    let place = Place::new(&ns);
    place.write("chains.yaml", &GOOD.replace("eth1", "eth7"));
    place.refuses(&["attach", "eth7"], 2, &["no interface `eth7`"]);
    place.refuses(&["detach", "eth7"], 2, &["no interface `eth7`"]);
}

#[test]
fn no_permission() {
    let ns = namespace("nobody");
    let place = Place::new(&ns);
    // Nobody may neither enter the folders above the binary nor the test's own, wherever they are.
    let folder = tempfile::Builder::new().prefix("xdpchain-nobody").tempdir_in("/tmp").expect("a folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let binary = folder.path().join("xdpchain");
    fs::copy(cli::binary(), &binary).expect("the binary can be copied");
    fs::write(folder.path().join("chains.yaml"), GOOD).expect("the folder is ours");
    fs::write(folder.path().join("passing.o"), object::PASSING).expect("the folder is ours");
    let before = place.snapshot();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(&binary).args(["attach", "eth1"]).current_dir(folder.path()).env("NO_COLOR", "1");
    complains(cli::run(&ns, &mut command), 4, &["not allowed", "root"]);
    assert_eq!(place.snapshot(), before);
}

#[test]
fn a_kernel_without_xdp_links() {
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    /// `bpf(2)`'s number and its command, `BPF_LINK_CREATE`, which kernels before 5.7 answer with EINVAL.
    const LINK_CREATE: u64 = 28;
    let ns = namespace("old");
    let place = Place::new(&ns);
    let before = place.snapshot();
    let is_link_create = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, LINK_CREATE)
        .expect("a condition");
    let rule = SeccompRule::new(vec![is_link_create]).expect("a rule");
    let filter = SeccompFilter::new(
        [(nix::libc::SYS_bpf, vec![rule])].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(nix::libc::EINVAL as u32),
        std::env::consts::ARCH.try_into().expect("an architecture that has seccomp"),
    );
    let filter: seccompiler::BpfProgram = filter.expect("a filter").try_into().expect("a program");
    let mut command = Command::new(cli::binary());
    command.args(["attach", "eth1"]).current_dir(place.path()).env("NO_COLOR", "1");
    // The filter holds for the thread and what it starts.
    let output = ns.run(|| {
        seccompiler::apply_filter(&filter).expect("this kernel has seccomp");
        command.output().expect("the binary runs")
    });
    let run = Run {
        status: output.status.code().expect("it exits"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    complains(run, 5, &["no XDP links", "5.9"]);
    assert_eq!(place.snapshot(), before);
}

#[test]
fn objects_that_are_no_module() {
    let ns = namespace("objects");
    let place = Place::new(&ns);
    place.write("text.o", "this is no ELF\n");
    let cases: [(&str, &[&str]); 4] = [
        ("text.o", &["text.o", "ELF"]),
        ("none.o", &["none.o", "no XDP program"]),
        ("two.o", &["two.o", "first_of_two", "second_of_two"]),
        ("absent.o", &["absent.o"]),
    ];
    for (file, texts) in cases {
        place.write("chains.yaml", &GOOD.replace("passing.o", file));
        place.refuses(&["attach", "eth1"], 2, texts);
    }
    // The same beside a chain that runs.
    place.write("chains.yaml", GOOD);
    place.xdpchain(&["attach", "eth1"]).expect(0);
    for (file, texts) in cases {
        place.refuses(&["add", "eth1", file, "--name", "more"], 2, texts);
    }
    // What the help line of two programs says is enough.
    place.xdpchain(&["add", "eth1", "two.o", "--program", "first_of_two"]).expect(0);
}

#[test]
fn a_program_that_the_verifier_refuses() {
    let ns = namespace("verifier");
    let place = Place::new(&ns);
    let texts = ["module `refused`", "refused.c:", "no bounds check", "invalid access to packet", "data_end"];
    place.write("chains.yaml", &GOOD.replace("passing", "refused"));
    place.refuses(&["attach", "eth1"], 6, &texts);
    place.write("chains.yaml", GOOD);
    place.xdpchain(&["attach", "eth1"]).expect(0);
    place.refuses(&["add", "eth1", "refused.o"], 6, &texts);
}

#[test]
fn an_interface_with_the_program_of_somebody_else() {
    let ns = namespace("foreign");
    let place = Place::new(&ns);
    let mut ebpf = Ebpf::load(object::DROPPING).expect("the kernel takes it");
    let program: &mut Xdp =
        ebpf.program_mut("dropping").expect("it is there").try_into().expect("it is for XDP");
    program.load().expect("the kernel takes it");
    ns.run(|| program.attach("eth1", XdpMode::Driver)).expect("nothing is on it");
    let id = ns.xdp_program("eth1").expect("it is attached");
    let shown = format!("id {id}");
    place.refuses(&["attach", "eth1"], 7, &["`eth1`", &shown, "dropping"]);
    assert_eq!(ns.xdp_program("eth1"), Some(id));
}

#[test]
fn a_chains_yaml_that_is_wrong() {
    let ns = namespace("yaml");
    let place = Place::new(&ns);
    place.xdpchain(&["attach", "eth1"]).expect(0);
    // What is put in for what, and what has to be said: the place, the line itself, the word.
    let cases: [(&str, &str, &[&str]); 6] = [
        ("    slots:", "    slotz: []\n    slots:", &["chains.yaml:7", "slotz"]),
        (
            "    slots:",
            "    interfaces: [eth2]\n    slots:",
            &["chains.yaml:7", "interfaces", "interfaces: [eth2]"],
        ),
        ("[passing]", "[pasing]", &["chains.yaml:7", "pasing", "slots: [pasing]", "passing"]),
        ("[eth1]", "eth1", &["chains.yaml:6", "interfaces: eth1"]),
        ("[passing]", "[passing: { proceed_on: [often] }]", &["chains.yaml:7", "often"]),
        ("version: 1", "version: 2", &["chains.yaml:1", "version: 2"]),
    ];
    for (from, to, texts) in cases {
        place.write("chains.yaml", &GOOD.replacen(from, to, 1));
        place.refuses(&["attach", "eth1"], 3, texts);
        place.refuses(&["check"], 3, texts);
    }
}

#[test]
fn what_is_not_there() {
    let ns = namespace("absent");
    let place = Place::new(&ns);
    place.refuses(&["detach", "eth1"], 1, &["no chain on `eth1`"]);
    place.refuses(&["remove", "eth1", "passing"], 1, &["no chain on `eth1`"]);
    place.xdpchain(&["attach", "eth1"]).expect(0);
    place.refuses(&["remove", "eth1", "acl"], 2, &["no slot `acl`", "`passing`"]);
    place.refuses(&["add", "eth1", "dropping.o", "--after", "acl"], 2, &["no slot `acl`"]);
    fs::remove_file(place.path().join("chains.yaml")).expect("it was written");
    place.refuses(&["attach", "eth1"], 3, &["no chains.yaml", "-f FILE"]);
    place.refuses(&["attach", "eth1", "-f", "other.yaml"], 3, &["other.yaml"]);
}
