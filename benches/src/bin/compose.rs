//! What a slot costs: the same small modules as one hand-written function, fused, tail called, and called.

use std::process::ExitCode;
use std::time::Instant;

use xdpchain_benches::chains::{Engine, bare, composed};
use xdpchain_benches::measure::{Case, in_turn};
use xdpchain_benches::programs::compile;
use xdpchain_benches::report::{Report, Row, bar};
use xdpchain_compose::{fused, tail};
use xdpchain_host::load::load;

const COUNTS: [usize; 5] = [1, 2, 5, 10, 20];
const ROUNDS: usize = 61;
const REPEAT: u32 = 100_000;
const XDP_PASS: u32 = 2;

fn main() -> anyhow::Result<ExitCode> {
    let mut report = Report::new("compose");
    let mut cases = vec![alone("pass", "floor/pass", &[])?];
    for slots in COUNTS {
        cases.push(alone("monolith", &format!("monolith/{slots}"), &[("SLOTS", slots)])?);
        cases.push(alone("calls", &format!("calls/{slots}"), &[("SLOTS", slots)])?);
        let modules: Vec<Vec<u8>> =
            (0..slots).map(|slot| compile("module", &[("SLOT", slot)])).collect::<anyhow::Result<_>>()?;
        for (name, engine) in [
            ("fused", fused::compose as Engine),
            ("uncounted", fused::compose_uncounted),
            ("tail", tail::compose),
        ] {
            let (mut composing, mut loading) = (Vec::new(), Vec::new());
            for _ in 0..11 {
                let (start, image) = (Instant::now(), composed(&modules, engine)?);
                let composed = start.elapsed();
                let loaded = load(&image, &mut |_| Ok(None))?;
                composing.push(composed.as_secs_f64() * 1e3);
                loading.push((start.elapsed() - composed).as_secs_f64() * 1e3);
                drop(loaded);
            }
            let loaded = load(&composed(&modules, engine)?, &mut |_| Ok(None))?;
            if name != "uncounted" {
                report.rows.push(Row::of(format!("{name}-compose/{slots}"), "ms", &composing));
                report.rows.push(Row::of(format!("{name}-load/{slots}"), "ms", &loading));
            }
            if name == "fused" {
                let verified = f64::from(loaded.info.verified_insns);
                report.rows.push(Row::of(format!("{name}-verified/{slots}"), "instructions", &[verified]));
            }
            cases.push(Case {
                name: format!("{name}/{slots}"),
                loaded,
                verdict: XDP_PASS,
                rounds: Vec::new(),
            });
        }
    }
    in_turn(&mut cases, &[0; 64], ROUNDS, REPEAT)?;
    report.rows.extend(cases.iter().map(|case| Row::of(&case.name, "ns", &case.rounds)));
    report.keep_counted()?;
    report.finish()?;
    Ok(if judge(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A program that needs no composing.
fn alone(source: &str, name: &str, macros: &[(&str, usize)]) -> anyhow::Result<Case> {
    let image = bare(&compile(source, macros)?)?;
    let loaded = load(&image, &mut |_| Ok(None))?;
    Ok(Case { name: name.to_owned(), loaded, verdict: XDP_PASS, rounds: Vec::new() })
}

/// The bars that composition has to keep.
fn judge(report: &Report) -> bool {
    let ns = |case: &str| report.value(case).expect("every case has run");
    println!();
    let kept = [
        bar("fused/10 to monolith/10", ns("fused/10") / ns("monolith/10"), 1.25),
        bar(
            "ten more slots, fused to called",
            (ns("fused/20") - ns("fused/10")) / (ns("calls/20") - ns("calls/10")),
            0.35,
        ),
        bar("tail/10 to calls/10", ns("tail/10") / ns("calls/10"), 1.15),
        bar("exit accounting of ten slots, ns", ns("fused/10") - ns("uncounted/10"), 3.0),
        bar("compose and load ten slots, ms", ns("fused-compose/10") + ns("fused-load/10"), 50.0),
        bar(
            "verified instructions a slot, twenty slots to ten",
            ns("fused-verified/20") / ns("fused-verified/10") / 2.0,
            1.1,
        ),
    ];
    kept.iter().all(|k| *k)
}
