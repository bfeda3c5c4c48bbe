//! Keys and values of the GRE side (tunnels in, customers, tunnels out), and what both encapsulators are told.
//!
//! Tunnels name an outer IPv6 address by an alias, as sessions do ([`UplinkKey`](crate::UplinkKey)): what arrives is looked up
//! by address, in `addresses6` of `gre-decap`, and what leaves by alias, in `addresses6` of `gre-steer` and of `gtp-encap`.

use crate::{Be32, Ipv4, Ipv6, sized};

/// Key of `gre-decap`'s `tunnels`: the outer addresses of a packet that arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GreKey {
    /// Outer source, the far end, or the alias of its IPv6 address.
    pub remote: Ipv4,
    /// Outer destination, our address, of the same family.
    pub local: Ipv4,
}

/// Value of `gre-decap`'s `tunnels`: whose packets arrive there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GreIngress {
    /// The customer, the name space of the inner addresses.
    pub customer: u32,
    /// The tunnel's number, from 1; key of `gre-steer`'s `tunnels`.
    pub tunnel: u32,
    /// Key that packets must carry when `flags` has [`tunnel_flags::HAS_KEY`].
    pub key: Be32,
    /// Prefix of the tunnel's inside addresses, where BGP and keepalives live; `0.0.0.0` when there is none.
    pub inside: Ipv4,
    /// Length of `inside` in bits, 1 to 32; 0 when there is none.
    pub inside_len: u8,
    /// Any of [`tunnel_flags`].
    pub flags: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 2],
}

/// Value of `gre-decap`'s `inside6`, by the tunnel's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside6 {
    /// Prefix of the tunnel's inside IPv6 addresses.
    pub prefix: Ipv6,
    /// Its length in bits, 1 to 128; 0 when there is none.
    pub len: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 3],
}

/// Bits of [`GreIngress::flags`] and [`GreTunnel::flags`].
pub mod tunnel_flags {
    /// The tunnel has a key: sent, and required on receipt.
    pub const HAS_KEY: u8 = 1;
    /// Verify a GRE checksum that is present (else a packet with one is refused).
    pub const VERIFY_CHECKSUM: u8 = 2;
    /// Outer DF is 0, so that routers may fragment the outer packet.
    pub const ALLOW_FRAGMENTS: u8 = 4;
    /// The outer DSCP is `dscp` (else the inner one).
    pub const FIXED_DSCP: u8 = 8;
    /// The tunnel has inside IPv6 addresses, in `gre-decap`'s `inside6`.
    pub const INSIDE6: u8 = 16;
}

/// Tunnels that one customer can have at most.
pub const CUSTOMER_TUNNELS: usize = 4;

/// Value of `gre-steer`'s `customers`, keyed by the customer's number: which tunnels its packets take.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Customer {
    /// Numbers of the tunnels; the first `count` of them are used.
    pub tunnels: [u32; CUSTOMER_TUNNELS],
    /// Tunnels in use, 1 to [`CUSTOMER_TUNNELS`].
    pub count: u32,
}

/// Value of `gre-steer`'s `tunnels`, keyed by the tunnel's number: how to encapsulate. `gtp-encap` has a map of this name
/// and type too, by which it answers packets that are too big: let it import that of `gre-steer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GreTunnel {
    /// Outer source, our address, or the alias of an IPv6 one.
    pub local: Ipv4,
    /// Outer destination, the far end, of the same family.
    pub remote: Ipv4,
    /// Key to send when `flags` has [`tunnel_flags::HAS_KEY`].
    pub key: Be32,
    /// Outer TTL; 0 means 64.
    pub ttl: u8,
    /// Any of [`tunnel_flags`].
    pub flags: u8,
    /// Outer DSCP, 0 to 63, when `flags` has [`tunnel_flags::FIXED_DSCP`].
    pub dscp: u8,
    /// Padding, zero.
    pub reserved: [u8; 1],
}

/// The one value of `config` of `gre-steer` and of `gtp-encap`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncapConfig {
    /// [`refusal`] of a packet that no session (`gtp-encap`) or tunnel (`gre-steer`) is found for.
    pub not_found: u8,
    /// [`refusal`] of a packet whose inner destination is a group.
    pub inner_multicast: u8,
    /// Octets of the longest inner packet that fits the tunnels of both directions: the MSS of TCP SYNs is lowered to what
    /// that leaves, and to what the way out leaves where the kernel says its MTU (5.12 and newer). 0 leaves the MSS alone.
    pub mss_clamp: u16,
    /// Octets of padding, zero.
    pub reserved: [u8; 4],
}

/// Values of [`EncapConfig::not_found`] and [`EncapConfig::inner_multicast`].
pub mod refusal {
    /// The packet is dropped.
    pub const DROP: u8 = 0;
    /// The kernel gets it as it came to the module: without the tunnel that it came in by.
    pub const PUNT: u8 = 1;
}

sized!(EncapConfig = 8, GreKey = 8, GreIngress = 20, Inside6 = 20, Customer = 20, GreTunnel = 16);
