//! A chain's program put on an interface by a link, and who else is there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_func_id};
use xdpchain_compose::{Image, Insn};
use xdpchain_spec::Mode;

use crate::error::{Error, Result};
use crate::ethtool::private_flags;
use crate::interface::{AttachPlace, Interface};
use crate::manifest::AttachMode;
use crate::sys::{self, LinkInfo, LinkKind};

/// A link just made.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) link: OwnedFd,
    pub(crate) mode: AttachMode,
    /// Why not in native mode.
    pub(crate) reason: Option<String>,
}

/// Attaches `program`, in the mode that is asked for; with [`Mode::Auto`] in native mode, and when the driver refuses that,
/// or cannot give packets the headroom that the program `grows` into, in generic mode.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    interface: &Interface,
    mode: Mode,
    grows: bool,
) -> Result<Attached> {
    let native = match mode {
        Mode::Generic => None,
        Mode::Auto | Mode::Native => match require_headroom(interface, grows) {
            Err(error) => Some(error),
            Ok(()) => match sys::link_create_xdp(program, interface.index, XDP_FLAGS_DRV_MODE) {
                Ok(link) => return Ok(Attached { link, mode: AttachMode::Native, reason: None }),
                Err(error) => Some(failure(interface, AttachMode::Native, error)),
            },
        },
    };
    let reason = match (mode, native) {
        (Mode::Auto, Some(Error::Driver { reason, .. })) => Some(reason),
        (_, Some(error)) => return Err(error),
        (_, None) => None,
    };
    match sys::link_create_xdp(program, interface.index, XDP_FLAGS_SKB_MODE) {
        Ok(link) => Ok(Attached { link, mode: AttachMode::Generic, reason }),
        Err(error) => Err(failure(interface, AttachMode::Generic, error)),
    }
}

/// Whether a program of the image asks for the packet's start to be moved, as those do that put headers in front.
pub(crate) fn grows(image: &Image) -> bool {
    const CALL: u8 = 0x85;
    const ADJUST_HEAD: i32 = bpf_func_id::BPF_FUNC_xdp_adjust_head as i32;
    let helper = |insn: &Insn| insn.code == CALL && insn.src() == 0 && insn.imm == ADJUST_HEAD;
    image.programs.iter().any(|program| program.insns.iter().any(helper))
}

/// Drivers that receive at the very start of a buffer while their switch [`LEGACY_RX`] is on. That of ice has such a switch too, and
/// leaves room all the same.
const WITHOUT_HEADROOM: [&str; 4] = ["igb", "ixgbe", "ixgbevf", "i40e"];
const LEGACY_RX: &str = "legacy-rx";

/// Refuses native mode to a program that `grows`, where it can be told that the driver never leaves octets in front of a packet.
pub(crate) fn require_headroom(interface: &Interface, grows: bool) -> Result<()> {
    let driver = fs::read_link(format!("/sys/class/net/{}/device/driver", interface.name));
    let known = |driver: &Path| WITHOUT_HEADROOM.iter().any(|name| driver.ends_with(name));
    if !grows || !driver.is_ok_and(|driver| known(&driver)) {
        return Ok(());
    }
    match private_flags(interface.index) {
        Ok(flags) if flags.iter().any(|flag| flag == LEGACY_RX) => Err(headroom_error(&interface.name)),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!("the driver of `{}` cannot be asked for its switches: {error}", interface.name);
            Ok(())
        }
    }
}

fn headroom_error(ifname: &str) -> Error {
    Error::Driver {
        ifname: ifname.to_owned(),
        mode: AttachMode::Native.name(),
        reason: format!(
            "the driver leaves no room in front of packets for headers while its `{LEGACY_RX}` is on"
        ),
        help: format!(
            "`ethtool --set-priv-flags {ifname} {LEGACY_RX} off`; `--mode generic` always has room, slower"
        ),
    }
}

/// What a refused link means.
pub(crate) fn failure(interface: &Interface, mode: AttachMode, error: io::Error) -> Error {
    match link_error(interface, mode, error, sys::has_xdp_links()) {
        // Somebody was faster than we looked.
        Error::Foreign { .. } => match Interface::by_name(&interface.name) {
            Ok(now) if !now.programs.is_empty() => foreign(&now, now.programs[0].id, now.programs[0].place),
            _ => unknown_foreign(interface),
        },
        other => other,
    }
}

/// What the kernel's answer to a link means; `links` is whether it has XDP links at all.
fn link_error(interface: &Interface, mode: AttachMode, error: io::Error, links: bool) -> Error {
    let ifname = interface.name.clone();
    let kind = interface
        .kind
        .as_deref()
        .map_or_else(|| "its driver".to_owned(), |kind| format!("the {kind} driver"));
    let reason = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            return Error::Permission { action: format!("attach a program to `{ifname}`"), source: error };
        }
        Some(libc::ENODEV) => return Error::NoInterface { name: ifname },
        Some(libc::EBUSY | libc::EEXIST) => return unknown_foreign(interface),
        _ if !links => return Error::NoLinks { source: error },
        Some(libc::EOPNOTSUPP) => format!("{kind} has no XDP in this mode"),
        Some(libc::EINVAL | libc::ERANGE | libc::EFBIG) => format!(
            "{kind} refused it ({error}); usual reasons are the MTU ({} here), large receive offload, or too few queues",
            interface.mtu
        ),
        _ => format!("{kind} refused it ({error})"),
    };
    let help = match mode {
        AttachMode::Native => {
            "`--mode generic` works with every driver, slower; `dmesg` may say more".to_owned()
        }
        AttachMode::Generic => format!("`ip -d link show dev {ifname}` and `dmesg` may say more"),
    };
    Error::Driver { ifname, mode: mode.name(), reason, help }
}

fn unknown_foreign(interface: &Interface) -> Error {
    Error::Foreign {
        ifname: interface.name.clone(),
        id: 0,
        name: "?".to_owned(),
        owner: None,
        help: format!("`ip -d link show dev {}` shows it", interface.name),
    }
}

/// The error for a program of somebody else: what it is, whose it seems to be, and how it is taken off.
pub(crate) fn foreign(interface: &Interface, id: u32, place: AttachPlace) -> Error {
    let ifname = interface.name.clone();
    let name = sys::prog_by_id(id)
        .and_then(|fd| sys::prog_info(fd.as_fd()))
        .map_or_else(|_| "?".to_owned(), |info| info.name);
    let link = links_of(interface.index).ok().and_then(|links| links.into_iter().find(|l| l.prog_id == id));
    let dispatcher = name.starts_with("xdp_dispatcher");
    let owner = if dispatcher && Path::new("/run/bpfman").exists() {
        Some("a dispatcher of bpfman or libxdp".to_owned())
    } else if dispatcher {
        Some("libxdp's dispatcher".to_owned())
    } else {
        link.map(|link| format!("attached by link {}", link.id))
    };
    let off = match (&owner, link) {
        (Some(_), _) if dispatcher => format!(
            "`engine: libxdp` puts the chain beside what it runs, which `xdp-loader status {ifname}` lists; `xdp-loader unload {ifname} --all` takes it off"
        ),
        (_, Some(link)) => {
            format!("end the process that holds the link, or `bpftool link detach id {}`", link.id)
        }
        (_, None) => {
            let kind = match place {
                AttachPlace::Native => "xdpdrv",
                AttachPlace::Generic => "xdpgeneric",
                AttachPlace::Offload => "xdpoffload",
            };
            format!("if nobody needs it, `ip link set dev {ifname} {kind} off` takes it off")
        }
    };
    let help = if dispatcher { off } else { format!("{off}; or make it the chain's last slot by `--adopt`") };
    Error::Foreign { ifname, id, name, owner, help }
}

/// The links that are attached to interface `ifindex`. A number is unique only within a network namespace, so that the
/// caller compares programs as well.
pub(crate) fn links_of(ifindex: u32) -> io::Result<Vec<LinkInfo>> {
    let mut found = Vec::new();
    let mut last = 0;
    while let Some(id) = sys::next_link_id(last)? {
        last = id;
        // A link may go away in between.
        let Ok(info) = sys::link_by_id(id).and_then(|fd| sys::link_info(fd.as_fd())) else { continue };
        if info.kind == (LinkKind::Xdp { ifindex }) {
            found.push(info);
        }
    }
    Ok(found)
}

/// A pinned link of ours.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    pub(crate) fd: OwnedFd,
    pub(crate) info: LinkInfo,
}

impl PinnedLink {
    /// Opens the link at `path`; none when nothing is there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let fd = match sys::open_pin(path) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        let info = sys::link_info(fd.as_fd()).map_err(Error::query(format!("link `{}`", path.display())))?;
        Ok(Some(Self { fd, info }))
    }

    /// Index of the interface that it is attached to; none when it was detached or the interface is gone.
    pub(crate) fn ifindex(&self) -> Option<u32> {
        match self.info.kind {
            LinkKind::Xdp { ifindex: 0 } | LinkKind::Other(_) => None,
            LinkKind::Xdp { ifindex } => Some(ifindex),
        }
    }

    /// Detaches it and removes its pin.
    pub(crate) fn detach(&self, path: &Path) -> Result<()> {
        sys::link_detach(self.fd.as_fd()).map_err(Error::query(format!("link `{}`", path.display())))?;
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32, links: bool) -> Error {
        let interface = Interface {
            name: "eth1".into(),
            index: 3,
            mtu: 9000,
            kind: Some("veth".into()),
            programs: vec![],
        };
        link_error(&interface, AttachMode::Native, io::Error::from_raw_os_error(errno), links)
    }

    #[test]
    fn a_kernel_without_xdp_links_is_told_as_such() {
        let error = refused(libc::EINVAL, false);
        assert!(matches!(error, Error::NoLinks { .. }), "{error}");
        assert_eq!(error.class().code(), 5);
        assert!(error.to_string().contains("5.9"), "{error}");
    }

    #[test]
    fn a_driver_that_leaves_no_room_is_refused_with_what_mends_it() {
        let error = headroom_error("eth1");
        assert_eq!(error.class().code(), 5);
        assert!(error.to_string().contains("native mode: the driver leaves no room"), "{error}");
        assert!(error.to_string().contains("help: `ethtool --set-priv-flags eth1 legacy-rx off`"), "{error}");
    }

    #[test]
    fn each_answer_of_the_kernel_has_its_class() {
        for (errno, code, text) in [
            (libc::EPERM, 4, "not allowed"),
            (libc::ENODEV, 2, "no interface `eth1`"),
            (libc::EBUSY, 7, "not ours"),
            (libc::EEXIST, 7, "not ours"),
            (libc::EOPNOTSUPP, 5, "the veth driver has no XDP in this mode"),
            (libc::EINVAL, 5, "MTU (9000 here)"),
            (libc::ENOMEM, 5, "refused it"),
        ] {
            let error = refused(errno, true);
            assert_eq!(error.class().code(), code, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.to_string().contains("\nhelp: "), "{error}");
        }
    }
}
