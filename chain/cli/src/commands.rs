//! The commands, one in each file.

mod agent;
mod apply;
mod change;
mod check;
pub(crate) mod compiled;
mod completions;
mod components;
mod doctor;
mod edit;
mod features;
mod gate;
mod history;
mod man;
mod map;
mod outcome;
mod plan;
mod reasons;
mod save;
mod schema;
mod source;
mod state;
mod status;
mod test;
mod trial;

use xdpchain_host::Netns;

use crate::args::{Cli, Command};
use crate::error::Result;
use crate::output::Output;

/// Runs the command; the result is the exit status.
pub(crate) fn run(cli: Cli) -> Result<u8> {
    let Cli { common, command } = cli;
    let out = Output::new(common.output);
    if let Some(name) = &common.netns {
        Netns::enter(name)?;
    }
    match command {
        Command::Attach { iface, chain, mode, foreign, dry_run } => {
            let how =
                change::Attach { mode: mode.map(Into::into), foreign: foreign.into(), dry_run: dry_run.set };
            change::attach(&common, out, &iface, chain.as_deref(), how)
        }
        Command::Plan { ifaces } => plan::run(&common, out, &ifaces),
        Command::Apply { ifaces, confirm, no_wait, foreign, dry_run } => {
            let how = apply::How { confirm, no_wait, foreign: foreign.into(), dry_run: dry_run.set };
            apply::run(&common, out, &ifaces, how)
        }
        Command::Confirm => trial::confirm(out),
        Command::Rollback { iface, generation, dry_run } => {
            history::rollback(out, iface.as_deref(), generation, dry_run.set)
        }
        Command::History { iface } => history::history(out, &iface),
        Command::WatchTrial { id } => trial::watch(id),
        Command::Detach { iface, dry_run } => change::detach(out, &iface, dry_run.set),
        Command::Add(add) => edit::add(&common, out, &add),
        Command::Remove { iface, slot, how } => edit::remove(&common, out, &iface, &slot, how),
        Command::Replace { iface, slot, object, program, how } => {
            edit::replace(&common, out, (&iface, &slot), (&object, program.as_deref()), how)
        }
        Command::Move(to) => {
            edit::reposition(&common, out, (&to.iface, &to.slot), &to.place.position(), to.how)
        }
        Command::Features { iface } => features::run(out, iface.as_deref()),
        Command::Doctor => doctor::run(out),
        Command::Recover => change::recover(out),
        Command::Status { iface } => status::run(out, iface.as_deref()),
        Command::Test { paths, chain, explain } => test::run(&common, out, chain.as_deref(), &paths, explain),
        Command::Reasons { reasons } => reasons::run(out, &reasons),
        Command::Schema => schema::run(out),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { dir } => man::run(dir.as_deref()),
        Command::Map { command } => map::run(out, &command),
        Command::Agent => agent::run(&common, out),
        Command::Source { command } => source::run(&common, out, &command),
        Command::State { command } => state::run(out, &command),
        Command::Check { objects, program } => check::run(&common, out, &objects, program.as_deref()),
    }
}
