//! Applications of DPDK: processes of its `dpdk-testpmd`, without huge pages, on the CPU that is measured.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use xdpchain_tests::Netns;

use crate::cpu;

/// How long an application may take to begin; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a process prints once it forwards.
const FORWARDS: &str = "Logical Core";
/// Where DPDK keeps what processes of one prefix share.
const RUNTIME: &str = "/var/run/dpdk";

/// What carries packets from one process to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// virtio-user to vhost: the later process connects, again and again if it has to.
    Vhost,
    /// memif: the later process connects, once.
    Memif,
}

/// A port of an application.
#[derive(Clone, Copy, Debug)]
pub enum Port<'a> {
    /// An interface, by a packet socket.
    Packet(&'a str),
    /// An interface, by an AF_XDP socket.
    Xdp(&'a str),
    /// The end of a link that waits for the other.
    First(Transport, &'a str),
    /// The end of a link that connects.
    Second(Transport, &'a str),
}

/// Applications, each a process, and a folder for their sockets and what they print.
#[derive(Debug)]
pub struct Dpdk<'a> {
    ns: &'a Netns,
    folder: TempDir,
}

impl<'a> Dpdk<'a> {
    /// Applications of a namespace.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new(ns: &'a Netns) -> anyhow::Result<Self> {
        Ok(Self { ns, folder: tempfile::tempdir()? })
    }

    /// Starts an application that hands packets on from its first port to its second, and back.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, ports: &[Port<'_>]) -> anyhow::Result<Process> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.spawn(&format!("xdpchain-bench-{}-{number}", std::process::id()), "primary", ports)
    }

    /// Starts one that shares what `other` has under its prefix: as another first process, or as its second.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_beside(&self, other: &Process, kind: &str, ports: &[Port<'_>]) -> anyhow::Result<Process> {
        let mut process = self.spawn(&other.prefix, kind, ports)?;
        process.owner = false;
        Ok(process)
    }

    fn spawn(&self, prefix: &str, kind: &str, ports: &[Port<'_>]) -> anyhow::Result<Process> {
        static LOGS: AtomicU32 = AtomicU32::new(0);
        let log = self.folder.path().join(format!("{}.log", LOGS.fetch_add(1, Ordering::Relaxed)));
        let output = File::create(&log)?;
        let core = cpu::measured()?;
        let mut command = Command::new("taskset");
        // Line by line, so that what it prints is there when it is looked for.
        command.args(["-c", &core.to_string(), "stdbuf", "-oL", "dpdk-testpmd"]);
        command.arg(format!("--lcores=0@{core},1@{core}")).arg(format!("--file-prefix={prefix}"));
        command.args(["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "-v"]);
        command.arg(format!("--proc-type={kind}"));
        for (number, port) in ports.iter().enumerate() {
            command.arg(format!("--vdev={}", self.device(number, *port)));
        }
        command.args(["--", "-i", "--forward-mode=io", "--auto-start", "--total-num-mbufs=8192"]);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let child =
            self.ns.run(|| command.spawn()).context("cannot run `taskset`\nhelp: cargo xtask setup")?;
        Ok(Process { child, log, prefix: prefix.to_owned(), owner: true })
    }

    fn socket(&self, link: &str) -> PathBuf {
        self.folder.path().join(link)
    }

    /// A port as DPDK's command line has it. Queues are as long as each kind allows, or 4096: with the lengths that they have
    /// otherwise, steady traffic overflows them while other processes have the CPU.
    fn device(&self, number: usize, port: Port<'_>) -> String {
        let packet = |interface: &str| {
            format!("net_af_packet{number},iface={interface},blocksz=131072,framesz=2048,framecnt=4096")
        };
        match port {
            Port::Packet(interface) => packet(interface),
            Port::Xdp(interface) => format!("net_af_xdp{number},iface={interface}"),
            Port::First(Transport::Vhost, link) => {
                let socket = self.socket(link);
                // It does not bind to the socket that one before left when it was killed.
                let _ = fs::remove_file(&socket);
                format!("net_virtio_user{number},path={},server=1,queue_size=1024", socket.display())
            }
            Port::Second(Transport::Vhost, link) => {
                format!("net_vhost{number},iface={},client=1", self.socket(link).display())
            }
            Port::First(Transport::Memif, link) => {
                format!("net_memif{number},role=server,socket={},rsize=12", self.name(link))
            }
            Port::Second(Transport::Memif, link) => {
                format!("net_memif{number},role=client,socket={},rsize=12", self.name(link))
            }
        }
    }

    /// An abstract socket's name, which nothing is left of.
    fn name(&self, link: &str) -> String {
        format!("{}-{link}", self.ns.name())
    }

    /// Starts a row of `count` applications from interface `from` to interface `to`, and waits until all forward.
    ///
    /// # Errors
    /// When one does not.
    pub fn row(
        &self,
        count: usize,
        transport: Transport,
        (from, to): (&str, &str),
    ) -> anyhow::Result<Vec<Process>> {
        let mut row = Vec::new();
        for place in 0..count {
            let (before, after) = (format!("link{place}"), format!("link{}", place + 1));
            let first = if place == 0 { Port::Packet(from) } else { Port::Second(transport, &before) };
            let last = place + 1 == count;
            let second = if last { Port::Packet(to) } else { Port::First(transport, &after) };
            row.push(self.start(&[first, second])?);
            if transport == Transport::Memif {
                row[place].ready()?;
            }
        }
        for process in &mut row {
            process.ready()?;
        }
        Ok(row)
    }
}

/// One application.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    prefix: String,
    /// Whether the prefix is its own.
    owner: bool,
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The version of DPDK, as it told.
    pub fn version(&self) -> Option<String> {
        let said = self.said();
        let line = said.lines().find_map(|line| line.split_once("RTE Version:"))?;
        Some(line.1.trim().trim_matches('\'').to_owned())
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it forwards.
    ///
    /// # Errors
    /// When it ends, or never does.
    pub fn ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while !self.said().contains(FORWARDS) {
            ensure!(!self.ended()?, "an application of DPDK ended:\n{}", self.said());
            if start.elapsed() > PATIENCE {
                bail!("an application of DPDK does not begin:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until it forwards, ends, or has said `what`; then what it said.
    ///
    /// # Errors
    /// When nothing of that happens.
    pub fn outcome(&mut self, what: &str) -> anyhow::Result<String> {
        let start = Instant::now();
        while !self.said().contains(FORWARDS) && !self.said().contains(what) && !self.ended()? {
            ensure!(start.elapsed() < PATIENCE, "an application of DPDK neither begins nor ends");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.said())
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Types commands at its prompt.
    ///
    /// # Errors
    /// When it has ended.
    pub fn type_in(&mut self, commands: &str) -> anyhow::Result<()> {
        let prompt = self.child.stdin.as_mut().context("it has a prompt")?;
        prompt.write_all(commands.as_bytes()).context("typing a command")
    }

    /// Ends it as a crash does.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.owner {
            let _ = fs::remove_dir_all(PathBuf::from(RUNTIME).join(&self.prefix));
        }
    }
}
