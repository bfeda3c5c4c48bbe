//! What the root tests share: network namespaces, raw frames, the `xdpchain` binary, and a whole test network.
//!
//! Every test makes its own namespaces under names that carry the process id, and removes them when it ends, also
//! by a panic. What a killed run left is removed by the next one.
#![forbid(unsafe_code)]

pub mod acl;
pub mod agent;
pub mod cli;
pub mod compat;
pub mod far_end;
pub mod frames;
pub mod frr;
pub mod gtp_device;
pub mod judged;
pub mod kernel;
pub mod net;
pub mod operator;
pub mod plan;
pub mod postgres;
pub mod router;
pub mod rows;
pub mod transfer;
pub mod trickle;
pub mod tshark;
pub mod world;

pub use cli::{Run, Shell};
pub use frames::Port;
pub use net::{Netns, veth};
pub use router::router;
pub use world::{Links, World};
