//! Packets as most of them are: G-PDUs over IPv4 from the peer of a session that asks for nothing special.
//!
//! - Such a packet is alone in its frame, without tags and IPv4 options around it, and its session has neither a filter nor flags
//!   nor tags of its own.
//! - Whatever else it is, it takes the long way, of which this is a part that asks less: it may leave any packet to it, and what
//!   leaves its tunnel here does so as by the long way.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use xdpchain_abi::{GTPU_PORT, Reason, UplinkKey, tags};
use xdpchain_kit::{Inner, Packet};
use xdpchain_wire::{
    ethernet::{self, ethertype},
    gtpu, ipv4, protocol, udp,
};

use crate::{check_source, endpoints::is_ours, outer::Message, payload::Payload, say, sessions};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
const UDP: usize = IP + ipv4::LEN;
const GTP: usize = UDP + udp::LEN;
/// What is behind the mandatory part of GTP-U's header.
const END: usize = GTP + gtpu::LEN;

/// Decapsulates a plain packet, and passes on a plain one that is no GTP-U. `None`, and nothing has changed, when it has to take the
/// long way.
#[inline(always)]
pub(crate) fn decapsulate(packet: &mut Packet) -> Option<u32> {
    let front: &[u8; END] = packet.front()?;
    let end = packet.len();
    let ip = ipv4::View(front[IP..].first_chunk()?);
    let udp = udp::View(front[UDP..].first_chunk()?);
    let gtp = gtpu::View(front[GTP..].first_chunk()?);
    if [front[12], front[13]] != ethertype::IPV4.to_be_bytes() || front[IP] != 0x45 || ip.is_fragment() {
        return None;
    }
    // ICMP may be about packets of ours.
    if ip.protocol() != protocol::UDP {
        return if ip.protocol() == protocol::ICMP { None } else { Some(XDP_PASS) };
    }
    if udp.destination_port() != GTPU_PORT {
        return Some(XDP_PASS);
    }
    if gtp.version() != 1
        || gtp.is_gtp_prime()
        || gtp.message_type() != gtpu::message::G_PDU
        // Each length says the same.
        || IP + ip.total_len() as usize != end
        || UDP + udp.len() as usize != end
        || END + gtp.len() as usize != end
    {
        return None;
    }
    let (source, local, outer_tos) = (ip.source(), ip.destination(), ip.tos());
    let message = Message {
        kind: gtpu::message::G_PDU,
        teid: gtp.teid(),
        offset: GTP,
        has_optional: gtp.has_optional(),
        end,
    };
    if message.teid.value() == 0 || !is_ours(local) {
        return None;
    }
    let session = sessions::find(&UplinkKey { local, teid: message.teid })?;
    if session.peer != source || session.flags != 0 || session.tags != tags::DROP || session.filter != 0 {
        return None;
    }
    let payload = Payload::find(packet, &message).ok()?;
    let offset = packet.forget::<0x3fff>(payload.offset);
    let inner = Inner::parse(packet, offset, end).ok()?;
    check_source(packet, &inner, session).ok()?;
    // The bits of congestion outside say nothing that those inside do not.
    let same_ecn = outer_tos & 0b11 == 0 || (outer_tos ^ inner.tos) & 0b11 == 0;
    if inner.ttl <= 1 || !same_ecn || offset + inner.len != end {
        return None;
    }
    let addresses = packet.addresses()?;
    let (customer, number) = (session.customer, session.session);
    packet.move_start(offset as i32 - ethernet::LEN as i32)?;
    if packet.put_ethernet(&addresses, inner.ethertype).is_none() {
        // It was there just now.
        return Some(crate::module::refuse(Reason::Headroom));
    }
    say(customer, number, &inner, &payload, outer_tos);
    Some(XDP_PASS)
}
