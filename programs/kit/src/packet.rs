//! A packet in the driver's buffer.
//!
//! A window of octets borrows the packet, so none outlives a move of its start or end.

use core::{hint::assert_unchecked, mem::offset_of};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use xdpchain_abi::{Ipv6, REASONS, Reason, tags};
use xdpchain_wire::{
    Octets, OctetsMut,
    ethernet::{self, Link, ethertype},
};

use crate::{Inner, packed::reason};

/// The largest offset that a window may begin at. The verifier wants variable offsets well under 64 KiB; no frame
/// that XDP sees in one buffer is longer.
const MAX_OFFSET: usize = 0x3fff;

/// A packet in the driver's buffer.
pub struct Packet {
    ctx: *mut xdp_md,
    /// Octets of the frame in front of where it is looked at from: they are no part of it any more, or tags with what is before them.
    skipped: usize,
}

/// Both link-layer addresses of a frame.
///
/// As three words: of twelve octets the compiler keeps each one in a register, or in eight octets of the stack.
#[derive(Clone, Copy, Debug)]
pub struct Addresses(pub(crate) [u32; 3]);

/// VLAN tags to be written between a frame's addresses and its last EtherType.
#[derive(Clone, Copy, Debug)]
pub struct Tags {
    /// Octets: 0, 4 or 8.
    len: usize,
    /// Each with the EtherType in front that says that it is one.
    words: [u32; 2],
}

impl Packet {
    /// The packet that the program was called for.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self::behind(ctx, 0)
    }

    /// As [`new`](Self::new), but seen from behind octets in front that were left where they are when they left the packet.
    #[inline(always)]
    pub fn behind(ctx: &XdpContext, skipped: u8) -> Self {
        Self { ctx: ctx.ctx, skipped: skipped as usize }
    }

    /// As [`new`](Self::new), but seen from behind the tag in front: all stands where it does without one, but for the frame's addresses.
    #[inline(always)]
    pub fn behind_tag(ctx: &XdpContext) -> Self {
        Self::behind(ctx, ethernet::TAG_LEN as u8)
    }

    /// The packet whose context this is.
    ///
    /// # Safety
    /// `ctx` is the context that the kernel handed to the program, and as long as the packet is used to change it, nobody else
    /// uses it.
    #[inline(always)]
    pub unsafe fn of(ctx: *mut xdp_md) -> Self {
        Self { ctx, skipped: 0 }
    }

    /// Octets of the frame in front of the packet, for who has [`as_ptr`](Self::as_ptr) and an offset of the packet's.
    #[inline(always)]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Octets from the packet's start to its end.
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

    /// Moves the packet's start by `delta` octets, and the frame's to the same place: forward takes octets away, backward makes
    /// room. `None`, and nothing has changed, when there is no room or nothing would be left. Who may have skipped octets in front of
    /// the packet has them moved by the `move_start` of its [module](crate::module!), which tells the others.
    #[inline(always)]
    #[must_use]
    pub fn move_start(&mut self, delta: i32) -> Option<()> {
        // SAFETY: the context is valid, and every window into the packet ended with the exclusive borrow.
        let moved = unsafe { bpf_xdp_adjust_head(self.ctx, delta + self.skipped as i32) };
        if moved != 0 {
            return None;
        }
        self.skipped = 0;
        Some(())
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

    /// Where the network layer begins, as [`Link::parse`] has it, [forgotten](Self::forget).
    #[inline(always)]
    pub fn link(&self) -> Option<Link> {
        let link = Link::parse(self)?;
        Some(Link { network: self.forget::<0x1f>(link.network), ..link })
    }

    /// `offset`, which is no larger than `MASK`, a power of 2 less 1; the verifier knows no more about it than that.
    ///
    /// Paths that come together with different known offsets (of a frame with tags and one without) the verifier
    /// follows apart to the end of the program. After this they are one.
    #[inline(always)]
    pub fn forget<const MASK: usize>(&self, offset: usize) -> usize {
        const { assert!((MASK + 1).is_power_of_two() && MASK <= MAX_OFFSET) };
        unknown::<MASK>(self.start(), offset) & MASK
    }

    /// `number`, of which the verifier knows no more than that it has 16 bits.
    #[inline(always)]
    pub fn forget16(&self, number: u16) -> u16 {
        unknown::<0xffff>(self.start(), number as usize) as u16
    }

    /// `inner`, no longer than an IPv4 packet can be, of which the verifier forgets what differs by version: packets of both it follows
    /// as one.
    #[inline(always)]
    pub fn forget_version(&self, inner: Inner) -> Inner {
        let len = self.forget16(inner.len as u16) as usize;
        Inner { ethertype: self.forget16(inner.ethertype), len, ..inner }
    }

    /// The reason `of`, of which the verifier forgets which one it is: what follows it looks at once, and not once for each reason.
    #[inline(always)]
    pub fn forget_reason(&self, of: Reason) -> Reason {
        let number = self.forget::<{ REASONS as usize - 1 }>(of as usize) as u16;
        // SAFETY: the same number, as all are below `REASONS`.
        unsafe { reason(number) }
    }

    /// The tags that a packet which leaves its tunnel gets by `policy`, one of [`tags`]. `network` is where its outer IP
    /// header begins.
    #[inline(always)]
    pub fn tags(&self, network: usize, policy: u8, vlan: u16) -> Option<Tags> {
        let mut tags = Tags { len: 0, words: [0; 2] };
        if policy == tags::KEEP {
            // Without tags these are octets of the packet, and not written.
            let octets: &[u8; 8] = self.at(12)?;
            let word = |i| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
            tags = Tags { len: network - ethernet::LEN, words: [word(0), word(4)] };
        } else if policy == tags::SET {
            let word = (ethertype::VLAN as u32) << 16 | (vlan & 0x0fff) as u32;
            tags = Tags { len: ethernet::TAG_LEN, words: [word.to_be(), 0] };
        }
        tags.len = self.forget::<0xf>(tags.len);
        Some(tags)
    }

    /// The first `N` octets of the packet. As `at(0)`, which adds that to its start.
    #[inline(always)]
    pub fn front<const N: usize>(&self) -> Option<&[u8; N]> {
        let front = self.front_window::<N>()?;
        // SAFETY: as in `at`.
        Some(unsafe { &*(front as *const [u8; N]) })
    }

    /// The first `N` octets of the packet, to be changed.
    #[inline(always)]
    pub fn front_mut<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let front = self.front_window::<N>()?;
        // SAFETY: as in `at_mut`.
        Some(unsafe { &mut *(front as *mut [u8; N]) })
    }

    #[inline(always)]
    fn front_window<const N: usize>(&self) -> Option<usize> {
        let front = self.start();
        // SAFETY: as in `window`.
        unsafe { assert_unchecked(front != 0) };
        (front + N <= self.end()).then_some(front)
    }

    /// The link-layer addresses that the packet begins with, to be written again in front of another part of it.
    #[inline(always)]
    pub fn addresses(&self) -> Option<Addresses> {
        Some(Addresses::parse(self.front()?))
    }

    /// The addresses that the frame begins with, before all that is skipped: those of a packet that is seen from behind its tags.
    #[inline(always)]
    pub fn frame_addresses(&self) -> Option<Addresses> {
        Self { ctx: self.ctx, skipped: 0 }.addresses()
    }

    /// Makes the inner packet of `len` octets at `offset` a frame where it stands, of type `ethertype` and under `tags`: what is behind
    /// it goes, and in front of it stands its header. Returns the octets before that, which are yet to be taken off. `None`, and nothing
    /// has changed, when the driver cannot.
    #[inline(always)]
    #[must_use]
    pub fn open(&mut self, offset: usize, len: usize, ethertype: u16, tags: &Tags) -> Option<usize> {
        let addresses = self.addresses()?;
        // So that octets after the inner packet and Ethernet padding are gone.
        self.truncate(offset + len)?;
        let start = self.forget::<0x3fff>(offset - (ethernet::LEN + tags.len));
        addresses.emit(self.at_mut::<12>(start)?);
        if tags.len != 0 {
            *self.at_mut(start + 12)? = tags.words[0].to_ne_bytes();
        }
        if tags.len > ethernet::TAG_LEN {
            *self.at_mut(start + 16)? = tags.words[1].to_ne_bytes();
        }
        *self.at_mut(offset - 2)? = ethertype.to_be_bytes();
        Some(start)
    }

    /// Makes the first octets of the frame an Ethernet header without tags. `None` when the frame is shorter.
    #[inline(always)]
    #[must_use]
    pub fn put_ethernet(&mut self, addresses: &Addresses, ethertype: u16) -> Option<()> {
        addresses.write_header(self.front_mut()?, ethertype);
        Some(())
    }

    /// The IPv6 address at `offset`, where it stands: the kernel takes a packet's octets for a map's key.
    #[inline(always)]
    pub fn address6(&self, offset: usize) -> Option<&Ipv6> {
        let octets: &[u8; 16] = self.at(offset)?;
        // SAFETY: `Ipv6` is transparent over the octets.
        Some(unsafe { &*core::ptr::from_ref(octets).cast() })
    }

    /// Whether the IPv6 addresses at `a` and `b` are there and the same.
    #[inline(always)]
    pub fn same_address6(&self, a: usize, b: usize) -> bool {
        for part in [0, 8] {
            let (Some(a), Some(b)) = (self.at::<8>(a + part), self.at::<8>(b + part)) else { return false };
            if u64::from_ne_bytes(*a) != u64::from_ne_bytes(*b) {
                return false;
            }
        }
        true
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the kernel hands every XDP program a valid context.
        let frame = unsafe { load_pointer::<{ offset_of!(xdp_md, data) }>(self.ctx) };
        frame + self.skipped
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { load_pointer::<{ offset_of!(xdp_md, data_end) }>(self.ctx) }
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
        // SAFETY: no packet is at address 0. Said, as else the compiler compares with it whatever becomes a reference.
        unsafe { assert_unchecked(window != 0) };
        (window + N <= self.end()).then_some(window)
    }
}

impl Addresses {
    /// Those that `octets` begins with: destination, source.
    #[inline(always)]
    pub fn parse(octets: &[u8; 12]) -> Self {
        Self([load_word::<0>(octets), load_word::<4>(octets), load_word::<8>(octets)])
    }

    /// Makes `header` an Ethernet header without tags.
    #[inline(always)]
    pub fn write_header(&self, header: &mut [u8; ethernet::LEN], ethertype: u16) {
        let (first, last) = header.split_at_mut(12);
        self.emit(first);
        last.copy_from_slice(&ethertype.to_be_bytes());
    }

    /// Writes them to 12 octets.
    #[inline(always)]
    fn emit(&self, octets: &mut [u8]) {
        for (part, word) in octets.chunks_exact_mut(4).zip(self.0) {
            part.copy_from_slice(&word.to_ne_bytes());
        }
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

/// The packet pointer at `FIELD` of the context, of which the compiler is not to know that it was 32 bits wide: it
/// would now and then copy it by a move of 32 bits, of which no pointer comes out for the verifier.
///
/// # Safety
/// `ctx` is valid for reading.
#[inline(always)]
unsafe fn load_pointer<const FIELD: usize>(ctx: *const xdp_md) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let pointer;
        // SAFETY: reads what the caller promises to be valid.
        unsafe {
            core::arch::asm!("{0} = *(u32 *)({1} + {2})", out(reg) pointer, in(reg) ctx, const FIELD, options(pure, readonly, nostack));
        }
        pointer
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        ctx.byte_add(FIELD).cast::<u32>().read() as usize
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

/// `value`, which is no larger than `MASK`, a power of 2 less 1; of which the verifier is not to know how it came about.
///
/// The difference of two pointers into one buffer, `base` and `base + value`, may be any number to it. The verifier has to know
/// the bounds of `value`, and before 5.16 it forgets those of what was on the stack; so they are told here.
#[inline(always)]
pub(crate) fn unknown<const MASK: usize>(base: usize, value: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut difference = value;
        // SAFETY: masks one register, adds another to it, subtracts that again, and touches nothing else.
        unsafe {
            core::arch::asm!(
                "{0} &= {2}", "{0} += {1}", "{0} -= {1}",
                inout(reg) difference, in(reg) base, const MASK, options(pure, nomem, nostack)
            );
        }
        difference
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(value.wrapping_add(base).wrapping_sub(base) & MASK)
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

/// `value`, of which the compiler is not to know whether it is there.
///
/// What it knows by another number it would ask of that, and the verifier, which does not know how the two belong together,
/// would follow the wrong way: to it only the pointer tells.
#[inline(always)]
pub(crate) fn opaque<T>(value: Option<&T>) -> Option<&T> {
    let pointer = value.map_or(core::ptr::null(), core::ptr::from_ref);
    #[cfg(target_arch = "bpf")]
    let pointer = { moved(pointer as usize) as *const T };
    // SAFETY: null, or the reference that it was.
    unsafe { pointer.as_ref() }
}

/// The four octets at `AT`, of which the compiler is not to know that they are octets.
#[inline(always)]
fn load_word<const AT: usize>(octets: &[u8; 12]) -> u32 {
    const { assert!(AT + 4 <= 12) };
    #[cfg(target_arch = "bpf")]
    {
        let word: u64;
        // SAFETY: reads octets that are there.
        unsafe {
            core::arch::asm!(
                "{0} = *(u32 *)({1} + {2})",
                out(reg) word, in(reg) octets.as_ptr(), const AT, options(pure, readonly, nostack)
            );
        }
        word as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    u32::from_ne_bytes([octets[AT], octets[AT + 1], octets[AT + 2], octets[AT + 3]])
}

/// `value` in another register. No machine leaves that instruction out, as it may leave out a move to the same register; then two
/// lines would begin at one address, and bpftool shows none of a program that has such.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn moved(value: usize) -> usize {
    let result;
    // SAFETY: moves a register to another one and touches nothing else.
    unsafe { core::arch::asm!("{0} = {1}", out(reg) result, in(reg) value, options(pure, nomem, nostack)) };
    result
}
