//! The system calls, typed. All `unsafe` of user space is in here.
//!
//! Every function owns what it passes to the kernel for the whole call, buffers are sized by what the kernel writes,
//! and every descriptor that comes back is an [`OwnedFd`]. Errors are the kernel's `errno` as [`io::Error`].

mod btf;
mod link;
mod map;
mod os;
mod prog;

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd};

pub use btf::{BtfInfo, btf_by_id, btf_bytes, btf_info, btf_load, next_btf_id};
pub use link::{
    LinkInfo, LinkKind, has_xdp_links, link_by_id, link_create_replacement, link_create_xdp, link_detach,
    link_info, link_update, next_link_id,
};
pub use map::{
    BatchError, BatchOp, MapCreate, MapFd, MapInfo, is_per_cpu, map_batch, map_by_id, map_create, map_delete,
    map_freeze, map_info, map_lookup, map_lookup_batch, map_next_key, map_update,
};
pub use os::{
    Ended, bind_netns, file_system_type, interface_index, interface_name, is_running, leave_session,
    lock_exclusive, mount_bpffs, mount_bpffs_in, netns_cookie, on_cpu, open_directory, raise_memlock,
    same_file, try_lock_exclusive, wait, wait_for_programs,
};
pub use prog::{
    ProgInfo, ProgLoad, TestRun, TestRunResult, prog_by_id, prog_info, prog_load, prog_load_classifier,
    prog_load_stats, prog_test_run,
};

/// `f_type` of the BPF file system.
pub const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// `ENOTSUPP`, which the kernel leaks to user space for map operations that a type lacks.
pub const ENOTSUPP: i32 = 524;

/// Calls bpf(2). `attr` must hold, for `cmd`, only addresses of memory that outlives the call and is as large as `attr` says.
fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    loop {
        // SAFETY: the kernel reads and writes at most `size` octets at `attr`, which is exclusively borrowed; the
        // callers in this module keep the memory that `attr` points to alive and sized as it says.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                cmd as libc::c_int,
                std::ptr::from_mut(attr),
                mem::size_of::<bpf_attr>() as libc::c_uint,
            )
        };
        if ret >= 0 {
            return Ok(ret);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // A program load is cut short by a signal with EAGAIN and wants to be tried again.
            Some(libc::EINTR | libc::EAGAIN) => continue,
            _ => return Err(error),
        }
    }
}

/// Calls bpf(2) for a command that returns a descriptor.
fn bpf_fd(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(cmd, attr)? as RawFd;
    // SAFETY: these commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An attribute of zeros, which the kernel takes as "not given".
fn attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of structs of integers, for which all zeros is a value.
    unsafe { mem::zeroed() }
}

/// The address of `slice` as the kernel wants it; 0 for an empty one.
fn address<T>(slice: &[T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_ptr() as u64 }
}

/// The address of `slice` for the kernel to write to; 0 for an empty one.
fn address_mut<T>(slice: &mut [T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_mut_ptr() as u64 }
}

/// A kernel object name: the first 15 octets of `name`, with what the kernel does not allow replaced by `_`.
fn object_name(name: &str) -> [libc::c_char; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        let allowed = from.is_ascii_alphanumeric() || from == b'_' || from == b'.';
        *to = if allowed { from } else { b'_' } as libc::c_char;
    }
    out
}

/// A kernel object name as text.
fn name_text(name: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = name.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `path` as a C string.
fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Pins the object behind `fd` at `path`, which must be in a bpffs and not exist.
///
/// # Errors
/// `EEXIST` when the path exists, `EPERM` for names with a dot, `EINVAL` outside a bpffs.
pub fn pin(fd: std::os::fd::BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let path = c_path(path)?;
    let mut attr = attr();
    // SAFETY: writing a field of a zeroed union of integers.
    let pin = unsafe { &mut attr.__bindgen_anon_4 };
    pin.pathname = path.as_ptr() as u64;
    pin.bpf_fd = fd.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens the object that is pinned at `path`.
///
/// # Errors
/// `ENOENT` when nothing is there, `EACCES` when the caller may not.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = attr();
    // SAFETY: writing a field of a zeroed union of integers.
    let get = unsafe { &mut attr.__bindgen_anon_4 };
    get.pathname = path.as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attr)
}

/// Fills `info` (a kernel info struct) about the object behind `fd`.
fn object_info<T: Copy>(fd: std::os::fd::BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut attr = attr();
    // SAFETY: writing a field of a zeroed union of integers.
    let query = unsafe { &mut attr.info };
    query.bpf_fd = fd.as_raw_fd() as u32;
    query.info_len = mem::size_of::<T>() as u32;
    query.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Opens an object by its id.
fn by_id(cmd: bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    let mut attr = attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    bpf_fd(cmd, &mut attr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_cut_and_cleaned() {
        assert_eq!(name_text(&object_name("a-very-long-map-name")), "a_very_long_map");
        assert_eq!(name_text(&object_name(".rodata")), ".rodata");
        assert_eq!(object_name("0123456789abcdef")[15], 0);
    }
}
