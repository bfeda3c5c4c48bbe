//! What the root tests share: network namespaces, raw frames, and the `xdpchain` binary.
//!
//! Every test makes its own namespaces under names that carry the process id, and removes them when it ends, also
//! by a panic. What a killed run left is removed by the next one.
#![forbid(unsafe_code)]

pub mod cli;
pub mod frames;
pub mod net;

pub use cli::Run;
pub use frames::Port;
pub use net::{Netns, veth};
