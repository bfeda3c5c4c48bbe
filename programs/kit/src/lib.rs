//! What the packet programs share: packet access, context, reasons, next hop.
//!
//! Everything is written for the verifier of kernel 5.10 and newer: loops have constant bounds, no
//! helper is younger than 5.10, and a packet's octets are reached only through [`Packet`]'s checks.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod clock;
mod counter;
mod ecn;
mod hops;
mod inner;
mod module;
mod mss;
mod outer;
mod packed;
mod packet;
mod plain;
mod policy;
mod prefix;
mod remembered;
mod route;
mod sign;
mod sum;
mod too_big;
mod tunnel;

pub use clock::{KEPT_TICKS, ticks};
pub use counter::atomic_add;
pub use ecn::{decapsulated_tos, is_same_ecn, set_tos};
pub use hops::Hop;
pub use inner::{Inner, decrement_ttl};
pub use mss::{clamp_mss, is_syn, mss_mtu};
pub use outer::{Ends, Outer};
pub use packed::{pack, unpack};
pub(crate) use packet::opaque;
pub use packet::{Addresses, Packet, Tags};
pub use plain::{Plain, is_tagged, open4, open4_front, open6};
pub use policy::fate;
pub use prefix::{is_link_local, is_within6};
pub use remembered::Remembered;
pub use route::{NextHop, Route, is_alias, send};
pub use sign::sign;
pub use sum::{MAX_SUMMED, sum, udp_sum};
pub use too_big::{Told, TooBig};
pub use tunnel::{choose, entropy, fragment_id};

#[doc(hidden)]
pub use aya_ebpf;
#[doc(hidden)]
pub use xdpchain_abi;
