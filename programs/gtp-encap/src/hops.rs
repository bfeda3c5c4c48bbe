//! Next hops toward peers and far ends of tunnels: where they are kept, and how the kernel is asked.

use aya_ebpf::{bindings::xdp_md, btf_maps::PerCpuArray, macros::btf_map};
use xdpchain_abi::{Ipv4, Reason};
use xdpchain_kit::{Ends, Hop, Outer, Packet, Route, pack};

use crate::outer::address6;

/// Next hops for each CPU; a power of 2.
const HOPS: u32 = 1024;

/// Next hops of each CPU, by the last bits of the destination.
#[btf_map(name = "kept_hops")]
static NEXT_HOPS: PerCpuArray<Hop, { HOPS as usize }> = PerCpuArray::new();

/// The outer header of a packet with these ends in front of `len` octets.
///
/// # Errors
/// Why the packet is not sent.
#[inline(always)]
pub(crate) fn outer(packet: &Packet, ends: Ends, len: usize) -> Result<Outer<'static>, Reason> {
    // An array has an entry for every index; only the verifier does not know.
    let hop = toward(ends.destination).ok_or(Reason::NotForwarded)?;
    let ask = |route: &Route| {
        let (source, destination, rest) = route.packed();
        // SAFETY: the context is the packet's, whose octets are only read.
        unsafe { xdpchain_ask_route(packet.as_ptr(), source, destination, rest) }
    };
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    unsafe { Outer::new(packet, ends, len, address6, hop, ask) }
}

/// The same, for a packet whose next hop was asked for just before.
///
/// # Errors
/// [`Reason::NotForwarded`] when it is none that packets are sent to.
#[inline(always)]
pub(crate) fn asked_outer(packet: &Packet, ends: Ends, len: usize) -> Result<Outer<'static>, Reason> {
    let hop = toward(ends.destination).ok_or(Reason::NotForwarded)?;
    // SAFETY: as in `outer`.
    unsafe { Outer::new(packet, ends, len, address6, hop, |_| pack(Err(Reason::NotForwarded))) }
}

/// Asks the kernel for the next hop of a [packed](Route::packed) route. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_ask_route(ctx: *mut xdp_md, source: u32, destination: u32, rest: u32) -> u64 {
    let route = Route::unpacked(source, destination, rest);
    let Some(hop) = toward(route.destination) else { return pack(Err(Reason::NotForwarded)) };
    // SAFETY: as in `outer`, which does not look at it meanwhile.
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    route.ask(&packet, unsafe { &mut *hop }, address6)
}

/// Where the next hop toward `destination` is kept.
#[inline(always)]
pub(crate) fn toward(destination: Ipv4) -> Option<*mut Hop> {
    NEXT_HOPS.get_ptr_mut(u32::from_be_bytes(destination.octets) & (HOPS - 1))
}
