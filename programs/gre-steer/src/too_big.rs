//! The answer to a packet that is too big for its tunnel.

use aya_ebpf::bindings::{xdp_action::XDP_PASS, xdp_md};
use xdpchain_abi::{Reason, direction};
use xdpchain_kit::{Inner, Packet, Told, TooBig, pack, unpack};
use xdpchain_wire::ethernet;

use crate::module;

/// Senders that were told.
static TOLD: Told<64> = Told::new();

/// Makes of the packet the message that it was too big for `mtu` octets, on its way back; 0 when that is not known.
///
/// # Errors
/// [`Reason::TooBig`] when nobody is told.
#[inline(always)]
pub(crate) fn tell(packet: &mut Packet, inner: &Inner, mtu: usize) -> Result<u32, Reason> {
    // SAFETY: the context is the packet's, which is not used meanwhile, and the result is packed.
    unsafe { unpack(xdpchain_tell(packet.as_ptr(), inner.offset as u32, mtu as u32)) }
}

/// As [`tell`], with the packet at `offset`. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_tell(ctx: *mut xdp_md, offset: u32, mtu: u32) -> u64 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { Packet::of(ctx) };
    pack(answer(&mut packet, offset as usize & 0x1f, mtu as usize & 0xffff))
}

#[inline(always)]
fn answer(packet: &mut Packet, offset: usize, mtu: usize) -> Result<u32, Reason> {
    let inner = packet.forget_version(Inner::parse(packet, offset, packet.len())?);
    let answer = TooBig::new(packet, &inner, mtu, &TOLD)?;
    let addresses = packet.addresses().ok_or(Reason::Truncated)?;
    answer.write(packet, ethernet::LEN).ok_or(Reason::Headroom)?;
    packet.put_ethernet(&addresses, answer.ethertype).ok_or(Reason::Headroom)?;
    module::count(Reason::TooBig);
    module::change_context(|context| {
        context.direction = direction::DOWNLINK;
        context.tunnel = 0;
        context.inner_len = answer.total_len() as u16;
        context.reason = Reason::TooBig as u16;
    });
    Ok(XDP_PASS)
}
