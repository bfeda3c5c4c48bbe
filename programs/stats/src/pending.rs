//! Packets that are added to their sessions' counters several at a time.
//!
//! Among a million sessions nearly every counter is out of the caches, and a packet waits for its own longer than for most else. Of
//! several that are asked for one behind the other the processor waits for all at once.

use aya_ebpf::{btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map};
use xdpchain_abi::{PENDING, PENDING_CPUS, PendingPacket, PendingSessions, StatsConfig};
use xdpchain_kit::{KEPT_TICKS, ticks};

use crate::{add, counter};

/// Whether packets are held back.
#[btf_map(name = "config")]
static CONFIG: Array<StatsConfig, 1> = Array::new();

/// What each CPU has yet to add to `sessions`, by its number. A CPU without an entry adds each packet at once.
#[btf_map(name = "sessions_pending")]
static HELD: Array<PendingSessions, PENDING_CPUS> = Array::new();

/// Counts a packet: at once, or by holding it back and adding all that are held when they are as many as can be, or the last were
/// added a while ago. So of who sends little nothing is held for long.
#[inline(always)]
pub(crate) fn count(packet: PendingPacket) {
    let Some(held) = held() else { return add(packet) };
    // SAFETY: the entry belongs to this CPU, and XDP programs do not interrupt each other.
    let held = unsafe { &mut *held };
    let count = held.count as usize;
    let hold = CONFIG.get(0).is_some_and(|config| config.hold_back != 0);
    // What is left of when packets were held back, and what a restored map may say.
    if (!hold && count != 0) || count >= PENDING {
        xdpchain_add_pending();
    }
    if !hold {
        return add(packet);
    }
    let at = held.count as usize & (PENDING - 1);
    held.packets[at] = packet;
    held.count = at as u32 + 1;
    if at == PENDING - 1 || ticks().wrapping_sub(held.since) >= KEPT_TICKS {
        xdpchain_add_pending();
    }
}

/// What this CPU holds back.
#[inline(always)]
fn held() -> Option<*mut PendingSessions> {
    // SAFETY: takes nothing.
    HELD.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

/// Adds what is held. A global function, which the verifier follows once.
///
/// How many there are is read from the map at each step: of what the verifier knew by then it would follow each case on its own.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdpchain_add_pending() -> u32 {
    let Some(held) = held() else { return 0 };
    // SAFETY: as in `count`, which does not use its reference meanwhile.
    let held = unsafe { &mut *held };
    // Who reads meanwhile misses packets for a moment, and does not find them twice.
    held.adding = held.count;
    held.count = 0;
    held.since = ticks();
    for at in 0..PENDING {
        if at >= adding(held) {
            break;
        }
        if let Some(counter) = counter(held.packets[at]) {
            // SAFETY: a counter of a value that lives as long as the map. Read only to have all of them on their way to the cache,
            // both halves as they may be in two lines, since what is added afterwards waits for each.
            unsafe {
                let _packets = (&raw const (*counter).packets).read_volatile();
                let _bytes = (&raw const (*counter).bytes).read_volatile();
            }
        }
    }
    for at in 0..PENDING {
        if at >= adding(held) {
            break;
        }
        add(held.packets[at]);
    }
    0
}

/// How many packets are being added.
#[inline(always)]
fn adding(held: &PendingSessions) -> usize {
    // SAFETY: a reference of the right type.
    unsafe { core::ptr::from_ref(&held.adding).read_volatile() as usize }
}
