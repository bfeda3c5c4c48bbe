//! Views and writers of packet headers, for the programs and, over slices, for user space.
//!
//! A header's fixed part is a `&[u8; N]` that [`Octets`] hands out after its bounds check, so nothing
//! here indexes out of range, allocates, or touches a pointer. What varies in length (tags, options,
//! extension headers) is walked in loops with a constant bound. A `View` reads single fields of a
//! header in place; a `Repr` is a header's contents, read or written as a whole.
#![no_std]
#![forbid(unsafe_code)]

mod bytes;
pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod gre;
pub mod gtpu;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
mod octets;
pub mod protocol;
pub mod tcp;
pub mod udp;

pub use octets::{Octets, OctetsMut};
