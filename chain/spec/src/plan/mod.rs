//! What leads from the chains that run to those that are wanted, step by step.
//!
//! A plan is made from what runs at one generation of each interface, and says which. Its steps, applied one after
//! the other, turn what runs into exactly what is wanted; each has an inverse, so the steps of any prefix lead back.
//! A state between two steps need not be a valid chain: all steps of an interface are one change.

mod between;
mod state;
mod step;
mod text;

use std::fmt;

use indexmap::IndexMap;
use serde::Serialize;

pub use state::{Build, ModuleBuild, Running, State};
pub use step::{ChainField, Change, ModuleField, SlotField, Step, StepError};
pub use text::{Line, Role};

/// The steps for every interface that has a chain or is to have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    interfaces: Vec<InterfacePlan>,
}

impl Plan {
    /// The plan from what runs to what is wanted, by interface. Interfaces come in the order of `wanted`, then those
    /// that run and are not wanted any more.
    pub fn between(running: &IndexMap<String, Running>, wanted: &IndexMap<String, State>) -> Self {
        let gone = running.keys().filter(|interface| !wanted.contains_key(*interface));
        let plan = |interface: &String| {
            InterfacePlan::between(interface, running.get(interface), wanted.get(interface))
        };
        Self { interfaces: wanted.keys().chain(gone).map(plan).collect() }
    }

    /// The interfaces, those included where nothing changes.
    pub fn interfaces(&self) -> &[InterfacePlan] {
        &self.interfaces
    }

    /// Whether everything runs as it is wanted.
    pub fn is_empty(&self) -> bool {
        self.interfaces.iter().all(InterfacePlan::is_empty)
    }

    /// The plan as text for people.
    pub fn lines(&self) -> Vec<Line> {
        self.interfaces.iter().flat_map(InterfacePlan::lines).collect()
    }
}

/// The plan as text for people, without colours.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// What becomes of the chain of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It runs as it is wanted.
    Keep,
    /// It is put on the interface, which had none.
    Attach,
    /// It is changed.
    Change,
    /// It is taken off.
    Detach,
}

/// The steps for one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfacePlan {
    interface: String,
    /// The name of the chain that is wanted, or of the one that goes.
    chain: Option<String>,
    action: Action,
    /// The generation that the plan was made from.
    generation: Option<u64>,
    steps: Vec<Step>,
    #[serde(skip)]
    before: Option<State>,
}

impl InterfacePlan {
    /// The plan from what runs on an interface to what is wanted there; none is no chain.
    pub fn between(interface: &str, running: Option<&Running>, wanted: Option<&State>) -> Self {
        let before = running.map(|running| &running.state);
        let steps = between::steps(before, wanted);
        let action = match (before, wanted) {
            _ if steps.is_empty() => Action::Keep,
            (None, _) => Action::Attach,
            (Some(_), Some(_)) => Action::Change,
            (Some(_), None) => Action::Detach,
        };
        Self {
            interface: interface.to_owned(),
            chain: wanted.or(before).map(|state| state.chain().name.clone()),
            action,
            generation: running.map(|running| running.generation),
            steps,
            before: before.cloned(),
        }
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What becomes of its chain.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The generation that the plan was made from; none when no chain ran. A plan is good for that generation only.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What ran when the plan was made.
    pub fn before(&self) -> Option<&State> {
        self.before.as_ref()
    }

    /// What the steps make of it.
    ///
    /// # Errors
    /// None for a plan that [`between`](Self::between) made.
    pub fn after(&self) -> Result<Option<State>, StepError> {
        let mut state = self.before.clone();
        self.steps.iter().try_for_each(|step| step.apply(&mut state))?;
        Ok(state)
    }

    /// The steps that take the first `count` steps back, in order.
    pub fn undo(&self, count: usize) -> Vec<Step> {
        self.steps.iter().take(count).rev().map(Step::inverse).collect()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The plan as text for people.
    pub fn lines(&self) -> Vec<Line> {
        text::lines(self)
    }
}

/// The plan as text for people, without colours.
impl fmt::Display for InterfacePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
