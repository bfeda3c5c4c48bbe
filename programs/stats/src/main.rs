//! The module that counts packets and octets for each customer and direction, and for each session.
//!
//! It never changes a packet and always passes it on. At the chain's exit it counts what was forwarded; in line, where
//! the final verdict is not known yet, it counts everything that a decapsulator claimed.
#![no_std]
#![no_main]

mod pending;

use aya_ebpf::{
    bindings::{
        BPF_NOEXIST,
        xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX},
    },
    btf_maps::{Array, PerCpuArray, PerCpuHashMap},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{
    Counter, CustomerCounters, CustomerKey, NO_SESSION, PendingPacket, SessionCounters, direction,
};
use xdpchain_kit::atomic_add;

xdpchain_kit::module!();

/// Packets and octets by customer and direction; an entry appears with its first packet.
#[btf_map(name = "customers")]
static CUSTOMERS: PerCpuHashMap<CustomerKey, Counter, 65536> = PerCpuHashMap::new();

/// Packets and octets of customers whose numbers are given out densely, by number; the others are in `customers`. With room for
/// one, customer 0, it counts none.
#[btf_map(name = "customers_dense")]
static CUSTOMERS_DENSE: PerCpuArray<CustomerCounters, 1> = PerCpuArray::new();

/// Packets and octets by the session's number, of those that `sessions_percpu` has no room for.
#[btf_map(name = "sessions")]
static SESSIONS: Array<SessionCounters, 1_048_576> = Array::new();

/// The same of sessions with small numbers, each CPU for itself: no CPU waits for another one, at an entry's octets for each of
/// them. With room for one, session 0, it counts none.
#[btf_map(name = "sessions_percpu")]
static SESSIONS_PERCPU: PerCpuArray<SessionCounters, 1> = PerCpuArray::new();

/// Counts a packet.
#[xdp]
fn stats(_: XdpContext) -> u32 {
    let context = module::context();
    if context.direction == direction::NONE {
        return XDP_PASS;
    }
    let forwarded = matches!(context.verdict as u32, XDP_TX | XDP_REDIRECT);
    if forwarded || context.ended == 0 {
        count_customer(context.customer, context.direction, context.inner_len as u64);
        count_session(context.session, context.direction, context.inner_len);
    }
    XDP_PASS
}

#[inline(always)]
fn count_customer(customer: u32, direction: u8, bytes: u64) {
    let dense = if customer == 0 { None } else { CUSTOMERS_DENSE.get_ptr_mut(customer) };
    let counter = match dense {
        // SAFETY: a field of a value that lives as long as the map.
        Some(counters) if direction == direction::UPLINK => Some(unsafe { &raw mut (*counters).uplink }),
        // SAFETY: as above.
        Some(counters) => Some(unsafe { &raw mut (*counters).downlink }),
        None => CUSTOMERS.get_ptr_mut(CustomerKey { customer, direction: direction as u32 }),
    };
    match counter {
        // SAFETY: the value belongs to this CPU, XDP programs do not interrupt each other, and entries are not removed
        // by programs.
        Some(counter) => unsafe { count(counter, bytes) },
        None => count_first(CustomerKey { customer, direction: direction as u32 }, bytes),
    }
}

#[inline(always)]
fn count_first(key: CustomerKey, bytes: u64) {
    // Another CPU may have added the key since; then only the value of this CPU is to be set, which nobody else does.
    // A full map leaves the packet uncounted here; the session's counter still has it.
    let first = Counter { packets: 1, bytes };
    if CUSTOMERS.insert(key, first, BPF_NOEXIST as u64).is_err() {
        let _full = CUSTOMERS.insert(key, first, 0);
    }
}

#[inline(always)]
fn count_session(session: u32, direction: u8, bytes: u16) {
    let own = if session == 0 { None } else { SESSIONS_PERCPU.get_ptr_mut(session) };
    if let Some(counters) = own {
        // SAFETY: as in `count_customer`.
        unsafe { count(side(counters, direction), bytes as u64) };
        return;
    }
    if session != NO_SESSION {
        pending::count(PendingPacket { session, bytes, direction, reserved: [0] });
    }
}

/// Adds a packet to its session's counter.
#[inline(always)]
fn add(packet: PendingPacket) {
    let Some(counter) = counter(packet) else { return };
    // SAFETY: the entry lives as long as the map, is aligned, and is only ever added to.
    unsafe {
        atomic_add(&raw mut (*counter).packets, 1);
        atomic_add(&raw mut (*counter).bytes, packet.bytes as u64);
    }
}

/// The counter of a packet's session, in the array of all CPUs.
#[inline(always)]
fn counter(packet: PendingPacket) -> Option<*mut Counter> {
    let counters = SESSIONS.get_ptr_mut(packet.session)?;
    // SAFETY: a value that lives as long as the map.
    Some(unsafe { side(counters, packet.direction) })
}

/// The counter of a direction, without a branch, both ways of which the verifier would follow for each packet that is held.
///
/// # Safety
/// `counters` points to a value that lives.
#[inline(always)]
unsafe fn side(counters: *mut SessionCounters, direction: u8) -> *mut Counter {
    const { assert!(direction::UPLINK == 1 && direction::DOWNLINK == 2) };
    const { assert!(size_of::<SessionCounters>() == 2 * size_of::<Counter>()) };
    // SAFETY: one of that value's two counters.
    unsafe { counters.cast::<Counter>().add((direction >> 1 & 1) as usize) }
}

/// Counts a packet of `bytes` octets.
///
/// # Safety
/// `counter` points to one that lives, and that nobody else writes meanwhile.
#[inline(always)]
unsafe fn count(counter: *mut Counter, bytes: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += bytes;
    }
}
