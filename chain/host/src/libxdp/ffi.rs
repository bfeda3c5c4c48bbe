//! libxdp itself, and the libbpf inside it: its dispatcher loaded, and programs of interfaces exchanged.
//!
//! Every pointer that libxdp gives is freed before the function that asked for it returns; what leaves is descriptors.

use std::ffi::{CStr, c_int};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Once;

use libxdp_sys as c;

use super::config::SIZE;

/// The object with the dispatcher, which is part of libxdp.
const OBJECT: &CStr = c"xdp-dispatcher.o";
/// The dispatcher's program in it.
const PROGRAM: &CStr = c"xdp_dispatcher";

/// A program of libxdp's.
struct Program(NonNull<c::xdp_program>);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: libxdp gave this pointer, and nothing else frees it.
        unsafe { c::xdp_program__close(self.0.as_ptr()) }
    }
}

impl Program {
    /// Opens the dispatcher; nothing is loaded yet.
    fn dispatcher() -> io::Result<Self> {
        quiet();
        // SAFETY: a struct of pointers and integers, for which all zeros is a value: "not given".
        let mut opts: c::xdp_program_opts = unsafe { mem::zeroed() };
        opts.sz = mem::size_of_val(&opts);
        opts.find_filename = OBJECT.as_ptr();
        opts.prog_name = PROGRAM.as_ptr();
        // SAFETY: `opts` and its strings live until the call returns, and libxdp keeps none of them.
        let program = unsafe { c::xdp_program__create(&mut opts) };
        // On failure it is null, and `errno` says why.
        NonNull::new(program).map(Self).ok_or_else(io::Error::last_os_error)
    }

    /// The object that it is in.
    fn object(&self) -> io::Result<NonNull<c::bpf_object>> {
        // SAFETY: a program that is open; the object lives as long as it.
        NonNull::new(unsafe { c::xdp_program__bpf_obj(self.0.as_ptr()) }).ok_or_else(missing)
    }
}

/// Loads libxdp's dispatcher with a configuration, to be called for packets in several buffers when `frags`.
///
/// # Errors
/// The kernel's answer.
pub(super) fn load_dispatcher(config: &[u8; SIZE], frags: bool) -> io::Result<OwnedFd> {
    let program = Program::dispatcher()?;
    let object = program.object()?.as_ptr();
    // SAFETY: an open object; a null map asks for its first one, the read-only data.
    let map =
        NonNull::new(unsafe { c::bpf_object__next_map(object, std::ptr::null()) }).ok_or_else(missing)?;
    // SAFETY: a map of an object that is not loaded yet; libbpf copies `config`, and compares the size itself.
    checked(unsafe { c::bpf_map__set_initial_value(map.as_ptr(), config.as_ptr().cast(), config.len()) })?;
    if frags {
        // SAFETY: an open program that is not loaded yet.
        checked(unsafe { c::xdp_program__set_xdp_frags_support(program.0.as_ptr(), true) })?;
    }
    // SAFETY: an open object that is not loaded yet.
    checked(unsafe { c::bpf_object__load(object) })?;
    // SAFETY: a loaded object, and a string that ends.
    let loaded = unsafe { c::bpf_object__find_program_by_name(object, PROGRAM.as_ptr()) };
    let loaded = NonNull::new(loaded).ok_or_else(missing)?;
    // SAFETY: a program of a loaded object.
    let fd = checked(unsafe { c::bpf_program__fd(loaded.as_ptr()) })?;
    // SAFETY: the object keeps the descriptor open until `program` is dropped, after this.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

/// Puts `new` on an interface when `old` is what it runs, in one step; none is no program. `mode` is `XDP_FLAGS_DRV_MODE` or
/// `XDP_FLAGS_SKB_MODE`.
///
/// # Errors
/// `EEXIST` when it runs another program than `old`, `EBUSY` when a link is attached, and what the driver answers.
pub(super) fn exchange(
    ifindex: u32,
    new: Option<BorrowedFd<'_>>,
    old: Option<BorrowedFd<'_>>,
    mode: u32,
) -> io::Result<()> {
    quiet();
    // SAFETY: a struct of integers, for which all zeros is a value.
    let mut opts: c::bpf_xdp_attach_opts = unsafe { mem::zeroed() };
    // libbpf refuses octets behind the last field that are not zero, and those of padding may be anything.
    opts.sz = mem::offset_of!(c::bpf_xdp_attach_opts, old_prog_fd) + mem::size_of::<c_int>();
    let mut flags = mode;
    match old {
        // libbpf asks the kernel to compare when this is given.
        Some(old) => opts.old_prog_fd = old.as_raw_fd(),
        None => flags |= aya_obj::generated::XDP_FLAGS_UPDATE_IF_NOEXIST,
    }
    let new = new.map_or(-1, |new| new.as_raw_fd());
    // SAFETY: the descriptors are open, and `opts` lives until the call returns.
    checked(unsafe { c::bpf_xdp_attach(ifindex as c_int, new, flags, &opts) }).map(drop)
}

/// What libbpf's functions return: a negative errno is a failure.
fn checked(ret: c_int) -> io::Result<c_int> {
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret)) } else { Ok(ret) }
}

/// libxdp's object is not as this version of it has it.
fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "libxdp's dispatcher is not in its object")
}

/// Keeps libxdp and libbpf from writing to standard error: what they fail with comes back as an error.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both take "no function" for silence.
        unsafe {
            c::libxdp_set_print(None);
            libbpf_set_print(None);
        }
    });
}

unsafe extern "C" {
    /// As libbpf.h has it, but for the types of a function that is never given.
    fn libbpf_set_print(function: Option<unsafe extern "C" fn()>) -> Option<unsafe extern "C" fn()>;
}
