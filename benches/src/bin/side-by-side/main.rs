//! Four applications of four authors on one interface and one CPU: a chain, and processes of DPDK. What they forward, what
//! they take of the CPU, what a fifth costs while packets flow, and what a crash of one does.

mod chain;
mod dpdk;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use xdpchain_benches::cpu::{self, Preferred};
use xdpchain_benches::lab::{Lab, Passage};
use xdpchain_benches::report::{Note, Report, Row, bar};

/// Measures applications that share an interface.
#[derive(Parser)]
struct Options {
    /// How often each thing is measured
    #[arg(long, default_value_t = 7)]
    runs: usize,
}

/// Traffic before and after what happens under it.
const AROUND: Duration = Duration::from_millis(700);
/// How long the use of the CPU is measured.
const CPU_TIME: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<ExitCode> {
    let Options { runs } = Options::parse();
    let _preferred = Preferred::new();
    cpu::pin(std::process::id(), &cpu::others()?)?;
    let mut report = Report::new("side-by-side");
    // What else runs takes from what is measured.
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let said = load.split(' ').next().unwrap_or_default().to_owned();
    report.notes.push(Note { of: "machine/load", said });
    chain::measure(runs, &mut report)?;
    dpdk::measure(runs, &mut report)?;
    report.finish()?;
    Ok(if judge(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is done to both sides alike.
struct Measured<'a> {
    report: &'a mut Report,
    side: &'static str,
    runs: usize,
}

impl Measured<'_> {
    /// Packets a second that get through.
    fn rate(&mut self, case: &str, lab: &Lab) -> anyhow::Result<()> {
        let runs = (0..self.runs).map(|_| lab.rate()).collect::<anyhow::Result<Vec<_>>>()?;
        self.row(case, "packets/s", &runs);
        Ok(())
    }

    /// What `pids` take of the CPU while nothing comes, and while steady traffic does.
    fn cpu(&mut self, lab: &Lab, pids: &[u32]) -> anyhow::Result<()> {
        let share = |_| cpu::share(pids, CPU_TIME);
        let idle = (0..self.runs).map(share).collect::<anyhow::Result<Vec<_>>>()?;
        self.row("cpu-idle", "% of a CPU", &idle);
        let loaded = |_| Ok(lab.steady(|| cpu::share(pids, CPU_TIME))?.0);
        let loaded = (0..self.runs).map(loaded).collect::<anyhow::Result<Vec<_>>>()?;
        self.row("cpu-loaded", "% of a CPU", &loaded);
        Ok(())
    }

    /// What becomes of steady traffic while `action` happens, `runs` times; `after` puts back what was before.
    fn passage(
        &mut self,
        case: &str,
        lab: &Lab,
        mut action: impl FnMut(usize) -> anyhow::Result<()>,
        mut after: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut passages = Vec::new();
        for run in 0..self.runs {
            let ((), passage) = lab.steady(|| {
                std::thread::sleep(AROUND);
                action(run)?;
                std::thread::sleep(AROUND);
                Ok(())
            })?;
            passages.push(passage);
            after(run)?;
        }
        let all = |of: fn(&Passage) -> f64| passages.iter().map(of).collect::<Vec<_>>();
        self.row(&format!("{case}/lost"), "packets", &all(|passage| f64::from(passage.lost)));
        self.row(&format!("{case}/refused"), "packets", &all(|passage| f64::from(passage.refused)));
        self.row(&format!("{case}/duplicated"), "packets", &all(|passage| f64::from(passage.duplicated)));
        self.row(&format!("{case}/sent"), "packets", &all(|passage| f64::from(passage.sent)));
        let gap = |passage: &Passage| passage.longest.map_or(f64::NAN, |gap| gap.as_secs_f64() * 1e3);
        self.row(&format!("{case}/longest-gap"), "ms", &all(gap));
        Ok(())
    }

    fn row(&mut self, case: &str, unit: &'static str, runs: &[f64]) {
        let row = Row::of(format!("{}/{case}", self.side), unit, runs);
        eprintln!("{}: {:.1} {unit}", row.case, row.value);
        self.report.rows.push(row);
        // Where one run of many is what matters.
        let worst = runs.iter().copied().fold(f64::MIN, f64::max);
        if case.ends_with("/lost") || case.ends_with("/longest-gap") || case.starts_with("cpu-") {
            let case = format!("{}/{case}-worst", self.side);
            self.report.rows.push(Row { runs: runs.len(), ..Row::of(case, unit, &[worst]) });
        }
    }
}

/// The bars that a chain has to keep.
fn judge(report: &Report) -> bool {
    let of = |case: &str| report.value(case).unwrap_or(f64::INFINITY);
    println!();
    let kept = [
        bar("CPU of an idle chain, %, of all runs", of("chain/cpu-idle-worst"), 0.0),
        bar("packets lost by adding a fifth module, in any run", of("chain/add/lost-worst"), 0.0),
    ];
    kept.iter().all(|kept| *kept)
}
