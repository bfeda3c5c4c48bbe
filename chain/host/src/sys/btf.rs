//! BTF objects.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use aya_obj::generated::{bpf_btf_info, bpf_cmd};

use super::prog::with_log;
use super::{address, address_mut, attr, bpf, bpf_fd, by_id, object_info};

/// Loads raw BTF.
///
/// # Errors
/// The kernel's answer and its log.
pub fn btf_load(btf: &[u8]) -> Result<OwnedFd, (io::Error, String)> {
    let load = |log: &mut [u8]| {
        let mut attr = attr();
        // SAFETY: writing fields of a zeroed union of integers.
        let load = unsafe { &mut attr.__bindgen_anon_7 };
        load.btf = address(btf);
        load.btf_size = btf.len() as u32;
        if !log.is_empty() {
            load.btf_log_level = 1;
            load.btf_log_size = log.len() as u32;
            load.btf_log_buf = address_mut(log);
        }
        bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr)
    };
    with_log(load)
}

/// What the kernel says about a BTF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BtfInfo {
    /// Name of the kernel module, `vmlinux`, or empty.
    pub name: String,
    /// Whether it is the kernel's own or a module's.
    pub of_kernel: bool,
    /// Octets.
    pub size: u32,
}

/// The number of the first BTF object after number `id`; nothing after the last.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn next_btf_id(id: u32) -> io::Result<Option<u32>> {
    let mut attr = attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
    match bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr) {
        // SAFETY: the kernel wrote this field of the union back, and every value is one of `u32`.
        Ok(_) => Ok(Some(unsafe { attr.__bindgen_anon_6.next_id })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens the BTF object number `id`.
///
/// # Errors
/// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
pub fn btf_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(bpf_cmd::BPF_BTF_GET_FD_BY_ID, id)
}

/// What the kernel says about the BTF object number `id`.
///
/// # Errors
/// As [`btf_by_id`].
pub fn btf_info(id: u32) -> io::Result<BtfInfo> {
    let fd = btf_by_id(id)?;
    let mut name = [0u8; 64];
    // SAFETY: `bpf_btf_info` is a struct of integers, for which all zeros is a value.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    info.name = address_mut(&mut name);
    info.name_len = name.len() as u32;
    object_info(fd.as_fd(), &mut info)?;
    let end = name.iter().position(|octet| *octet == 0).unwrap_or(name.len());
    Ok(BtfInfo {
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        of_kernel: info.kernel_btf != 0,
        size: info.btf_size,
    })
}

/// The raw BTF of the BTF object number `id`.
///
/// # Errors
/// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
pub fn btf_bytes(id: u32) -> io::Result<Vec<u8>> {
    let fd = btf_by_id(id)?;
    // SAFETY: `bpf_btf_info` is a struct of integers, for which all zeros is a value.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    object_info(fd.as_fd(), &mut info)?;
    let mut bytes = vec![0u8; info.btf_size as usize];
    // SAFETY: as above.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    info.btf = address_mut(&mut bytes);
    info.btf_size = bytes.len() as u32;
    object_info(fd.as_fd(), &mut info)?;
    bytes.truncate(info.btf_size as usize);
    Ok(bytes)
}
