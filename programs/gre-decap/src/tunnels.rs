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

/// The tunnel with these ends.
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
        let tunnel = find(key)?;
        *kept = Kept { asked: now, key: *key, tunnel: *tunnel };
    }
    Some(&kept.tunnel)
}

/// Where a tunnel is kept. Far ends' addresses often differ in their last octets, and ours too.
#[inline(always)]
fn place(key: &GreKey) -> u32 {
    let (remote, local) = (u32::from_be_bytes(key.remote.octets), u32::from_be_bytes(key.local.octets));
    (remote ^ local.rotate_left(5)) & (PLACES - 1)
}
