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
mod plain;
mod too_big;

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    btf_maps::{Array, HashMap},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{DownlinkKey, DownlinkSession, EncapConfig, GTPU_PORT, Reason, direction, session_flags};
use xdpchain_kit::{Inner, Packet, clamp_mss, decrement_ttl, entropy, fate, fragment_id, is_syn, mss_mtu};
use xdpchain_wire::{
    Octets, OctetsMut as _,
    ethernet::{self, ethertype},
    gtpu::{self, Optional, PduSession},
    ipv4, ipv6, udp,
};

use too_big::Due;

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
fn gtp_encap(ctx: XdpContext) -> u32 {
    let context = module::context();
    if context.direction != direction::DOWNLINK {
        return XDP_PASS;
    }
    let mut packet = module::packet(&ctx, &context);
    if let Some(verdict) = plain::forward(&mut packet, &context) {
        return verdict;
    }
    // With nothing in front of it from here on.
    let mut packet = Packet::new(&ctx);
    // SAFETY: the context is the packet's, which is not used meanwhile.
    let found = unsafe { xdpchain_encapsulate(packet.as_ptr(), context.customer) };
    match Due::unpacked(found) {
        None => found as u32,
        Some(due) => match too_big::tell(&mut packet, &due, context.tunnel) {
            Ok(verdict) => verdict,
            Err(reason) => refuse(&packet, reason),
        },
    }
}

/// Encapsulates a packet of `customer`: the long way, which any packet may take. Returns the verdict, or that its sender is
/// [due](Due) to be told that it is too big. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_encapsulate(ctx: *mut xdp_md, customer: u32) -> u64 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { module::whole_packet(ctx) };
    match forward(&mut packet, customer) {
        Ok(found) => found,
        Err(reason) => refuse(&packet, reason) as u64,
    }
}

/// The verdict for a packet that is not sent.
#[inline(always)]
fn refuse(packet: &Packet, reason: Reason) -> u32 {
    let reason = packet.forget_reason(reason);
    module::refuse_as(reason, fate(CONFIG.get(0), reason))
}

/// Sends the packet into the session of its customer, or says why not, or that its sender is due to be told.
#[inline(always)]
fn forward(packet: &mut Packet, customer: u32) -> Result<u64, Reason> {
    let link = packet.link().ok_or(Reason::Truncated)?;
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return Ok(XDP_PASS as u64);
    }
    let inner = packet.forget_version(Inner::parse(packet, link.network, packet.len())?);
    if inner.to_group {
        return Err(Reason::InnerMulticast);
    }
    if inner.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let mut key = MaybeUninit::uninit();
    let key = write_key(&mut key, customer, address(packet, packet, inner.ethertype, inner.offset)?);
    let hash = entropy(packet, &inner);
    // SAFETY: nothing here changes the map, and a session that user space replaces meanwhile is read field by field at
    // worst from both, as in every look-up that takes no lock.
    let session = unsafe { SESSIONS.get(key) }.ok_or(Reason::NoSession)?;
    module::change_context(|context| context.session = session.session);

    // Asked once, as in `plain`.
    let has_qfi = session.flags & session_flags::HAS_QFI != 0;
    let overhead = packet.forget::<0x1f>(if has_qfi { OVERHEAD + CONTAINER } else { OVERHEAD });
    let outer = outer::new(packet, &inner, session, overhead)?;
    let headers = outer.ip_len() + overhead;
    if outer::is_too_long(&outer, packet, &inner) {
        return Ok(Due { offset: inner.offset, mtu: outer.next_hop.room(headers) }.packed());
    }
    let id = if outer.next_hop.is_too_long() { fragment_id(packet, &inner, hash) } else { 0 };
    let mss_mtu = if is_syn(packet, &inner) { mss_mtu(CONFIG.get(0), &outer.next_hop, headers) } else { 0 };
    let mss_mtu = packet.forget16(mss_mtu as u16) as usize;

    packet.truncate(inner.offset + inner.len).ok_or(Reason::Truncated)?;
    let grown = ethernet::LEN + headers - inner.offset;
    packet.move_start(-(grown as i32)).ok_or(Reason::Headroom)?;
    outer.emit(packet, TTL, id).ok_or(Reason::Headroom)?;
    let transport = packet.forget::<0x3f>(ethernet::LEN + outer.ip_len());
    let headers: &mut [u8; OVERHEAD] = packet.at_mut(transport).ok_or(Reason::Headroom)?;
    write_headers(headers, session, has_qfi, overhead + inner.len, hash);
    if has_qfi {
        write_container(packet.at_mut(transport + OVERHEAD).ok_or(Reason::Headroom)?, session);
    }
    let start = packet.forget::<0x7f>(transport + overhead);
    decrement_ttl(packet, start).ok_or(Reason::Headroom)?;
    if mss_mtu != 0 {
        // A header that is cut short says nothing that could be lowered.
        clamp_mss(packet, inner.ethertype, start, mss_mtu);
    }
    outer::sum(&outer, packet, transport)?;
    outer.next_hop.send(packet).map(u64::from)
}

/// Writes the headers between IP and the inner packet, or its container when it `has_qfi`: of a UDP datagram of `len` octets without
/// checksum, whose flow has this `hash`.
#[inline(always)]
fn write_headers(
    octets: &mut [u8; OVERHEAD],
    session: &DownlinkSession,
    has_qfi: bool,
    len: usize,
    hash: u32,
) {
    let Some((udp, gtp)) = octets.split_first_chunk_mut() else { return };
    udp::Repr {
        source_port: DYNAMIC_PORTS | hash as u16,
        destination_port: GTPU_PORT,
        len: len as u16,
        checksum: 0,
    }
    .emit(udp);
    let Some(gtp) = gtp.first_chunk_mut() else { return };
    gtpu::Repr {
        extensions: has_qfi,
        message_type: gtpu::message::G_PDU,
        len: (len - OVERHEAD) as u16,
        teid: session.teid,
        ..gtpu::Repr::default()
    }
    .emit(gtp);
}

/// Writes the PDU Session Container, and the optional part of the GTP-U header in front of it.
#[inline(always)]
fn write_container(octets: &mut [u8; CONTAINER], session: &DownlinkSession) {
    let Some((optional, container)) = octets.split_first_chunk_mut() else { return };
    Optional { next_extension: gtpu::extension::PDU_SESSION, ..Optional::default() }.emit(optional);
    let Some(container) = container.first_chunk_mut() else { return };
    PduSession { pdu_type: PduSession::DOWNLINK, qfi: session.qfi, next_extension: 0 }.emit(container);
}

/// What a downlink session is found by: the whole IPv4 address, the upper half of an IPv6 address. A session owns a
/// /64 (3GPP TS 23.501, 5.8.2.2), in which the user's device makes its addresses as it likes.
///
/// As words of [`DownlinkKey::address`], of the IP packet at `offset` of `octets`, which are some of the packet's.
#[inline(always)]
fn address<O: Octets + ?Sized>(
    packet: &Packet,
    octets: &O,
    ethertype: u16,
    offset: usize,
) -> Result<[u32; 2], Reason> {
    let word = |o: &[u8], i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
    if ethertype == ethertype::IPV4 {
        let header: &[u8; ipv4::LEN] = octets.at(offset).ok_or(Reason::InnerMalformed)?;
        // One number to the verifier, as the other version's.
        let none = packet.forget::<1>(0) as u32;
        Ok([!none, word(header, 16)])
    } else {
        let header: &[u8; ipv6::LEN] = octets.at(offset).ok_or(Reason::InnerMalformed)?;
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
