//! Debian's kernels, unpacked below `target/vm`.
//!
//! Packages come from the mirror that this machine's apt is set up with, by an apt of their own: neither its lists nor
//! what is installed changes. A kernel that is there is used as it is, so that tests do not change from one run to the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;

use crate::run::{command, output, run, workspace};

/// A kernel that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

/// A kernel's files.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The image to boot. Its modules are in `lib/modules` beside its folder.
    pub(crate) image: PathBuf,
}

/// Folders of drivers that no virtual machine has a use for; with them, two thirds of the space go.
const USELESS: &[&str] = &[
    "sound",
    "drivers/gpu",
    "drivers/hid",
    "drivers/iio",
    "drivers/infiniband",
    "drivers/isdn",
    "drivers/media",
    "drivers/mtd",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/nvme",
    "drivers/scsi",
    "drivers/staging",
    "drivers/thunderbolt",
    "drivers/usb",
    "fs/btrfs",
    "fs/ceph",
    "fs/nfsd",
    "fs/ocfs2",
    "fs/smb",
    "fs/xfs",
];

impl Kernel {
    pub(crate) const ALL: [Self; 3] = [Self::V5_10, Self::V6_1, Self::V6_12];

    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// What a test program is started by in the guest.
    pub(crate) fn before(self, program: &str) -> &'static str {
        // 5.10 rewrites the jump by which test runs call a program while another processor may be at it; emulated ones
        // hang there, and these tests do nothing else all the time.
        if self == Self::V5_10 && program == "vectors" { "taskset -c 0 " } else { "" }
    }

    /// Name of Debian's release that has this kernel.
    fn debian(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 | Self::V6_12 => "bookworm",
        }
    }

    /// What package names have before and after the number that grows with each update. The flavours for clouds and
    /// real time, and kernels carried over from another release, are named differently.
    fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::V5_10 => ("linux-image-5.10.0-", "-amd64"),
            Self::V6_1 => ("linux-image-6.1.0-", "-amd64"),
            Self::V6_12 => ("linux-image-6.12.", "+deb12-amd64"),
        }
    }

    fn folder(self) -> PathBuf {
        folder().join(self.version())
    }

    /// The kernel's files, fetched when they are not there.
    pub(crate) fn ensure(self) -> anyhow::Result<Unpacked> {
        let folder = self.folder();
        if !folder.is_dir() {
            self.fetch(&folder).map_err(|error| {
                anyhow!(
                    "fetching kernel {}: {error:#}\n\
                     help: it comes from the mirror of Debian that apt is set up with, once; without a network, copy `{}` \
                     from another machine, or leave other kernels out (`cargo xtask ci --no-vm`)",
                    self.version(),
                    folder.display()
                )
            })?;
        }
        let images = fs::read_dir(folder.join("boot")).context("listing a kernel's files")?;
        let mut releases = images
            .flatten()
            .filter_map(|file| file.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned));
        let release = releases.next().with_context(|| {
            format!("no kernel in `{}`\nhelp: remove the folder, it is fetched anew", folder.display())
        })?;
        Ok(Unpacked { image: folder.join("boot").join(format!("vmlinuz-{release}")), release })
    }

    fn fetch(self, folder: &Path) -> anyhow::Result<()> {
        let apt = Apt::new(self.debian())?;
        // Without the option, apt takes a mirror that does not answer for a success.
        run(&mut apt.command("apt-get", &["update", "-qq", "-o", "APT::Update::Error-Mode=any"]))
            .context("reading the mirror's index")?;
        let package = self.newest(&apt.packages()?).with_context(|| {
            let (before, after) = self.package();
            format!(
                "the mirror has no package `{before}*{after}` for {}\nhelp: the main repository of Debian has it",
                self.debian()
            )
        })?;
        let staging = super::Folder::new("unpack")?;
        run(apt.command("apt-get", &["download", "-qq", &package]).current_dir(staging.path()))?;
        let deb = fs::read_dir(staging.path())?
            .flatten()
            .map(|file| file.path())
            .find(|path| path.extension().is_some_and(|e| e == "deb"))
            .with_context(|| format!("apt downloaded no `{package}`"))?;
        let root = staging.path().join("root");
        run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&root))?;
        let modules = root.join("lib/modules");
        let release =
            fs::read_dir(&modules)?.flatten().next().context("the package has no modules")?.file_name();
        for useless in USELESS {
            let path = modules.join(&release).join("kernel").join(useless);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| format!("removing `{}`", path.display()))?;
            }
        }
        // What loads the first modules in the guest can read no compressed ones.
        let unpack = "find . -name '*.ko.xz' -print0 | xargs -0 -r xz --decompress";
        run(command("sh", &["-c", unpack]).current_dir(&modules))?;
        run(Command::new("depmod").arg("--basedir").arg(&root).arg(&release))?;
        // Last, so that a kernel that is there is whole.
        fs::rename(&root, folder).with_context(|| format!("moving the kernel to `{}`", folder.display()))
    }

    /// The package with the highest number.
    fn newest(self, packages: &str) -> Option<String> {
        let (before, after) = self.package();
        let number = |name: &str| name.strip_prefix(before)?.strip_suffix(after)?.parse::<u32>().ok();
        packages.lines().filter_map(|name| Some((number(name)?, name))).max().map(|(_, name)| name.to_owned())
    }
}

/// Where everything about virtual machines is kept, whatever cargo's target folder is.
pub(super) fn folder() -> PathBuf {
    workspace().join("target/vm")
}

/// An apt with its own sources, lists and cache.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// One that knows the packages of Debian's release `debian`, from this machine's mirror.
    fn new(debian: &str) -> anyhow::Result<Self> {
        let folder = folder().join("apt").join(debian);
        for part in ["sources", "state/lists/partial", "cache/archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making `{}`", path.display()))?;
        }
        fs::write(folder.join("state/status"), "").context("writing apt's list of what is installed")?;
        let mut copies = String::new();
        for path in source_files() {
            let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
            copies.push_str(&match path.extension().is_some_and(|e| e == "sources") {
                true => sources_for(&text, debian),
                false => lines_for(&text, debian),
            });
        }
        if copies.is_empty() {
            bail!(
                "apt is set up with no mirror of Debian\nhelp: add Debian's main repository to apt's sources"
            );
        }
        fs::write(folder.join("sources/copy.sources"), copies).context("writing apt's sources")?;
        let apt = Self { folder };
        fs::write(apt.folder.join("apt.conf"), apt.configuration()).context("writing apt's settings")?;
        Ok(apt)
    }

    /// What makes apt keep to the folder.
    fn configuration(&self) -> String {
        let path = |part: &str| self.folder.join(part).display().to_string();
        let settings = [
            ("Dir::Etc::SourceList", "/dev/null"),
            ("Dir::Etc::SourceParts", &path("sources")),
            ("Dir::Etc::Preferences", "/dev/null"),
            ("Dir::Etc::PreferencesParts", "/dev/null"),
            ("Dir::State", &path("state")),
            ("Dir::State::Status", &path("state/status")),
            ("Dir::Cache", &path("cache")),
            ("APT::Architecture", "amd64"),
            ("APT::Sandbox::User", "root"),
            ("Acquire::Languages", "none"),
            // The index of a release that is not updated any more has run out, which does not make its kernel worse.
            ("Acquire::Check-Valid-Until", "false"),
        ];
        settings.map(|(name, value)| format!("{name} \"{value}\";\n")).concat()
    }

    /// One of apt's programs; the machine's own settings hold, but for those of [`Self::configuration`].
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(program, arguments);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    /// Names of all packages, one a line.
    fn packages(&self) -> anyhow::Result<String> {
        output(&mut self.command("apt-cache", &["pkgnames", "linux-image-"]))
            .context("asking apt for its packages")
    }
}

/// The files that say where this machine's apt gets packages.
fn source_files() -> Vec<PathBuf> {
    let parts = fs::read_dir("/etc/apt/sources.list.d").map(|d| d.flatten().map(|f| f.path()).collect());
    let mut files: Vec<PathBuf> = parts.unwrap_or_default();
    files.push("/etc/apt/sources.list".into());
    files.retain(|path| path.is_file() && path.extension().is_some_and(|e| e == "sources" || e == "list"));
    files
}

/// Whether a repository is Debian's, by its suites and components, and whether it is the one of security updates.
fn is_debian<'a>(mut suites: impl Iterator<Item = &'a str>, components: &str) -> Option<bool> {
    const NAMES: [&str; 10] = [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "sid",
    ];
    if !components.split_whitespace().any(|c| c == "main") {
        return None;
    }
    suites.find_map(|suite| {
        let security = suite.strip_suffix("-security");
        NAMES.contains(&security.unwrap_or(suite)).then_some(security.is_some())
    })
}

/// The name under which a repository has `debian`.
fn suite(debian: &str, security: bool) -> String {
    format!("{debian}{}", if security { "-security" } else { "" })
}

/// Debian's entries of a deb822 file, changed to the release `debian`.
fn sources_for(text: &str, debian: &str) -> String {
    let mut copies = String::new();
    let uncommented: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for entry in uncommented.split(|line| line.trim().is_empty()) {
        let is = |line: &str, name: &str| {
            line.split_once(':').is_some_and(|(field, _)| field.trim().eq_ignore_ascii_case(name))
        };
        let value = |name: &str| {
            entry
                .iter()
                .find(|line| is(line, name))
                .and_then(|line| line.split_once(':'))
                .map_or("", |(_, v)| v.trim())
        };
        if value("Enabled").eq_ignore_ascii_case("no") || !value("Types").split(' ').any(|t| t == "deb") {
            continue;
        }
        let Some(security) = is_debian(value("Suites").split_whitespace(), value("Components")) else {
            continue;
        };
        for line in entry {
            if !["Types", "Suites", "Components"].iter().any(|name| is(line, name)) {
                copies.push_str(line);
                copies.push('\n');
            }
        }
        let suite = suite(debian, security);
        copies.push_str(&format!("Types: deb\nSuites: {suite}\nComponents: main\n\n"));
    }
    copies
}

/// Debian's entries of a file with one entry a line, changed to the release `debian`, as deb822.
fn lines_for(text: &str, debian: &str) -> String {
    let mut copies = String::new();
    let mut seen = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ").map(str::trim_start) else { continue };
        let (options, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((options, rest)) => (options.trim(), rest),
            None => ("", rest),
        };
        let mut words = rest.split('#').next().unwrap_or_default().split_whitespace();
        let (Some(uri), Some(name)) = (words.next(), words.next()) else { continue };
        let components = words.collect::<Vec<_>>().join(" ");
        let Some(security) = is_debian(std::iter::once(name), &components) else { continue };
        let signed = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
        let signed = signed.map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        let suite = suite(debian, security);
        let copy = format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n{signed}\n");
        if !seen.contains(&copy) {
            copies.push_str(&copy);
            seen.push(copy);
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_entries_are_copied_for_another_release_and_others_left_out() {
        let text = "\
Types: deb
# a remark
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main

Types: deb
URIs: http://mirror.example/tools
Suites: nodistro
Components: main

Types: deb
Enabled: no
URIs: http://mirror.example/debian
Suites: trixie
Components: main
";
        assert_eq!(
            sources_for(text, "bookworm"),
            "\
URIs: http://mirror.example/debian
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
Types: deb
Suites: bookworm
Components: main

URIs: http://mirror.example/debian-security
Types: deb
Suites: bookworm-security
Components: main

"
        );
    }

    #[test]
    fn lines_become_entries() {
        let text = "\
# deb http://mirror.example/old bookworm main
deb [arch=amd64 signed-by=/key.gpg] http://mirror.example/debian bookworm main contrib
deb http://mirror.example/debian bookworm-updates main
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main # updates
";
        assert_eq!(
            lines_for(text, "bullseye"),
            "\
Types: deb
URIs: http://mirror.example/debian
Suites: bullseye
Components: main
Signed-By: /key.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bullseye-security
Components: main

"
        );
    }

    #[test]
    fn the_newest_package_of_the_plain_flavour_is_taken() {
        let packages = "\
linux-image-6.1.0-9-amd64
linux-image-6.1.0-48-amd64
linux-image-6.1.0-50-amd64-dbg
linux-image-6.1.0-51-cloud-amd64
linux-image-6.1.0-52-rt-amd64
linux-image-6.1.0-53-amd64-unsigned
linux-image-6.1.0-0.deb11.50-amd64
linux-image-6.12.9+deb12-amd64
linux-image-6.12.57+deb12-amd64
linux-image-6.12.57+deb12-rt-amd64
";
        assert_eq!(Kernel::V6_1.newest(packages).as_deref(), Some("linux-image-6.1.0-48-amd64"));
        assert_eq!(Kernel::V6_12.newest(packages).as_deref(), Some("linux-image-6.12.57+deb12-amd64"));
        assert_eq!(Kernel::V5_10.newest(packages), None);
    }
}
