//! Builds the six packet programs, which the binary carries as `builtin:NAME`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    xdpchain_ebpf_build::rerun_if_changed();
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else {
        eprintln!("error: OUT_DIR is not set\nhelp: run this through cargo");
        return ExitCode::FAILURE;
    };
    match xdpchain_ebpf_build::build(&xdpchain_ebpf_build::PROGRAMS, &out) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Its second line is the command that mends it, so it goes out as it is and not through a panic.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
