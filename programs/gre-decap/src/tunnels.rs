//! Tunnels by their two ends.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray},
    macros::btf_map,
};
use xdpchain_abi::{GreIngress, GreKey};
use xdpchain_kit::{KEPT_TICKS, ticks};

/// Whose packets arrive where.
#[btf_map(name = "tunnels")]
static TUNNELS: HashMap<GreKey, GreIngress, 4096> = HashMap::new();

/// Tunnels that packets came by a short while ago, by some bits of their ends.
#[btf_map(name = "kept_tunnels")]
static KEPT: PerCpuArray<Kept, { PLACES as usize }> = PerCpuArray::new();

/// Entries of `kept_tunnels`.
const PLACES: u32 = 1024;

/// What `tunnels` said, and when.
#[repr(C)]
struct Kept {
    /// The tick of the kernel's clock at which it was asked.
    asked: u64,
    key: GreKey,
    tunnel: GreIngress,
}

/// The tunnel with these ends. Who changes an entry meanwhile may have parts of both read, here and for as long as it is kept.
#[inline(always)]
pub(crate) fn find(key: &GreKey) -> Option<&GreIngress> {
    // SAFETY: nothing in this program removes an entry.
    unsafe { TUNNELS.get(key) }
}

/// As [`find`], by what was found [`KEPT_TICKS`] ago at most: a search of the hash map takes longer than most else of a packet.
#[inline(always)]
pub(crate) fn recall(key: &GreKey) -> Option<&'static GreIngress> {
    let kept = KEPT.get_ptr_mut(place(key))?;
    // SAFETY: the value belongs to this CPU, XDP programs do not interrupt each other, and only this function refers to it mutably.
    let kept = unsafe { &mut *kept };
    let now = ticks();
    if kept.key != *key || now.wrapping_sub(kept.asked) >= KEPT_TICKS {
        let tunnel = *find(key)?;
        // Kernels are that let packets interrupt a test run: nothing is kept while only half of it is there.
        kept.asked = 0;
        let now = in_order(now);
        kept.key = *key;
        kept.tunnel = tunnel;
        kept.asked = in_order(now);
    }
    Some(&kept.tunnel)
}

/// `tick`, which is there when all is written that is to be written before, and before what is to be written behind.
#[inline(always)]
fn in_order(tick: u64) -> u64 {
    let result;
    // SAFETY: moves a register to another one. That it does not touch memory is not said, so that no writing moves across it.
    unsafe { core::arch::asm!("{0} = {1}", out(reg) result, in(reg) tick, options(nostack)) };
    result
}

/// Where a tunnel is kept, in a way that depends on every bit of both addresses.
#[inline(always)]
fn place(key: &GreKey) -> u32 {
    let (remote, local) = (u32::from_ne_bytes(key.remote.octets), u32::from_ne_bytes(key.local.octets));
    // The upper bits of a product with the golden ratio.
    (remote ^ local.rotate_left(16)).wrapping_mul(0x9e37_79b9) >> (u32::BITS - PLACES.ilog2())
}
