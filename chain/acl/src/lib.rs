//! The access list's compiler: ordered rules to the decision tree that the packet program walks.
//!
//! [`Compiled::new`] takes rules as `acl`'s map has them and makes the blocks of [`xdpchain_abi::acl_tables`]; [`decide`]
//! is what rules mean, said as simply as can be, and [`Compiled::walk`] follows the blocks as the program does. Pure:
//! who reads the rules and gives the blocks to a kernel is not its business.
//!
//! Whatever the rules are, the result decides as they read, or there is none: rules that cannot be decided on within the
//! program's steps and its memory are refused.
#![forbid(unsafe_code)]

mod build;
mod cube;
mod cut;
mod error;
mod packet;
pub mod sample;
mod sieve;
mod tables;

pub use error::AclError;
pub use packet::{Packet, RULE, decide, rule, rule_octets};
pub use tables::{Compiled, Walk, digest};
