//! Commands inside other kernels: virtual machines with Debian's kernels and this machine's files.
//!
//! The guest sees the whole file system of the host and can write to none of it but the run's own folder; what it
//! writes elsewhere is in its memory and goes away with it. It has no network. Its processors are emulated, which takes
//! about ten times as long as the host.

mod kernel;
mod test;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};

use crate::run::workspace;
use crate::setup;

pub(crate) use kernel::Kernel;
pub(crate) use test::test;

/// How long a guest may take until it runs its command, and to end after it.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Memory of a guest. The host gives it only what is used.
const MEMORY: &str = "4G";
const CPUS: &str = "2";

/// Lines of its console that are told of a guest that ended.
const CONSOLE: usize = 40;

/// What to run in a guest.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) kernel: Kernel,
    /// A shell script.
    pub(crate) script: &'a str,
    pub(crate) limit: Duration,
    /// Show what the kernel prints while it boots.
    pub(crate) verbose: bool,
    /// One processor, whose clock counts the instructions that it carries out: each is a nanosecond.
    pub(crate) counting: bool,
}

impl<'a> Task<'a> {
    pub(crate) fn new(kernel: Kernel, script: &'a str, limit: Duration) -> Self {
        Self { kernel, script, limit, verbose: false, counting: false }
    }
}

/// A guest that ended without the status of its command: its kernel gave up, or it was too slow and ended from outside.
#[derive(Debug)]
pub(crate) struct Gone {
    /// It came as far as its command.
    booted: bool,
    after: Duration,
    /// The last lines of its console.
    console: Vec<String>,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the guest {} after {} s",
            if self.booted { "ended before its command" } else { "did not come up" },
            self.after.as_secs()
        )?;
        for line in &self.console {
            write!(f, "\n| {line}")?;
        }
        write!(f, "\nhelp: `--verbose` shows its console from the start")
    }
}

impl Error for Gone {}

/// A folder below `target/vm` that goes away with its value.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = kernel::folder().join(format!("{label}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("making `{}`", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // There is nobody left to tell, and a leftover is only a little space.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders of runs that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(kernel::folder()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let mut parts = name.to_str().unwrap_or_default().split('-');
        let (label, pid, number) = (parts.next(), parts.next(), parts.next());
        let ours = matches!(label, Some("run" | "unpack")) && number.is_some() && parts.next().is_none();
        if ours && pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// `words` as one line for a shell.
pub(crate) fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
}

/// Runs `words` as a command in `kernel`, in the folder that this was called in, and returns its exit status.
pub(crate) fn execute(
    kernel: Kernel,
    words: &[String],
    limit: Duration,
    verbose: bool,
) -> anyhow::Result<u8> {
    let here = std::env::current_dir().context("the current folder")?;
    let script = format!(
        "cd {}\nexec {}",
        quoted([here.to_str().context("the current folder's name is not UTF-8")?]),
        quoted(words.iter().map(String::as_str))
    );
    let task = Task { verbose, ..Task::new(kernel, &script, limit) };
    run(&task, &mut std::io::stdout())
}

/// Runs a task to its end and returns its exit status; what it writes to standard output goes to `out`, its standard error to ours.
pub(crate) fn run(task: &Task<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    let version = task.kernel.version();
    let unpacked = task.kernel.ensure()?;
    let folder = Folder::new("run")?;
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).with_context(|| format!("writing `{name}` for the guest"))
    };
    write("command", task.script)?;
    write("limit", &task.limit.as_secs().to_string())?;
    write("guest.sh", include_str!("vm/guest.sh"))?;
    fs::copy(
        unpacked.image.with_file_name(format!("config-{}", unpacked.release)),
        folder.path().join("config"),
    )
    .context("copying the kernel's configuration for the guest")?;

    eprintln!("vm {version}: booting {}", unpacked.release);
    let start = Instant::now();
    let started = SystemTime::now();
    let mut machine = command(task, &unpacked, folder.path())?;
    let mut child = machine.spawn().context("cannot run `vng`\nhelp: cargo xtask setup --vm")?;
    let mut stdout = child.stdout.take().expect("the output is piped");
    let mut stderr = child.stderr.take().expect("standard error is piped");
    let end = start + BOOT_LIMIT + task.limit;
    let pid_file = folder.path().join("pid");
    let child = thread::scope(|scope| {
        let waiter = scope.spawn(|| wait(child, end, &pid_file));
        scope.spawn(|| std::io::copy(&mut stderr, &mut std::io::stderr()));
        let mut buffer = [0; 4096];
        loop {
            match stdout.read(&mut buffer).context("reading the guest's output")? {
                0 => break,
                n => out
                    .write_all(&buffer[..n])
                    .and_then(|()| out.flush())
                    .context("passing the guest's output on")?,
            }
        }
        waiter.join().expect("waiting does not panic")
    });
    child?;

    let booted = fs::metadata(folder.path().join("booted")).and_then(|file| file.modified()).ok();
    let status = fs::read_to_string(folder.path().join("status")).ok();
    let (Some(booted), Some(status)) = (booted, status.and_then(|text| text.trim().parse().ok())) else {
        let console = fs::read(folder.path().join("console")).unwrap_or_default();
        let console: Vec<_> = String::from_utf8_lossy(&console).lines().map(str::to_owned).collect();
        let console = console[console.len().saturating_sub(CONSOLE)..].to_vec();
        return Err(Gone { booted: booted.is_some(), after: start.elapsed(), console }.into());
    };
    let boot = booted.duration_since(started).unwrap_or_default();
    let total = start.elapsed();
    eprintln!(
        "vm {version}: booted in {} s, {} s in all, exit status {status}",
        boot.as_secs(),
        total.as_secs()
    );
    Ok(status)
}

/// The command that boots a kernel and runs `guest.sh` in it.
fn command(task: &Task<'_>, kernel: &kernel::Unpacked, folder: &Path) -> anyhow::Result<Command> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a folder's name is not UTF-8");
    let here = text(folder)?;
    if here.contains(|c: char| c.is_whitespace() || "'\",=`$\\".contains(c)) {
        bail!("virtual machines need a folder without blanks, quotes, commas and `=`, not `{here}`");
    }
    let mut machine = Command::new(setup::virtme());
    machine.current_dir(workspace());
    let cpus = if task.counting { "1" } else { CPUS };
    machine.args(["--run", &text(&kernel.image)?, "--user", "root", "--cpus", cpus, "--memory", MEMORY]);
    // Emulation does the same on every machine; virtualization inside a virtual machine may be there and not work.
    machine.arg("--disable-kvm");
    machine.args(["--rwdir", &here, "--exec", &format!("sh {here}/guest.sh {here}")]);
    let second =
        format!("-pidfile {here}/pid -chardev file,id=second,path={here}/console -serial chardev:second");
    let counting = if task.counting { " -icount shift=0,sleep=off" } else { "" };
    machine.args([&format!("--qemu-opts={second}{counting}"), "--append", "console=ttyS1"]);
    if task.verbose {
        machine.arg("--verbose");
    }
    // One program of virtme-ng finds the other so.
    let beside = setup::virtme().parent().map(Path::to_path_buf).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    machine.env("PATH", std::env::join_paths(beside.chain(std::env::split_paths(&path)))?);
    // What virtme-ng and QEMU leave when they are killed goes with the folder.
    machine.env("TMPDIR", folder);
    // QEMU opens its standard files anew, which would empty one that is a file.
    machine.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(machine)
}

/// Waits for a virtual machine, and ends it when it takes longer than its limits allow.
fn wait(mut child: Child, end: Instant, pid_file: &Path) -> anyhow::Result<()> {
    loop {
        if child.try_wait().context("waiting for the virtual machine")?.is_some() {
            return Ok(());
        }
        if Instant::now() > end {
            if let Ok(pid) = fs::read_to_string(pid_file) {
                let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
            }
            let _ = child.kill();
            child.wait().context("waiting for the virtual machine")?;
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted(["a b", "it's", "$x"]), r"'a b' 'it'\''s' '$x'");
    }
}
