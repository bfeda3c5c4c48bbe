//! Counters that programs on all CPUs add to.

/// Adds `value` to a counter that programs on other CPUs add to at the same time.
///
/// # Safety
/// `counter` is aligned and lies in a map value that outlives the call; programs reach it only through this function.
#[inline(always)]
pub unsafe fn atomic_add(counter: *mut u64, value: u64) {
    // The plain locked add that every kernel knows. The library's atomics are not there for this target, which
    // had no compare-and-swap before kernel 5.12.
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller promises a valid counter.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) value, options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller promises a valid counter.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(counter)
            .fetch_add(value, core::sync::atomic::Ordering::Relaxed);
    }
}
