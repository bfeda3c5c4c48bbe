//! The answer to a packet that is too big for the way to the radio network, in the GRE tunnel that the packet came from.

use aya_ebpf::{bindings::xdp_md, btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{GreTunnel, Reason, direction, tunnel_flags};
use xdpchain_kit::{Ends, Inner, Outer, Packet, Told, TooBig, pack, unpack};
use xdpchain_wire::{
    Octets as _,
    ethernet::{self, ethertype},
    gre, protocol,
};

use crate::{TTL, hops, module};

/// GRE tunnels by number: to be imported from `gre-steer`. Without them nobody is told of packets that are too big.
#[btf_map(name = "tunnels")]
static TUNNELS: HashMap<u32, GreTunnel, 4096> = HashMap::new();

/// Senders that were told.
static TOLD: Told<64> = Told::new();

/// Octets of the key field.
const KEY: usize = 4;

/// That the sender of a packet is to be told. What finds it out returns, and does not tell itself: both need much of the stack.
pub(crate) struct Due {
    /// Where the inner packet begins.
    pub(crate) offset: usize,
    /// Octets that it may have; 0 when that is not known.
    pub(crate) mtu: usize,
}

impl Due {
    const BIT: u64 = 1 << 63;

    /// As a number that is no verdict.
    #[inline(always)]
    pub(crate) fn packed(self) -> u64 {
        Self::BIT | (self.offset as u64) << 32 | self.mtu as u64
    }

    /// What is [`packed`](Self::packed) in a number; none in a verdict.
    #[inline(always)]
    pub(crate) fn unpacked(number: u64) -> Option<Self> {
        let due = Self { offset: (number >> 32) as usize & 0x1f, mtu: number as usize & 0xffff };
        (number & Self::BIT != 0).then_some(due)
    }
}

/// Sends, instead of the packet, the message that it was too big.
///
/// # Errors
/// [`Reason::TooBig`] when nobody is told.
#[inline(always)]
pub(crate) fn tell(packet: &mut Packet, due: &Due, tunnel: u32) -> Result<u32, Reason> {
    let (ctx, offset, mtu) = (packet.as_ptr(), due.offset as u32, due.mtu);
    // SAFETY: the context is the packet's, which is not used meanwhile, and the result is packed.
    unsafe {
        // First the way, and not on the way: the kernel's question and the answer do not fit the stack together.
        if xdpchain_ask_way(ctx, offset, tunnel) == 0 {
            return Err(Reason::TooBig);
        }
        unpack(xdpchain_tell(ctx, offset, tunnel, mtu as u32))
    }
}

/// Asks for the next hop of an answer to the packet at `offset`; 1 when it is one that packets are sent to, else 0. A global
/// function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_ask_way(ctx: *mut xdp_md, offset: u32, tunnel: u32) -> u32 {
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    way(&packet, offset as usize & 0x1f, tunnel).is_some_and(|outer| outer.next_hop.is_ready()) as u32
}

#[inline(always)]
fn way(packet: &Packet, offset: usize, tunnel: u32) -> Option<Outer<'static>> {
    // SAFETY: nothing here changes the map, and the value is only read.
    let tunnel = unsafe { TUNNELS.get(tunnel) }?;
    let ethertype = if packet.at::<1>(offset)?[0] & 0x20 == 0 { ethertype::IPV4 } else { ethertype::IPV6 };
    hops::outer(packet, ends(tunnel), overhead(tunnel) + TooBig::len(ethertype)).ok()
}

/// As [`tell`], with the packet at `offset`, after its way was asked for. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_tell(ctx: *mut xdp_md, offset: u32, tunnel: u32, mtu: u32) -> u64 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { Packet::of(ctx) };
    pack(answer(&mut packet, offset as usize & 0x1f, tunnel, mtu as usize & 0xffff))
}

#[inline(always)]
fn answer(packet: &mut Packet, offset: usize, tunnel: u32, mtu: usize) -> Result<u32, Reason> {
    let inner = packet.forget_version(Inner::parse(packet, offset, packet.len())?);
    // SAFETY: as in `way`.
    let tunnel = unsafe { TUNNELS.get(tunnel) }.ok_or(Reason::TooBig)?;
    let overhead = packet.forget::<0xf>(overhead(tunnel));
    let outer = hops::asked_outer(packet, ends(tunnel), overhead + TooBig::len(inner.ethertype))
        .map_err(|_| Reason::TooBig)?;
    let answer = TooBig::new(packet, &inner, mtu, &TOLD)?;

    answer.write(packet, ethernet::LEN + outer.ip_len() + overhead).ok_or(Reason::Headroom)?;
    let ttl = if tunnel.ttl == 0 { TTL } else { tunnel.ttl };
    outer.emit(packet, ttl, 0).ok_or(Reason::Headroom)?;
    let key = (tunnel.flags & tunnel_flags::HAS_KEY != 0).then_some(tunnel.key);
    let gre = gre::Repr { protocol: answer.ethertype, key, ..gre::Repr::default() };
    let at = packet.forget::<0x3f>(ethernet::LEN + outer.ip_len());
    gre.emit(packet, at).ok_or(Reason::Headroom)?;
    module::count(Reason::TooBig);
    module::change_context(|context| {
        context.direction = direction::UPLINK;
        context.inner_len = answer.total_len() as u16;
        context.reason = Reason::TooBig as u16;
    });
    outer.next_hop.send(packet)
}

/// Octets of the GRE header.
#[inline(always)]
fn overhead(tunnel: &GreTunnel) -> usize {
    gre::LEN + if tunnel.flags & tunnel_flags::HAS_KEY != 0 { KEY } else { 0 }
}

/// What the outer header of an answer is made of.
#[inline(always)]
fn ends(tunnel: &GreTunnel) -> Ends {
    let fixed = tunnel.flags & tunnel_flags::FIXED_DSCP != 0;
    let tos = if fixed { tunnel.dscp << 2 } else { TooBig::TOS };
    Ends { source: tunnel.local, destination: tunnel.remote, protocol: protocol::GRE, tos }
}
