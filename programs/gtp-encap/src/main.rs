//! The module that puts the customer's packets into GTP-U (3GPP TS 29.281) on their way to the radio network.
//!
//! - It acts only on packets whose context says downlink; every other one passes on untouched.
//! - The session is found by customer and inner destination, so customers may use the same addresses.
//! - Outer headers are IPv4 or IPv6, UDP, GTP-U. Over IPv4 UDP has no checksum (RFC 768 allows it, TS 29.281 does not ask
//!   for one), over IPv6 it has, unless the peer takes it without. DF is set: whether the packet fits the way out is asked
//!   of the routing table before it is touched.
//! - Session, next hop and room are found before the first change. What lacks one is dropped, or punted, with its reason.
//! - While the next hop's link-layer address is unknown, the kernel gets the encapsulated packet to route, and so asks for
//!   it. The packet's source is an address of ours: the kernel takes such a packet from outside only when `accept_local`
//!   is on for the interface that it came in on, and drops it as a martian else. In the same way the kernel gets what is
//!   too long and may be fragmented, with DF not set; of what may not be, the sender is told.
#![no_std]
#![no_main]

mod hops;
mod outer;
mod too_big;

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    btf_maps::{Array, HashMap},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{
    DownlinkKey, DownlinkSession, EncapConfig, GTPU_PORT, PacketContext, Reason, direction, session_flags,
};
use xdpchain_kit::{Inner, Packet, clamp_mss, decrement_ttl, entropy, fate, fragment_id, is_syn, mss_mtu};
use xdpchain_wire::{
    Octets as _, OctetsMut as _,
    ethernet::{self, ethertype},
    gtpu::{self, Optional, PduSession},
    ipv4, ipv6, udp,
};

xdpchain_kit::module!();

/// Downlink sessions by customer and inner address.
#[btf_map(name = "sessions")]
static SESSIONS: HashMap<DownlinkKey, DownlinkSession, 1_048_576> = HashMap::new();

/// What is done with packets that cannot be sent.
#[btf_map(name = "config")]
static CONFIG: Array<EncapConfig, 1> = Array::new();

/// Octets of the headers between IP and the inner packet, without PDU Session Container.
const OVERHEAD: usize = udp::LEN + gtpu::LEN;
/// Octets that a PDU Session Container adds.
const CONTAINER: usize = gtpu::OPTIONAL_LEN + PduSession::LEN;
/// Outer TTL and hop limit.
const TTL: u8 = 64;
/// The first port of IANA's dynamic range, 49152 to 65535. The other end answers to 2152 whatever the source port
/// is, so it can carry the flow's entropy for equal-cost paths and receive queues.
const DYNAMIC_PORTS: u16 = 0xc000;

/// Encapsulates what goes downlink, passes on the rest.
#[xdp]
#[inline(always)]
fn gtp_encap(ctx: XdpContext) -> u32 {
    let context = module::context();
    if context.direction != direction::DOWNLINK {
        return XDP_PASS;
    }
    let mut packet = Packet::new(&ctx);
    match forward(&mut packet, &context) {
        Ok(verdict) => verdict,
        Err(reason) => {
            let reason = packet.forget_reason(reason);
            module::refuse_as(reason, fate(CONFIG.get(0), reason))
        }
    }
}

/// Sends the packet into the session of its customer, or says why not.
#[inline(always)]
fn forward(packet: &mut Packet, context: &PacketContext) -> Result<u32, Reason> {
    let link = packet.link().ok_or(Reason::Truncated)?;
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return Ok(XDP_PASS);
    }
    let inner = packet.forget_version(Inner::parse(packet, link.network, packet.len())?);
    if inner.to_group {
        return Err(Reason::InnerMulticast);
    }
    if inner.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let mut key = MaybeUninit::uninit();
    let key = write_key(&mut key, context.customer, address(packet, &inner)?);
    let hash = entropy(packet, &inner);
    // SAFETY: nothing here changes the map, and a session that user space replaces meanwhile is read field by field at
    // worst from both, as in every look-up that takes no lock.
    let session = unsafe { SESSIONS.get(key) }.ok_or(Reason::NoSession)?;
    module::change_context(|context| context.session = session.session);

    let has_qfi = session.flags & session_flags::HAS_QFI != 0;
    let overhead = packet.forget::<0x1f>(if has_qfi { OVERHEAD + CONTAINER } else { OVERHEAD });
    let outer = outer::new(packet, &inner, session, overhead)?;
    let headers = outer.ip_len() + overhead;
    if outer::is_too_long(&outer, packet, &inner) {
        return too_big::tell(packet, &inner, context.tunnel, outer.next_hop.room(headers));
    }
    let id = if outer.next_hop.is_too_long() { fragment_id(packet, &inner, hash) } else { 0 };
    let mss_mtu = if is_syn(packet, &inner) { mss_mtu(CONFIG.get(0), &outer.next_hop, headers) } else { 0 };
    let mss_mtu = packet.forget16(mss_mtu as u16) as usize;

    packet.truncate(inner.offset + inner.len).ok_or(Reason::Truncated)?;
    let grown = ethernet::LEN + headers - inner.offset;
    packet.move_start(-(grown as i32)).ok_or(Reason::Headroom)?;
    outer.emit(packet, TTL, id).ok_or(Reason::Headroom)?;
    let transport = packet.forget::<0x3f>(ethernet::LEN + outer.ip_len());
    let udp = udp::Repr {
        source_port: DYNAMIC_PORTS | hash as u16,
        destination_port: GTPU_PORT,
        len: (overhead + inner.len) as u16,
        checksum: 0,
    };
    udp.emit(packet.at_mut(transport).ok_or(Reason::Headroom)?);
    let gtp = gtpu::Repr {
        extensions: has_qfi,
        message_type: gtpu::message::G_PDU,
        len: (overhead - OVERHEAD + inner.len) as u16,
        teid: session.teid,
        ..gtpu::Repr::default()
    };
    gtp.emit(packet.at_mut(transport + udp::LEN).ok_or(Reason::Headroom)?);
    if has_qfi {
        let optional = Optional { next_extension: gtpu::extension::PDU_SESSION, ..Optional::default() };
        optional.emit(packet.at_mut(transport + OVERHEAD).ok_or(Reason::Headroom)?);
        let container = PduSession { pdu_type: PduSession::DOWNLINK, qfi: session.qfi, next_extension: 0 };
        container.emit(packet.at_mut(transport + OVERHEAD + gtpu::OPTIONAL_LEN).ok_or(Reason::Headroom)?);
    }
    let start = packet.forget::<0x7f>(transport + overhead);
    decrement_ttl(packet, start).ok_or(Reason::Headroom)?;
    if mss_mtu != 0 {
        // A header that is cut short says nothing that could be lowered.
        clamp_mss(packet, inner.ethertype, start, mss_mtu);
    }
    outer::sum(&outer, packet, transport)?;
    outer.next_hop.send(packet)
}

/// What a downlink session is found by: the whole IPv4 address, the upper half of an IPv6 address. A session owns a
/// /64 (3GPP TS 23.501, 5.8.2.2), in which the user's device makes its addresses as it likes.
///
/// As words of [`DownlinkKey::address`].
#[inline(always)]
fn address(packet: &Packet, inner: &Inner) -> Result<[u32; 2], Reason> {
    let word = |o: &[u8], i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
    if inner.ethertype == ethertype::IPV4 {
        let header: &[u8; ipv4::LEN] = packet.at(inner.offset).ok_or(Reason::InnerMalformed)?;
        // One number to the verifier, as the other version's.
        let none = packet.forget::<1>(0) as u32;
        Ok([!none, word(header, 16)])
    } else {
        let header: &[u8; ipv6::LEN] = packet.at(inner.offset).ok_or(Reason::InnerMalformed)?;
        Ok([word(header, 24), word(header, 28)])
    }
}

/// Makes `key` that of `customer` and `address`.
#[inline(always)]
fn write_key(key: &mut MaybeUninit<DownlinkKey>, customer: u32, address: [u32; 2]) -> &DownlinkKey {
    const { assert!(size_of::<DownlinkKey>() == 12 && offset_of!(DownlinkKey, address) == 4) };
    let words = key.as_mut_ptr().cast::<u32>();
    for (i, word) in [customer, address[0], address[1]].into_iter().enumerate() {
        // Volatile, because the compiler would join two words to one that is not aligned, which the verifier refuses
        // on the stack.
        // SAFETY: within the key, which is aligned for it.
        unsafe { words.add(i).write_volatile(word) };
    }
    // SAFETY: all of its octets were written.
    unsafe { key.assume_init_ref() }
}
