//! Views and writers of packet headers, for the programs and, over slices, for user space.
//!
//! A header's fixed part is a `&[u8; N]` that [`Octets`] hands out after its bounds check, so nothing
//! here indexes out of range, allocates, or touches a pointer. What varies in length (tags, options,
//! extension headers) is walked in loops with a constant bound.
#![no_std]
#![forbid(unsafe_code)]

mod octets;

pub use octets::{Octets, OctetsMut};
