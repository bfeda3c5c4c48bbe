//! The way back: what undoes each step that was taken, last step first.

use crate::error::{Error, Result};

/// Takes one step back.
type Step<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// The undo steps of an operation under way. Dropping it takes everything back, as a panic would want.
#[derive(Default)]
pub(crate) struct Undo<'a> {
    steps: Vec<(&'static str, Step<'a>)>,
    visible: bool,
}

impl<'a> Undo<'a> {
    /// Adds what undoes the step just taken; `name` says what it does.
    pub(crate) fn push(&mut self, name: &'static str, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push((name, Box::new(step)));
    }

    /// From here on, packets have seen the change.
    pub(crate) fn visible(&mut self) {
        self.visible = true;
    }

    /// Takes everything back because of `error`; the error to report.
    pub(crate) fn fail(mut self, error: Error) -> Error {
        match self.run() {
            Some(undo) => Error::Stuck { source: Box::new(error), undo: Box::new(undo) },
            None if self.visible => Error::RolledBack { source: Box::new(error) },
            None => error,
        }
    }

    /// Keeps what was done.
    pub(crate) fn keep(mut self) {
        self.steps.clear();
    }

    /// Takes every step back, also after one that fails; the first failure.
    fn run(&mut self) -> Option<Error> {
        let mut first = None;
        while let Some((name, step)) = self.steps.pop() {
            tracing::debug!("undo: {name}");
            if let Err(error) = step() {
                tracing::error!("undo: {name}: {error}");
                first.get_or_insert(error);
            }
        }
        first
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.run();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::error::Class;

    fn error() -> Error {
        Error::NoChain { ifname: "eth1".into() }
    }

    #[test]
    fn steps_are_taken_back_in_reverse_order() {
        let done = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        for step in 1..=3 {
            let done = &done;
            undo.push("step", move || {
                done.borrow_mut().push(step);
                Ok(())
            });
        }
        assert_eq!(undo.fail(error()).class(), Class::NotReady);
        assert_eq!(*done.borrow(), [3, 2, 1]);
    }

    #[test]
    fn what_was_seen_is_reported_as_rolled_back_and_a_failing_way_back_as_stuck() {
        let mut undo = Undo::default();
        undo.visible();
        let text = undo.fail(error());
        assert_eq!(text.class().code(), 8);
        assert!(text.to_string().contains("rolled back"), "{text}");

        let done = RefCell::new(false);
        let mut undo = Undo::default();
        undo.push("first", || {
            *done.borrow_mut() = true;
            Ok(())
        });
        undo.push("second", || Err(error()));
        assert!(matches!(undo.fail(error()), Error::Stuck { .. }));
        assert!(*done.borrow(), "the first step is taken back all the same");
    }

    #[test]
    fn nothing_is_taken_back_of_what_is_kept() {
        let mut undo = Undo::default();
        undo.push("step", || panic!("kept"));
        undo.keep();
    }
}
