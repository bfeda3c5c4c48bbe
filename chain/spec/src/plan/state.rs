//! What a plan is made between: a chain, and the builds of its modules.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::{ChainSpec, MapOverride, ModuleSpec, ObjectRef};

/// A chain with its modules, as it runs on an interface or is to run there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    pub(super) chain: ChainSpec,
    pub(super) modules: BTreeMap<String, ModuleBuild>,
}

impl State {
    /// The chain with its modules by name: those that its slots name, and those that their imports lead to. Which other
    /// interfaces the chain is for is no part of what runs on one, and is left out; so are entries that say nothing.
    pub fn new(chain: &ChainSpec, mut modules: BTreeMap<String, ModuleBuild>) -> Self {
        for module in modules.values_mut() {
            module.spec.maps.retain(|_, change| *change != MapOverride::default());
            module.spec.programs.retain(|_, programs| !programs.is_empty());
        }
        Self { chain: ChainSpec { interfaces: Vec::new(), ..chain.clone() }, modules }
    }

    /// The chain, for no interface.
    pub fn chain(&self) -> &ChainSpec {
        &self.chain
    }

    /// The modules by name.
    pub fn modules(&self) -> &BTreeMap<String, ModuleBuild> {
        &self.modules
    }
}

/// What runs on an interface, with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The generation.
    pub generation: u64,
    /// What it is.
    pub state: State,
}

/// A module and the build of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleBuild {
    /// What is asked of it.
    #[serde(flatten)]
    pub spec: ModuleSpec,
    /// SHA-256 of the object's octets, hexadecimal.
    pub sha256: String,
}

impl ModuleBuild {
    /// The object and its digest.
    pub fn build(&self) -> Build {
        Build { object: self.spec.object.clone(), sha256: self.sha256.clone() }
    }
}

/// An object: where it is from, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Where it is from.
    pub object: ObjectRef,
    /// SHA-256 of its octets, hexadecimal.
    pub sha256: String,
}

impl Build {
    /// The digest's first 12 digits.
    pub(super) fn short(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sha256 {})", self.object, self.short())
    }
}
