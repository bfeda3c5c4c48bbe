//! Packets as most of them are: G-PDUs over IPv4 from the peer of a session that asks for nothing special.
//!
//! - Such a packet is alone in its frame, with one tag at most and no IPv4 options around it, and its session has neither a filter
//!   nor flags nor tags of its own.
//! - Whatever else it is, it takes the long way, of which this is a part that asks less: it may leave any packet to it, and what
//!   leaves its tunnel here does so as by the long way.

use core::mem::offset_of;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, programs::XdpContext};
use xdpchain_abi::{GTPU_PORT, Ipv4, PacketContext, Reason, UplinkKey, UplinkSession, tags};
use xdpchain_kit::{Inner, Packet, is_same_ecn, is_tagged, open4, open4_front, open6};
use xdpchain_wire::{
    ethernet::{self, ethertype},
    gtpu, ipv4, protocol, udp,
};

use crate::{
    Flow, Whose, check_source, endpoints::is_ours, module, outer::Message, payload::Payload, say, sessions,
};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
const UDP: usize = IP + ipv4::LEN;
const GTP: usize = UDP + udp::LEN;
/// What is behind the mandatory part of GTP-U's header.
const END: usize = GTP + gtpu::LEN;

/// The first octets of a G-PDU with nothing but the mandatory part: version 1, GTP, no flags.
const BARE: [u8; 2] = [BARE_FLAGS, gtpu::message::G_PDU];
/// The first octet without the bits that say which optional fields mean something: without and with extension headers.
const FLAGS: u8 = 0xfc;
const BARE_FLAGS: u8 = 0x30;
const EXTENDED: u8 = 0x34;

/// Decapsulates a plain packet, and passes on a plain one that is no GTP-U. `None`, and nothing has changed, when it has to take the
/// long way.
#[inline(always)]
pub(crate) fn decapsulate(ctx: &XdpContext) -> Option<u32> {
    if is_tagged::<END>(ctx)? {
        return decapsulate_seen(&mut Packet::behind_tag(ctx));
    }
    decapsulate_seen(&mut Packet::new(ctx))
}

/// The same of one as it is seen without a tag.
#[inline(always)]
fn decapsulate_seen(packet: &mut Packet) -> Option<u32> {
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
    let bare = front[GTP..GTP + 2] == BARE;
    let other = gtp.version() != 1 || gtp.is_gtp_prime() || gtp.message_type() != gtpu::message::G_PDU;
    if !bare && other
        // Each length says the same.
        || IP + ip.total_len() as usize != end
        || UDP + udp.len() as usize != end
        || END + gtp.len() as usize != end
    {
        return None;
    }
    let (source, local, outer_tos, teid) = (ip.source(), ip.destination(), ip.tos(), gtp.teid());
    if teid.value() == 0 || !is_ours(local) {
        return None;
    }
    let session = sessions::find(&UplinkKey { local, teid })?;
    if session.peer != source || asks(session) {
        return None;
    }
    let (offset, flow, is_open) = if bare {
        if open4_front::<{ END + ipv4::LEN }>(packet, |inner| judge4(inner, end - END, session, outer_tos))? {
            // What most packets take has its offset in the instructions.
            return Some(leave(packet, END, end, session, Flow::NONE, outer_tos));
        }
        (END, Flow::NONE, false)
    } else {
        let payload = match short_payload(packet) {
            Some(payload) => payload,
            None => {
                let has_optional = gtp.has_optional();
                let message = Message { kind: gtpu::message::G_PDU, teid, offset: GTP, has_optional, end };
                Payload::find(packet, &message).ok()?
            }
        };
        let offset = packet.forget::<0x3fff>(payload.offset - ethernet::LEN) + ethernet::LEN;
        let is_ipv4 = open4(packet, offset, |inner| judge4(inner, end - offset, session, outer_tos))?;
        (offset, Flow::of(&payload), is_ipv4)
    };
    if !is_open {
        let of_session = |packet: &Packet, inner: &Inner| check_source(packet, inner, session).is_ok();
        open6(packet, offset, end, outer_tos, of_session)?;
    }
    Some(leave(packet, offset, end, session, flow, outer_tos))
}

/// Takes off what is before the frame that a packet was [made](open4_front), whose packet stands from `offset` to `end`.
#[inline(always)]
fn leave(
    packet: &mut Packet,
    offset: usize,
    end: usize,
    session: &UplinkSession,
    flow: Flow,
    outer_tos: u8,
) -> u32 {
    let whose = Whose::of(session);
    let say = |context: &mut PacketContext| say(context, whose, end - offset, flow, outer_tos);
    match module::take_off(packet, offset - ethernet::LEN, say) {
        Some(()) => XDP_PASS,
        // It is longer than what is taken away.
        None => module::refuse(Reason::Headroom),
    }
}

/// What a G-PDU carries whose header has optional fields and nothing else, or a PDU Session Container of the shortest form, as all of a
/// 5G radio network's have. What follows is looked at with it.
#[inline(always)]
fn short_payload(packet: &Packet) -> Option<Payload> {
    const CONTAINER: usize = END + gtpu::OPTIONAL_LEN;
    let front: &[u8; CONTAINER + gtpu::PduSession::LEN] = packet.front()?;
    match front[GTP] & FLAGS {
        BARE_FLAGS => Some(Payload { offset: CONTAINER, has_qfi: false, qfi: 0 }),
        EXTENDED if front[CONTAINER - 1] == gtpu::extension::PDU_SESSION => {
            let container = gtpu::PduSession::parse(front.last_chunk()?)?;
            let alone = container.next_extension == gtpu::extension::NONE;
            alone.then_some(Payload { offset: front.len(), has_qfi: true, qfi: container.qfi })
        }
        _ => None,
    }
}

/// Whether `session` has flags, a filter or tags of its own.
#[inline(always)]
fn asks(session: &UplinkSession) -> bool {
    // The three as parts of one number, as if each had been compared with 0: of three comparisons the compiler makes three loads.
    const AT: usize = offset_of!(UplinkSession, inner6_len);
    const ASKED: u64 = {
        let mut octets = [0; 8];
        octets[offset_of!(UplinkSession, flags) - AT] = 0xff;
        octets[offset_of!(UplinkSession, tags) - AT] = 0xff;
        octets[offset_of!(UplinkSession, filter) - AT] = 0xff;
        octets[offset_of!(UplinkSession, filter) - AT + 1] = 0xff;
        u64::from_ne_bytes(octets)
    };
    const { assert!(tags::DROP == 0 && AT + 8 <= size_of::<UplinkSession>()) };
    // SAFETY: within the session.
    let octets: [u8; 8] = unsafe { *core::ptr::from_ref(session).byte_add(AT).cast() };
    u64::from_ne_bytes(octets) & ASKED != 0
}

/// Whether an inner packet of `len` octets is IPv4 without options. `None` when it is for the long way.
#[inline(always)]
fn judge4(inner: &[u8; ipv4::LEN], len: usize, session: &UplinkSession, outer_tos: u8) -> Option<bool> {
    let ip = ipv4::View(inner);
    if inner[0] != 0x45 {
        return Some(false);
    }
    let ours = session.inner4 != Ipv4::default() && ip.source() == session.inner4;
    let plain = ours && ip.ttl() > 1 && ip.total_len() as usize == len && is_same_ecn(outer_tos, ip.tos());
    plain.then_some(true)
}
