//! What the running kernel lacks, for tests that cannot do without.
//!
//! A test that finds something missing calls [`lacks`] and returns. That is told at the end of the run, and counted as
//! skipped: never does a test pass by not looking.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::sync::OnceLock;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};

use crate::Netns;
use crate::cli::object;

/// Says that `test` is skipped because the running kernel has no `what`: in the file `XDPCHAIN_SKIPPED`, which
/// `cargo xtask test` reads, else on standard error.
///
/// # Panics
/// When the file cannot be written.
pub fn lacks(test: &str, what: &str) {
    let line = format!("{test}: this kernel has no {what}\n");
    let Some(path) = std::env::var_os("XDPCHAIN_SKIPPED") else {
        return eprint!("skipped: {line}");
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    // One write, so that lines of tests that run side by side stay whole.
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("what is skipped can be written down");
}

/// Whether a test run may say which interface a packet comes in on (Linux 5.15).
pub fn test_run_has_context() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| runs_with_metadata(0))
}

/// Whether a test run may put more than 32 octets of metadata in front of a packet: more is refused by older kernels.
pub fn test_run_has_long_metadata() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| runs_with_metadata(64))
}

/// Says that `test` is skipped, when the kernel lacks one of these devices: `ip link add type` takes what stands first, and people
/// call it what stands second.
pub fn lacks_devices(test: &str, devices: &[(&str, &str)]) -> bool {
    let ns = Netns::new("probe");
    let missing = devices.iter().enumerate().find(|(number, (kind, _))| {
        let name = format!("probe{number}");
        let mut make = Command::new("ip");
        make.args(["-n", ns.name(), "link", "add", &name, "type"]).args(kind.split(' '));
        !make.output().expect("ip runs\nhelp: cargo xtask setup").status.success()
    });
    missing.inspect(|(_, (_, name))| lacks(test, name)).is_some()
}

/// The kernel's gtp device, whose sockets it makes itself (Linux 5.18).
pub const GTP: (&str, &str) = ("gtp role sgsn", "gtp device that makes its own sockets");
/// Its GRE device over IPv4.
pub const GRE: (&str, &str) = ("gre external", "GRE device");
/// Its GRE device over IPv6.
pub const GRE6: (&str, &str) = ("ip6gre external", "GRE device over IPv6");

fn runs_with_metadata(octets: u32) -> bool {
    let mut ebpf = aya::Ebpf::load(object::PASSING).expect("every kernel takes the object");
    let program: &mut Xdp = ebpf
        .programs_mut()
        .next()
        .and_then(|(_, program)| program.try_into().ok())
        .expect("the object has an XDP program");
    program.load().expect("every kernel takes the program");
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [octets, octets + 64, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
    let (input, mut output) = (vec![0; octets as usize + 64], vec![0; 512]);
    let options = TestRunOptions {
        data_in: Some(&input),
        data_out: Some(&mut output),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    program.test_run(options).is_ok()
}
