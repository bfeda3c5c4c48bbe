//! What chains.yaml says, typed.
//!
//! Every name is checked, every reference resolves, and relative paths have been made relative to
//! the file's folder before one of these leaves [`Config::parse`](crate::Config).

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::{AgentSpec, GateSpec, SourceSpec, Verdict, VerdictSet, WatchSpec, parse};

/// The one version of the file's format that is understood.
pub const VERSION: u32 = 1;

/// What stands in front of the name of an object that is part of the binary.
pub const BUILTIN_PREFIX: &str = "builtin:";

/// All of a chains.yaml.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The modules by name, in the order of the file.
    pub modules: IndexMap<String, ModuleSpec>,
    /// The chains by name, in the order of the file.
    pub chains: IndexMap<String, ChainSpec>,
    /// The database tables that fill maps, by name.
    pub sources: IndexMap<String, SourceSpec>,
    /// What the agent is told.
    #[serde(default)]
    pub agent: AgentSpec,
}

/// A module: one ELF object and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleSpec {
    /// Where the object is.
    pub object: ObjectRef,
    /// Name of the XDP program in it; needed only when it has several.
    pub program: Option<String>,
    /// What is changed of the object's map definitions, by the map's name.
    pub maps: IndexMap<String, MapOverride>,
    /// Maps that are not the module's own, by the name that the object gives them.
    pub imports: IndexMap<String, MapRef>,
    /// What program arrays of the object hold, beside what the object says: by the array's name, by entry, the name of
    /// a program of the same object.
    #[serde(default)]
    pub programs: IndexMap<String, IndexMap<u32, String>>,
    /// The maps that other modules may import; when not given, every map but those that are the program's inside.
    #[serde(default)]
    pub exports: Option<Vec<String>>,
    /// How entries of a map are carried over when another build of the module lays them out differently, by the map's
    /// name.
    #[serde(default)]
    pub migrate: IndexMap<String, MigrateSpec>,
}

/// What BTF does not say about the step from one layout of a map to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateSpec {
    /// Fields that have another name in the new layout: old path, new path; nested fields with dots between.
    #[serde(default)]
    pub renames: IndexMap<String, String>,
    /// Fields of the new layout that do not count anything: where both programs wrote one while entries were carried
    /// over, the new program's value stays, instead of both increases being added up.
    #[serde(default)]
    pub newest: Vec<String>,
}

impl ModuleSpec {
    /// A module that takes everything as `object` has it.
    pub fn new(object: ObjectRef) -> Self {
        Self {
            object,
            program: None,
            maps: IndexMap::new(),
            imports: IndexMap::new(),
            programs: IndexMap::new(),
            exports: None,
            migrate: IndexMap::new(),
        }
    }
}

/// Where a module's object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ObjectRef {
    /// Part of the xdpchain binary, by name.
    Builtin(String),
    /// A file.
    File(PathBuf),
}

/// As chains.yaml writes it: `builtin:acl`, or a path.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "{BUILTIN_PREFIX}{name}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for ObjectRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix(BUILTIN_PREFIX) {
            Some(name) => Self::Builtin(name.to_owned()),
            None => Self::File(text.into()),
        })
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Builtin(_) => serializer.collect_str(self),
            Self::File(path) => match path.to_str() {
                Some(path) => serializer.serialize_str(path),
                None => Err(ser::Error::custom("the path of an object is not UTF-8")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for ObjectRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse::text(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What is changed of one map's definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapOverride {
    /// Entries at most (octets for a ring buffer); as in the object when not given.
    pub max_entries: Option<u32>,
}

/// A map of a module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapRef {
    /// The module's name in chains.yaml.
    pub module: String,
    /// The map's name in the object.
    pub map: String,
}

/// As chains.yaml writes it: `module/map`.
impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.module, self.map)
    }
}

/// Text that names no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no map\nhelp: write it as `module/map`")]
pub struct BadMapRef {
    /// The text.
    pub text: String,
}

impl FromStr for MapRef {
    type Err = BadMapRef;

    fn from_str(text: &str) -> Result<Self, BadMapRef> {
        match text.split_once('/') {
            Some((module, map)) if !module.is_empty() && !map.is_empty() && !map.contains('/') => {
                Ok(Self { module: module.to_owned(), map: map.to_owned() })
            }
            _ => Err(BadMapRef { text: text.to_owned() }),
        }
    }
}

impl Serialize for MapRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MapRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A chain: an ordered list of slots, the same on each of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSpec {
    /// Its name in chains.yaml.
    pub name: String,
    /// The interfaces that it is for. No interface has two chains.
    pub interfaces: Vec<String>,
    /// How it becomes what the kernel runs.
    pub engine: Engine,
    /// Where in the receive path it is attached.
    pub mode: Mode,
    /// The chain's verdict when every slot in order proceeded.
    pub default: ChainDefault,
    /// The slots. Those [in order](Place::Order) run as they stand here; at least one is in order, and no module
    /// is in two.
    pub slots: Vec<SlotSpec>,
    /// The packets that a new generation must treat as told before it may run.
    #[serde(default)]
    pub gate: Option<GateSpec>,
    /// What the counters of a new generation must not show.
    #[serde(default)]
    pub watch: Option<WatchSpec>,
}

impl ChainSpec {
    /// A chain of these slots, for no interface, with everything else as chains.yaml has it when nothing is said.
    pub fn new(name: impl Into<String>, slots: Vec<SlotSpec>) -> Self {
        Self {
            name: name.into(),
            interfaces: Vec::new(),
            engine: Engine::Auto,
            mode: Mode::Auto,
            default: ChainDefault::Keep,
            slots,
            gate: None,
            watch: None,
        }
    }

    /// The slots that run in order, observers among them included.
    pub fn in_order(&self) -> impl Iterator<Item = &SlotSpec> {
        self.slots.iter().filter(|slot| slot.at == Place::Order)
    }

    /// The slots that run once at the end, for every packet.
    pub fn at_exit(&self) -> impl Iterator<Item = &SlotSpec> {
        self.slots.iter().filter(|slot| slot.at == Place::Exit)
    }

    /// The slot of that name.
    pub fn slot(&self, name: &str) -> Option<&SlotSpec> {
        self.slots.iter().find(|slot| slot.name == name)
    }
}

/// How a chain becomes what the kernel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The fastest that can run the chain.
    #[default]
    Auto,
    /// All modules joined into one program.
    Fused,
    /// A program for each module, joined by tail calls.
    Tail,
    /// libxdp's dispatcher.
    Libxdp,
}

impl Engine {
    /// The name in chains.yaml and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fused => "fused",
            Self::Tail => "tail",
            Self::Libxdp => "libxdp",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where in the receive path a chain is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Native when the driver can, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, after the driver has made an skb.
    Generic,
}

impl Mode {
    /// The name in chains.yaml and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A chain's verdict when every slot in order proceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChainDefault {
    /// The verdict of the last slot that is no observer; pass when there is none.
    #[default]
    Keep,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_DROP`.
    Drop,
}

impl ChainDefault {
    /// The name in chains.yaml and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for ChainDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A module at its place in a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotSpec {
    /// The slot's name, the module's.
    pub name: String,
    /// The module that runs in it.
    pub module: String,
    /// The verdicts after which the next slot runs; when not given, what the object's `.xdp_run_config` says, else
    /// pass alone. Never given for an observer.
    pub proceed_on: Option<VerdictSet>,
    /// The chain's verdict when the module returns a number that is none.
    pub on_unknown: Verdict,
    /// The module's verdict is ignored: the next slot always runs, and the chain's verdict stays as it was.
    pub observer: bool,
    /// When it runs. A slot at exit is always an observer.
    pub at: Place,
}

impl SlotSpec {
    /// A slot for `module` with everything else as chains.yaml has it when nothing is said.
    pub fn new(module: impl Into<String>) -> Self {
        let module = module.into();
        Self {
            name: module.clone(),
            module,
            proceed_on: None,
            on_unknown: Verdict::Aborted,
            observer: false,
            at: Place::Order,
        }
    }
}

/// When a slot runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In order, when the slots before it proceeded.
    #[default]
    Order,
    /// Once at the end, for every packet, with the chain's final verdict in the packet context.
    Exit,
}
