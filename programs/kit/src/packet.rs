//! A packet in the driver's buffer.
//!
//! A window of octets borrows the packet, so none outlives a move of its start or end.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use xdpchain_wire::{Octets, OctetsMut, ethernet};

/// The largest offset that a window may begin at. The verifier wants variable offsets well under 64 KiB; no frame
/// that XDP sees in one buffer is longer.
const MAX_OFFSET: usize = 0x3fff;

/// A packet in the driver's buffer.
pub struct Packet {
    ctx: *mut xdp_md,
}

/// Both link-layer addresses of a frame.
///
/// As three words: of twelve octets the compiler keeps each one in a register, or in eight octets of the stack.
pub struct Addresses([u32; 3]);

impl Packet {
    /// The packet that the program was called for.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx }
    }

    /// Octets from the frame's start to its end.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // The verifier allows the difference of packet pointers in 64 bits only, so the compiler must not
        // see that a caller needs no more than 32.
        opaque_difference(self.end(), self.start())
    }

    /// Whether the frame has no octets, which no driver hands over.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the interface that the packet came in on.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        // SAFETY: the kernel hands every XDP program a valid context.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// The kernel's context, for helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut xdp_md {
        self.ctx
    }

    /// Moves the frame's start by `delta` octets: forward takes octets away, backward makes room. `None`, and nothing
    /// has changed, when there is no room or nothing would be left.
    #[inline(always)]
    #[must_use]
    pub fn move_start(&mut self, delta: i32) -> Option<()> {
        // SAFETY: the context is valid, and every window into the packet ended with the exclusive borrow.
        (unsafe { bpf_xdp_adjust_head(self.ctx, delta) } == 0).then_some(())
    }

    /// Cuts off what is beyond `len` octets; a shorter frame stays as it is. `None`, and nothing has changed, when the
    /// driver refuses.
    #[inline(always)]
    #[must_use]
    pub fn truncate(&mut self, len: usize) -> Option<()> {
        let now = self.len();
        if now <= len {
            return Some(());
        }
        // SAFETY: as in `move_start`.
        (unsafe { bpf_xdp_adjust_tail(self.ctx, len as i32 - now as i32) } == 0).then_some(())
    }

    /// Makes the frame `len` octets long, by cutting off its tail or by adding zeroes to it. `None`, and nothing has
    /// changed, when the driver's buffer ends before.
    #[inline(always)]
    #[must_use]
    pub fn resize(&mut self, len: usize) -> Option<()> {
        let delta = len as i32 - self.len() as i32;
        // SAFETY: as in `move_start`.
        (unsafe { bpf_xdp_adjust_tail(self.ctx, delta) } == 0).then_some(())
    }

    /// The frame's link-layer addresses, to be written again after its start has moved.
    #[inline(always)]
    pub fn addresses(&self) -> Option<Addresses> {
        let octets: &[u8; 12] = self.at(0)?;
        let word =
            |i| opaque_word(u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]));
        Some(Addresses([word(0), word(4), word(8)]))
    }

    /// Makes the first octets of the frame an Ethernet header without tags. `None` when the frame is shorter.
    #[inline(always)]
    #[must_use]
    pub fn put_ethernet(&mut self, addresses: &Addresses, ethertype: u16) -> Option<()> {
        let header: &mut [u8; ethernet::LEN] = self.at_mut(0)?;
        for (part, word) in header.chunks_exact_mut(4).zip(addresses.0) {
            part.copy_from_slice(&word.to_ne_bytes());
        }
        header[12..].copy_from_slice(&ethertype.to_be_bytes());
        Some(())
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the kernel hands every XDP program a valid context.
        unsafe { (*self.ctx).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.ctx).data_end as usize }
    }

    /// The address of `N` octets at `offset` that lie within the packet.
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<usize> {
        if offset > MAX_OFFSET {
            return None;
        }
        // The verifier ties the range that the comparison proves to the pointer that was compared, so
        // the access must go through that very register and not one the compiler computed anew.
        let window = opaque_sum(self.start(), offset);
        (window + N <= self.end()).then_some(window)
    }
}

impl Octets for Packet {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let window = self.window::<N>(offset)?;
        // SAFETY: `window` was checked against the packet's end, octets have no alignment, and the shared borrow
        // keeps the packet's bounds and octets as they are.
        Some(unsafe { &*(window as *const [u8; N]) })
    }
}

impl OctetsMut for Packet {
    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let window = self.window::<N>(offset)?;
        // SAFETY: as in `at`; the exclusive borrow makes this the only window.
        Some(unsafe { &mut *(window as *mut [u8; N]) })
    }
}

/// `start + offset`, of which the compiler is not to know that it is a sum.
#[inline(always)]
fn opaque_sum(start: usize, offset: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut sum = start;
        // A real instruction, because line information for an empty one is refused by the kernel.
        // SAFETY: adds two registers and touches nothing else.
        unsafe {
            core::arch::asm!("{0} += {1}", inout(reg) sum, in(reg) offset, options(pure, nomem, nostack));
        }
        sum
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(start + offset)
}

/// `end - start`, of which the compiler is not to know that it is a difference.
#[inline(always)]
fn opaque_difference(end: usize, start: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut difference = end;
        // SAFETY: subtracts one register from another and touches nothing else.
        unsafe {
            core::arch::asm!("{0} -= {1}", inout(reg) difference, in(reg) start, options(pure, nomem, nostack));
        }
        difference
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(end - start)
}

/// `word`, of which the compiler is not to know that it is put together from octets.
#[inline(always)]
fn opaque_word(word: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut word = word as u64;
        // SAFETY: moves a register to itself and touches nothing else.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) word, options(pure, nomem, nostack)) };
        word as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(word)
}
