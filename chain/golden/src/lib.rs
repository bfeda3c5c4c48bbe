//! Golden packets: fixtures that say what is to become of a packet, captures, and where two packets differ.
//!
//! Pure: octets and text go in. What runs the packets is elsewhere.
#![forbid(unsafe_code)]

mod capture;
mod error;
mod fixture;
mod verdict;

pub use capture::packets;
pub use error::GoldenError;
pub use fixture::{Entry, Expect, Fixture, hexadecimal};
pub use verdict::{difference, verdict_name};
