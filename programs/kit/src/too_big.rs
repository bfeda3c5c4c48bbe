//! The answer to a packet that is too big for its way out: ICMP fragmentation needed (RFC 1191), or ICMPv6 packet too big
//! (RFC 8201).
//!
//! It quotes the packet's first 512 octets, so that it fits every way; of a packet that is shorter no way out can be too
//! narrow that takes what every host has to take. Its source is the packet's destination: an address that the sender's
//! side takes for one from there, whatever filters it has.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use xdpchain_abi::Reason;
use xdpchain_wire::{Octets, OctetsMut as _, checksum::Sum, ethernet::ethertype, icmp, ipv4, ipv6, protocol};

use crate::{Inner, Packet, sum::sum_512};

/// Octets of the packet that are quoted.
const QUOTED: usize = 512;
/// TTL and hop limit of the answer.
const TTL: u8 = 64;
/// What is taken off a packet's own length when the kernel does not say what would fit (before 5.12). A sender that still
/// sends too much is told again.
const STEP: usize = 64;

/// When senders were told, by the last bits of a number made of their address.
pub struct Told<const N: usize>([UnsafeCell<u32>; N]);

// SAFETY: the numbers are read and written only here, each by one access that machines do not divide. Two CPUs at the same
// instant may both tell, which is no flood.
unsafe impl<const N: usize> Sync for Told<N> {}

impl<const N: usize> Told<N> {
    /// Nobody has been told. `N` is a power of 2.
    #[expect(clippy::new_without_default, reason = "made in statics, where a default cannot be called")]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        Self([const { UnsafeCell::new(0) }; N])
    }

    /// Whether the sender with this number may be told now: once in 8.4 ms, as may those that share its last bits.
    #[inline(always)]
    fn may(&self, sender: u32) -> bool {
        // SAFETY: takes nothing.
        let now = (unsafe { bpf_ktime_get_ns() } >> 23) as u32 | 1 << 31;
        let last = self.0[sender as usize & (N - 1)].get();
        // SAFETY: a number of ours, see above.
        let may = unsafe { last.read_volatile() } != now;
        if may {
            // SAFETY: as above.
            unsafe { last.write_volatile(now) };
        }
        may
    }
}

/// An answer that is due.
#[derive(Clone, Copy, Debug)]
pub struct TooBig {
    /// Where the packet begins that it is about.
    offset: usize,
    /// EtherType of both.
    pub ethertype: u16,
    /// What would have fitted, in octets.
    mtu: u16,
}

impl TooBig {
    /// TOS and traffic class of the answer: internetwork control, as the kernel has it for its own.
    pub const TOS: u8 = 0xc0;

    /// The answer to `inner`, for which the way out has `mtu` octets, or 0 when that is not known.
    ///
    /// # Errors
    /// [`Reason::TooBig`] when there is to be none: about ICMP errors, later fragments and packets from no single host
    /// (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)), and when the sender was told just before.
    #[inline(always)]
    pub fn new<const N: usize>(
        packet: &Packet,
        inner: &Inner,
        mtu: usize,
        told: &Told<N>,
    ) -> Result<Self, Reason> {
        if inner.len < QUOTED {
            return Err(Reason::TooBig);
        }
        let mut mtu = if mtu == 0 { inner.len - STEP } else { mtu };
        let sender =
            if inner.ethertype == ethertype::IPV4 { sender4(packet, inner) } else { sender6(packet, inner) };
        let sender = sender.ok_or(Reason::TooBig)?;
        // No host goes below what IPv6 asks of every link (RFC 8201, 4).
        if inner.ethertype == ethertype::IPV6 && mtu < ipv6::MIN_MTU {
            mtu = ipv6::MIN_MTU;
        }
        if !told.may(sender ^ sender >> 16) {
            return Err(Reason::TooBig);
        }
        Ok(Self { offset: inner.offset, ethertype: inner.ethertype, mtu: mtu as u16 })
    }

    /// Octets of the answer, an IP packet.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        Self::len(self.ethertype)
    }

    /// Octets of an answer of this type.
    #[inline(always)]
    pub fn len(ethertype: u16) -> usize {
        Self::headers(ethertype) + QUOTED
    }

    /// Octets of its headers.
    #[inline(always)]
    fn headers(ethertype: u16) -> usize {
        icmp::LEN + if ethertype == ethertype::IPV4 { ipv4::LEN } else { ipv6::LEN }
    }

    /// Writes the answer over the packet, so that `room` octets of the frame are in front of it. What they hold is not
    /// defined. `None` when the driver has no room; then the packet is lost.
    #[inline(always)]
    #[must_use]
    pub fn write(&self, packet: &mut Packet, room: usize) -> Option<()> {
        packet.truncate(self.offset + QUOTED)?;
        packet.move_start(self.offset as i32 - (room + Self::headers(self.ethertype)) as i32)?;
        let start = packet.forget::<0x7f>(room);
        let quote = packet.forget::<0xff>(room + Self::headers(self.ethertype));
        let quoted = sum_512(packet, quote)?;
        if self.ethertype == ethertype::IPV4 {
            let about = ipv4::View(packet.at(quote)?);
            let ip = ipv4::Repr {
                tos: Self::TOS,
                total_len: self.total_len() as u16,
                dont_fragment: true,
                ttl: TTL,
                protocol: protocol::ICMP,
                source: about.destination(),
                destination: about.source(),
                ..ipv4::Repr::default()
            };
            ip.emit(packet.at_mut(start)?);
            let [high, low] = self.mtu.to_be_bytes();
            self.emit(
                packet,
                start + ipv4::LEN,
                icmp::v4::UNREACHABLE,
                icmp::v4::FRAGMENTATION_NEEDED,
                [0, 0, high, low],
                Sum::new().word(quoted),
            )
        } else {
            let about: &[u8; 32] = packet.at(quote + 8)?;
            let sum = Sum::new()
                .word(quoted)
                .array(about)
                .word(protocol::ICMPV6 as u16)
                .word((icmp::LEN + QUOTED) as u16);
            // In parts of eight octets, for the compiler calls a loop over single octets for longer ones.
            let header: &mut [u8; 8] = packet.at_mut(start)?;
            *header = [
                0x60 | Self::TOS >> 4,
                Self::TOS << 4,
                0,
                0,
                ((icmp::LEN + QUOTED) >> 8) as u8,
                (icmp::LEN + QUOTED) as u8,
                protocol::ICMPV6,
                TTL,
            ];
            for part in [0, 8] {
                let source: [u8; 8] = *packet.at(quote + 24 + part)?;
                *packet.at_mut(start + 8 + part)? = source;
                let destination: [u8; 8] = *packet.at(quote + 8 + part)?;
                *packet.at_mut(start + 24 + part)? = destination;
            }
            let [high, low] = self.mtu.to_be_bytes();
            self.emit(packet, start + ipv6::LEN, icmp::v6::TOO_BIG, 0, [0, 0, high, low], sum)
        }
    }

    /// Writes the ICMP header at `at`. `sum` is that of the rest.
    #[inline(always)]
    fn emit(
        &self,
        packet: &mut Packet,
        at: usize,
        kind: u8,
        code: u8,
        rest: [u8; 4],
        sum: Sum,
    ) -> Option<()> {
        let checksum = sum.word(u16::from_be_bytes([kind, code])).word(self.mtu).checksum();
        icmp::Repr { message_type: kind, code, checksum, rest }.emit(packet.at_mut(at)?);
        Some(())
    }
}

/// A number made of the IPv4 source, `None` when there is no answer.
#[inline(always)]
fn sender4<O: Octets + ?Sized>(packet: &O, inner: &Inner) -> Option<u32> {
    let view = ipv4::View(packet.at(inner.offset)?);
    let source = u32::from_be_bytes(view.source().octets);
    // 0.0.0.0/8, 127.0.0.0/8, and all from 224.0.0.0 on are no single host elsewhere.
    if view.fragment_offset() != 0 || matches!(source >> 24, 0 | 127 | 224..) {
        return None;
    }
    if view.protocol() == protocol::ICMP {
        let kind = packet.at::<1>(inner.offset + view.header_len())?[0];
        if !icmp::v4::is_query(kind) {
            return None;
        }
    }
    Some(source)
}

/// A number made of the IPv6 source, `None` when there is no answer.
#[inline(always)]
fn sender6<O: Octets + ?Sized>(packet: &O, inner: &Inner) -> Option<u32> {
    let header: &[u8; ipv6::LEN] = packet.at(inner.offset)?;
    let word = |i: usize| u32::from_be_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (upper, lower) = (word(8) ^ word(12), word(16) ^ word(20));
    // ff00::/8 and ::, which the check of sources lets pass nobody has.
    if header[8] == 0xff || word(8) | word(12) | word(16) | word(20) == 0 {
        return None;
    }
    if ipv6::View(header).next_header() == protocol::ICMPV6
        && packet.at::<1>(inner.offset + ipv6::LEN)?[0] < icmp::v6::ECHO_REQUEST
    {
        return None;
    }
    Some(upper ^ lower)
}
