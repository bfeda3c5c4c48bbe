//! Programs that take the place of a function of another program (`freplace`), as libxdp's dispatcher wants them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_prog_type};
use xdpchain_compose::Insn;

use super::{address, attr, bpf_fd};

/// Loads a program for the function of type `function` in the BTF of program `target`. Its own function records are
/// `functions`, of 8 octets each, in `btf`.
///
/// # Errors
/// `EINVAL` when the kernel has no such programs, or the functions differ; `EPERM` in a lockdown.
pub fn extension_load(
    insns: &[Insn],
    (btf, functions): (BorrowedFd<'_>, &[u8]),
    (target, function): (BorrowedFd<'_>, u32),
) -> io::Result<OwnedFd> {
    let license = CString::new("Dual MIT/GPL")?;
    let mut attr = attr();
    // SAFETY: writing fields of a zeroed union of integers.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_EXT as u32;
    load.insns = address(insns);
    load.insn_cnt = insns.len() as u32;
    load.license = license.as_ptr() as u64;
    load.prog_btf_fd = btf.as_raw_fd() as u32;
    load.func_info_rec_size = 8;
    load.func_info_cnt = (functions.len() / 8) as u32;
    load.func_info = address(functions);
    load.attach_btf_id = function;
    load.__bindgen_anon_1.attach_prog_fd = target.as_raw_fd() as u32;
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Puts an extension in the place that it was loaded for, as long as what is returned lives.
///
/// # Errors
/// `EBUSY` when another is there, `ENOTSUPP` or `EINVAL` when the kernel cannot.
pub fn extension_attach(extension: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = attr();
    attr.raw_tracepoint.prog_fd = extension.as_raw_fd() as u32;
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}
