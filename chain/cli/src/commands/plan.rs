//! `xdpchain plan`: what leads from what runs to what chains.yaml says.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Serialize;
use xdpchain_host::{ChainState, Host, Objects};
use xdpchain_spec::plan::{Role, Running};
use xdpchain_spec::{Config, Plan};

use crate::args::Common;
use crate::assemble;
use crate::config;
use crate::error::{Error, Result, exit};
use crate::output::{Output, Page};

/// What each interface is to run, by its name, with the objects for it; an interface that is to run nothing is left out.
pub(crate) type Wanted = IndexMap<String, (ChainState, Objects)>;

pub(crate) fn run(common: &Common, out: Output, ifaces: &[String]) -> Result<u8> {
    let (file, plan, _) = make(common, &Host::open()?, ifaces)?;
    show(out, &file, &plan)?;
    Ok(if plan.is_empty() { exit::DONE } else { exit::NOT_READY })
}

/// Plans what chains.yaml says for the interfaces, or for all of its own and all that run a chain: the file, the plan, and
/// what it leads to. Chains that cannot be composed are refused, so modules' contracts hold in a plan.
pub(crate) fn make(common: &Common, host: &Host, ifaces: &[String]) -> Result<(PathBuf, Plan, Wanted)> {
    let (config, file) = config::read(common.file.as_deref())?;
    let mut running = IndexMap::new();
    let mut adopted = Vec::new();
    for iface in host.interfaces()? {
        let manifest = host.manifest(&iface)?;
        if manifest.adopted.is_some() {
            adopted.push(iface.clone());
        }
        let state = manifest.state.planned();
        running.insert(iface, Running { generation: manifest.generation, state });
    }
    select(&config, &file, &mut running, ifaces)?;
    let mut wanted = Wanted::new();
    for chain in config.chains.values() {
        let on: Vec<_> =
            chain.interfaces.iter().filter(|iface| ifaces.is_empty() || ifaces.contains(iface)).collect();
        if on.is_empty() {
            continue;
        }
        config::supported(chain)?;
        let in_file = |error: Error| error.in_file(&file);
        let (mut state, objects) = assemble::chain_state(&config, chain).map_err(in_file)?;
        assemble::compose(&state, &objects, None).map_err(in_file)?;
        assemble::make_absolute(&mut state)?;
        for iface in on {
            let (mut state, mut objects) = (state.clone(), objects.clone());
            if adopted.contains(iface) {
                assemble::add_adopted(&mut state, &mut objects)?;
            }
            wanted.insert(iface.clone(), (state, objects));
        }
    }
    let states = wanted.iter().map(|(iface, (state, _))| (iface.clone(), state.planned())).collect();
    let plan = Plan::between(&running, &states);
    Ok((file, plan, wanted))
}

/// Leaves only what was asked about, which must be something.
fn select(
    config: &Config,
    file: &Path,
    running: &mut IndexMap<String, Running>,
    ifaces: &[String],
) -> Result<()> {
    let of_file = || config.chains.values().flat_map(|chain| &chain.interfaces);
    for iface in ifaces {
        if !running.contains_key(iface) && !of_file().any(|known| known == iface) {
            let mut known: Vec<&String> = of_file().collect();
            known.extend(running.keys().filter(|iface| of_file().all(|known| known != *iface)));
            let (file, iface) = (file.to_owned(), iface.clone());
            return Err(Error::NothingToPlan { file, iface, known: config::listed(known) });
        }
    }
    if !ifaces.is_empty() {
        running.retain(|iface, _| ifaces.contains(iface));
    }
    Ok(())
}

/// Prints a plan.
pub(crate) fn show(out: Output, file: &Path, plan: &Plan) -> Result<()> {
    #[derive(Serialize)]
    struct Printed<'a> {
        file: &'a Path,
        /// Whether anything has to change.
        differs: bool,
        #[serde(flatten)]
        plan: &'a Plan,
    }
    out.print("Plan", &Printed { file, differs: !plan.is_empty(), plan }, |page| lines(page, plan))
}

fn lines(page: &mut Page, plan: &Plan) {
    if plan.interfaces().is_empty() {
        page.line("chains.yaml names no interface, and no chain runs");
    }
    for line in plan.lines() {
        let colour = match line.role {
            Role::Heading => "1",
            Role::Same => "0",
            Role::Added => "32",
            Role::Removed => "31",
            Role::Changed => "33",
            Role::Moved => "36",
        };
        page.coloured(colour, line.to_string());
    }
}
