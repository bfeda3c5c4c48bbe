//! Network namespaces and the links between them.
//!
//! A [`Netns`] exists as long as its value: dropping it removes the namespace with its interfaces, and whatever
//! `xdpchain` pinned or wrote for it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// Where iproute2 keeps named network namespaces.
const NAMED: &str = "/run/netns";
/// Every namespace made here is called `xct-PID-NUMBER-LABEL`.
const PREFIX: &str = "xct-";
/// Where pins go.
const BPFFS: &str = "/sys/fs/bpf";

/// A network namespace of our own.
#[derive(Debug)]
pub struct Netns {
    name: String,
    inode: u64,
}

impl Netns {
    /// Makes a namespace with loopback up; `label` is what shows in its name.
    ///
    /// # Panics
    /// Without root, or when `ip` is missing.
    pub fn new(label: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static PREPARE: Once = Once::new();
        PREPARE.call_once(|| {
            assert!(
                nix::unistd::geteuid().is_root(),
                "these tests need root\nhelp: sudo -E cargo xtask test"
            );
            mount_bpffs();
            remove_leftovers();
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        sh("ip", &["netns", "add", &name]);
        let inode =
            fs::metadata(Path::new(NAMED).join(&name)).expect("a namespace just made has an inode").ino();
        let ns = Self { name, inode };
        // The kernel gives the number of a dead namespace out again, and somebody may have left something under it.
        ns.remove_files();
        ns.ip("link set lo up");
        ns
    }

    /// The name under which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The inode number, by which `xdpchain` names the namespace in pins and manifests.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The file to enter it by.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// Runs `f` inside, on a thread of its own; what it opens or spawns there stays inside.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("the namespace exists as long as its value");
        let done = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                    f()
                })
                .join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip ARGS` inside and returns what it printed.
    pub fn ip(&self, args: &str) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(args.split_whitespace());
        sh("ip", &all)
    }

    /// Runs a command inside and returns its output, whatever its exit status. The mount namespace stays ours, so
    /// that `/sys/fs/bpf` is the same one (`ip netns exec` would hide it).
    pub fn output(&self, command: &mut Command) -> Output {
        self.run(|| command.output()).unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
    }

    /// Runs a command inside and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        let output = self.output(command.args(args));
        succeeded(program, args, output)
    }

    /// Number of `interface` in this namespace.
    pub fn ifindex(&self, interface: &str) -> u32 {
        let text = self.ip(&format!("-o link show dev {interface}"));
        let number = text.split(':').next().and_then(|n| n.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no number in `{text}`"))
    }

    /// Hardware address of `interface`.
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let text = self.ip(&format!("-o link show dev {interface}"));
        let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        let mut octets = mac.expect("an Ethernet interface").split(':').map(|o| u8::from_str_radix(o, 16));
        std::array::from_fn(|_| octets.next().expect("six octets").expect("hexadecimal"))
    }

    /// What `ip` shows of the XDP program on `interface`, `None` without one.
    pub fn xdp_program(&self, interface: &str) -> Option<u32> {
        let text = self.ip(&format!("-o link show dev {interface}"));
        let id = text.split("prog/xdp id ").nth(1)?;
        id.split_whitespace().next()?.parse().ok()
    }

    /// Where `xdpchain` pins for this namespace.
    pub fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("xdpchain").join(self.inode.to_string())
    }

    /// Where `xdpchain` keeps its files for this namespace.
    pub fn manifests(&self) -> PathBuf {
        Path::new("/run/xdpchain").join(self.inode.to_string())
    }

    fn remove_files(&self) {
        let _ = fs::remove_dir_all(self.pins());
        let _ = fs::remove_dir_all(self.manifests());
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Each step may find nothing to do; none may stop the others, a panic may be under way.
        self.remove_files();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// One end of a veth pair: the namespace and the name of the interface in it.
pub type End<'a> = (&'a Netns, &'a str);

/// Connects two namespaces by a veth pair with one queue, both ends up, no IPv6 chatter, no checksum or
/// segmentation offload: what is sent on one end is what a program on the other sees. GRO is on, which is what lets
/// a veth take redirected frames when nothing is attached to its peer.
pub fn veth(a: End<'_>, b: End<'_>) {
    let (left, right) = (a.1, b.1);
    sh(
        "ip",
        &[
            "link",
            "add",
            left,
            "netns",
            a.0.name(),
            "numrxqueues",
            "1",
            "numtxqueues",
            "1",
            "type",
            "veth",
            "peer",
            "name",
            right,
            "netns",
            b.0.name(),
            "numrxqueues",
            "1",
            "numtxqueues",
            "1",
        ],
    );
    for (ns, interface) in [a, b] {
        ns.ip(&format!("link set dev {interface} addrgenmode none"));
        ns.sh("ethtool", &["-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "on"]);
        ns.ip(&format!("link set dev {interface} up"));
    }
}

/// Mounts the BPF file system where it is not; containers often start without it.
pub fn mount_bpffs() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        sh("mount", &["-t", "bpf", "bpf", BPFFS]);
    }
}

/// Removes namespaces of runs that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(NAMED) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let inode = entry.metadata().map(|m| m.ino()).unwrap_or(0);
            drop(Netns { name, inode });
        }
    }
}

/// Runs a command and returns what it printed.
///
/// # Panics
/// When it cannot be started or fails, with what it said.
pub fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("cannot run `{program}`: {e}\nhelp: cargo xtask setup"));
    succeeded(program, args, output)
}

fn succeeded(program: &str, args: &[&str], output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` failed: {stderr}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
