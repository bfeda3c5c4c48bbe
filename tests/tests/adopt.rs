//! Programs that somebody else attached, taken into a chain and put back: by link and by netlink, natively and
//! generically, with what they count and what is told of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{Xdp, XdpMode};
use serde_json::Value;
use xdpchain_tests::cli::{self, object};
use xdpchain_tests::{Netns, Port, Shell, plan, veth};

const CHAIN: &str = "\
version: 1
modules:
  first: ./passing.o
  watcher: ./passing.o
chains:
  edge:
    interfaces: [eth1]
    engine: ENGINE
    slots: [first, watcher: { at: exit }]
";

struct Place {
    ns: Netns,
    peer: Netns,
}

impl Place {
    fn new() -> Self {
        let (ns, peer) = (Netns::new("adopt"), Netns::new("peer"));
        veth((&ns, "eth1"), (&peer, "far1"));
        Self { ns, peer }
    }

    /// Whether a frame that comes to the interface gets to the network stack.
    fn arrives(&self) -> bool {
        let (into, out) = (Port::open(&self.ns, "eth1"), Port::open(&self.peer, "far1"));
        let frame = plan::frame([0xff; 6], self.peer.mac("far1"), 0x88b5, &[7; 50]);
        out.send(&frame);
        into.receive_where(Duration::from_millis(500), |f| f == frame).is_some()
    }
}

/// A program of somebody else, loaded by aya.
struct Theirs {
    ebpf: Ebpf,
    name: &'static str,
}

impl Theirs {
    fn load(bytes: &[u8], name: &'static str) -> Self {
        let mut ebpf = Ebpf::load(bytes).expect("the kernel takes it");
        let program: &mut Xdp =
            ebpf.program_mut(name).expect("it is there").try_into().expect("it is for XDP");
        program.load().expect("the kernel takes it");
        Self { ebpf, name }
    }

    fn program(&mut self) -> &mut Xdp {
        self.ebpf.program_mut(self.name).expect("it is there").try_into().expect("it is for XDP")
    }

    fn id(&mut self) -> u32 {
        self.program().info().expect("it is loaded").id()
    }

    fn attach_by_link(&mut self, ns: &Netns, mode: XdpMode) {
        ns.run(|| self.program().attach("eth1", mode)).expect("nothing is on it");
    }

    /// As `ip link` does it.
    fn attach_by_netlink(&mut self, ns: &Netns, how: &str) {
        let pin = PathBuf::from(format!("/sys/fs/bpf/xct-adopt-{}-{}", std::process::id(), self.id()));
        self.program().pin(&pin).expect("a bpffs");
        ns.sh("ip", &["link", "set", "dev", "eth1", how, "pinned", &pin.to_string_lossy()]);
        std::fs::remove_file(&pin).expect("it was pinned");
    }

    fn passed(&self) -> u64 {
        let passed: Array<_, u64> = self.ebpf.map("passed").expect("a map").try_into().expect("an array");
        passed.get(&0, 0).expect("an array entry is always there")
    }
}

fn status(shell: &Shell<'_>) -> Value {
    shell.json(&["status", "eth1"])["interfaces"][0].take()
}

fn reached(status: &Value) -> Vec<u64> {
    let slots = status["slots"].as_array().expect("a list").iter();
    slots.map(|slot| slot["reached"].as_u64().expect("a number")).collect()
}

fn shell<'a>(place: &'a Place, engine: &str) -> Shell<'a> {
    Shell::new(&place.ns, &CHAIN.replace("ENGINE", engine))
}

/// Adopts what is on the interface, changes the chain beside it, and detaches.
fn comes_and_goes(place: &Place, shell: &Shell<'_>, theirs: &mut Theirs, by: &str) {
    let id = theirs.id();
    let before = theirs.passed();
    shell.xdpchain(&["attach", "eth1"]).expect(7);
    shell.xdpchain(&["attach", "eth1", "--adopt"]).expect(0);
    assert!(place.arrives());
    let told = status(shell);
    assert_eq!(told["adopted"]["id"], id);
    assert_eq!(told["slots"][1]["slot"], "adopted", "last of those in order");
    assert_eq!(told["slots"][1]["object"], format!("program {id} ({})", theirs.name));
    assert_eq!(reached(&told), [1, 1, 1]);
    assert_eq!(told["slots"][1]["ended"]["pass"]["packets"], 1);
    assert_eq!(theirs.passed(), before + 1, "it counts on in its own map");
    let page = shell.xdpchain(&["status", "eth1"]).expect(0).stdout;
    assert!(
        page.contains(&format!("adopted: program {id} ({}), which was attached by {by}", theirs.name)),
        "{page}"
    );

    // It stays last, and stays at all when the chain is read again.
    shell.xdpchain(&["add", "eth1", "passing.o", "--last"]).expect(0);
    assert!(place.arrives());
    assert_eq!(status(shell)["slots"][1]["slot"], "passing");
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    assert!(place.arrives());
    let told = status(shell);
    assert_eq!(told["slots"][1]["slot"], "adopted");
    assert_eq!(reached(&told), [3, 3, 3]);
    // Without its slot it does not run, and is there all the same.
    shell.xdpchain(&["remove", "eth1", "adopted"]).expect(0);
    assert!(place.arrives());
    assert_eq!(theirs.passed(), before + 3);
    shell.xdpchain(&["add", "eth1", "builtin:adopted"]).expect(0);
    assert!(place.arrives());
    assert_eq!(theirs.passed(), before + 4);

    let done = shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert!(
        done.stderr.contains(&format!("program {id} (`{}`) runs on eth1 again", theirs.name)),
        "{}",
        done.stderr
    );
    assert_eq!(place.ns.xdp_program("eth1"), Some(id));
    assert!(place.arrives());
    assert_eq!(theirs.passed(), before + 5);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_program_that_a_link_holds_is_adopted_and_given_back() {
    for engine in ["fused", "tail"] {
        let place = Place::new();
        let shell = shell(&place, engine);
        let mut theirs = Theirs::load(object::PASSING, "passing");
        theirs.attach_by_link(&place.ns, XdpMode::Driver);
        comes_and_goes(&place, &shell, &mut theirs, "link ");
        // The link is the one that its owner made: when that goes, so does the program.
        drop(theirs);
        assert!((0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            place.ns.xdp_program("eth1").is_none()
        }));
    }
}

#[test]
fn a_program_that_netlink_attached_is_adopted_and_put_back() {
    for (engine, how, shown) in [("fused", "xdpdrv", "xdp "), ("tail", "xdpgeneric", "xdpgeneric ")] {
        let place = Place::new();
        let shell = shell(&place, engine);
        let mut theirs = Theirs::load(object::PASSING, "passing");
        theirs.attach_by_netlink(&place.ns, how);
        comes_and_goes(&place, &shell, &mut theirs, "netlink");
        assert!(place.ns.ip("link show dev eth1").contains(shown), "in the same mode");
        place.ns.ip(&format!("link set dev eth1 {how} off"));
        assert_eq!(place.ns.xdp_program("eth1"), None);
    }
}

#[test]
fn a_verdict_of_what_was_adopted_is_the_chains() {
    let place = Place::new();
    let shell = shell(&place, "fused");
    let mut theirs = Theirs::load(object::DROPPING, "dropping");
    theirs.attach_by_link(&place.ns, XdpMode::Skb);
    shell.xdpchain(&["attach", "eth1", "--adopt"]).expect(0);
    assert!(!place.arrives());
    let told = status(&shell);
    assert_eq!(told["mode"], "generic", "where it ran");
    assert_eq!(told["slots"][1]["ended"]["drop"]["packets"], 1);
    assert_eq!(shell.json(&["map", "get", "watcher/passed", "0"])["value"], 1);
    // Its owner's end does not end the chain, which holds both link and program.
    drop(theirs);
    assert!(!place.arrives());
    assert_eq!(status(&shell)["problems"], Value::Array(vec![]));
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_program_of_somebody_else_is_replaced_only_where_that_can_be_done() {
    let place = Place::new();
    let shell = shell(&place, "auto");
    let refused = shell.xdpchain(&["attach", "eth1", "--adopt"]).expect(1);
    assert!(refused.stderr.contains("no program of somebody else"), "{}", refused.stderr);
    let mut theirs = Theirs::load(object::DROPPING, "dropping");
    theirs.attach_by_netlink(&place.ns, "xdpdrv");
    shell.xdpchain(&["attach", "eth1", "--replace-foreign"]).expect(0);
    assert!(place.arrives());
    assert_eq!(status(&shell)["adopted"], Value::Null);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(place.ns.xdp_program("eth1"), None);

    theirs.attach_by_link(&place.ns, XdpMode::Driver);
    let refused = shell.xdpchain(&["attach", "eth1", "--replace-foreign"]).expect(7);
    assert!(
        refused.stderr.contains("is attached by link") && refused.stderr.contains("--adopt"),
        "{}",
        refused.stderr
    );
    let refused = shell.xdpchain(&["attach", "eth1", "--adopt", "--mode", "generic"]).expect(8);
    assert!(refused.stderr.contains("cannot be changed to generic"), "{}", refused.stderr);
    assert_eq!(place.ns.xdp_program("eth1"), Some(theirs.id()));
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_module_that_stands_for_nothing_is_refused() {
    let place = Place::new();
    let shell = shell(&place, "auto");
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let refused = shell.xdpchain(&["add", "eth1", "builtin:adopted"]).expect(1);
    assert!(refused.stderr.contains("no program of somebody else"), "{}", refused.stderr);
    assert!(place.arrives());
}

#[test]
fn a_program_for_packets_in_several_buffers_wants_modules_that_take_them() {
    let place = Place::new();
    let shell = shell(&place, "auto");
    let mut theirs = Theirs::load(object::FRAGS, "frags");
    theirs.attach_by_link(&place.ns, XdpMode::Driver);
    let id = theirs.id();
    let refused = shell.xdpchain(&["attach", "eth1", "--adopt"]).expect(7);
    assert!(refused.stderr.contains(&format!("program {id} (`frags`)")), "{}", refused.stderr);
    assert!(refused.stderr.contains("xdp.frags"), "{}", refused.stderr);
    assert_eq!(place.ns.xdp_program("eth1"), Some(id));
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
    for engine in ["fused", "tail"] {
        shell.write("chains.yaml", &CHAIN.replace("ENGINE", engine).replace("passing.o", "frags.o"));
        let before = theirs.passed();
        shell.xdpchain(&["attach", "eth1", "--adopt"]).expect(0);
        assert!(place.arrives());
        assert_eq!(theirs.passed(), before + 1);
        shell.xdpchain(&["add", "eth1", "passing.o"]).expect(7);
        shell.xdpchain(&["detach", "eth1"]).expect(0);
        assert_eq!(place.ns.xdp_program("eth1"), Some(id));
    }
}

#[test]
fn an_adoption_that_is_killed_leaves_the_program_or_the_whole_chain() {
    for by_link in [true, false] {
        let place = Place::new();
        let shell = shell(&place, "auto");
        let mut theirs = Theirs::load(object::PASSING, "passing");
        match by_link {
            true => theirs.attach_by_link(&place.ns, XdpMode::Driver),
            false => theirs.attach_by_netlink(&place.ns, "xdpdrv"),
        }
        let elsewhere = Netns::new("elsewhere");
        let mut killed = 0;
        for step in 0..12u64 {
            let attached = place.ns.manifests().exists();
            let arguments: &[&str] =
                if attached { &["detach", "eth1"] } else { &["attach", "eth1", "--adopt"] };
            let mut child = place.ns.run(|| start(shell.path(), arguments));
            std::thread::sleep(Duration::from_millis(step * 15));
            let _ = child.kill();
            killed += u32::from(child.wait().expect("it was started").code().is_none());
            // Who clears up in another namespace cannot put the program back, and leaves that to those who can.
            cli::xdpchain(&elsewhere, shell.path(), &["recover"]).expect(0);
            let recovered = shell.xdpchain(&["recover"]).expect(0);
            let before = theirs.passed();
            assert!(place.arrives());
            let told = || {
                let runs = place.ns.xdp_program("eth1");
                format!(
                    "step {step}, by link {by_link}, {arguments:?}: {runs:?} runs, {recovered:?}, {:?}",
                    shell.left()
                )
            };
            assert_eq!(theirs.passed(), before + 1, "it runs, in the chain or alone: {}", told());
        }
        assert!(killed > 0, "no command was killed in time");
        shell.xdpchain(&["detach", "eth1"]);
        assert_eq!(place.ns.xdp_program("eth1"), Some(theirs.id()));
        assert_eq!(shell.left(), Vec::<PathBuf>::new());
    }
}

fn start(folder: &Path, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(cli::binary());
    command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary runs")
}
