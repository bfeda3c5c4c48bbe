//! Choices without a branch: what packets differ in at random no processor guesses, and of a branch the verifier follows both ways.

/// All ones when `x` is negative, else 0.
#[inline(always)]
pub fn sign(x: i64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut x = x;
        // In assembly, as the compiler makes a branch of `x >> 63`.
        // SAFETY: shifts a register and touches nothing else.
        unsafe { core::arch::asm!("{0} s>>= 63", inout(reg) x, options(pure, nomem, nostack)) };
        x as u64
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        (x >> 63) as u64
    }
}
