//! The module that takes users' packets out of GTP-U (3GPP TS 29.281) on their way to the customer's cloud.
//!
//! - A packet whose (outer destination, TEID) is a session's leaves as a plain Ethernet frame that holds the inner packet
//!   and nothing else, and the packet context says whose it is.
//! - A packet that comes to none of our addresses, the endpoints, passes untouched, even if a session has its address.
//! - Every check comes before the first change. What fails one is dropped, or punted as it came in, with its reason.
//! - A punted packet is not for later slots either: its verdict has `XDPCHAIN_FINAL` set. Attached alone, without a
//!   chain, the kernel would take that for an unknown verdict and drop the packet.
#![no_std]
#![no_main]

mod echo;
mod endpoints;
mod filter;
mod outer;
mod payload;
mod plain;
mod sessions;

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use xdpchain_abi::{
    Ipv4, PacketContext, Reason, UplinkKey, UplinkSession, direction, endpoint_flags, session_flags,
};
use xdpchain_kit::{Inner, Packet, decapsulated_tos, is_link_local, is_within6, set_tos};
use xdpchain_wire::{Octets as _, ethernet::ethertype, gtpu, ipv4, ipv6};

use self::{
    outer::{Message, Outer},
    payload::Payload,
};

xdpchain_kit::module!();

/// Decapsulates, answers Echo Requests, passes on what is not GTP-U for us.
#[xdp]
fn gtp_decap(ctx: XdpContext) -> u32 {
    // What has left a tunnel already is a user's packet, whose addresses are none of this network's: GTP-U inside of it is
    // the user's own.
    if module::context().direction != direction::NONE {
        return XDP_PASS;
    }
    match plain::decapsulate(&ctx) {
        Some(verdict) => verdict,
        // SAFETY: the context is the kernel's, and not used further on.
        None => unsafe { xdpchain_decapsulate(ctx.ctx) },
    }
}

/// What becomes of a packet: the long way, which any packet may take. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_decapsulate(ctx: *mut xdp_md) -> u32 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { Packet::of(ctx) };
    match judge(&mut packet) {
        Ok(verdict) => verdict,
        Err(reason) => module::refuse(packet.forget_reason(reason)),
    }
}

/// The packet's verdict, or why it is not forwarded.
#[inline(always)]
fn judge(packet: &mut Packet) -> Result<u32, Reason> {
    let Some(outer) = Outer::parse(packet)? else { return Ok(XDP_PASS) };
    let message = outer.message(packet)?;
    if message.kind != gtpu::message::G_PDU {
        return signalling(packet, &outer, &message);
    }
    // 3GPP TS 29.281, 5.1 keeps TEID 0 for messages that are about no tunnel, so a session cannot have it.
    if message.teid.value() == 0 {
        return Err(Reason::TeidZero);
    }
    let key = UplinkKey { local: outer.destination, teid: message.teid };
    let session = sessions::find(&key).ok_or(Reason::UnknownTeid)?;
    decapsulate(packet, &outer, &message, session)
}

/// A message about tunnels, to an address of ours.
#[inline(always)]
fn signalling(packet: &mut Packet, outer: &Outer, message: &Message) -> Result<u32, Reason> {
    match message.kind {
        gtpu::message::ECHO_REQUEST => {
            let flags = endpoints::flags(packet, outer);
            if flags & endpoint_flags::NO_ECHO != 0 {
                return Err(Reason::GtpSignalling);
            }
            if flags & endpoint_flags::VERIFY_UDP_CHECKSUM != 0 {
                outer.verify(packet)?;
            }
            echo::answer(packet, outer, message.end)
        }
        gtpu::message::END_MARKER => Err(Reason::EndMarker),
        gtpu::message::ERROR_INDICATION => Err(Reason::ErrorIndication),
        _ => Err(Reason::GtpSignalling),
    }
}

/// Takes the user's packet out of its G-PDU.
#[inline(always)]
fn decapsulate(
    packet: &mut Packet,
    outer: &Outer,
    message: &Message,
    session: &UplinkSession,
) -> Result<u32, Reason> {
    if session.flags & session_flags::VERIFY_UDP_CHECKSUM != 0 {
        outer.verify(packet)?;
    }
    let payload = Payload::find(packet, message)?;
    let moved = session.peer != outer.source;
    if moved && session.flags & session_flags::STRICT_PEER != 0 {
        return Err(Reason::PeerStrict);
    }
    let offset = packet.forget::<0x3fff>(payload.offset);
    let inner = Inner::parse(packet, offset, message.end)?;
    check_source(packet, &inner, session)?;
    // Before the hops: what is not let through does not come to the kernel either.
    if session.filter != 0 {
        filter::judge(packet, &inner, session.filter)?;
    }
    // Asked while the packet is whole: the kernel is to get what came in, not an inner packet without its customer.
    if inner.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let tos = decapsulated_tos(outer.tos, inner.tos)?;
    if tos != inner.tos {
        set_tos(packet, inner.offset, tos).ok_or(Reason::Truncated)?;
    }
    let whose = Whose::of(session);

    let tags = packet.tags(outer.network, session.tags, session.vlan).ok_or(Reason::Truncated)?;
    let before = packet.open(inner.offset, inner.len, inner.ethertype, &tags).ok_or(Reason::Headroom)?;
    let say = |context: &mut PacketContext| say(context, whose, inner.len, Flow::of(&payload), outer.tos);
    module::take_off(packet, before, say).ok_or(Reason::Headroom)?;
    if moved {
        module::count(Reason::PeerMoved);
    }
    Ok(XDP_PASS)
}

/// A session's customer and number, as sessions and packets' contexts begin with them: one piece to be copied.
#[derive(Clone, Copy)]
struct Whose([u8; 8]);

impl Whose {
    #[inline(always)]
    fn of(session: &UplinkSession) -> Self {
        const {
            assert!(offset_of!(UplinkSession, customer) == offset_of!(PacketContext, customer));
            assert!(offset_of!(UplinkSession, session) == offset_of!(PacketContext, session));
            assert!(offset_of!(UplinkSession, customer) == 0 && offset_of!(UplinkSession, session) == 4);
        }
        // SAFETY: the first octets of the session.
        Self(unsafe { *core::ptr::from_ref(session).cast() })
    }
}

/// A packet's QoS flow, as its context has it behind the direction of what goes uplink, with a verdict that is none yet.
#[derive(Clone, Copy)]
struct Flow(u32);

impl Flow {
    const NONE: Self = Self::new(0, false);

    #[inline(always)]
    fn of(payload: &Payload) -> Self {
        Self::new(payload.qfi, payload.has_qfi)
    }

    #[inline(always)]
    const fn new(qfi: u8, has_qfi: bool) -> Self {
        const {
            assert!(offset_of!(PacketContext, qfi) == offset_of!(PacketContext, direction) + 1);
            assert!(offset_of!(PacketContext, has_qfi) == offset_of!(PacketContext, direction) + 2);
            assert!(offset_of!(PacketContext, verdict) == offset_of!(PacketContext, direction) + 3);
        }
        Self((has_qfi as u32) << 16 | (qfi as u32) << 8 | direction::UPLINK as u32)
    }
}

/// Says in the context whose packet has left its tunnel.
#[inline(always)]
fn say(context: &mut PacketContext, whose: Whose, inner_len: usize, flow: Flow, outer_tos: u8) {
    let octets = core::ptr::from_mut(context).cast::<u8>();
    // SAFETY: fields of the context one behind the other, as `Whose` and `Flow` have them.
    unsafe {
        *octets.cast() = whose.0;
        *octets.add(offset_of!(PacketContext, direction)).cast() = flow.0.to_le_bytes();
    }
    context.inner_len = inner_len as u16;
    context.outer_tos = outer_tos;
}

/// Whether the inner source belongs to the session.
#[inline(always)]
fn check_source(packet: &Packet, inner: &Inner, session: &UplinkSession) -> Result<(), Reason> {
    let ours = if inner.ethertype == ethertype::IPV4 {
        let view = ipv4::View(packet.at(inner.offset).ok_or(Reason::InnerMalformed)?);
        session.inner4 != Ipv4::default() && view.source() == session.inner4
    } else {
        let header: &[u8; ipv6::LEN] = packet.at(inner.offset).ok_or(Reason::InnerMalformed)?;
        // fe80::/10 at either end and the groups of ff02::/16 mean the link, whose other end is on the slow path.
        if is_link_local(header[8], header[9])
            || is_link_local(header[24], header[25])
            || header[24] == 0xff && header[25] == 0x02
        {
            return Err(Reason::InnerLinkLocal);
        }
        is_within6(ipv6::View(header).source(), session.inner6, session.inner6_len)
    };
    if ours { Ok(()) } else { Err(Reason::SpoofedSource) }
}
