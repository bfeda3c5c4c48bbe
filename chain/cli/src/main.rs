//! The `xdpchain` command: it parses, calls, and prints; the work is done in the other crates.
//!
//! Data goes to stdout, everything else to stderr. A failed command prints what, where and what to do,
//! and ends with the exit status of its kind.
#![forbid(unsafe_code)]

/// In place of the standard one, which panics when nobody reads stderr any more: what a command tells must not end it
/// half-way.
macro_rules! eprintln {
    ($($arguments:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arguments)*);
    }};
}

mod args;
mod assemble;
mod builtin;
mod commands;
mod config;
mod error;
mod forwarding;
mod golden;
mod output;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.common.verbose);
    match commands::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            report(&error.to_string());
            ExitCode::from(error.exit_status())
        }
    }
}

/// `RUST_LOG` wins over `-v`.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(styled_stderr())
        .without_time()
        .with_target(false)
        .init();
}

/// Prints a failure. What goes before the first line is all that is added to it.
pub(crate) fn report(error: &str) {
    if styled_stderr() {
        eprintln!("\x1b[1;31merror:\x1b[0m {error}");
    } else {
        eprintln!("error: {error}");
    }
}

fn styled_stderr() -> bool {
    std::io::stderr().is_terminal() && !output::no_color()
}
