//! Big-endian numbers at constant places of a header.

/// The 16-bit number at `i`.
#[inline(always)]
pub(crate) const fn u16_at<const N: usize>(octets: &[u8; N], i: usize) -> u16 {
    u16::from_be_bytes([octets[i], octets[i + 1]])
}

/// The 32-bit number at `i`.
#[inline(always)]
pub(crate) const fn u32_at<const N: usize>(octets: &[u8; N], i: usize) -> u32 {
    u32::from_be_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]])
}

/// Writes `value` at `i`.
#[inline(always)]
pub(crate) const fn put_u16<const N: usize>(octets: &mut [u8; N], i: usize, value: u16) {
    let [a, b] = value.to_be_bytes();
    octets[i] = a;
    octets[i + 1] = b;
}

/// Writes `value` at `i`.
#[inline(always)]
pub(crate) const fn put_u32<const N: usize>(octets: &mut [u8; N], i: usize, value: u32) {
    let [a, b, c, d] = value.to_be_bytes();
    octets[i] = a;
    octets[i + 1] = b;
    octets[i + 2] = c;
    octets[i + 3] = d;
}

/// Writes the octets of `value` from `i` on.
#[inline(always)]
pub(crate) fn put<const N: usize, const M: usize>(octets: &mut [u8; N], i: usize, value: [u8; M]) {
    let mut k = 0;
    while k < M {
        octets[i + k] = value[k];
        k += 1;
    }
}

/// The `M` octets from `i` on.
#[inline(always)]
pub(crate) fn take<const N: usize, const M: usize>(octets: &[u8; N], i: usize) -> [u8; M] {
    let mut value = [0; M];
    let mut k = 0;
    while k < M {
        value[k] = octets[i + k];
        k += 1;
    }
    value
}
