//! Edits of a chain: what `add`, `remove` and `move` do to its list of slots.
//!
//! An edit that fails leaves the chain as it was; a chain that was valid stays valid.

use crate::{ChainSpec, Place, SlotSpec};

/// Where a slot is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before every other slot.
    First,
    /// After every other slot in order.
    Last,
    /// Right before the slot of that name.
    Before(String),
    /// Right after the slot of that name.
    After(String),
}

/// Why a chain cannot be edited so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// There is no slot of that name.
    #[error("chain `{chain}` has no slot `{slot}`\nhelp: its slots are {slots}")]
    NoSlot {
        /// The chain.
        chain: String,
        /// The name that was asked for.
        slot: String,
        /// The slots that there are, for people.
        slots: String,
    },
    /// There is a slot of that name already.
    #[error(
        "chain `{chain}` has a slot `{slot}` already\nhelp: give the new one another name with `--name`, or use \
         `xdpchain replace` to put another object in its place"
    )]
    SlotExists {
        /// The chain.
        chain: String,
        /// The name.
        slot: String,
    },
    /// The module is in a slot of the chain already.
    #[error(
        "module `{module}` is in slot `{slot}` of chain `{chain}` already\nhelp: a module cannot be in one chain \
         twice yet; give the object another module name with `--name`"
    )]
    ModuleTwice {
        /// The chain.
        chain: String,
        /// The module.
        module: String,
        /// The slot that it is in.
        slot: String,
    },
    /// A slot in order cannot come after one that runs at exit.
    #[error(
        "slot `{slot}` runs in order and cannot be after `{exit}`, which runs at exit\nhelp: use `--last` to put \
         it after every other slot in order"
    )]
    AfterExit {
        /// The new slot.
        slot: String,
        /// The slot at exit.
        exit: String,
    },
    /// The slot before never lets a packet through to the next one.
    #[error(
        "slot `{slot}` would never run: `{blocker}` before it has an empty `proceed_on`\nhelp: put it before \
         `{blocker}`, or let `{blocker}` proceed on some verdict"
    )]
    Unreachable {
        /// The slot that would never run.
        slot: String,
        /// The slot that ends the chain for every packet.
        blocker: String,
    },
    /// A slot cannot be before or after itself.
    #[error(
        "slot `{slot}` cannot be put beside itself\nhelp: name another slot, or use `--first` or `--last`"
    )]
    BesideItself {
        /// The slot.
        slot: String,
    },
    /// Nothing would be left that runs in order.
    #[error(
        "slot `{slot}` is the last one in order of chain `{chain}`\nhelp: use `xdpchain detach` to take the chain \
         off its interface"
    )]
    LastSlot {
        /// The chain.
        chain: String,
        /// The slot.
        slot: String,
    },
}

impl ChainSpec {
    /// Puts `slot` at `position`. A slot at exit given `Last` goes after every other slot.
    pub fn insert(&mut self, slot: SlotSpec, position: &Position) -> Result<(), EditError> {
        if self.slot(&slot.name).is_some() {
            return Err(EditError::SlotExists { chain: self.name.clone(), slot: slot.name });
        }
        if let Some(other) = self.slots.iter().find(|other| other.module == slot.module) {
            let (chain, other) = (self.name.clone(), other.name.clone());
            return Err(EditError::ModuleTwice { chain, module: slot.module, slot: other });
        }
        self.slots = placed(&self.name, &self.slots, slot, position)?;
        Ok(())
    }

    /// Puts the slot of that name at `position` among the others. A slot at exit given `Last` goes after every other
    /// slot. Whether it stands at another place than before.
    pub fn reposition(&mut self, name: &str, position: &Position) -> Result<bool, EditError> {
        let from = index_of(&self.name, &self.slots, name)?;
        if let Position::Before(other) | Position::After(other) = position
            && other == name
        {
            return Err(EditError::BesideItself { slot: name.to_owned() });
        }
        let mut others = self.slots.clone();
        let slot = others.remove(from);
        let slots = placed(&self.name, &others, slot, position)?;
        let moved = slots != self.slots;
        self.slots = slots;
        Ok(moved)
    }

    /// Takes the slot of that name out and returns it.
    pub fn remove(&mut self, name: &str) -> Result<SlotSpec, EditError> {
        let index = index_of(&self.name, &self.slots, name)?;
        if self.slots[index].at == Place::Order && self.in_order().count() == 1 {
            return Err(EditError::LastSlot { chain: self.name.clone(), slot: name.to_owned() });
        }
        Ok(self.slots.remove(index))
    }

    /// The module in the slot of that name.
    pub fn module_of(&self, name: &str) -> Result<&str, EditError> {
        index_of(&self.name, &self.slots, name).map(|index| self.slots[index].module.as_str())
    }
}

/// `slots` with `slot` at `position`.
fn placed(
    chain: &str,
    slots: &[SlotSpec],
    slot: SlotSpec,
    position: &Position,
) -> Result<Vec<SlotSpec>, EditError> {
    let index = match position {
        Position::First => 0,
        Position::Last if slot.at == Place::Exit => slots.len(),
        Position::Last => slots.iter().rposition(|s| s.at == Place::Order).map_or(0, |i| i + 1),
        Position::Before(name) => index_of(chain, slots, name)?,
        Position::After(name) => {
            let index = index_of(chain, slots, name)?;
            if slot.at == Place::Order && slots[index].at == Place::Exit {
                return Err(EditError::AfterExit { slot: slot.name, exit: name.clone() });
            }
            index + 1
        }
    };
    let mut slots = slots.to_vec();
    slots.insert(index, slot);
    match unreachable_slot(&slots) {
        Some((blocker, slot)) => {
            Err(EditError::Unreachable { slot: slot.name.clone(), blocker: blocker.name.clone() })
        }
        None => Ok(slots),
    }
}

fn index_of(chain: &str, slots: &[SlotSpec], name: &str) -> Result<usize, EditError> {
    slots.iter().position(|slot| slot.name == name).ok_or_else(|| {
        let names: Vec<_> = slots.iter().map(|slot| format!("`{}`", slot.name)).collect();
        EditError::NoSlot { chain: chain.to_owned(), slot: name.to_owned(), slots: names.join(", ") }
    })
}

/// The first slot in order that no packet can reach, after the slot that is to blame.
pub(crate) fn unreachable_slot(slots: &[SlotSpec]) -> Option<(&SlotSpec, &SlotSpec)> {
    let mut blocker = None;
    for slot in slots.iter().filter(|slot| slot.at == Place::Order) {
        if let Some(blocker) = blocker {
            return Some((blocker, slot));
        }
        if !slot.observer && slot.proceed_on.is_some_and(|set| set.is_empty()) {
            blocker = Some(slot);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VerdictSet;

    fn chain(names: &[&str]) -> ChainSpec {
        let slots = names.iter().map(|name| match name.strip_prefix('=') {
            Some(name) => SlotSpec { observer: true, at: Place::Exit, ..SlotSpec::new(name) },
            None => SlotSpec::new(*name),
        });
        ChainSpec::new("edge", slots.collect())
    }

    fn names(chain: &ChainSpec) -> Vec<&str> {
        chain.slots.iter().map(|slot| slot.name.as_str()).collect()
    }

    #[test]
    fn a_slot_goes_where_it_is_told() {
        for (position, expected) in [
            (Position::First, ["n", "a", "b", "z"]),
            (Position::Last, ["a", "b", "n", "z"]),
            (Position::Before("b".into()), ["a", "n", "b", "z"]),
            (Position::After("a".into()), ["a", "n", "b", "z"]),
            (Position::Before("z".into()), ["a", "b", "n", "z"]),
        ] {
            let mut chain = chain(&["a", "b", "=z"]);
            chain.insert(SlotSpec::new("n"), &position).unwrap();
            assert_eq!(names(&chain), expected, "{position:?}");
        }
    }

    #[test]
    fn an_edit_that_fails_changes_nothing() {
        let before = chain(&["a", "b", "=z"]);
        let mut after = before.clone();
        let blocker = SlotSpec { proceed_on: Some(VerdictSet::EMPTY), ..SlotSpec::new("n") };
        for (slot, position, text) in [
            (SlotSpec::new("n"), Position::Before("c".into()), "chain `edge` has no slot `c`"),
            (SlotSpec::new("a"), Position::Last, "chain `edge` has a slot `a` already"),
            (
                SlotSpec { name: "n".into(), ..SlotSpec::new("a") },
                Position::Last,
                "module `a` is in slot `a` of chain `edge` already",
            ),
            (
                SlotSpec::new("n"),
                Position::After("z".into()),
                "slot `n` runs in order and cannot be after `z`, which runs at exit",
            ),
            (blocker, Position::First, "slot `a` would never run: `n` before it has an empty `proceed_on`"),
        ] {
            let error = after.insert(slot, &position).unwrap_err().to_string();
            assert_eq!(error.lines().next(), Some(text));
            assert!(error.lines().nth(1).is_some_and(|line| line.starts_with("help: ")), "{error}");
            assert_eq!(after, before);
        }
        assert_eq!(
            after.remove("c").unwrap_err().to_string(),
            "chain `edge` has no slot `c`\nhelp: its slots are `a`, `b`, `z`"
        );
    }

    #[test]
    fn a_slot_moves_where_it_is_told() {
        for (slot, position, expected) in [
            ("c", Position::First, ["c", "a", "b", "z"]),
            ("a", Position::Last, ["b", "c", "a", "z"]),
            ("a", Position::Before("c".into()), ["b", "a", "c", "z"]),
            ("a", Position::After("c".into()), ["b", "c", "a", "z"]),
            ("z", Position::First, ["z", "a", "b", "c"]),
            ("z", Position::Last, ["a", "b", "c", "z"]),
            ("b", Position::After("a".into()), ["a", "b", "c", "z"]),
        ] {
            let mut chain = chain(&["a", "b", "c", "=z"]);
            let moved = chain.reposition(slot, &position).unwrap();
            assert_eq!(names(&chain), expected, "{slot} {position:?}");
            assert_eq!(moved, expected != ["a", "b", "c", "z"]);
        }
        let mut end = chain(&["a", "b", "=z"]);
        end.slots[1].proceed_on = Some(VerdictSet::EMPTY);
        let before = end.clone();
        for (slot, position) in [
            ("b", Position::First),
            ("a", Position::Last),
            ("a", Position::After("a".into())),
            ("a", Position::After("z".into())),
            ("q", Position::First),
            ("a", Position::Before("q".into())),
        ] {
            let error = end.reposition(slot, &position).unwrap_err().to_string();
            assert!(error.contains("\nhelp: "), "{error}");
            assert_eq!(end, before);
        }
    }

    #[test]
    fn the_last_slot_in_order_stays() {
        let mut chain = chain(&["a", "b", "=z"]);
        assert_eq!(chain.remove("a").unwrap().name, "a");
        assert!(matches!(chain.remove("b"), Err(EditError::LastSlot { .. })));
        assert_eq!(chain.module_of("b"), Ok("b"));
        assert!(matches!(chain.module_of("a"), Err(EditError::NoSlot { .. })));
        chain.remove("z").unwrap();
        assert_eq!(names(&chain), ["b"]);
    }
}
