//! The tunnel that a customer's packet takes: what the maps told a short while ago, so that not every packet asks them.
//!
//! - A change of `customers` or `tunnels` is seen within [`KEPT_TICKS`] ticks of the kernel's clock.
//! - Each CPU keeps its own, so nobody reads what another one is writing.
//! - Only what is whole is kept: while one of a customer's tunnels is missing, each packet asks.

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::{HashMap, PerCpuArray},
    macros::btf_map,
};
use xdpchain_abi::{Address6, CUSTOMER_TUNNELS, Customer, GreTunnel, Ipv4, Reason};
use xdpchain_kit::{Ends, Hop, Inner, KEPT_TICKS, Outer, Packet, Route, choose, pack, ticks};
use xdpchain_wire::{
    ethernet::{self, ethertype},
    flow::symmetric_hash,
    ipv4,
};

/// Which tunnels a customer's packets take.
#[btf_map(name = "customers")]
static CUSTOMERS: HashMap<u32, Customer, 65536> = HashMap::new();

/// Tunnels by number.
#[btf_map(name = "tunnels")]
static TUNNELS: HashMap<u32, GreTunnel, 4096> = HashMap::new();

/// IPv6 addresses, ours and those of far ends, by the aliases that tunnels call them.
#[btf_map(name = "addresses6")]
static ADDRESSES6: HashMap<Ipv4, Address6, 4096> = HashMap::new();

/// Octets of both ports of a packet that has some; no plain packet ends before them.
const PORTS: usize = 4;

/// Customers that each CPU keeps; a power of 2.
pub(crate) const KEPT: u32 = 1024;

/// Customers by the last bits of their numbers.
#[btf_map(name = "kept_customers")]
static KEPT_CUSTOMERS: PerCpuArray<Kept, { KEPT as usize }> = PerCpuArray::new();

/// A customer with its tunnels.
#[repr(C)]
struct Kept {
    customer: u32,
    /// Tunnels in use, at most [`CUSTOMER_TUNNELS`]; 0 where nothing is kept.
    count: u32,
    /// When the maps were asked.
    asked: u64,
    numbers: [u32; CUSTOMER_TUNNELS],
    /// 1 for each tunnel that there is.
    there: [u32; CUSTOMER_TUNNELS],
    tunnels: [GreTunnel; CUSTOMER_TUNNELS],
    hops: [Hop; CUSTOMER_TUNNELS],
}

/// The tunnel that a packet takes.
pub(crate) struct Chosen {
    pub(crate) number: u32,
    pub(crate) tunnel: &'static GreTunnel,
    /// Where its next hop is kept.
    hop: *const Hop,
    /// The place of it, as a number.
    place: u32,
}

/// The tunnel that the packet with `inner` of `customer` takes.
///
/// # Errors
/// [`Reason::NoTunnel`] when there is none.
#[inline(always)]
pub(crate) fn find(packet: &Packet, inner: &Inner, customer: u32) -> Result<Chosen, Reason> {
    let value = KEPT_CUSTOMERS.get_ptr_mut(customer & (KEPT - 1)).ok_or(Reason::NoTunnel)?;
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    let known = unsafe { &*value }.is_of(customer);
    if !known && xdpchain_ask(customer) == 0 {
        return Err(Reason::NoTunnel);
    }
    // SAFETY: as above; read again, for what was asked for is written by now. Nobody writes it further on but for `hops`.
    let kept = unsafe { &*value };
    let at = if kept.count == 1 { 0 } else { choose(&kept.numbers, kept.count, entropy(packet, inner)) };
    // One number to the verifier, whatever way it came by.
    let at = packet.forget::<{ CUSTOMER_TUNNELS - 1 }>(at) & (CUSTOMER_TUNNELS - 1);
    if kept.there[at] == 0 {
        return Err(Reason::NoTunnel);
    }
    // SAFETY: as above.
    let hop = unsafe { &raw const (*value).hops[at] };
    let place = (customer & (KEPT - 1)) * CUSTOMER_TUNNELS as u32 + at as u32;
    Ok(Chosen { number: kept.numbers[at], tunnel: &kept.tunnels[at], hop, place })
}

/// Which of several tunnels a plain packet takes.
pub(crate) struct Choice {
    /// Its place among the customer's.
    pub(crate) at: usize,
    pub(crate) number: u32,
}

/// The tunnel that the plain packet of `customer`, of type `ethertype`, takes of several. `None` for a customer with one, or that is
/// not kept.
#[inline(always)]
pub(crate) fn choice(packet: &Packet, ethertype: u16, customer: u32) -> Option<Choice> {
    let value = KEPT_CUSTOMERS.get_ptr(customer & (KEPT - 1))?;
    // SAFETY: as in `find`.
    let kept = unsafe { &*value };
    if !kept.is_of(customer) || kept.count < 2 {
        return None;
    }
    let hash = if ethertype == ethertype::IPV4 {
        let front: &[u8; ethernet::LEN + ipv4::LEN + PORTS] = packet.front()?;
        symmetric_hash(&front[..], ethertype, ethernet::LEN)?
    } else {
        let offset = packet.skipped() + ethernet::LEN;
        // SAFETY: as in `entropy`.
        unsafe { xdpchain_entropy(packet.as_ptr(), ethertype as u32, offset as u32) }
    };
    let at = packet.forget::<{ CUSTOMER_TUNNELS - 1 }>(choose(&kept.numbers, kept.count, hash));
    (kept.there[at] != 0).then_some(Choice { at, number: kept.numbers[at] })
}

/// A tunnel that a packet has taken, as it is kept.
pub(crate) struct Taken {
    /// Its place among the customer's.
    pub(crate) at: usize,
    /// Whether the customer has no other.
    pub(crate) alone: bool,
    pub(crate) tunnel: &'static GreTunnel,
    pub(crate) hop: &'static Hop,
    /// The tick of the kernel's clock at which the older of tunnel and next hop was asked for.
    pub(crate) asked: u64,
}

/// The tunnel with this number of `customer`. `None` when it is not kept.
#[inline(always)]
pub(crate) fn taken(packet: &Packet, customer: u32, number: u32) -> Option<Taken> {
    let value = KEPT_CUSTOMERS.get_ptr(customer & (KEPT - 1))?;
    // SAFETY: as in `find`.
    let kept = unsafe { &*value };
    // The last one with this number, as `choose` has it.
    let mut at = 0;
    for (i, other) in kept.numbers.iter().enumerate().skip(1) {
        if (i as u32) < kept.count && *other == number {
            at = i;
        }
    }
    let at = packet.forget::<{ CUSTOMER_TUNNELS - 1 }>(at);
    if kept.customer != customer || kept.count == 0 || kept.numbers[at] != number || kept.there[at] == 0 {
        return None;
    }
    let (tunnel, hop) = (&kept.tunnels[at], &kept.hops[at]);
    // Whatever the clock was when they were written, the older one is further away from it now.
    let now = ticks();
    let asked = now.wrapping_sub(now.wrapping_sub(kept.asked).max(now.wrapping_sub(hop.asked())));
    Some(Taken { at, alone: kept.count == 1, tunnel, hop, asked })
}

impl Chosen {
    /// The outer header of a packet with these ends, the tunnel's, in front of `len` octets.
    ///
    /// # Errors
    /// Why the packet is not sent.
    #[inline(always)]
    pub(crate) fn outer(&self, packet: &Packet, ends: Ends, len: usize) -> Result<Outer<'static>, Reason> {
        let ask = |route: &Route| {
            let (source, destination, rest) = route.packed();
            // SAFETY: the context is the packet's, whose octets are only read.
            unsafe { xdpchain_ask_route(packet.as_ptr(), self.place, source, destination, rest) }
        };
        // SAFETY: as in `find`.
        unsafe { Outer::new(packet, ends, len, address6, self.hop, ask) }
    }
}

/// What an alias stands for.
#[inline(always)]
fn address6(alias: Ipv4) -> Option<&'static Address6> {
    // SAFETY: nothing here changes the map, and the value is only read.
    unsafe { ADDRESSES6.get(alias) }
}

/// Asks the kernel for the next hop of a [packed](Route::packed) route, which is kept at `place`. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_ask_route(
    ctx: *mut xdp_md,
    place: u32,
    source: u32,
    destination: u32,
    rest: u32,
) -> u64 {
    const TUNNELS: u32 = CUSTOMER_TUNNELS as u32;
    let Some(kept) = KEPT_CUSTOMERS.get_ptr_mut(place / TUNNELS & (KEPT - 1)) else {
        return pack(Err(Reason::NotForwarded));
    };
    // SAFETY: as in `find`; who asks has no reference to it meanwhile.
    let hop = unsafe { &mut *(&raw mut (*kept).hops[(place % TUNNELS) as usize]) };
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    Route::unpacked(source, destination, rest).ask(&packet, hop, address6)
}

/// A number that both directions of the inner flow share; 0 when the flow cannot be told.
#[inline(always)]
pub(crate) fn entropy(packet: &Packet, inner: &Inner) -> u32 {
    let offset = packet.skipped() + inner.offset;
    // SAFETY: the context is the packet's, whose octets are only read.
    unsafe { xdpchain_entropy(packet.as_ptr(), inner.ethertype as u32, offset as u32) }
}

/// As [`entropy`], of the IP packet of this type at `offset` of the frame. A global function: the verifier follows it once, and not
/// anew for each way that leads here.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_entropy(ctx: *mut xdp_md, ethertype: u32, offset: u32) -> u32 {
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    symmetric_hash(&packet, ethertype as u16, offset as usize & 0x3fff).unwrap_or(0)
}

/// Asks the maps about `customer`, and keeps what they tell. 1, or 0 when it has no tunnel. A global function, too.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdpchain_ask(customer: u32) -> u32 {
    let Some(kept) = KEPT_CUSTOMERS.get_ptr_mut(customer & (KEPT - 1)) else { return 0 };
    // SAFETY: as in `find`, which has no reference to it meanwhile.
    unsafe { &mut *kept }.ask(customer).is_some() as u32
}

impl Kept {
    /// Whether this is about `customer`, and the maps were asked a short while ago.
    #[inline(always)]
    fn is_of(&self, customer: u32) -> bool {
        self.count != 0 && self.customer == customer && ticks().wrapping_sub(self.asked) < KEPT_TICKS
    }

    /// Asks the maps about `customer`.
    #[inline(always)]
    fn ask(&mut self, customer: u32) -> Option<()> {
        self.count = 0;
        // SAFETY: nothing here changes the map, and a value that user space replaces meanwhile is read field by field at worst
        // from both, until it is asked for again.
        let found = unsafe { CUSTOMERS.get(customer) }?;
        let count = found.count.min(CUSTOMER_TUNNELS as u32);
        if count == 0 {
            return None;
        }
        self.customer = customer;
        self.asked = ticks();
        for i in 0..CUSTOMER_TUNNELS {
            let number = found.tunnels[i];
            self.numbers[i] = number;
            // SAFETY: as above.
            let tunnel = if (i as u32) < count { unsafe { TUNNELS.get(number) } } else { None };
            let there = &raw mut self.there[i];
            match tunnel {
                // Volatile: of what is in memory the verifier remembers nothing, and so follows one way on from here.
                // SAFETY: a field of this value, as above.
                Some(tunnel) => unsafe {
                    copy(tunnel, &mut self.tunnels[i]);
                    there.write_volatile(1);
                },
                None => unsafe {
                    there.write_volatile(0);
                    if (i as u32) < count {
                        (&raw mut self.asked).write_volatile(ticks().wrapping_sub(KEPT_TICKS));
                    }
                },
            }
        }
        self.count = count;
        Some(())
    }
}

/// Copies a tunnel, in words: of an assignment the compiler makes a call to a loop over single octets.
#[inline(always)]
fn copy(from: &GreTunnel, to: &mut GreTunnel) {
    const WORDS: usize = size_of::<GreTunnel>() / 4;
    const { assert!(WORDS * 4 == size_of::<GreTunnel>()) };
    let (from, to) = (core::ptr::from_ref(from).cast::<u32>(), core::ptr::from_mut(to).cast::<u32>());
    for i in 0..WORDS {
        // SAFETY: within both values, all of whose octets are of some field.
        unsafe { to.add(i).write_unaligned(from.add(i).read_unaligned()) };
    }
}
