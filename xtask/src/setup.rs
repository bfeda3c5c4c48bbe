//! What building and testing needs of the machine, and how to get it there.
//!
//! Every step first looks, and acts only when something is missing, so that running it again costs nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::run::{cargo, command, output, run, show, target_dir, workspace};

/// Debian packages and what each is for.
const PACKAGES: &[(&str, &str)] = &[
    ("llvm-22-dev", "bpf-linker links against it"),
    ("clang", "C modules"),
    ("libbpf-dev", "headers of C modules"),
    ("libelf-dev", "libxdp"),
    ("zlib1g-dev", "libxdp, bpf-linker"),
    ("m4", "libxdp"),
    ("pkg-config", "libxdp"),
    ("iproute2", "network namespaces"),
    ("ethtool", "offloads of test interfaces"),
    ("libxdp1", "XDP objects of other authors, to compose"),
    ("xdp-tools", "the other user of libxdp's dispatcher"),
    ("tshark", "an independent judge of packets"),
    ("bpftool", "an independent judge of what is loaded"),
    ("strace", "calls of a command that go wrong on purpose"),
    ("postgresql-15", "tables that fill maps"),
    ("openssl", "certificates of test servers"),
    ("python3-scapy", "an independent writer of packets"),
    ("iputils-ping", "traffic of ordinary programs"),
    ("iperf3", "traffic of ordinary programs"),
    ("frr", "a BGP session inside a tunnel"),
];

/// More packages, for virtual machines.
const VM_PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "emulation"),
    ("busybox-static", "the guest's first steps"),
    ("file", "virtme-ng"),
    ("kmod", "an index of a kernel's modules"),
    ("python3-venv", "virtme-ng"),
    ("xz-utils", "compressed modules"),
];

/// What one benchmark compares with, which nothing else needs.
const COMPARED_PACKAGES: &[(&str, &str)] = &[("dpdk-dev", "applications of DPDK")];

/// What boots kernels with this machine's files.
const VIRTME: &str = "virtme-ng==1.42";

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
/// Where Debian puts the LLVM that the linker is built with.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Something is missing and was not to be, or could not be, installed.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// A thing that the machine may lack.
enum Need {
    Packages(Vec<&'static str>),
    Nightly,
    RustSource,
    Linker,
    BpfFilesystem,
    Virtme,
}

impl Need {
    fn missing(vm: bool) -> Vec<Self> {
        let mut needs = Vec::new();
        let lists = if vm { &[PACKAGES, VM_PACKAGES][..] } else { &[PACKAGES] };
        let packages: Vec<_> =
            lists.iter().copied().flatten().map(|p| p.0).filter(|p| !is_installed(p)).collect();
        if !packages.is_empty() {
            needs.push(Self::Packages(packages));
        }
        match nightly_sysroot() {
            None => needs.push(Self::Nightly),
            Some(sysroot) => {
                if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
                    needs.push(Self::RustSource);
                }
            }
        }
        if !linker_is_there() {
            needs.push(Self::Linker);
        }
        if !bpf_filesystem_is_mounted() {
            needs.push(Self::BpfFilesystem);
        }
        if vm && !virtme_is_there() {
            needs.push(Self::Virtme);
        }
        needs
    }

    /// The command that a person would type.
    fn mend(&self) -> String {
        match self {
            Self::Packages(names) => format!("apt-get install {}", names.join(" ")),
            Self::Nightly => {
                "rustup toolchain install nightly --profile minimal --component rust-src".to_owned()
            }
            Self::RustSource => "rustup component add rust-src --toolchain nightly".to_owned(),
            Self::Linker => format!("LLVM_PREFIX={LLVM_PREFIX} {}", show(&linker_install())),
            Self::BpfFilesystem => "mount -t bpf bpf /sys/fs/bpf".to_owned(),
            Self::Virtme => format!("python3 -m venv {VENV} && {VENV}/bin/pip install {VIRTME}"),
        }
    }

    fn needs_root(&self) -> bool {
        matches!(self, Self::Packages(_) | Self::BpfFilesystem)
    }

    fn install(&self) -> anyhow::Result<()> {
        match self {
            Self::Packages(names) => install_packages(names),
            Self::Linker => run(linker_install().env("LLVM_PREFIX", LLVM_PREFIX))
                .context("building bpf-linker, which turns compiled Rust into BPF objects"),
            Self::Virtme => {
                run(&mut command("python3", &["-m", "venv", VENV]))?;
                let pip = workspace().join(VENV).join("bin/pip");
                run(Command::new(pip).args(["install", "--quiet", VIRTME])).context("installing virtme-ng")
            }
            Self::Nightly | Self::RustSource | Self::BpfFilesystem => {
                let words = self.mend();
                let words: Vec<_> = words.split(' ').collect();
                run(&mut command(words[0], &words[1..]))
            }
        }
    }
}

/// Installs what is missing; with `no_install` only says so and stops. `vm` is for virtual machines, too.
pub(crate) fn ensure(no_install: bool, vm: bool) -> anyhow::Result<()> {
    mend(&Need::missing(vm), no_install)
}

/// As [`ensure`], what `bench side-by-side` compares with.
pub(crate) fn ensure_compared(no_install: bool) -> anyhow::Result<()> {
    let missing: Vec<_> = COMPARED_PACKAGES.iter().map(|p| p.0).filter(|p| !is_installed(p)).collect();
    let needs = if missing.is_empty() { Vec::new() } else { vec![Need::Packages(missing)] };
    mend(&needs, no_install)
}

fn mend(needs: &[Need], no_install: bool) -> anyhow::Result<()> {
    if needs.is_empty() {
        eprintln!("setup: nothing is missing");
        return Ok(());
    }
    let list = |needs: &[&Need]| needs.iter().map(|n| format!("\n  {}", n.mend())).collect::<String>();
    if no_install {
        let all: Vec<_> = needs.iter().collect();
        return Err(Missing(format!("something is missing\nhelp: run{}", list(&all))).into());
    }
    let for_root: Vec<_> = needs.iter().filter(|n| n.needs_root()).collect();
    if !for_root.is_empty() && !is_root() {
        return Err(Missing(format!(
            "something is missing that only root can install\nhelp: run as root{}",
            list(&for_root)
        ))
        .into());
    }
    for need in needs {
        eprintln!("setup: {}", need.mend());
        need.install()?;
    }
    Ok(())
}

fn is_root() -> bool {
    output(&mut command("id", &["-u"])).is_some_and(|id| id.trim() == "0")
}

fn is_installed(package: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", package];
    output(&mut command("dpkg-query", &query)).is_some_and(|status| status == "installed")
}

fn install_packages(names: &[&str]) -> anyhow::Result<()> {
    let as_text = names.join(" ");
    if output(&mut command("apt-get", &["--version"])).is_none() {
        return Err(Missing(format!(
            "there is no apt-get here\nhelp: install what your system calls these Debian packages: {as_text}"
        ))
        .into());
    }
    let unknown = || names.iter().filter(|name| !has_candidate(name)).copied().collect::<Vec<_>>();
    if !unknown().is_empty() {
        run(&mut command("apt-get", &["update", "-qq"]))?;
    }
    let still = unknown();
    if still.contains(&"llvm-22-dev") {
        return Err(Missing(
            "apt knows no package `llvm-22-dev`, which bpf-linker is built with\n\
             help: add the package repository of the LLVM project for this release of the system, then run this again"
                .to_owned(),
        )
        .into());
    }
    if !still.is_empty() {
        bail!(
            "apt knows no package `{}`\nhelp: enable the main repository of the system",
            still.join("`, `")
        );
    }
    let install = || {
        let mut install = command("apt-get", &["install", "-y", "-qq", "--no-install-recommends"]);
        run(install.args(names).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // An old list names versions that the archive no longer has.
    install().or_else(|_| {
        run(&mut command("apt-get", &["update", "-qq"]))?;
        install()
    })
}

fn has_candidate(package: &str) -> bool {
    output(&mut command("apt-cache", &["policy", package]))
        .is_some_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}

fn nightly_sysroot() -> Option<String> {
    let sysroot = output(&mut command("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]))?;
    Some(sysroot.trim().to_owned())
}

fn linker_is_there() -> bool {
    let path = workspace().join("target/tools/bin").join(LINKER);
    let Some(path) = path.to_str().filter(|_| path.is_file()) else { return false };
    output(&mut command(path, &["--version"])).is_some_and(|text| text.contains(LINKER_VERSION))
}

/// The linker is built from source, for this LLVM, into the workspace, so that no other project's linker is touched.
fn linker_install() -> Command {
    let mut install =
        cargo(&["install", LINKER, "--version", LINKER_VERSION, "--locked", "--root", "target/tools"]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    install.env("CARGO_TARGET_DIR", target_dir().join("tools-build"));
    install
}

/// Where virtme-ng is installed, from the top folder.
const VENV: &str = "target/tools/venv";

/// The program that boots a kernel.
pub(crate) fn virtme() -> PathBuf {
    workspace().join(VENV).join("bin/vng")
}

fn virtme_is_there() -> bool {
    let version = VIRTME.rsplit('=').next().unwrap_or_default();
    output(Command::new(virtme()).arg("--version")).is_some_and(|text| text.trim().ends_with(version))
}

fn bpf_filesystem_is_mounted() -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf"))
}
