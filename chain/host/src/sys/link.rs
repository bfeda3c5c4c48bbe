//! Links: an attachment that is a kernel object of its own.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{BPF_F_REPLACE, bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type};

use xdpchain_compose::btf::TypeId;

use super::{attr, bpf, bpf_fd, by_id, object_info};

/// Attaches an XDP program to an interface by a link; `mode` is `XDP_FLAGS_DRV_MODE` or `XDP_FLAGS_SKB_MODE`.
///
/// # Errors
/// `EINVAL` on kernels before 5.9 and when the driver refuses, `EOPNOTSUPP` without native XDP, `EBUSY` or `EEXIST` when a
/// program is attached, `ENODEV`.
pub fn link_create_xdp(prog: BorrowedFd<'_>, ifindex: u32, mode: u32) -> io::Result<OwnedFd> {
    let mut attr = attr();
    attr.link_create.__bindgen_anon_1.prog_fd = prog.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = bpf_attach_type::BPF_XDP as u32;
    attr.link_create.flags = mode;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Puts `prog`, which was loaded to replace a function of this type, into the place of function `function` of `target`.
///
/// # Errors
/// `EINVAL` on kernels before 5.10 and when the types differ, `EBUSY` when the function is replaced already, `EPERM` where
/// no function may be replaced.
pub fn link_create_replacement(
    prog: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    function: TypeId,
) -> io::Result<OwnedFd> {
    let mut attr = attr();
    attr.link_create.__bindgen_anon_1.prog_fd = prog.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_fd = target.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_3.target_btf_id = function;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Replaces the link's program `old` by `new`, in one step, and only when it runs `old`.
///
/// # Errors
/// `EPERM` when the link runs another program than `old`, `ENOLINK` when it is detached.
pub fn link_update(link: BorrowedFd<'_>, new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = new.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_2.old_prog_fd = old.as_raw_fd() as u32;
    attr.link_update.flags = BPF_F_REPLACE;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link, whoever else holds it.
///
/// # Errors
/// `EINVAL` on kernels before 5.9.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Whether the kernel can attach XDP programs by links: links came with 5.7, XDP links with 5.9, together with the command
/// to detach any link.
pub fn has_xdp_links() -> bool {
    // A bad descriptor is all that is wrong with these, for a kernel that has the command.
    let known =
        |cmd, attr: &mut bpf_attr| bpf(cmd, attr).is_err_and(|e| e.raw_os_error() == Some(libc::EBADF));
    let mut create = attr();
    create.link_create.__bindgen_anon_1.prog_fd = u32::MAX;
    create.link_create.attach_type = bpf_attach_type::BPF_XDP as u32;
    let mut detach = attr();
    detach.link_detach.link_fd = u32::MAX;
    known(bpf_cmd::BPF_LINK_CREATE, &mut create) && known(bpf_cmd::BPF_LINK_DETACH, &mut detach)
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's number of the link.
    pub id: u32,
    /// The program that it runs.
    pub prog_id: u32,
    /// What it is attached to.
    pub kind: LinkKind,
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// An interface, by index in its network namespace; 0 when it was detached or the interface is gone.
    Xdp {
        /// The interface.
        ifindex: u32,
    },
    /// Something else, by `enum bpf_link_type`.
    Other(u32),
}

/// What the kernel says about the link behind `link`.
///
/// # Errors
/// `EINVAL` when the descriptor is no link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: `bpf_link_info` is a struct of integers, for which all zeros is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    object_info(link, &mut info)?;
    let kind = if info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        // SAFETY: the kernel fills this member for XDP links; every value is one of `u32`.
        LinkKind::Xdp { ifindex: unsafe { info.__bindgen_anon_1.xdp.ifindex } }
    } else {
        LinkKind::Other(info.type_)
    };
    Ok(LinkInfo { id: info.id, prog_id: info.prog_id, kind })
}

/// Opens the link number `id`.
///
/// # Errors
/// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
pub fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(bpf_cmd::BPF_LINK_GET_FD_BY_ID, id)
}

/// The smallest number of a link above `after`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` on kernels before 5.8.
pub fn next_link_id(after: u32) -> io::Result<Option<u32>> {
    let mut attr = attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = after;
    match bpf(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attr) {
        // SAFETY: the kernel wrote this field of the union back, and every value is one of `u32`.
        Ok(_) => Ok(Some(unsafe { attr.__bindgen_anon_6.next_id })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}
