//! What of libxdp's is on an interface: its dispatcher, and the programs that this calls.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::config::{self, Entry};
use super::pins::Pins;
use crate::error::{Error, Result};
use crate::interface::{AttachPlace, AttachedProgram, Interface};
use crate::maps::Map;
use crate::sys::{self, ProgInfo};

/// Name of the dispatcher's program.
const DISPATCHER: &str = "xdp_dispatcher";

/// A program that the dispatcher calls.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) program: OwnedFd,
    pub(crate) info: ProgInfo,
    pub(crate) entry: Entry,
}

/// A dispatcher on an interface, with its programs in the order in which they run.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) dispatcher: OwnedFd,
    pub(crate) info: ProgInfo,
    pub(crate) place: AttachPlace,
    pub(crate) directory: PathBuf,
    pub(crate) components: Vec<Component>,
}

/// What is on an interface.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A dispatcher that can be read.
    Dispatcher(Box<Present>),
    /// Another program.
    Other(AttachedProgram),
}

impl Found {
    /// Reads what is on the interface.
    pub(crate) fn on(interface: &Interface, pins: &Pins) -> Result<Self> {
        let [program] = interface.programs.as_slice() else {
            return Ok(interface.programs.first().map_or(Self::Nothing, |program| Self::Other(*program)));
        };
        let other = Ok(Self::Other(*program));
        let Ok(dispatcher) = sys::prog_by_id(program.id) else { return other };
        let info =
            sys::prog_info(dispatcher.as_fd()).map_err(Error::query(format!("program {}", program.id)))?;
        let [map] = info.map_ids.as_slice() else { return other };
        if info.name != DISPATCHER {
            return other;
        }
        let config = sys::map_by_id(*map).map_err(Error::query("the dispatcher's map"))?;
        let config = Map::from_fd(config, DISPATCHER)?.lookup(&0u32.to_ne_bytes())?.unwrap_or_default();
        let Some(entries) = config::from_bytes(&config) else { return other };
        let Some(programs) = pins.programs(interface.index, info.id, entries.len())? else { return other };
        let mut components = Vec::with_capacity(entries.len());
        for (program, entry) in programs.into_iter().zip(entries) {
            let info =
                sys::prog_info(program.as_fd()).map_err(Error::query("a program of the dispatcher"))?;
            components.push(Component { program, info, entry });
        }
        let directory = pins.of(interface.index, info.id);
        Ok(Self::Dispatcher(Box::new(Present {
            dispatcher,
            info,
            place: program.place,
            directory,
            components,
        })))
    }

    /// The dispatcher, when there is one.
    pub(crate) fn dispatcher(&self) -> Option<&Present> {
        match self {
            Self::Dispatcher(present) => Some(present),
            Self::Nothing | Self::Other(_) => None,
        }
    }

    /// The programs that the dispatcher calls.
    pub(crate) fn components(&self) -> &[Component] {
        self.dispatcher().map_or(&[], |present| &present.components)
    }
}
