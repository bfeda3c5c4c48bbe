//! `doctor`: whether everything is as chains need it here, and the command that mends what is not.

use serde::Serialize;
use xdpchain_compose::object::Object;
use xdpchain_host::{Host, Manifest, probe};

use super::features::{self, EngineReport};
use crate::error::{Result, exit};
use crate::forwarding;
use crate::output::{Output, Page};

#[derive(Serialize)]
struct Doctor {
    engines: Vec<EngineReport>,
    chains: Vec<Chain>,
    /// What is not as it should be.
    problems: Vec<Problem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Chain {
    interface: String,
    chain: String,
    engine: &'static str,
    /// Why not by the engine before it.
    engine_reason: Option<String>,
    mode: &'static str,
}

#[derive(Serialize)]
struct Problem {
    /// The interface; none for the whole machine.
    interface: Option<String>,
    what: String,
    /// What to do.
    help: String,
}

pub(crate) fn run(out: Output) -> Result<u8> {
    let host = Host::open()?;
    let mut problems = Vec::new();
    let kernel = probe::kernel();
    let engines = features::engines(&kernel);
    if engines.iter().all(|report| !report.runs) {
        problems.push(Problem {
            interface: None,
            what: "no engine runs here".to_owned(),
            help: "run it as root; `xdpchain features` shows what the kernel answered".to_owned(),
        });
    }
    let mut chains = Vec::new();
    for ifname in host.interfaces()? {
        let status = host.status(&ifname)?;
        let manifest = &status.manifest;
        let mut problem = |what: String, help: String| {
            problems.push(Problem { interface: Some(ifname.clone()), what, help });
        };
        for what in &status.problems {
            problem(what.clone(), "xdpchain recover".to_owned());
        }
        if asks_for_routes(&host, manifest) {
            for (what, command) in forwarding::advice(&ifname) {
                problem(what, command);
            }
        }
        chains.push(Chain {
            interface: ifname.clone(),
            chain: manifest.state.chain.name.clone(),
            engine: manifest.engine.name(),
            engine_reason: manifest.engine_reason.clone(),
            mode: manifest.mode.name(),
        });
    }
    let doctor = Doctor { engines, chains, problems };
    out.print("Doctor", &doctor, |page| show(page, &doctor))?;
    Ok(if doctor.problems.is_empty() { exit::DONE } else { exit::NOT_READY })
}

/// Whether some slot's module asks for routes.
fn asks_for_routes(host: &Host, manifest: &Manifest) -> bool {
    let state = &manifest.state;
    state.chain.slots.iter().filter_map(|slot| state.modules.get(&slot.module)).any(|module| {
        let bytes = host.object(module.object).ok().flatten();
        let object = bytes.and_then(|bytes| Object::parse(&bytes).ok());
        object.is_some_and(|object| forwarding::looks_up_routes(&object, module.spec.program.as_deref()))
    })
}

fn show(page: &mut Page, doctor: &Doctor) {
    features::show_engines(page, &doctor.engines);
    page.line("");
    if doctor.chains.is_empty() {
        page.line("no interface of this network namespace has a chain");
    } else {
        page.table(
            &["INTERFACE", "CHAIN", "ENGINE", "MODE", "WHY THIS ENGINE"],
            doctor.chains.iter().map(|chain| {
                vec![
                    chain.interface.clone(),
                    chain.chain.clone(),
                    chain.engine.to_owned(),
                    chain.mode.to_owned(),
                    chain.engine_reason.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            }),
        );
    }
    page.line("");
    if doctor.problems.is_empty() {
        page.line("no problem found");
    }
    for Problem { interface, what, help } in &doctor.problems {
        let interface = interface.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        page.line(format!("{interface}{what}"));
        page.line(format!("  help: {help}"));
    }
}
