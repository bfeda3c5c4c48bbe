//! chains.yaml as a typed chain: parsing, validation, and the edits that `add` and `remove` make.
//!
//! Pure: text goes in, types or an error with its place in the text come out. A [`Config`] that
//! [`Config::parse`] returns has passed every check that needs no object file and no kernel.
#![forbid(unsafe_code)]

mod agent;
mod check;
mod edit;
mod error;
mod guard;
mod model;
mod parse;
pub mod plan;
pub mod save;
mod schema;
mod secret;
mod source;
mod tree;
mod units;
mod verdict;

pub use agent::{AgentSpec, BadLoopback, Loopback};
pub use check::{is_interface, is_name};
pub use edit::{EditError, Position};
pub use error::{Problem, SpecError, near};
pub use guard::{GateSpec, WatchSpec};
pub use model::{
    BUILTIN_PREFIX, BadMapRef, ChainDefault, ChainSpec, Config, Engine, MapOverride, MapRef, MigrateSpec,
    Mode, ModuleSpec, ObjectRef, Place, SlotSpec, VERSION,
};
pub use plan::{InterfacePlan, Plan};
pub use schema::schema;
pub use secret::redact;
pub use source::{BadDatabase, Cast, ColumnSpec, Constant, Database, PostgresUrl, SourceSpec};
pub use units::{BadPercentage, BadTimespan, Percentage, Timespan};
pub use verdict::{UnknownVerdict, Verdict, VerdictSet};
