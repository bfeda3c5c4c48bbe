//! What was found out about a packet on its way, by the rows of the table.

use xdpchain_abi::Reason;

use crate::Row;

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Place of the slot that found it out.
    pub slot: usize,
    /// The row that it is a case of.
    pub row: Row,
    /// The reason that is counted for it.
    pub reason: Option<Reason>,
    /// In words, with the packet's own numbers.
    pub why: String,
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    slot: usize,
    pub(crate) steps: Vec<Step>,
}

impl Trail {
    pub(crate) fn enter(&mut self, slot: usize) {
        self.slot = slot;
    }

    pub(crate) fn note(&mut self, row: Row, reason: Option<Reason>, why: String) {
        self.steps.push(Step { slot: self.slot, row, reason, why });
    }
}
