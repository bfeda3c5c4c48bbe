//! The kernel's clock, by which what was asked for is kept for a short while.

use aya_ebpf::helpers::bpf_jiffies64;

/// How long what the kernel or a map told is kept, in ticks: 8 ms to 80 ms, as kernels are built with 1000 to 100 a second.
pub const KEPT_TICKS: u64 = 8;

/// Ticks of the kernel's clock.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_jiffies64() }
}
