//! What the packet programs and user space agree on: map keys and values, the packet context, and
//! the reasons for every packet that is not forwarded.
//!
//! Every struct is `repr(C)`, has no implicit padding, and a size that is asserted below. A field
//! in network byte order is a byte array ([`Ipv4`], [`Ipv6`], [`Be32`]); every integer is in host order.
//! The BTF of these types is the contract that chains.yaml's imports are checked against, so a
//! name or an offset changes only together with the migration that it causes.
#![no_std]
#![forbid(unsafe_code)]

pub mod acl_tables;
mod context;
mod gre;
mod gtp;
mod policy;
mod reason;

pub use context::*;
pub use gre::*;
pub use gtp::*;
pub use policy::*;
pub use reason::*;

/// Bit of a program's return value, beside the verdict: the chain ends here with that verdict, whatever the slot's
/// `proceed_on` says. Only a module that knows xdpchain sets it; run alone, the kernel would take the value for unknown.
pub const XDPCHAIN_FINAL: u32 = 0x100;

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ipv4 {
    /// The four octets as they stand in the packet.
    pub octets: [u8; 4],
}

/// An IPv6 address in network byte order. An IPv4 address stored in one is IPv4-mapped (`::ffff:a.b.c.d`).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ipv6 {
    /// The sixteen octets as they stand in the packet.
    pub octets: [u8; 16],
}

impl Ipv6 {
    /// `v4` as an IPv4-mapped address.
    #[inline(always)]
    pub const fn mapped(v4: Ipv4) -> Self {
        let o = v4.octets;
        Self { octets: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, o[0], o[1], o[2], o[3]] }
    }
}

/// What a user is reached by inside of a tunnel: an IPv4 address, or the upper half of an IPv6 one, the user's /64.
///
/// An IPv4 address stands behind four octets 0xff, by which only groups' IPv6 addresses begin (RFC 4291, 2.7): nobody's.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserAddress {
    /// The eight octets in network byte order.
    pub octets: [u8; 8],
}

impl UserAddress {
    /// What an IPv4 address begins with.
    pub const V4: [u8; 4] = [0xff; 4];

    /// That of a user with the address `v4`.
    #[inline(always)]
    pub const fn v4(v4: Ipv4) -> Self {
        let ([a, b, c, d], [w, x, y, z]) = (Self::V4, v4.octets);
        Self { octets: [a, b, c, d, w, x, y, z] }
    }

    /// That of the user whose /64 `v6` is in.
    #[inline(always)]
    pub const fn v6(v6: Ipv6) -> Self {
        let o = v6.octets;
        Self { octets: [o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]] }
    }
}

/// A 32-bit number in network byte order, as it stands in the packet (a TEID, a GRE key).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Be32 {
    /// The four octets, most significant first.
    pub octets: [u8; 4],
}

impl Be32 {
    /// The number in host order.
    #[inline(always)]
    pub const fn value(self) -> u32 {
        u32::from_be_bytes(self.octets)
    }

    /// `value` in network byte order.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self { octets: value.to_be_bytes() }
    }
}

/// Asserts a type's size at compile time, so that a layout never changes unnoticed.
macro_rules! sized {
    ($($ty:ty = $size:literal),+ $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$ty>() == $size);)+
    };
}
pub(crate) use sized;

sized!(Ipv4 = 4, Ipv6 = 16, UserAddress = 8, Be32 = 4);
