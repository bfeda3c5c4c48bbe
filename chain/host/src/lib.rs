//! The kernel side: bpf system calls, links, pins, interfaces, transactions.
//!
//! [`Host`] is the network namespace that a command works in. Every changing operation holds its lock, prepares
//! everything that can fail, commits by one compare-and-swap of the interface's link, and takes back what it prepared
//! when anything fails: at any instant the generation before or the one after runs whole.
#![deny(unsafe_code)]

mod adopt;
mod attach;
mod collect;
pub mod compiled;
pub mod cpus;
mod detach;
mod error;
mod ethtool;
mod exits;
mod features;
mod fill;
mod genl;
mod host;
mod interface;
mod kernel;
pub mod libxdp;
pub mod load;
mod lock;
mod manifest;
mod maps;
mod measure;
mod migrate;
mod netdev;
mod netns;
mod places;
pub mod probe;
mod recover;
mod rename;
mod status;
mod store;
mod swap;
// The system calls are the one place of user space that cannot do without.
#[allow(unsafe_code)]
pub mod sys;
mod transaction;
mod trial;
mod undo;
mod verifier;

pub use adopt::{Adopted, Foreign};
pub use detach::Detached;
pub use error::{BoxError, Class, Error, Result};
pub use exits::{Carried, Count, Exits, SlotExits};
pub use fill::Fill;
pub use host::Host;
pub use interface::{AttachPlace, AttachedProgram, Interface};
pub use kernel::RunningKernel;
pub use libxdp::{ComponentRecord, ComponentStatus};
pub use manifest::{
    AttachMode, BadObjectId, ChainState, Manifest, MapRecord, ModuleState, ObjectId, Objects, ProgramRecord,
};
pub use maps::{Batches, Entries, Map, MapName, MapUser};
pub use measure::{Measured, measure};
pub use migrate::snapshot::{Since, Snapshot};
pub use migrate::{Migrated, can_become};
pub use netdev::{XdpFeatures, xdp_features};
pub use netns::Netns;
pub use places::{ENV_BPFFS, ENV_RUN, NetnsPlaces, Places, escape, unescape};
pub use recover::Recovered;
pub use status::{ChainStatus, MapStatus};
pub use transaction::{Candidate, Change, Compose, Composed, Desired, Edit, Gate, Outcome, Terms, To, Want};
pub use trial::{OnTrial, Trial, TrialTerms};
pub use verifier::{Refusal, SourceLine};
