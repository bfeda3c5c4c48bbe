//! DPDK: one process that owns both interfaces, two that want the same one, and a row of four.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use xdpchain_benches::dpdk::{Dpdk, Port, Process, Transport};
use xdpchain_benches::lab::{IN, Kind, Lab, OUT};
use xdpchain_benches::report::{Note, Report};

use crate::Measured;

/// Applications of the row.
const ROW: usize = 4;
/// Where a crash is, counted from 0.
const MIDDLE: usize = 2;
/// The link to the last of the row, and the one behind a fifth.
const BEFORE: &str = "link3";
const NEW: &str = "link4";
/// How long one may take to be felt by its neighbours, or to work again.
const WHILE: Duration = Duration::from_secs(2);
/// Packets that two owners of an interface get.
const SHARED: u32 = 100;

/// Measures everything about DPDK.
pub(crate) fn measure(runs: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut measured = Measured { report, side: "dpdk", runs };
    alone(&mut measured)?;
    row(&mut measured)?;
    memif(&mut measured)
}

/// A process on its own ports, and a second that wants the same.
fn alone(measured: &mut Measured<'_>) -> anyhow::Result<()> {
    let lab = Lab::new(Kind::Processes)?;
    let dpdk = Dpdk::new(&lab.near)?;
    let ports = [Port::Packet(IN), Port::Packet(OUT)];
    let mut owner = dpdk.start(&ports)?;
    owner.ready()?;
    let version = owner.version().unwrap_or_default();
    note(measured, "dpdk/version", version);
    measured.rate("rate-of-one", &lab)?;
    for (of, kind, what) in
        [("dpdk/second-primary", "primary", "exiting"), ("dpdk/second-secondary", "secondary", "exiting")]
    {
        let said = dpdk.start_beside(&owner, kind, &ports)?.outcome(what)?;
        note(measured, of, errors(&said));
    }
    let before = lab.copies(SHARED)?;
    measured.row("copies-with-one-owner", "packets a packet", &[before]);
    let mut second = dpdk.start(&ports)?;
    note(measured, "dpdk/second-with-own-prefix", errors(&second.outcome("exiting")?));
    let copies = lab.copies(SHARED)?;
    measured.row("copies-with-two-owners", "packets a packet", &[copies]);
    second.kill();
    owner.kill();

    let lab = Lab::new(Kind::Processes)?;
    let dpdk = Dpdk::new(&lab.near)?;
    let ports = [Port::Xdp(IN), Port::Xdp(OUT)];
    let mut owner = dpdk.start(&ports)?;
    let said = owner.outcome("ports failed")?;
    if said.contains("ports failed") || owner.ended()? {
        note(measured, "dpdk/af-xdp", errors(&said));
        return Ok(());
    }
    note(measured, "dpdk/af-xdp", "runs".to_owned());
    measured.rate("rate-of-one-af-xdp", &lab)?;
    let said = dpdk.start(&[Port::Xdp(IN)])?.outcome("ports failed")?;
    note(measured, "dpdk/second-af-xdp", errors(&said));
    Ok(())
}

/// Four processes, each with the next by virtio-user and vhost.
fn row(measured: &mut Measured<'_>) -> anyhow::Result<()> {
    let lab = Lab::new(Kind::Processes)?;
    let dpdk = Dpdk::new(&lab.near)?;
    let made = || dpdk.row(ROW, Transport::Vhost, (IN, OUT));
    let row = RefCell::new(made()?);
    // Ended before others take their places.
    let renew = || {
        row.borrow_mut().clear();
        *row.borrow_mut() = made()?;
        anyhow::Ok(())
    };
    measured.rate("rate", &lab)?;
    let pids: Vec<u32> = row.borrow().iter().map(Process::pid).collect();
    measured.cpu(&lab, &pids)?;
    measured.passage("unchanged", &lab, |_| Ok(()), |_| Ok(()))?;

    let five = || dpdk.start(&[Port::Second(Transport::Vhost, BEFORE), Port::First(Transport::Vhost, NEW)]);
    let last = || dpdk.start(&[Port::Second(Transport::Vhost, NEW), Port::Packet(OUT)]);
    let ended = |row: &RefCell<Vec<Process>>| row.borrow_mut().truncate(ROW - 1);
    let mut takes = Vec::new();
    let stop_and_start = |_| {
        let start = Instant::now();
        ended(&row);
        let mut new = [five()?, last()?];
        new.iter_mut().try_for_each(Process::ready)?;
        takes.push(start.elapsed().as_secs_f64() * 1e3);
        row.borrow_mut().extend(new);
        Ok(())
    };
    measured.passage("add", &lab, stop_and_start, |_| renew())?;
    measured.row("add/takes", "ms", &takes);

    let start_and_stop = |_| {
        let mut new = [five()?, last()?];
        new.iter_mut().try_for_each(Process::ready)?;
        ended(&row);
        std::thread::sleep(WHILE);
        row.borrow_mut().extend(new);
        Ok(())
    };
    measured.passage("add-prepared", &lab, start_and_stop, |_| renew())?;

    let crash = |_| {
        let (before, after) = (format!("link{MIDDLE}"), format!("link{}", MIDDLE + 1));
        row.borrow_mut().remove(MIDDLE).kill();
        let mut again =
            dpdk.start(&[Port::Second(Transport::Vhost, &before), Port::First(Transport::Vhost, &after)])?;
        again.ready()?;
        std::thread::sleep(WHILE);
        row.borrow_mut().insert(MIDDLE, again);
        Ok(())
    };
    let mut neighbours = Vec::new();
    let after = |_| {
        let gone = row.borrow_mut().iter_mut().map(Process::ended).collect::<anyhow::Result<Vec<_>>>()?;
        neighbours.push(gone.iter().filter(|gone| **gone).count() as f64);
        renew()
    };
    measured.passage("crash", &lab, crash, after)?;
    measured.row("crash/neighbours-ended", "processes", &neighbours);
    Ok(())
}

/// Four processes, each with the next by memif.
fn memif(measured: &mut Measured<'_>) -> anyhow::Result<()> {
    let lab = Lab::new(Kind::Processes)?;
    let dpdk = Dpdk::new(&lab.near)?;
    let mut row = dpdk.row(ROW, Transport::Memif, (IN, OUT))?;
    measured.rate("rate-memif", &lab)?;
    let (mut neighbours, mut returns) = (Vec::new(), Vec::new());
    for run in 0..measured.runs {
        if run > 0 {
            row = dpdk.row(ROW, Transport::Memif, (IN, OUT))?;
        }
        let (before, after) = (format!("link{MIDDLE}"), format!("link{}", MIDDLE + 1));
        row.remove(MIDDLE).kill();
        let mut again =
            dpdk.start(&[Port::Second(Transport::Memif, &before), Port::First(Transport::Memif, &after)])?;
        again.outcome("Fail to start")?;
        std::thread::sleep(WHILE);
        returns.push(f64::from(u8::from(lab.copies(SHARED)? > 0.0)));
        let gone = row.iter_mut().map(Process::ended).collect::<anyhow::Result<Vec<_>>>()?;
        neighbours.push(gone.iter().filter(|gone| **gone).count() as f64);
        row.clear();
    }
    measured.row("memif-crash/neighbours-ended", "processes", &neighbours);
    measured.row("memif-crash/works-again", "of 1", &returns);
    Ok(())
}

fn note(measured: &mut Measured<'_>, of: &'static str, said: String) {
    eprintln!("{of}: {said}");
    measured.report.notes.push(Note { of, said });
}

/// What a process complained of, without what every process says; that it forwards when it does.
fn errors(said: &str) -> String {
    let complaints = ["annot", "ailed", "Fail", "not open", "rror -"];
    let lines = said.lines().map(str::trim).filter(|line| complaints.iter().any(|what| line.contains(what)));
    let lines: Vec<_> = lines.filter(|line| !line.contains("FATAL")).take(4).collect();
    if lines.is_empty() { "forwards".to_owned() } else { lines.join("; ") }
}
