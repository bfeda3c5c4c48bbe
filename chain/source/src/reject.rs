//! Rows that do not fit, and why.

use std::collections::HashMap;

use crate::RowKey;
use crate::fill::Waiting;

/// Rows of which it is kept why they do not fit; of others only that.
const EXPLAINED: usize = 1000;

/// Rows that do not fit.
#[derive(Debug, Default)]
pub struct Rejected {
    rows: HashMap<RowKey, Rejection>,
    waiting: Waiting,
    explained: usize,
}

/// Why a row does not fit.
#[derive(Debug)]
pub(crate) enum Why {
    /// A value of it.
    Misfit(String),
    /// Another row has the key of one of its entries.
    Taken {
        /// Number of the map.
        map: usize,
        /// The map.
        name: String,
        /// The key.
        key: Box<[u8]>,
        /// The other row.
        by: RowKey,
    },
}

#[derive(Debug)]
struct Rejection {
    /// None when enough others are explained.
    text: Option<Box<str>>,
    waits_for: Option<(usize, Box<[u8]>)>,
}

impl Rejected {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Some of them, with the reason of each, in the order of their keys.
    pub fn explained(&self) -> Vec<(&RowKey, &str)> {
        let mut rows: Vec<_> =
            self.rows.iter().filter_map(|(row, why)| Some((row, why.text.as_deref()?))).collect();
        rows.sort_unstable();
        rows
    }

    pub(crate) fn add(&mut self, row: RowKey, why: Why) {
        self.forget(&row);
        let explain = self.explained < EXPLAINED;
        let (text, waits_for) = match why {
            Why::Misfit(text) => (text, None),
            Why::Taken { map, name, key, by } => {
                let text = format!("row {by} has the same key in map `{name}`");
                self.waiting.entry((map, key.clone())).or_default().push(row.clone());
                (text, Some((map, key)))
            }
        };
        self.explained += usize::from(explain);
        self.rows.insert(row, Rejection { text: explain.then(|| text.into()), waits_for });
    }

    pub(crate) fn forget(&mut self, row: &RowKey) {
        let Some(rejection) = self.rows.remove(row) else { return };
        self.explained -= usize::from(rejection.text.is_some());
        let Some(key) = rejection.waits_for else { return };
        if let Some(rows) = self.waiting.get_mut(&key) {
            rows.retain(|other| other != row);
            if rows.is_empty() {
                self.waiting.remove(&key);
            }
        }
    }

    /// The rows that do not fit only because another had this key.
    pub(crate) fn waiting_for(&self, map: usize, key: &[u8]) -> Vec<RowKey> {
        match self.waiting.is_empty() {
            true => Vec::new(),
            false => self.waiting.get(&(map, key.into())).cloned().unwrap_or_default(),
        }
    }
}
