//! What is not bpf(2): namespaces, mounts, locks, limits, interface names.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::c_path;

/// Turns a C return value into a result.
fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Leaves the terminal: the process gets a session of its own, so that no hang-up reaches it.
///
/// # Errors
/// `EPERM` for a process that leads a process group.
pub fn leave_session() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Whether a process with this number runs.
pub fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; none when a signal ended it.
    pub status: Option<i32>,
    /// Octets of memory that it had at most.
    pub peak_memory: u64,
}

/// Waits for the child with this number to end.
///
/// # Errors
/// `ECHILD` when there is no such child, or it was waited for before.
pub fn wait(pid: u32) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: `rusage` is a struct of integers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: `status` and `usage` are exclusively borrowed for the whole call.
        match check(unsafe { libc::wait4(pid as libc::pid_t, &mut status, 0, &mut usage) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => drop(other?),
        }
        let exited = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        return Ok(Ended { status: exited, peak_memory: usage.ru_maxrss as u64 * 1024 });
    }
}

/// The file system type (`f_type` of statfs(2)) at `path`.
///
/// # Errors
/// `ENOENT`, `EACCES`.
pub fn file_system_type(path: &Path) -> io::Result<i64> {
    let path = c_path(path)?;
    // SAFETY: `statfs` is a struct of integers, for which all zeros is a value.
    let mut stat: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: `path` is a C string and `stat` is exclusively borrowed, both for the whole call.
    check(unsafe { libc::statfs(path.as_ptr(), &mut stat) })?;
    #[allow(clippy::unnecessary_cast, reason = "the type differs among architectures")]
    Ok(stat.f_type as i64)
}

/// Mounts a new bpffs at `path`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ENODEV` when the kernel has no bpffs.
pub fn mount_bpffs(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let (source, kind, options) = (c"bpf", c"bpf", c"mode=0700");
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RELATIME;
    // SAFETY: all pointers are to C strings that live through the call.
    check(unsafe {
        libc::mount(source.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    })
    .map(drop)
}

/// Mounts a new bpffs at `path` in another mount namespace, unless one is there.
///
/// # Errors
/// As [`mount_bpffs`], and `EPERM` when the namespace may not be entered.
pub fn mount_bpffs_in(namespace: &File, path: &Path) -> io::Result<()> {
    // A thread of its own, because it never comes back to this mount namespace.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: only this thread's file system attributes stop being shared.
                check(unsafe { libc::unshare(libc::CLONE_FS) })?;
                // SAFETY: a valid descriptor; the thread shares no file system attributes any more.
                check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) })?;
                if file_system_type(path)? == super::BPF_FS_MAGIC { Ok(()) } else { mount_bpffs(path) }
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

/// Opens a directory to hold on to, for paths beneath it.
///
/// # Errors
/// `ENOENT`, `EACCES`.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)?;
    Ok(file.into())
}

/// Moves the calling thread into the network namespace behind `namespace`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` when it is no network namespace.
pub fn bind_netns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a valid descriptor; the call changes nothing but the thread's network namespace.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// The calling thread's network namespace's cookie, a number that no other has until the next boot; none before kernel 5.14.
pub fn netns_cookie() -> Option<u64> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }).ok()?;
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut cookie = 0u64;
    let mut len = mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets at `cookie`, which is that large.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut len,
        )
    };
    check(ret).ok().map(|_| cookie)
}

/// Index of the interface `name` in the calling thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Name of the interface `index` in the calling thread's network namespace.
///
/// # Errors
/// `ENXIO` when there is none.
pub fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call asks for.
    let ret = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if ret.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so that the buffer holds a C string.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// Takes the exclusive lock on an open file, waiting for it.
///
/// # Errors
/// `ENOLCK`.
pub fn lock_exclusive(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: a valid descriptor.
        match check(unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => return other.map(drop),
        }
    }
}

/// Takes the exclusive lock on an open file when it is free; whether it was.
///
/// # Errors
/// `ENOLCK`.
pub fn try_lock_exclusive(file: &File) -> io::Result<bool> {
    // SAFETY: a valid descriptor.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits until every program that was running when it was called has ended, on every CPU.
pub fn wait_for_programs() {
    // SAFETY: no pointers are passed. With this command the kernel waits for a grace period, and programs run in one.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        // Not on kernels that have CPUs without ticks. No program runs for as long as this.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Runs `f` on CPU `cpu`, or where it is when that CPU is not there or not for this process.
pub fn on_cpu<T>(cpu: usize, f: impl FnOnce() -> T) -> T {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeros is a value.
    let (mut before, mut only): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { mem::zeroed() };
    let size = mem::size_of::<libc::cpu_set_t>();
    let mut moved = false;
    if cpu < 8 * size {
        // SAFETY: the number is below that of the set's bits, and both sets are as large as the calls are told.
        unsafe {
            libc::CPU_SET(cpu, &mut only);
            moved = libc::sched_getaffinity(0, size, &mut before) == 0
                && libc::sched_setaffinity(0, size, &only) == 0;
        }
    }
    let done = f();
    if moved {
        // SAFETY: as above; the kernel has given this set itself.
        unsafe { libc::sched_setaffinity(0, size, &before) };
    }
    done
}

/// Whether an open file still is what `path` leads to.
pub fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

/// Raises the limit of locked memory, to which kernels before 5.11 count maps and programs. Where that is not allowed the
/// limit stays, and a kernel that needs it refuses the map.
pub fn raise_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct lives through the call; a failure changes nothing.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) };
}
