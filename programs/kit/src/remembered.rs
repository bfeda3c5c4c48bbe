//! Numbers that programs on all CPUs remember.

use core::cell::UnsafeCell;

/// Which of some numbers have been seen: the last one for each value of their lowest bits. Nothing is seen at first.
pub struct Remembered<const N: usize>([UnsafeCell<u32>; N]);

// SAFETY: the numbers are read and written only here, each by one access that machines do not divide; which of two CPUs
// comes last does not matter.
unsafe impl<const N: usize> Sync for Remembered<N> {}

impl<const N: usize> Remembered<N> {
    /// Nothing seen. `N` is a power of 2.
    #[expect(clippy::new_without_default, reason = "made in statics, where a default cannot be called")]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        Self([const { UnsafeCell::new(0) }; N])
    }

    /// Whether `number`, which is not 0, was the last one of its lowest bits.
    #[inline(always)]
    pub fn has(&self, number: u32) -> bool {
        // SAFETY: a number of ours, see above.
        number != 0 && unsafe { self.0[number as usize & (N - 1)].get().read_volatile() } == number
    }

    /// Remembers `number` instead of another with the same lowest bits.
    #[inline(always)]
    pub fn put(&self, number: u32) {
        // SAFETY: as in `has`.
        unsafe { self.0[number as usize & (N - 1)].get().write_volatile(number) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_each_ending_is_remembered() {
        static SEEN: Remembered<4> = Remembered::new();
        assert!(!SEEN.has(0) && !SEEN.has(5));
        SEEN.put(5);
        SEEN.put(6);
        assert!(SEEN.has(5) && SEEN.has(6));
        SEEN.put(9);
        assert!(SEEN.has(9) && SEEN.has(6) && !SEEN.has(5));
    }
}
