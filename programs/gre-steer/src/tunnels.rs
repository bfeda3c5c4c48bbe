//! The tunnel that a customer's packet takes: what the maps told a short while ago, so that not every packet asks them.
//!
//! - A change of `customers` or `tunnels` is seen within [`KEPT_TICKS`] ticks of the kernel's clock.
//! - Each CPU keeps its own, so nobody reads what another one is writing.
//! - Only what is whole is kept: while one of a customer's tunnels is missing, each packet asks.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray},
    macros::btf_map,
};
use xdpchain_abi::{CUSTOMER_TUNNELS, Customer, GreTunnel, Reason};
use xdpchain_kit::{Hop, Inner, KEPT_TICKS, Packet, choose, entropy, ticks};

/// Which tunnels a customer's packets take.
#[btf_map(name = "customers")]
static CUSTOMERS: HashMap<u32, Customer, 65536> = HashMap::new();

/// Tunnels by number.
#[btf_map(name = "tunnels")]
static TUNNELS: HashMap<u32, GreTunnel, 4096> = HashMap::new();

/// Customers that each CPU keeps; a power of 2.
const KEPT: u32 = 1024;

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
    pub(crate) hop: &'static mut Hop,
}

/// The tunnel that the packet with `inner` of `customer` takes.
///
/// # Errors
/// [`Reason::NoTunnel`] when there is none.
#[inline(always)]
pub(crate) fn find(packet: &Packet, inner: &Inner, customer: u32) -> Result<Chosen, Reason> {
    let kept = KEPT_CUSTOMERS.get_ptr_mut(customer & (KEPT - 1)).ok_or(Reason::NoTunnel)?;
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    let kept: &'static mut Kept = unsafe { &mut *kept };
    let known = kept.count != 0 && kept.customer == customer && ticks().wrapping_sub(kept.asked) < KEPT_TICKS;
    if !known {
        kept.ask(customer)?;
    }
    let at = if kept.count == 1 { 0 } else { choose(&kept.numbers, kept.count, entropy(packet, inner)) };
    // One number to the verifier, whatever way it came by.
    let at = packet.forget::<{ CUSTOMER_TUNNELS - 1 }>(at) & (CUSTOMER_TUNNELS - 1);
    if kept.there[at] == 0 {
        return Err(Reason::NoTunnel);
    }
    Ok(Chosen { number: kept.numbers[at], tunnel: &kept.tunnels[at], hop: &mut kept.hops[at] })
}

impl Kept {
    /// Asks the maps about `customer`.
    #[inline(always)]
    fn ask(&mut self, customer: u32) -> Result<(), Reason> {
        self.count = 0;
        // SAFETY: nothing here changes the map, and a value that user space replaces meanwhile is read field by field at worst
        // from both, until it is asked for again.
        let found = unsafe { CUSTOMERS.get(customer) }.ok_or(Reason::NoTunnel)?;
        let count = found.count.min(CUSTOMER_TUNNELS as u32);
        if count == 0 {
            return Err(Reason::NoTunnel);
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
                    self.tunnels[i] = *tunnel;
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
        Ok(())
    }
}
