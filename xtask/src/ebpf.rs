//! The packet programs, built as objects below `target/ebpf`.

use std::path::Path;

use anyhow::Context as _;

/// Builds `packages` (names of `xdpchain_ebpf_build::PROGRAMS` or `RUST_EXAMPLES`) into `out`, as `<package>.o`.
pub(crate) fn build(packages: &[&str], out: &Path) -> anyhow::Result<()> {
    xdpchain_ebpf_build::build(packages, out).context("building the packet programs")?;
    Ok(())
}

/// Builds the third-party examples, C and Rust, into `out`, as `<name>.o`.
pub(crate) fn build_examples(out: &Path) -> anyhow::Result<()> {
    xdpchain_ebpf_build::build_c_examples(out).context("building the C examples")?;
    build(&xdpchain_ebpf_build::RUST_EXAMPLES, out)
}

/// Builds a second build of module `package` into `out`, for the tests and the demo that replace a module.
pub(crate) fn build_again(package: &str, out: &Path) -> anyhow::Result<()> {
    xdpchain_ebpf_build::build_for_size(package, out).context("building a module a second time")?;
    Ok(())
}
