//! Results of functions that the verifier judges on their own, which return one number.
//!
//! What is inlined the verifier follows anew for each way that leads to it. A global function (`extern "C"`, `no_mangle`, never
//! inlined) it follows once, for whatever numbers its arguments are, and what it returns may be any number to the caller. So
//! loops and rare ways are in such functions. They take the kernel's context and numbers, for no other pointer passes. Those
//! of this crate are in every object; loaders take only what is called.

use xdpchain_abi::Reason;

/// With the number of a reason.
const REFUSED: u64 = 1 << 32;

/// The result as one number.
#[inline(always)]
pub fn pack(result: Result<u32, Reason>) -> u64 {
    match result {
        Ok(number) => number as u64,
        Err(reason) => REFUSED | reason as u64,
    }
}

/// The result that [`pack`] made this number of.
///
/// # Errors
/// The reason in it.
///
/// # Safety
/// `packed` comes from [`pack`].
#[inline(always)]
pub unsafe fn unpack(packed: u64) -> Result<u32, Reason> {
    if packed & REFUSED != 0 {
        // SAFETY: the number of a reason, as the caller promises.
        return Err(unsafe { reason(packed as u16) });
    }
    Ok(packed as u32)
}

/// The reason with this number.
///
/// # Safety
/// `number` is that of a reason.
#[inline(always)]
pub(crate) const unsafe fn reason(number: u16) -> Reason {
    // SAFETY: the enumeration is its numbers.
    unsafe { core::mem::transmute(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for number in [0, 1, 5, u32::MAX] {
            // SAFETY: packed just now.
            assert_eq!(unsafe { unpack(pack(Ok(number))) }, Ok(number));
        }
        for &reason in Reason::ALL {
            // SAFETY: as above.
            assert_eq!(unsafe { unpack(pack(Err(reason))) }, Err(reason));
        }
    }
}
