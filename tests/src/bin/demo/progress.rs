//! The progress bar: on a terminal a bar, elsewhere nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far packets and changes are.
pub(crate) struct Progress {
    bar: ProgressBar,
    changes: usize,
}

impl Progress {
    /// A bar of `packets`, beside which `changes` are counted. indicatif draws nothing when standard error is no terminal.
    pub(crate) fn new(packets: u32, changes: usize) -> Self {
        let style = "  {bar:40} {human_pos} of {human_len} packets, {msg}";
        let style = ProgressStyle::with_template(style).expect("the template is right");
        let target = ProgressDrawTarget::stderr_with_hz(10);
        Self {
            bar: ProgressBar::with_draw_target(Some(u64::from(packets)), target).with_style(style),
            changes,
        }
    }

    /// Shows that `sent` packets were sent and `done` changes made.
    pub(crate) fn show(&self, sent: u32, done: &AtomicU32) {
        // More packets than asked for are sent when the changes take longer.
        if u64::from(sent) > self.bar.length().unwrap_or(0) {
            self.bar.set_length(u64::from(sent));
        }
        self.bar.set_position(u64::from(sent));
        self.bar.set_message(format!("{} of {} changes", done.load(Ordering::Relaxed), self.changes));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
