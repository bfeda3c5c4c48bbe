//! The answer to an Echo Request (3GPP TS 29.281, 7.2.2), made out of the request.
//!
//! Tags and IPv4 options stay as they are; the answer goes back the way the request came.

use aya_ebpf::bindings::xdp_action::XDP_TX;
use xdpchain_abi::{Be32, Endpoint, Reason, endpoint_flags};
use xdpchain_kit::Packet;
use xdpchain_wire::{
    Octets as _, OctetsMut as _, checksum,
    gtpu::{self, Optional},
    ipv4, udp,
};

use crate::outer::Outer;

/// Octets of the answer's GTP-U message: mandatory part, sequence number, Recovery.
const MESSAGE_LEN: usize = gtpu::LEN + gtpu::OPTIONAL_LEN + gtpu::element::RECOVERY.len();
/// TTL of the answer.
const TTL: u8 = 64;

/// Turns the request in `outer` into its answer.
///
/// # Errors
/// [`Reason::GtpSignalling`] when the kernel is to answer.
#[inline(always)]
pub(crate) fn answer(packet: &mut Packet, outer: &Outer, endpoint: Endpoint) -> Result<u32, Reason> {
    if endpoint.flags & endpoint_flags::NO_ECHO != 0 {
        return Err(Reason::GtpSignalling);
    }
    let message = outer.transport + udp::LEN;
    let view = gtpu::View(packet.at(message).ok_or(Reason::Truncated)?);
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
    let ip: &mut [u8; ipv4::LEN] = packet.at_mut(outer.network).ok_or(Reason::Truncated)?;
    // The order of the addresses does not matter to the checksum.
    let mut sum = ipv4::View(ip).checksum();
    let total_len = (message + MESSAGE_LEN - outer.network) as u16;
    sum = checksum::update(sum, ipv4::View(ip).total_len(), total_len);
    sum = checksum::update(sum, u16::from_be_bytes([ip[8], ip[9]]), u16::from_be_bytes([TTL, ip[9]]));
    ip[2..4].copy_from_slice(&total_len.to_be_bytes());
    ip[8] = TTL;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    swap::<4>(packet, outer.network + 12, outer.network + 16)?;
    let udp: &mut [u8; udp::LEN] = packet.at_mut(outer.transport).ok_or(Reason::Truncated)?;
    udp[4..6].copy_from_slice(&((udp::LEN + MESSAGE_LEN) as u16).to_be_bytes());
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
    Ok(XDP_TX)
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
