//! The demo: GTP-U in, GRE out, and back, through a chain that changes while packets flow.
//!
//! The last line of standard output is one JSON object. The exit status is 0 only when every packet arrived once, as it
//! should be, and every change of the chain was made. Namespaces, pins and files go away on success, failure and ctrl-c.
#![forbid(unsafe_code)]

mod changes;
mod judge;
mod progress;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;
use xdpchain_tests::World;
use xdpchain_tests::far_end::{Account, FarEnd};
use xdpchain_tests::world::Sender;

use crate::changes::Outcome;
use crate::progress::Progress;
use crate::stage::{INTERFACES, Stage};

/// GTP-U in, GRE out, and back, through a chain that changes while packets flow.
#[derive(Parser)]
#[command(name = "demo")]
struct Options {
    /// Numbered packets to send, at least; more when the changes take longer
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    packets: u32,
    /// Sessions
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(3..=100_000))]
    sessions: u32,
    /// Times that the third-party module is added and removed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// Packets are sent at the rate at which `--packets` take this long, about as long as the default changes take.
const SPAN: Duration = Duration::from_secs(8);
/// Packets beyond `--packets` that can be sent and counted while the changes take longer; at a trickle, for minutes.
const SPARE: u32 = 4_000_000;
/// Packets sent at a time.
const CHUNK: u32 = 24;

/// The last line.
#[derive(Debug, Serialize)]
struct Report {
    uplink_sent: u64,
    uplink_received: u64,
    downlink_sent: u64,
    downlink_received: u64,
    lost: u64,
    swaps: u32,
    engine: String,
    mode: String,
    seconds: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).expect("these two can be caught");
    }
    match play(&options, &stop) {
        Ok(report) => {
            println!("{}", serde_json::to_string(&report).expect("numbers and names become JSON"));
            ExitCode::SUCCESS
        }
        Err(Failure::Stopped) => {
            eprintln!("stopped; everything was cleaned up");
            ExitCode::from(130)
        }
        Err(Failure::Wrong { what, report }) => {
            eprintln!("error: {what}");
            if let Some(report) = report {
                println!("{}", serde_json::to_string(&report).expect("numbers and names become JSON"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Why the demo did not show what it is to show.
#[derive(Debug)]
enum Failure {
    /// By ctrl-c.
    Stopped,
    /// Something is not as it should be.
    Wrong { what: String, report: Option<Box<Report>> },
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Wrong { what, report: None }
    }
}

fn play(options: &Options, stop: &AtomicBool) -> Result<Report, Failure> {
    if !nix::unistd::geteuid().is_root() {
        let what = "the demo makes network namespaces, which takes root\nhelp: run it as root";
        return Err(what.to_owned().into());
    }
    let start = Instant::now();
    println!(
        "Three network namespaces on veth; {} sessions of 3 customers, whose inner addresses are the same, over IPv4 \
         and IPv6, every other one with a QoS flow:\n",
        options.sessions
    );
    println!("    ran  ====GTP-U====>  n3  node  n6  ====GRE====>  cloud");
    println!("         <===GTP-U=====      edge      <===GRE=====        (answers every packet)\n");
    let world = World::new(options.packets + SPARE);
    let stage = Stage::new(&world.links.node, options.sessions)?;
    let state = stage.raise(options.sessions)?;
    let mut sender = world.sender(options.sessions);
    first_packets(options, &world, &stage, &mut sender)?;
    let Traffic { outcome, cloud, ran } = traffic(options, &world, &stage, &mut sender, stop)?;

    let sent = sender.sent();
    let (uplink, downlink) = (world.cloud_end.account(sent), world.ran_end.account(sent));
    let downlink_received = u64::from(sent - downlink.lost);
    let report = Report {
        uplink_sent: u64::from(sent),
        uplink_received: u64::from(sent - uplink.lost),
        downlink_sent: world.cloud_end.answered(),
        downlink_received,
        lost: u64::from(uplink.lost) + world.cloud_end.answered().saturating_sub(downlink_received),
        swaps: outcome.swaps,
        engine: state.engine,
        mode: state.mode,
        seconds: (start.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    };
    println!("  {outcome}");
    println!("\nWhile the third-party module was there for the last time:\n\n{}", outcome.visited.trim_end());
    println!("\nIn the end:");
    for interface in INTERFACES {
        println!("\n{}", stage.status(interface)?.trim_end());
    }
    let mut wrong = complaints("cloud", &world.cloud_end, uplink);
    wrong.extend(complaints("ran", &world.ran_end, downlink));
    wrong.extend(judge::judge(&cloud, &ran).err());
    if !wrong.is_empty() {
        wrong.push(stage.diagnosis(&world));
    }
    wrong.extend(stage.strike().err());
    if wrong.is_empty() {
        Ok(report)
    } else {
        Err(Failure::Wrong { what: wrong.join("\n"), report: Some(Box::new(report)) })
    }
}

/// Sends one packet of each session; every one has to come back.
fn first_packets(
    options: &Options,
    world: &World,
    stage: &Stage<'_>,
    sender: &mut Sender,
) -> Result<(), Failure> {
    println!("\nA first packet of each session, to see that the way is there both ways.");
    sender.send(world, options.sessions);
    sender.settle(world);
    let (there, back) = (world.cloud_end.right(), world.ran_end.right());
    if back < u64::from(options.sessions) {
        let sent = options.sessions;
        return Err(format!(
            "of {sent} packets {there} arrived and {back} came back\n{}",
            stage.diagnosis(world)
        )
        .into());
    }
    println!("  {there} there, {back} back");
    Ok(())
}

/// What the traffic brought.
struct Traffic {
    outcome: Outcome,
    /// Some of the frames that the cloud received.
    cloud: Vec<Vec<u8>>,
    /// Some of the frames that the radio side received.
    ran: Vec<Vec<u8>>,
}

/// Sends packets while the chain is changed, until all were sent and all changes made.
fn traffic(
    options: &Options,
    world: &World,
    stage: &Stage<'_>,
    sender: &mut Sender,
    stop: &AtomicBool,
) -> Result<Traffic, Failure> {
    println!(
        "\n{} packets and more; meanwhile a third-party module in C is added and removed {} times, and one of ours \
         is replaced by a new build on both interfaces.",
        options.packets, options.rounds
    );
    let first = sender.sent();
    let target = options.packets.max(first);
    let steps = changes::steps(options.rounds, stage);
    let progress = Progress::new(target, steps.len());
    let sent = AtomicU32::new(first);
    // Set when no more packets are sent, by ctrl-c or because there were too many.
    let dry = AtomicBool::new(false);
    let (mut cloud, mut ran) = (Vec::new(), Vec::new());
    let outcome = std::thread::scope(|scope| {
        let changes = scope.spawn(|| changes::make(&steps, stage, &sent, first..target, &dry));
        let start = Instant::now();
        let rate = f64::from(options.packets) / SPAN.as_secs_f64();
        while sender.sent() < target || !changes.is_finished() {
            if stop.load(Ordering::Relaxed) || sender.sent() + CHUNK > options.packets + SPARE {
                dry.store(true, Ordering::Relaxed);
                break;
            }
            sender.send(world, CHUNK);
            sent.store(sender.sent(), Ordering::Relaxed);
            progress.show(sender.sent(), &changes::DONE);
            cloud.extend(world.cloud_end.samples());
            ran.extend(world.ran_end.samples());
            let due = Duration::from_secs_f64(f64::from(sender.sent() - first) / rate);
            // On a busy machine the changes take longer; a trickle is enough to show what they do to packets.
            let trickle = if sender.sent() < target { Duration::ZERO } else { Duration::from_millis(5) };
            std::thread::sleep(due.saturating_sub(start.elapsed()).max(trickle));
        }
        changes.join().expect("changing the chain does not panic")
    });
    progress.finish();
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Stopped);
    }
    let outcome = outcome?;
    sender.settle(world);
    cloud.extend(world.cloud_end.samples());
    ran.extend(world.ran_end.samples());
    Ok(Traffic { outcome, cloud, ran })
}

/// What a far end did not like, and what it missed.
fn complaints(name: &str, end: &FarEnd, account: Account) -> Vec<String> {
    let wrong = end.wrong().into_iter();
    let mut found: Vec<_> =
        wrong.map(|(what, n)| format!("{n} packets reached {name} with a wrong {what}")).collect();
    if account.duplicated > 0 {
        found.push(format!("{} numbers reached {name} more than once", account.duplicated));
    }
    if let Some(first) = account.first_lost {
        found.push(format!("{} numbers never reached {name}, the first is {first}", account.lost));
    }
    found
}
