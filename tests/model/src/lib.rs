//! What a chain means, in Rust, and modules whose behaviour is known.
//!
//! The engines are judged by this: a chain is drawn, run by the model, and run as composed code.
#![forbid(unsafe_code)]

mod chain;
mod draw;
mod maps;
mod module;

pub use chain::{Expected, run};
pub use draw::{Drawn, defaults, packets, sayable, slots};
pub use module::{Answer, Behaviour, Globals, Jumps, LEAST, TARGET_MASK, object};
