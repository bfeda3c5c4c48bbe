//! The answer to an Echo Request (3GPP TS 29.281, 7.2.2), made out of the request.
//!
//! Tags and IPv4 options stay as they are; the answer goes back the way the request came. Over IPv4 it has no UDP checksum,
//! over IPv6 it has one.

use aya_ebpf::bindings::xdp_action::XDP_TX;
use xdpchain_abi::{Be32, Reason};
use xdpchain_kit::Packet;
use xdpchain_wire::{
    Octets as _, OctetsMut as _,
    checksum::{self, Sum},
    gtpu::{self, Optional},
    ipv4, ipv6, protocol, udp,
};

use crate::outer::Outer;

/// Octets of the answer's GTP-U message: mandatory part, sequence number, Recovery.
const MESSAGE_LEN: usize = gtpu::LEN + gtpu::OPTIONAL_LEN + gtpu::element::RECOVERY.len();
/// Octets of its UDP datagram.
const UDP_LEN: u16 = (udp::LEN + MESSAGE_LEN) as u16;
/// TTL and hop limit of the answer.
const TTL: u8 = 64;

/// Turns the request in `outer`, whose message is before `end`, into its answer.
///
/// # Errors
/// [`Reason::GtpLength`] when the message has no room for the optional fields that its bits announce: what is behind it is
/// none. [`Reason::GtpSignalling`] when the kernel is to answer.
#[inline(always)]
pub(crate) fn answer(packet: &mut Packet, outer: &Outer, end: usize) -> Result<u32, Reason> {
    let message = outer.transport + udp::LEN;
    let view = gtpu::View(packet.at(message).ok_or(Reason::Truncated)?);
    if view.has_optional() && message + gtpu::LEN + gtpu::OPTIONAL_LEN > end {
        return Err(Reason::GtpLength);
    }
    let sequence = if view.has_sequence() {
        Optional::parse(packet.at(message + gtpu::LEN).ok_or(Reason::GtpLength)?).sequence
    } else {
        0
    };
    // A request without Recovery is shorter than its answer. A driver that cannot lengthen a frame
    // leaves the request whole, so the kernel may still answer.
    packet.resize(message + MESSAGE_LEN).ok_or(Reason::GtpSignalling)?;

    // In parts of up to four octets: for longer ones the compiler calls a loop over single octets.
    swap::<4>(packet, 0, 6)?;
    swap::<2>(packet, 4, 10)?;
    swap::<2>(packet, outer.transport, outer.transport + 2)?;
    let over6 = outer.is_ipv6(packet);
    if over6 {
        turn6(packet, outer.network)?;
    } else {
        turn4(packet, outer.network, message + MESSAGE_LEN)?;
    }
    let udp: &mut [u8; udp::LEN] = packet.at_mut(outer.transport).ok_or(Reason::Truncated)?;
    udp[4..6].copy_from_slice(&UDP_LEN.to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);

    let header = gtpu::Repr {
        sequence: true,
        message_type: gtpu::message::ECHO_RESPONSE,
        len: (MESSAGE_LEN - gtpu::LEN) as u16,
        teid: Be32::new(0),
        ..gtpu::Repr::default()
    };
    header.emit(packet.at_mut(message).ok_or(Reason::Truncated)?);
    Optional { sequence, ..Optional::default() }
        .emit(packet.at_mut(message + gtpu::LEN).ok_or(Reason::Truncated)?);
    *packet.at_mut(message + gtpu::LEN + gtpu::OPTIONAL_LEN).ok_or(Reason::Truncated)? =
        gtpu::element::RECOVERY;
    if over6 {
        sum6(packet, outer)?;
    }
    Ok(XDP_TX)
}

/// Makes the IPv4 header at `network` that of the answer, which ends at `end`.
#[inline(always)]
fn turn4(packet: &mut Packet, network: usize, end: usize) -> Result<(), Reason> {
    let ip: &mut [u8; ipv4::LEN] = packet.at_mut(network).ok_or(Reason::Truncated)?;
    // The order of the addresses does not matter to the checksum.
    let mut sum = ipv4::View(ip).checksum();
    let total_len = (end - network) as u16;
    sum = checksum::update(sum, ipv4::View(ip).total_len(), total_len);
    sum = checksum::update(sum, u16::from_be_bytes([ip[8], ip[9]]), u16::from_be_bytes([TTL, ip[9]]));
    ip[2..4].copy_from_slice(&total_len.to_be_bytes());
    ip[8] = TTL;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    swap::<4>(packet, network + 12, network + 16)
}

/// Makes the IPv6 header at `network` that of the answer.
#[inline(always)]
fn turn6(packet: &mut Packet, network: usize) -> Result<(), Reason> {
    let ip: &mut [u8; ipv6::LEN] = packet.at_mut(network).ok_or(Reason::Truncated)?;
    ip[4..6].copy_from_slice(&UDP_LEN.to_be_bytes());
    ip[7] = TTL;
    swap::<8>(packet, network + 8, network + 24)?;
    swap::<8>(packet, network + 16, network + 32)
}

/// Writes the UDP checksum of the finished answer.
#[inline(always)]
fn sum6(packet: &mut Packet, outer: &Outer) -> Result<(), Reason> {
    let addresses: &[u8; 32] = packet.at(outer.network + 8).ok_or(Reason::Truncated)?;
    let datagram: &[u8; UDP_LEN as usize] = packet.at(outer.transport).ok_or(Reason::Truncated)?;
    let sum = Sum::new().array(addresses).array(datagram).word(protocol::UDP as u16).word(UDP_LEN);
    // A checksum that comes out as 0 is sent as its other form (RFC 768).
    let checksum = match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    };
    *packet.at_mut(outer.transport + 6).ok_or(Reason::Truncated)? = checksum.to_be_bytes();
    Ok(())
}

/// Swaps the `N` octets at `a` with those at `b`.
#[inline(always)]
fn swap<const N: usize>(packet: &mut Packet, a: usize, b: usize) -> Result<(), Reason> {
    let first: [u8; N] = *packet.at(a).ok_or(Reason::Truncated)?;
    let second: [u8; N] = *packet.at(b).ok_or(Reason::Truncated)?;
    *packet.at_mut(a).ok_or(Reason::Truncated)? = second;
    *packet.at_mut(b).ok_or(Reason::Truncated)? = first;
    Ok(())
}
