//! Packets that are added to their sessions' counters several at a time.
//!
//! Among a million sessions nearly every counter is out of the caches, and a packet waits for its own longer than for most else. Of
//! several that are asked for one behind the other the processor waits for all at once.

use aya_ebpf::{btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map};
use xdpchain_abi::{PENDING, PendingPacket, PendingSessions};
use xdpchain_kit::{KEPT_TICKS, ticks};

use crate::{add, counter};

/// What each CPU has yet to add to `sessions`, by its number and one. A CPU that there is no room for, with room for one entry that
/// is each of them, adds each packet at once.
#[btf_map(name = "sessions_pending")]
static HELD: Array<PendingSessions, 1> = Array::new();

/// What this CPU holds back, if it is to hold any.
#[inline(always)]
fn held() -> Option<*mut PendingSessions> {
    // SAFETY: takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    HELD.get_ptr_mut(cpu + 1)
}

/// Holds a packet back, and adds all that are held when they are as many as can be, or the last were added a while ago: so who sends
/// little is counted at once. `false` when none are to be held.
#[inline(always)]
pub(crate) fn hold(packet: PendingPacket) -> bool {
    let Some(held) = held() else { return false };
    // SAFETY: the entry belongs to this CPU, and XDP programs do not interrupt each other.
    let held = unsafe { &mut *held };
    let at = held.count as usize & (PENDING - 1);
    held.packets[at] = packet;
    held.count = at as u32 + 1;
    if at == PENDING - 1 || ticks().wrapping_sub(held.since) > KEPT_TICKS {
        xdpchain_add_pending();
    }
    true
}

/// Adds what is held. A global function, which the verifier follows once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdpchain_add_pending() -> u32 {
    let Some(held) = held() else { return 0 };
    // SAFETY: as in `hold`, which has no reference any more.
    let held = unsafe { &mut *held };
    let count = held.count as usize;
    // Who reads meanwhile misses packets for a moment, and does not find them twice.
    held.count = 0;
    held.since = ticks();
    for (_, packet) in (0..count).zip(&held.packets) {
        if let Some(counter) = counter(*packet) {
            // SAFETY: a counter of a value that lives as long as the map. Read only to have all of them on their way to the cache,
            // since what is added afterwards waits for each.
            let _packets = unsafe { (&raw const (*counter).packets).read_volatile() };
        }
    }
    for (_, packet) in (0..count).zip(&held.packets) {
        add(*packet);
    }
    count as u32
}
