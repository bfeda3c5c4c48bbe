//! The running kernel, as far as objects depend on it.
//!
//! Everything is read when it is first asked for: the kernel's types are some megabytes, its symbols a hundred thousand
//! lines. What cannot be read is what the kernel does not have.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use flate2::read::GzDecoder;
use xdpchain_compose::btf::Btf;
use xdpchain_compose::object::{Kernel, ModuleBtf};

use crate::sys;

/// The kernel that this process runs on.
#[derive(Debug, Default)]
pub struct RunningKernel {
    btf: OnceCell<Option<Arc<Btf>>>,
    modules: OnceCell<Vec<ModuleBtf>>,
    config: OnceCell<HashMap<String, String>>,
    symbols: OnceCell<HashMap<String, Vec<u64>>>,
}

impl RunningKernel {
    /// Asks nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn types(&self) -> Option<&Arc<Btf>> {
        self.btf.get_or_init(|| told("the kernel's types", vmlinux())).as_ref()
    }
}

impl Kernel for RunningKernel {
    fn btf(&self) -> Option<&Btf> {
        self.types().map(Arc::as_ref)
    }

    fn modules(&self) -> &[ModuleBtf] {
        self.modules.get_or_init(|| {
            let Some(base) = self.types() else { return Vec::new() };
            told("the types of kernel modules", modules(base)).unwrap_or_default()
        })
    }

    fn version(&self) -> u32 {
        let read = |file| fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
        let signature = fs::read_to_string("/proc/version_signature").unwrap_or_default();
        version(&read("osrelease"), &read("version"), &signature)
    }

    fn config(&self, option: &str) -> Option<String> {
        let read = || told("the kernel's configuration", read_config()).unwrap_or_default();
        self.config.get_or_init(read).get(option).cloned()
    }

    fn symbol(&self, name: &str) -> Vec<u64> {
        let read = || {
            let file = File::open("/proc/kallsyms");
            told("the kernel's symbols", file.and_then(|file| symbols(BufReader::new(file))))
                .unwrap_or_default()
        };
        self.symbols.get_or_init(read).get(name).cloned().unwrap_or_default()
    }
}

/// What was read; nothing, and a word about it, when it could not be.
fn told<T>(what: &str, read: io::Result<T>) -> Option<T> {
    read.map_err(|error| tracing::debug!("{what} cannot be read: {error}")).ok()
}

fn vmlinux() -> io::Result<Arc<Btf>> {
    let bytes = fs::read("/sys/kernel/btf/vmlinux")?;
    Btf::parse(&bytes).map(Arc::new).map_err(io::Error::other)
}

/// The types of every module that has any.
fn modules(base: &Arc<Btf>) -> io::Result<Vec<ModuleBtf>> {
    let mut found = Vec::new();
    let mut id = 0;
    while let Some(next) = sys::next_btf_id(id)? {
        id = next;
        // One that goes away meanwhile is none.
        let Ok(info) = sys::btf_info(id) else { continue };
        if !info.of_kernel || info.name == "vmlinux" {
            continue;
        }
        let Ok(bytes) = sys::btf_bytes(id) else { continue };
        match Btf::parse_on(base, &bytes) {
            Ok(btf) => found.push(ModuleBtf { name: info.name, id, btf }),
            Err(error) => tracing::debug!("types of kernel module `{}`: {error}", info.name),
        }
    }
    Ok(found)
}

/// `KERNEL_VERSION` of the release. Distributions that keep the last number of theirs at 0 say the right one elsewhere:
/// Debian in the version (`#1 SMP Debian 6.1.115-1 (…)`), Ubuntu in the signature (`Ubuntu 5.4.0-1.1-generic 5.4.8`).
fn version(release: &str, version: &str, signature: &str) -> u32 {
    let ubuntu = signature.split_whitespace().nth(2);
    let debian = version.split_once("Debian ").map(|(_, rest)| rest);
    ubuntu.and_then(numbers).or_else(|| debian.and_then(numbers)).or_else(|| numbers(release)).unwrap_or(0)
}

/// `KERNEL_VERSION` of a text that starts with three numbers.
fn numbers(text: &str) -> Option<u32> {
    let mut parts = text.trim().splitn(3, '.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().ok()
    });
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
    Some((major << 16) + (minor << 8) + patch.min(255))
}

/// The kernel's configuration, from where distributions put it or from the kernel itself.
fn read_config() -> io::Result<HashMap<String, String>> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    match fs::read(format!("/boot/config-{}", release.trim())) {
        Ok(bytes) => Ok(options(&String::from_utf8_lossy(&bytes))),
        Err(_) => {
            let mut text = Vec::new();
            GzDecoder::new(File::open("/proc/config.gz")?).read_to_end(&mut text)?;
            Ok(options(&String::from_utf8_lossy(&text)))
        }
    }
}

/// Options by name, from lines like `CONFIG_HZ=250`.
fn options(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
        .collect()
}

/// Addresses by name, from lines like `ffffffff81000000 T _text [module]`.
fn symbols(lines: impl BufRead) -> io::Result<HashMap<String, Vec<u64>>> {
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    for line in lines.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        // Optimised builds of the kernel have names of clang's own making behind this.
        let name = name.split_once(".llvm.").map_or(name, |(name, _)| name);
        let addresses = found.entry(name.to_owned()).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_those_of_their_sources() {
        let of = |a: u32, b: u32, c: u32| (a << 16) + (b << 8) + c;
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.115-1 (2024-11-01)";
        assert_eq!(version("6.1.0-27-amd64\n", debian, ""), of(6, 1, 115));
        assert_eq!(
            version("5.4.0-42-generic", "#46-Ubuntu SMP", "Ubuntu 5.4.0-42.46-generic 5.4.44\n"),
            of(5, 4, 44)
        );
        assert_eq!(version("6.18.44-fc-v595", "#1 SMP", ""), of(6, 18, 44));
        assert_eq!(version("4.19.325", "", ""), of(4, 19, 255));
        assert_eq!(version("", "", ""), 0);
    }

    #[test]
    fn configuration_and_symbols_are_lines_of_text() {
        let config = options("# CONFIG_A is not set\nCONFIG_HZ=250\nCONFIG_NAME=\"a=b\"\n\nCONFIG_M=m\n");
        let mut all: Vec<_> = config.iter().map(|(name, value)| format!("{name} {value}")).collect();
        all.sort();
        assert_eq!(all, ["CONFIG_HZ 250", "CONFIG_M m", "CONFIG_NAME \"a=b\""]);
        let text = "ffffffff81000000 T _text\nffffffffc0000010 t init\t[a]\nffffffffc0000020 t init\t[b]\n\
                    ffffffff81000040 t quiet.llvm.123\nffffffff81000000 T _text\n";
        let found = symbols(text.as_bytes()).unwrap();
        assert_eq!(found["_text"], [0xffff_ffff_8100_0000]);
        assert_eq!(found["init"].len(), 2);
        assert_eq!(found["quiet"], [0xffff_ffff_8100_0040]);
    }
}
