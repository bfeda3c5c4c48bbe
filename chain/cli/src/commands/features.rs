//! `features`: what this kernel can do, and an interface's driver; and which engines run here.

use serde::Serialize;
use xdpchain_host::probe::{self, Feature, feature};
use xdpchain_host::{AttachedProgram, Interface, xdp_features};

use crate::error::{Result, exit};
use crate::output::{Output, Page};

#[derive(Serialize)]
struct Features {
    kernel: Vec<KernelFeature>,
    engines: Vec<EngineReport>,
    interface: Option<InterfaceFeatures>,
}

#[derive(Serialize)]
struct KernelFeature {
    feature: &'static str,
    here: bool,
    /// What the kernel answered.
    answer: Option<String>,
    purpose: &'static str,
}

/// Whether an engine runs here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EngineReport {
    pub(crate) engine: &'static str,
    pub(crate) runs: bool,
    /// What it lacks.
    pub(crate) missing: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceFeatures {
    interface: String,
    kind: Option<String>,
    mtu: u32,
    /// None when this kernel does not tell without attaching something.
    native: Option<bool>,
    redirect: Option<bool>,
    receives_redirected: Option<bool>,
    frags: Option<bool>,
    /// The programs that run on it.
    programs: Vec<Running>,
}

#[derive(Serialize)]
struct Running {
    program: u32,
    mode: &'static str,
}

/// Which engines run on a kernel with these features.
pub(crate) fn engines(kernel: &[Feature]) -> Vec<EngineReport> {
    let there = |name: &str| kernel.iter().any(|feature| feature.name == name && feature.missing.is_none());
    let wanted: [(&'static str, &[&'static str]); 3] = [
        ("fused", &[feature::PROGRAMS, feature::LINKS]),
        // Its programs tail call, and some modules have subprograms.
        ("tail", &[feature::PROGRAMS, feature::LINKS, feature::MIXING]),
        ("libxdp", &[feature::PROGRAMS, feature::EXTENSIONS]),
    ];
    let report = |(engine, needs): (&'static str, &[&'static str])| {
        let missing: Vec<_> = needs.iter().copied().filter(|need| !there(need)).collect();
        EngineReport { engine, runs: missing.is_empty(), missing }
    };
    wanted.into_iter().map(report).collect()
}

pub(crate) fn run(out: Output, iface: Option<&str>) -> Result<u8> {
    let interface = iface.map(interface).transpose()?;
    let kernel = probe::kernel();
    let features = Features {
        engines: engines(&kernel),
        kernel: kernel
            .into_iter()
            .map(|feature| KernelFeature {
                feature: feature.name,
                here: feature.missing.is_none(),
                answer: feature.missing,
                purpose: feature.purpose,
            })
            .collect(),
        interface,
    };
    out.print("Features", &features, |page| show(page, &features))?;
    Ok(exit::DONE)
}

fn interface(name: &str) -> Result<InterfaceFeatures> {
    let interface = Interface::by_name(name)?;
    let told = match xdp_features(interface.index) {
        Ok(told) => told,
        Err(error) => {
            tracing::debug!("the driver of `{name}` cannot be asked: {error}");
            None
        }
    };
    let running = |program: &AttachedProgram| Running { program: program.id, mode: program.place.name() };
    Ok(InterfaceFeatures {
        interface: interface.name,
        kind: interface.kind,
        mtu: interface.mtu,
        native: told.map(|told| told.basic()),
        redirect: told.map(|told| told.redirect()),
        receives_redirected: told.map(|told| told.receives_redirected()),
        frags: told.map(|told| told.frags()),
        programs: interface.programs.iter().map(running).collect(),
    })
}

fn yes(known: Option<bool>) -> String {
    match known {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "this kernel does not tell; `attach` finds out".to_owned(),
    }
}

fn show(page: &mut Page, features: &Features) {
    page.table(
        &["FEATURE", "HERE", "FOR"],
        features.kernel.iter().map(|feature| {
            let here = match &feature.answer {
                None => "yes".to_owned(),
                Some(answer) => format!("no: {answer}"),
            };
            vec![feature.feature.to_owned(), here, feature.purpose.to_owned()]
        }),
    );
    page.line("");
    show_engines(page, &features.engines);
    let Some(interface) = &features.interface else { return };
    page.line("");
    let kind = interface.kind.as_deref().unwrap_or("a device with a driver");
    page.line(format!("{}: {kind}, MTU {}", interface.interface, interface.mtu));
    page.table(
        &["DRIVER", ""],
        [
            ("native mode", interface.native),
            ("verdict redirect", interface.redirect),
            ("sends what is redirected to it", interface.receives_redirected),
            ("packets in several buffers", interface.frags),
        ]
        .map(|(what, known)| vec![what.to_owned(), yes(known)]),
    );
    for Running { program, mode } in &interface.programs {
        page.line(format!("program {program} runs on it, in {mode} mode"));
    }
}

pub(crate) fn show_engines(page: &mut Page, engines: &[EngineReport]) {
    page.table(
        &["ENGINE", "RUNS HERE"],
        engines.iter().map(|report| {
            let runs = match report.runs {
                true => "yes".to_owned(),
                false => format!("no: needs {}", report.missing.join(", ")),
            };
            vec![report.engine.to_owned(), runs]
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_runs_where_nothing_that_it_needs_is_missing() {
        let feature =
            |name, missing: Option<&str>| Feature { name, purpose: "", missing: missing.map(str::to_owned) };
        let kernel = [
            feature(feature::PROGRAMS, None),
            feature(feature::LINKS, None),
            feature(feature::MIXING, Some("Invalid argument")),
        ];
        let runs: Vec<_> = engines(&kernel).into_iter().map(|e| (e.engine, e.runs, e.missing)).collect();
        assert_eq!(
            runs,
            [
                ("fused", true, vec![]),
                ("tail", false, vec![feature::MIXING]),
                ("libxdp", false, vec![feature::EXTENSIONS])
            ]
        );
    }
}
