//! Big-endian numbers at constant places of a header.
//!
//! Copied in parts of at most four octets: such a copy is one load or store to the compiler that makes packet programs, a longer
//! one a call of a loop over single octets, and octets set one by one stay so many stores.

/// The 16-bit number at `i`.
#[inline(always)]
pub(crate) const fn u16_at<const N: usize>(octets: &[u8; N], i: usize) -> u16 {
    u16::from_be_bytes(take(octets, i))
}

/// The 32-bit number at `i`.
#[inline(always)]
pub(crate) const fn u32_at<const N: usize>(octets: &[u8; N], i: usize) -> u32 {
    u32::from_be_bytes(take(octets, i))
}

/// Writes `value` at `i`.
#[inline(always)]
pub(crate) const fn put_u16<const N: usize>(octets: &mut [u8; N], i: usize, value: u16) {
    put(octets, i, value.to_be_bytes());
}

/// Writes `value` at `i`.
#[inline(always)]
pub(crate) const fn put_u32<const N: usize>(octets: &mut [u8; N], i: usize, value: u32) {
    put(octets, i, value.to_be_bytes());
}

/// Writes the octets of `value` from `i` on.
#[inline(always)]
pub(crate) const fn put<const N: usize, const M: usize>(octets: &mut [u8; N], i: usize, value: [u8; M]) {
    copy(octets.as_mut_slice().split_at_mut(i).1, &value, M);
}

/// The `M` octets from `i` on.
#[inline(always)]
pub(crate) const fn take<const N: usize, const M: usize>(octets: &[u8; N], i: usize) -> [u8; M] {
    let mut value = [0; M];
    copy(&mut value, octets.as_slice().split_at(i).1, M);
    value
}

/// Copies the first `len` octets.
#[inline(always)]
const fn copy(to: &mut [u8], from: &[u8], len: usize) {
    let mut k = 0;
    while k + 4 <= len {
        copy_part::<4>(to, from, k);
        k += 4;
    }
    if k + 2 <= len {
        copy_part::<2>(to, from, k);
        k += 2;
    }
    if k < len {
        to[k] = from[k];
    }
}

/// Copies the `M` octets at `k`.
#[inline(always)]
const fn copy_part<const M: usize>(to: &mut [u8], from: &[u8], k: usize) {
    to.split_at_mut(k).1.split_at_mut(M).0.copy_from_slice(from.split_at(k).1.split_at(M).0);
}
