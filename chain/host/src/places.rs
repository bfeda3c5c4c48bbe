//! Where things are kept: pins in the host's bpffs, manifests and objects in `/run`.
//!
//! Both trees look the same: `ROOT/<netns inode>/interfaces/<ifname>/` for a chain, and beside it `modules/` (pins) or
//! `objects/` (files). A path component that comes from a name is [`escape`]d.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::sys;

/// Where a bpffs is mounted.
const BPFFS: &str = "/sys/fs/bpf";
/// Our directory in it, and in `/run`.
const OURS: &str = "xdpchain";
/// Environment variable: the directory for pins, in a bpffs, instead of `/sys/fs/bpf/xdpchain`.
pub const ENV_BPFFS: &str = "XDPCHAIN_BPFFS";
/// Environment variable: the directory for manifests and objects, instead of `/run/xdpchain`.
pub const ENV_RUN: &str = "XDPCHAIN_RUN";
/// libxdp's environment variable for a BPF file system other than `/sys/fs/bpf`.
const ENV_LIBXDP_BPFFS: &str = "LIBXDP_BPFFS";

/// The two trees.
#[derive(Clone, Debug)]
pub struct Places {
    pins: PathBuf,
    run: PathBuf,
    /// The durable bpffs.
    bpffs: PathBuf,
    /// Holds the directory that `pins` goes through when it is in another mount namespace.
    _root: Option<Arc<OwnedFd>>,
    mounted: bool,
}

impl Places {
    /// Finds the durable bpffs, mounts one when there is none, and takes the roots from the environment when it names any.
    ///
    /// # Errors
    /// [`Error::Bpffs`].
    pub fn discover() -> Result<Self> {
        let run = std::env::var_os(ENV_RUN).map_or_else(|| Path::new("/run").join(OURS), PathBuf::from);
        let pins = std::env::var_os(ENV_BPFFS).map_or_else(|| Path::new(BPFFS).join(OURS), PathBuf::from);
        Self::new(&pins, run)
    }

    /// Uses `pins`, an absolute path as the host's mount namespace sees it, and `run`.
    ///
    /// # Errors
    /// [`Error::Bpffs`] when no durable bpffs can be reached.
    pub fn new(pins: &Path, run: impl Into<PathBuf>) -> Result<Self> {
        let run = run.into();
        let host = HostRoot::find();
        let mount = Path::new(BPFFS);
        let mounted = ensure_bpffs(&host, mount, &run)?;
        let (pins, bpffs, root) = match &host {
            HostRoot::Ours => (pins.to_path_buf(), mount.to_path_buf(), None),
            HostRoot::Process { pid, .. } => {
                let relative = pins.strip_prefix("/").unwrap_or(pins);
                // The process may end before we do, so its root is held open.
                let root = PathBuf::from(format!("/proc/{pid}/root/"));
                let fd = sys::open_directory(&root).map_err(Error::io("open", root))?;
                let held = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                let mount = mount.strip_prefix("/").unwrap_or(mount);
                (held.join(relative), held.join(mount), Some(Arc::new(fd)))
            }
        };
        Ok(Self { pins, run, bpffs, _root: root, mounted })
    }

    /// Whether a bpffs had to be mounted, which is worth a message.
    pub fn mounted(&self) -> bool {
        self.mounted
    }

    /// The directory of all pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The directory of all manifests and objects.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Where libxdp keeps its dispatchers: below the BPF file system that its environment variable names, else the durable
    /// one.
    pub(crate) fn libxdp(&self) -> PathBuf {
        std::env::var_os(ENV_LIBXDP_BPFFS).map_or_else(|| self.bpffs.clone(), PathBuf::from).join("xdp")
    }

    /// The directories of one network namespace.
    pub fn of(&self, netns: Netns) -> NetnsPlaces {
        let name = netns.inode.to_string();
        NetnsPlaces { pins: self.pins.join(&name), run: self.run.join(&name) }
    }
}

/// The directories of one network namespace.
#[derive(Clone, Debug)]
pub struct NetnsPlaces {
    /// Pins.
    pub pins: PathBuf,
    /// Files.
    pub run: PathBuf,
}

impl NetnsPlaces {
    /// The lock of every changing operation in the namespace.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The change on trial.
    pub(crate) fn trial(&self) -> PathBuf {
        self.run.join("trial.json")
    }

    /// The stored objects.
    pub fn objects(&self) -> PathBuf {
        self.run.join("objects")
    }

    /// The directory of snapshots of maps whose entries are being carried over.
    pub(crate) fn migrations(&self) -> PathBuf {
        self.run.join("migrations")
    }

    /// The snapshot of the map that the map with number `id` is to take the place of.
    pub(crate) fn migration(&self, id: u32) -> PathBuf {
        self.migrations().join(id.to_string())
    }

    /// The directory with a directory of manifests for each interface.
    pub fn manifest_root(&self) -> PathBuf {
        self.run.join("interfaces")
    }

    /// The manifests of one interface.
    pub fn manifests(&self, ifname: &str) -> PathBuf {
        self.manifest_root().join(escape(ifname))
    }

    /// The directory with a directory of pins for each interface.
    pub fn chain_root(&self) -> PathBuf {
        self.pins.join("interfaces")
    }

    /// The pins of one interface's chain.
    pub fn chain(&self, ifname: &str) -> PathBuf {
        self.chain_root().join(escape(ifname))
    }

    /// The pinned link of one interface. Maps are in `maps/` beside it.
    pub fn link(&self, ifname: &str) -> PathBuf {
        self.chain(ifname).join("link")
    }

    /// The directory with a directory of pins for each module.
    pub fn module_root(&self) -> PathBuf {
        self.pins.join("modules")
    }

    /// The pin of a map that a generation on an interface uses.
    pub(crate) fn record(&self, ifname: &str, record: &crate::manifest::MapRecord) -> PathBuf {
        self.map(ifname, &record.owner(), &record.pin())
    }

    /// The pin of a map.
    pub fn map(&self, ifname: &str, owner: &xdpchain_compose::MapOwner, name: &str) -> PathBuf {
        match owner {
            xdpchain_compose::MapOwner::Chain => self.chain(ifname).join("maps").join(escape(name)),
            xdpchain_compose::MapOwner::Module(module) => {
                self.module_root().join(escape(module)).join(escape(name))
            }
        }
    }
}

/// A name as a path component: letters, digits, `_` and `-` as they are, any other octet as `%` and two hexadecimal
/// digits. bpffs refuses names with a dot; and no two names become the same component.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for octet in name.bytes() {
        if octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-' {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

/// The name that [`escape`] made `component` of; none when it is not one of its results.
pub fn unescape(component: &str) -> Option<String> {
    let mut out = Vec::with_capacity(component.len());
    let mut octets = component.bytes();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            let digits = [octets.next()?, octets.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(octet);
        }
    }
    String::from_utf8(out).ok().filter(|name| escape(name) == component)
}

/// The mount namespace that outlives the command.
///
/// `ip netns exec` gives a command a mount namespace of its own with a new `/sys`: whatever is pinned beneath it is gone
/// when the command ends. The mount namespace of the topmost process above us that we may look into is the host's, or the
/// container's.
enum HostRoot {
    /// The one that we are in.
    Ours,
    /// That of a process above us.
    Process { pid: u32, namespace: File },
}

impl HostRoot {
    fn find() -> Self {
        let Ok(own) = fs::read_link("/proc/thread-self/ns/mnt") else { return Self::Ours };
        for pid in ancestors().into_iter().rev() {
            // Readable only for who may trace the process; a stranger's namespace is of no use anyway.
            let path = format!("/proc/{pid}/ns/mnt");
            let Ok(other) = fs::read_link(&path) else { continue };
            if other == own {
                return Self::Ours;
            }
            if let Ok(namespace) = File::open(&path) {
                return Self::Process { pid, namespace };
            }
        }
        Self::Ours
    }
}

/// The processes above this one, from the parent to the first of the process namespace.
fn ancestors() -> Vec<u32> {
    let mut found = Vec::new();
    let mut pid = std::os::unix::process::parent_id();
    while pid != 0 && !found.contains(&pid) {
        found.push(pid);
        pid = parent(pid).unwrap_or(0);
    }
    if !found.contains(&1) {
        found.push(1);
    }
    found
}

/// The parent of process `pid`.
fn parent(pid: u32) -> Option<u32> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The parent in a line of `/proc/PID/stat`, whose second field may have spaces and parentheses of its own.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Mounts a bpffs at `mount` of the host's mount namespace unless there is one; whether it did.
fn ensure_bpffs(host: &HostRoot, mount: &Path, run: &Path) -> Result<bool> {
    let seen = match host {
        HostRoot::Ours => mount.to_path_buf(),
        HostRoot::Process { pid, .. } => {
            PathBuf::from(format!("/proc/{pid}/root")).join(mount.strip_prefix("/").unwrap_or(mount))
        }
    };
    let is_bpffs = || sys::file_system_type(&seen).is_ok_and(|kind| kind == sys::BPF_FS_MAGIC);
    if is_bpffs() {
        return Ok(false);
    }
    if let HostRoot::Ours = host
        && let Some(name) = exec_namespace()
    {
        return Err(Error::Bpffs {
            reason: format!(
                "`ip netns exec {name}` hides the host's `{}`, and no process above leads there",
                mount.display()
            ),
            help: format!("run it without `ip netns exec`, with `--netns {name}`"),
            permission: false,
        });
    }
    // Two commands at once would mount two, one over the other.
    let guard = run.ancestors().find_map(|directory| File::open(directory).ok());
    if let Some(guard) = &guard {
        sys::lock_exclusive(guard).map_err(Error::io("lock", run))?;
    }
    if is_bpffs() {
        return Ok(false);
    }
    let done = match host {
        HostRoot::Ours => sys::mount_bpffs(mount),
        HostRoot::Process { namespace, .. } => sys::mount_bpffs_in(namespace, mount),
    };
    done.map(|()| true).map_err(|e| Error::Bpffs {
        permission: e.kind() == io::ErrorKind::PermissionDenied,
        reason: format!("no bpffs at `{}`, and mounting one failed: {e}", mount.display()),
        help: format!("as root: mount -t bpf bpf {}", mount.display()),
    })
}

/// The name of the network namespace when we run under `ip netns exec`, which mounts a sysfs of that name.
fn exec_namespace() -> Option<String> {
    sysfs_source(&fs::read_to_string("/proc/thread-self/mountinfo").ok()?)
        .filter(|source| Path::new("/run/netns").join(source).exists())
}

/// The source of the last sysfs on `/sys` in a mountinfo.
fn sysfs_source(mountinfo: &str) -> Option<String> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut kind = right.split(' ');
            (left.split(' ').nth(4)? == "/sys" && kind.next()? == "sysfs").then(|| kind.next())?
        })
        .next_back()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_path_components_and_back() {
        for (name, component) in [
            ("eth0", "eth0"),
            ("eth0.100", "eth0%2E100"),
            (".bss.0a1b", "%2Ebss%2E0a1b"),
            ("a%2Eb", "a%252Eb"),
            ("a b/c", "a%20b%2Fc"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            ("", ""),
        ] {
            assert_eq!(escape(name), component);
            assert_eq!(unescape(component).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_escape_never_makes_is_no_name() {
        for component in ["a.b", "%2e", "%", "%2", "%zz", "%41", "%FF"] {
            assert_eq!(unescape(component), None, "{component}");
        }
    }

    #[test]
    fn a_parent_is_found_behind_any_command_name() {
        assert_eq!(parent_in("12 (bash) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (a) S 9 (b)) S 8 12 12 0"), Some(8));
        assert_eq!(parent_in("garbage"), None);
    }

    #[test]
    fn the_sysfs_of_ip_netns_exec_is_known_by_its_source() {
        let host =
            "22 1 0:20 / /sys rw,relatime - sysfs sysfs rw\n23 22 0:21 / /sys/fs/bpf rw - bpf bpf rw\n";
        assert_eq!(sysfs_source(host).as_deref(), Some("sysfs"));
        let exec = format!("{host}80 70 0:55 / /sys rw,relatime - sysfs blue rw\n");
        assert_eq!(sysfs_source(&exec).as_deref(), Some("blue"));
        assert_eq!(sysfs_source("80 70 0:55 / / rw - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn an_interface_named_like_a_directory_of_ours_is_no_trouble() {
        let places = NetnsPlaces { pins: "/b/1".into(), run: "/r/1".into() };
        assert_eq!(places.manifests("objects"), Path::new("/r/1/interfaces/objects"));
        assert_ne!(places.manifests("objects"), places.objects());
        assert_eq!(
            places.map("e", &xdpchain_compose::MapOwner::Chain, "link"),
            Path::new("/b/1/interfaces/e/maps/link")
        );
    }
}
