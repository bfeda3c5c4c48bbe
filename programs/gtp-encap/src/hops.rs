//! Where next hops are kept: by the last bits of the destination.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use xdpchain_abi::Ipv4;
use xdpchain_kit::Hop;

/// Next hops for each CPU; a power of 2.
const HOPS: u32 = 1024;

/// Next hops of each CPU.
#[btf_map(name = "next_hops")]
static NEXT_HOPS: PerCpuArray<Hop, { HOPS as usize }> = PerCpuArray::new();

/// Where the next hop toward `destination` is kept.
#[inline(always)]
pub(crate) fn toward(destination: Ipv4) -> Option<&'static mut Hop> {
    let hop = NEXT_HOPS.get_ptr_mut(u32::from_be_bytes(destination.octets) & (HOPS - 1))?;
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    Some(unsafe { &mut *hop })
}
