//! Numbers that programs on all CPUs remember.

use core::cell::UnsafeCell;

/// Which of some numbers have been seen: the last one for each value of the lowest bits of their uppermost octet, which is the last
/// one of an address as it stands in a packet. Nothing is seen at first.
pub struct Remembered<const N: usize>([UnsafeCell<u32>; N]);

// SAFETY: the numbers are read and written only here, each by one access that machines do not divide; which of two CPUs
// comes last does not matter.
unsafe impl<const N: usize> Sync for Remembered<N> {}

impl<const N: usize> Remembered<N> {
    /// Nothing seen. `N` is a power of 2, 256 at most.
    #[expect(clippy::new_without_default, reason = "made in statics, where a default cannot be called")]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= 256) };
        Self([const { UnsafeCell::new(0) }; N])
    }

    /// Whether `number`, which is not 0, was the last one of its kind.
    #[inline(always)]
    pub fn has(&self, number: u32) -> bool {
        // SAFETY: a number of ours, see above.
        number != 0 && unsafe { self.0[(number >> 24) as usize & (N - 1)].get().read_volatile() } == number
    }

    /// Remembers `number` instead of another of its kind.
    #[inline(always)]
    pub fn put(&self, number: u32) {
        // SAFETY: as in `has`.
        unsafe { self.0[(number >> 24) as usize & (N - 1)].get().write_volatile(number) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_each_kind_is_remembered() {
        static SEEN: Remembered<4> = Remembered::new();
        let [one, two, three] = [[10, 0, 0, 5], [10, 0, 0, 6], [10, 0, 0, 9]].map(u32::from_le_bytes);
        assert!(!SEEN.has(0) && !SEEN.has(one));
        SEEN.put(one);
        SEEN.put(two);
        assert!(SEEN.has(one) && SEEN.has(two));
        SEEN.put(three);
        assert!(SEEN.has(three) && SEEN.has(two) && !SEEN.has(one));
    }
}
