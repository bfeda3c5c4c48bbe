//! Programs: loading, test runs.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use aya_obj::generated::{bpf_cmd, bpf_prog_info, bpf_prog_type};
use xdpchain_compose::Insn;
use xdpchain_compose::btf::TypeId;

use super::{address, address_mut, attr, bpf, bpf_fd, by_id, name_text, object_info, object_name};

/// First and largest size of a log buffer. A log that is larger still is shown as far as it goes.
const LOG_SIZES: [usize; 4] = [64 << 10, 1 << 20, 8 << 20, 64 << 20];

/// What `BPF_PROG_LOAD` is told about an XDP program, or one that replaces a function of one.
#[derive(Clone, Copy, Debug)]
pub struct ProgLoad<'a> {
    /// Name; the kernel gets the first 15 octets.
    pub name: &'a str,
    /// The instructions, with descriptors in their places.
    pub insns: &'a [Insn],
    /// Licence string.
    pub license: &'a str,
    /// `BPF_F_*`.
    pub flags: u32,
    /// `enum bpf_attach_type` that it is loaded for: `BPF_XDP`, or 0 as older loaders have it.
    pub attach_type: u32,
    /// BTF object, function records of 8 octets, line records of 16 octets.
    pub btf: Option<(BorrowedFd<'a>, &'a [u8], &'a [u8])>,
    /// The function that it is made to replace: the program that has it, and its type in that program's BTF. Such a
    /// program cannot be attached to an interface.
    pub replaces: Option<(BorrowedFd<'a>, TypeId)>,
    /// BTF objects of kernel modules, which calls of their functions name by index; empty when there are none. The
    /// first entry is never looked at.
    pub modules: &'a [RawFd],
}

/// Size of a `struct bpf_func_info`.
const FUNC_INFO: usize = 8;
/// Size of a `struct bpf_line_info`.
const LINE_INFO: usize = 16;

/// Loads an XDP program: first without a log, for logging slows the verifier down, on failure again with one.
///
/// # Errors
/// The kernel's answer and the verifier's log.
pub fn prog_load(program: &ProgLoad<'_>) -> Result<OwnedFd, (io::Error, String)> {
    with_log(|log| load(program, bpf_prog_type::BPF_PROG_TYPE_XDP, 1, log))
}

/// Loads a traffic classifier, for test runs alone. Those of XDP programs patch kernel code that every XDP program is called
/// by, which before Linux 6.2 is not safe, nor is it ever cheap, while packets run.
///
/// # Errors
/// As [`prog_load`].
pub fn prog_load_classifier(program: &ProgLoad<'_>) -> Result<OwnedFd, (io::Error, String)> {
    with_log(|log| load(program, bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 1, log))
}

/// Loads an XDP program; also what the verifier says of its size.
///
/// # Errors
/// The kernel's answer.
pub fn prog_load_stats(program: &ProgLoad<'_>) -> io::Result<(OwnedFd, String)> {
    /// `BPF_LOG_STATS`.
    const STATS: u32 = 4;
    let mut log = vec![0u8; LOG_SIZES[0]];
    let fd = load(program, bpf_prog_type::BPF_PROG_TYPE_XDP, STATS, &mut log)?;
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    Ok((fd, String::from_utf8_lossy(&log[..end]).into_owned()))
}

fn load(program: &ProgLoad<'_>, prog_type: bpf_prog_type, level: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    let license = CString::new(program.license)?;
    let mut attr = attr();
    // SAFETY: writing fields of a zeroed union of integers.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    match program.replaces {
        None => {
            load.prog_type = prog_type as u32;
            load.expected_attach_type = program.attach_type;
        }
        Some((target, function)) => {
            load.prog_type = bpf_prog_type::BPF_PROG_TYPE_EXT as u32;
            load.__bindgen_anon_1.attach_prog_fd = target.as_raw_fd() as u32;
            load.attach_btf_id = function;
        }
    }
    load.insns = address(program.insns);
    load.insn_cnt = program.insns.len() as u32;
    load.license = license.as_ptr() as u64;
    load.prog_flags = program.flags;
    load.prog_name = object_name(program.name);
    load.fd_array = address(program.modules);
    if let Some((btf, func_info, line_info)) = program.btf {
        load.prog_btf_fd = btf.as_raw_fd() as u32;
        load.func_info_rec_size = FUNC_INFO as u32;
        load.func_info_cnt = (func_info.len() / FUNC_INFO) as u32;
        load.func_info = address(func_info);
        load.line_info_rec_size = LINE_INFO as u32;
        load.line_info_cnt = (line_info.len() / LINE_INFO) as u32;
        load.line_info = address(line_info);
    }
    if !log.is_empty() {
        load.log_level = level;
        load.log_size = log.len() as u32;
        load.log_buf = address_mut(log);
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Calls `load` without a log, and when that fails with logs of growing size.
pub(super) fn with_log(
    load: impl Fn(&mut [u8]) -> io::Result<OwnedFd>,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut last = match load(&mut []) {
        Ok(fd) => return Ok(fd),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Err((e, String::new())),
        Err(e) => (e, String::new()),
    };
    for size in LOG_SIZES {
        let mut log = vec![0u8; size];
        match load(&mut log) {
            Ok(fd) => return Ok(fd),
            Err(e) => {
                let full = e.raw_os_error() == Some(libc::ENOSPC);
                let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
                let text = String::from_utf8_lossy(&log[..end]).into_owned();
                // A kernel since 6.4 keeps the end of a log that is too long, and nobody reads the rest.
                let whole = !full || text.contains("\nprocessed ");
                // With a full buffer the kernel's answer is about the buffer, and the first one is about the program.
                last = (if full { last.0 } else { e }, text);
                if whole {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// What the kernel says about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgInfo {
    /// The kernel's number of the program.
    pub id: u32,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// Name, at most 15 octets.
    pub name: String,
    /// Digest of the instructions.
    pub tag: [u8; 8],
    /// When it was loaded, nanoseconds since boot.
    pub load_time_ns: u64,
    /// Who loaded it.
    pub uid: u32,
    /// Octets of native code, 0 when interpreted.
    pub jited_len: u32,
    /// Octets of instructions after the verifier's rewriting.
    pub xlated_len: u32,
    /// Instructions that the verifier looked at, 0 before kernel 5.16.
    pub verified_insns: u32,
    /// Runs, counted while `kernel.bpf_stats_enabled` is 1.
    pub run_cnt: u64,
    /// Nanoseconds of these runs.
    pub run_time_ns: u64,
    /// Numbers of the maps that it refers to.
    pub map_ids: Vec<u32>,
    /// The kernel's number of its BTF, 0 when there is none.
    pub btf_id: u32,
}

/// What the kernel says about the program behind `prog`.
///
/// # Errors
/// `EINVAL` when the descriptor is no program.
pub fn prog_info(prog: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    // SAFETY: `bpf_prog_info` is a struct of integers, for which all zeros is a value.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    object_info(prog, &mut info)?;
    let mut map_ids = vec![0u32; info.nr_map_ids as usize];
    if !map_ids.is_empty() {
        // SAFETY: as above.
        let mut again: bpf_prog_info = unsafe { mem::zeroed() };
        again.nr_map_ids = map_ids.len() as u32;
        again.map_ids = address_mut(&mut map_ids);
        object_info(prog, &mut again)?;
        map_ids.truncate(again.nr_map_ids as usize);
    }
    Ok(ProgInfo {
        id: info.id,
        prog_type: info.type_,
        name: name_text(&info.name),
        tag: info.tag,
        load_time_ns: info.load_time,
        uid: info.created_by_uid,
        jited_len: info.jited_prog_len,
        xlated_len: info.xlated_prog_len,
        verified_insns: info.verified_insns,
        run_cnt: info.run_cnt,
        run_time_ns: info.run_time_ns,
        map_ids,
        btf_id: info.btf_id,
    })
}

/// Opens the program number `id`.
///
/// # Errors
/// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
pub fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(bpf_cmd::BPF_PROG_GET_FD_BY_ID, id)
}

/// One `BPF_PROG_TEST_RUN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestRun<'a> {
    /// The packet, from 14 octets on.
    pub packet: &'a [u8],
    /// Octets in front of it that are metadata, a multiple of 4; `packet` begins with them.
    pub metadata: u32,
    /// How often to run; 0 and 1 mean once.
    pub repeat: u32,
    /// Index of the interface that the packet pretends to come from; 0 for none.
    pub ingress_ifindex: u32,
    /// Receive queue that it pretends to come from.
    pub rx_queue: u32,
    /// Let the kernel act on verdicts (`BPF_F_TEST_XDP_LIVE_FRAMES`, kernel 5.18); no packet comes back.
    pub live_frames: bool,
}

/// What a test run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunResult {
    /// Return value of the program's last run.
    pub verdict: u32,
    /// The packet after the last run, behind its metadata; empty with live frames.
    pub packet: Vec<u8>,
    /// Mean duration of a run, nanoseconds.
    pub duration_ns: u32,
}

/// Octets that a test run leaves for the packet: a page less headroom and the kernel's tail.
const TEST_PACKET: usize = 4096;

/// `struct xdp_md` of a test run, as `bpf_prog_test_run_xdp` wants it.
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs an XDP program on a packet.
///
/// # Errors
/// `EINVAL` for packets that are too short or too long, `ENODEV` for an unknown interface.
pub fn prog_test_run(prog: BorrowedFd<'_>, run: &TestRun<'_>) -> io::Result<TestRunResult> {
    let context = [XdpContext {
        data: run.metadata,
        data_end: run.packet.len() as u32,
        data_meta: 0,
        ingress_ifindex: run.ingress_ifindex,
        rx_queue_index: run.rx_queue,
        egress_ifindex: 0,
    }];
    let mut out = vec![0u8; if run.live_frames { 0 } else { TEST_PACKET.max(run.packet.len() + 512) }];
    let mut attr = attr();
    attr.test.prog_fd = prog.as_raw_fd() as u32;
    attr.test.data_in = address(run.packet);
    attr.test.data_size_in = run.packet.len() as u32;
    attr.test.data_out = address_mut(&mut out);
    attr.test.data_size_out = out.len() as u32;
    attr.test.repeat = run.repeat;
    if run.ingress_ifindex != 0 || run.metadata != 0 || run.live_frames {
        attr.test.ctx_in = address(&context);
        attr.test.ctx_size_in = mem::size_of_val(&context) as u32;
    }
    if run.live_frames {
        attr.test.flags = aya_obj::generated::BPF_F_TEST_XDP_LIVE_FRAMES;
    }
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: the kernel wrote these fields of the union back, and every value is one of `u32`.
    let (verdict, size, duration_ns) =
        unsafe { (attr.test.retval, attr.test.data_size_out, attr.test.duration) };
    out.truncate(if run.live_frames { 0 } else { size as usize });
    out.drain(..out.len().min(run.metadata as usize));
    Ok(TestRunResult { verdict, packet: out, duration_ns })
}
