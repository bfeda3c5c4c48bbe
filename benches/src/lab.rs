//! Three namespaces in a row: what is sent in the first comes to the one with what is measured, and is counted in the third.
//!
//! What is measured has a CPU of its own, and counts its packets there, too: that is part of sending them, whoever sends.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use xdpchain_host::Map;
use xdpchain_host::sys::{self, TestRun};
use xdpchain_tests::{Netns, Port, plan, veth};
use xdpchain_wire::ethernet::{self, ethertype};
use xdpchain_wire::{ipv4, protocol, udp};

use crate::cpu;
use crate::rig::Subject;

/// The interface that packets come in on, in [`Lab::near`].
pub const IN: &str = "sbs-in";
/// The interface that they leave by.
pub const OUT: &str = "sbs-out";
const FAR: &str = "sbs-far";
const END: &str = "sbs-end";

/// Packets a second of steady traffic.
pub const STEADY: u32 = 10_000;
/// Numbers that there are for packets of one lab.
const NUMBERS: u32 = 1 << 21;
/// What a numbered packet begins with.
const MAGIC: u32 = 0x7862_6e63;
/// Octets of a packet.
const FRAME: usize = 64;
/// Packets sent at once after a pause, at most: what a veth queues, and more than one pause, must not overflow.
const BURST: u32 = 48;
/// How long nothing may come before what is missing is lost.
const QUIET: Duration = Duration::from_millis(400);
/// How long packets are sent as fast as possible to measure a rate.
const RATE_TIME: Duration = Duration::from_millis(1500);
/// Packets of one call while measuring a rate.
const RATE_CALL: u32 = 50_000;
/// `XDP_FLAGS_DRV_MODE`.
const DRIVER_MODE: u32 = 4;

/// Where what is measured runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In the kernel: in a thread that receives on [`IN`], and is kept to the CPU that is measured.
    Kernel,
    /// In processes. The kernel's part of receiving is done by the CPU that sends, and costs them nothing.
    Processes,
}

/// The namespaces, and what sends and counts.
pub struct Lab {
    /// Where what is measured runs, between [`IN`] and [`OUT`].
    pub near: Netns,
    far: Netns,
    source: Subject,
    arrivals: Map,
    arrived: Map,
    next: Cell<u32>,
    _sink: OwnedFd,
    _end: Netns,
    receiver: Option<u32>,
}

impl Lab {
    /// Builds it, with what is measured in the kernel, or in processes.
    ///
    /// # Errors
    /// When interfaces cannot be made so, or programs not be loaded.
    pub fn new(kind: Kind) -> anyhow::Result<Self> {
        let (far, near, end) = (Netns::new("far"), Netns::new("near"), Netns::new("end"));
        veth((&far, FAR), (&near, IN));
        veth((&near, OUT), (&end, END));
        let receiver = match kind {
            Kind::Kernel => {
                let thread = threaded(&near, IN)?;
                cpu::pin(thread, &cpu::measured()?.to_string())?;
                Some(thread)
            }
            Kind::Processes => {
                // GRO that was asked for before the interface was up does not make the kernel take frames from the peer's XDP.
                for state in ["off", "on"] {
                    near.sh("ethtool", &["-K", IN, "gro", state]);
                }
                None
            }
        };
        let sink = Subject::c("numbered", &[("NUMBERS", NUMBERS as usize), ("MAGIC", MAGIC as usize)])?;
        let link = end
            .run(|| sys::link_create_xdp(sink.program(), end.ifindex(END), DRIVER_MODE))
            .context("attaching what counts")?;
        Ok(Self {
            source: Subject::c("floor", &[("FLOOR", 1), ("SESSIONS", 1)])?,
            arrivals: sink.own_map("arrivals")?,
            arrived: sink.own_map("arrived")?,
            next: Cell::new(0),
            _sink: link,
            _end: end,
            near,
            far,
            receiver,
        })
    }

    /// The kernel's thread that receives on [`IN`], and in which an XDP program runs; none where processes are measured.
    pub fn receiver(&self) -> Option<u32> {
        self.receiver
    }

    /// Packets that have come to the end.
    fn arrived(&self) -> anyhow::Result<u64> {
        let value = self.arrived.lookup(&0u32.to_ne_bytes())?.context("an array has its entry 0")?;
        Ok(value.as_chunks::<8>().0.iter().map(|cpu| u64::from_ne_bytes(*cpu)).sum())
    }

    /// Packets a second that come through while more are sent than can.
    ///
    /// # Errors
    /// When the kernel does not send.
    pub fn rate(&self) -> anyhow::Result<f64> {
        // What is queued before the first packet comes out is no part of the rate.
        self.flood(RATE_TIME / 8)?;
        let (before, start) = (self.arrived()?, Instant::now());
        self.flood(RATE_TIME)?;
        let (came, took) = (self.arrived()? - before, start.elapsed());
        self.quiet()?;
        Ok(came as f64 / took.as_secs_f64())
    }

    /// Sends as fast as the kernel can, for `time`.
    fn flood(&self, time: Duration) -> anyhow::Result<()> {
        let packet = frame(0, 0);
        let run = TestRun {
            packet: &packet,
            repeat: RATE_CALL,
            ingress_ifindex: self.far.ifindex(FAR),
            live_frames: true,
            ..TestRun::default()
        };
        let program = self.source.program();
        self.far.run(|| {
            let start = Instant::now();
            while start.elapsed() < time {
                sys::prog_test_run(program, &run)?;
            }
            anyhow::Ok(())
        })
    }

    /// Sends numbered packets at a steady rate while `action` runs, and accounts for them.
    ///
    /// # Errors
    /// Those of `action`, and when no numbers are left.
    pub fn steady<T>(&self, action: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Passage)> {
        let steady = Steady::start(self);
        let done = action();
        let passage = steady.stop(self)?;
        Ok((done?, passage))
    }

    /// Waits until nothing comes any more.
    fn quiet(&self) -> anyhow::Result<()> {
        let (mut last, mut since) = (self.arrived()?, Instant::now());
        while since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.arrived()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// How many packets have come of `count` that are sent now, and how many each came, once nothing comes any more or a
    /// second has passed.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn copies(&self, count: u32) -> anyhow::Result<f64> {
        let (port, before) = (Port::open(&self.far, FAR), self.arrived()?);
        for _ in 0..count {
            port.offer(&frame(0, 0));
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok((self.arrived()? - before) as f64 / f64::from(count))
    }

    fn account(&self, first: u32, sent: u32, refused: &[u32]) -> anyhow::Result<Passage> {
        let mut passage = Passage { sent, ..Passage::default() };
        let mut times = Vec::with_capacity(sent as usize);
        for number in first..first + sent {
            let arrival = self.arrivals.lookup(&number.to_ne_bytes())?.context("a number has its entry")?;
            let (at, count) = arrival.split_at(8);
            match word(count) {
                0 if refused.binary_search(&number).is_ok() => passage.refused += 1,
                0 => passage.lost += 1,
                1 => times.push(word(at)),
                _ => {
                    passage.duplicated += 1;
                    times.push(word(at));
                }
            }
        }
        times.sort_unstable();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        passage.longest = longest.map(Duration::from_nanos);
        Ok(passage)
    }
}

fn word(octets: &[u8]) -> u64 {
    octets.try_into().map_or(0, u64::from_ne_bytes)
}

/// What became of the packets of steady traffic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// Packets sent.
    pub sent: u32,
    /// Packets that never came, without those below.
    pub lost: u32,
    /// Packets that the interface had no room for, because what receives did not run.
    pub refused: u32,
    /// Packets that came more than once.
    pub duplicated: u32,
    /// The longest time in which none came, between two that did.
    pub longest: Option<Duration>,
}

/// Steady traffic under way.
struct Steady {
    first: u32,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<(u32, Vec<u32>)>,
}

impl Steady {
    fn start(lab: &Lab) -> Self {
        let (first, port) = (lab.next.get(), Port::open(&lab.far, FAR));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let (mut due, mut sent, mut refused) = (Instant::now(), 0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let now = Instant::now();
                for _ in 0..BURST {
                    if due > now {
                        break;
                    }
                    if !port.offer(&frame(MAGIC, first + sent)) {
                        refused.push(first + sent);
                    }
                    (due, sent) = (due + Duration::from_secs(1) / STEADY, sent + 1);
                }
                // What could not be sent, because this was kept from running, is not made up for.
                due = due.max(now);
                std::thread::sleep(Duration::from_micros(100));
            }
            (sent, refused)
        });
        Self { first, stop, sender }
    }

    fn stop(self, lab: &Lab) -> anyhow::Result<Passage> {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, refused) = self.sender.join().expect("sending does not panic");
        lab.next.set(self.first + sent);
        ensure!(self.first + sent < NUMBERS, "there are no numbers left for packets");
        lab.quiet()?;
        lab.account(self.first, sent, &refused)
    }
}

/// A packet, IPv4 and UDP, with a number if `magic` says so.
fn frame(magic: u32, number: u32) -> Vec<u8> {
    let mut packet = vec![0; FRAME - ethernet::LEN];
    let header = ipv4::Repr {
        total_len: packet.len() as u16,
        ttl: 64,
        protocol: protocol::UDP,
        source: plan::abi(Ipv4Addr::new(198, 51, 100, 1)),
        destination: plan::abi(Ipv4Addr::new(198, 51, 100, 2)),
        ..ipv4::Repr::default()
    };
    header.emit(packet.first_chunk_mut().expect("room for a header"));
    let len = (packet.len() - ipv4::LEN) as u16;
    let header = udp::Repr { source_port: 40_000, destination_port: 4000, len, checksum: 0 };
    header.emit(packet[ipv4::LEN..].first_chunk_mut().expect("room for a header"));
    let payload = &mut packet[ipv4::LEN + udp::LEN..];
    payload[..4].copy_from_slice(&magic.to_be_bytes());
    payload[4..8].copy_from_slice(&number.to_be_bytes());
    plan::frame([0xff; 6], [2, 0, 0, 0, 0, 1], ethertype::IPV4, &packet)
}

/// Has the kernel receive on `interface` in a thread, and returns the thread.
fn threaded(ns: &Netns, interface: &str) -> anyhow::Result<u32> {
    let name = format!("napi/{interface}-");
    let before = cpu::kernel_threads(&name);
    // In a mount namespace of its own, as each network namespace sees interfaces in a sysfs of its own.
    let script = format!("echo 1 > /sys/class/net/{interface}/threaded");
    let output = Command::new("ip").args(["netns", "exec", ns.name(), "sh", "-c", &script]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the kernel does not receive in threads: {}", said.trim());
    let mut new = cpu::kernel_threads(&name);
    new.retain(|pid| !before.contains(pid));
    ensure!(new.len() == 1, "{} threads receive on {interface}", new.len());
    cpu::prefer(new[0])?;
    Ok(new[0])
}
