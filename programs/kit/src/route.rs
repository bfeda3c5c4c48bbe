//! The next hop of an outer packet, as the kernel's routing and neighbour tables have it.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNREACHABLE, bpf_fib_lookup,
        xdp_action,
    },
    helpers::{bpf_fib_lookup as fib_lookup, bpf_redirect},
};
use xdpchain_abi::{Ipv4, Reason};

use crate::{Addresses, Packet};

/// `AF_INET`, the same on every Linux.
const AF_INET: u8 = 2;

/// An outer IPv4 packet that is to be sent, as far as routing asks.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Outer source.
    pub source: Ipv4,
    /// Outer destination.
    pub destination: Ipv4,
    /// IP protocol of what the outer header carries.
    pub protocol: u8,
    /// TOS octet.
    pub tos: u8,
    /// Octets of the outer packet, compared with the way out's MTU.
    pub total_len: u16,
}

/// Where an outer packet goes.
#[derive(Clone, Copy, Debug)]
pub struct NextHop {
    /// The link-layer addresses of the frame: the neighbour's, and that of the interface that it leaves by.
    pub addresses: Addresses,
    /// That interface; 0 when the kernel has yet to ask for the neighbour's address. Then `addresses` are those that
    /// the frame came with.
    ifindex: u32,
}

impl Route {
    /// Asks the kernel for the next hop. Forwarding must be on for the interface that the packet came in on.
    ///
    /// # Errors
    /// The reason for which the packet is not forwarded.
    #[inline(always)]
    pub fn next_hop(&self, packet: &Packet) -> Result<NextHop, Reason> {
        let mut fib = Fib(MaybeUninit::uninit());
        let fib = fib.zeroed();
        fib.family = AF_INET;
        fib.l4_protocol = self.protocol;
        fib.__bindgen_anon_1.tot_len = self.total_len;
        fib.ifindex = packet.ingress_ifindex();
        fib.__bindgen_anon_2.tos = self.tos;
        fib.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(self.source.octets);
        fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(self.destination.octets);
        // SAFETY: context and struct are valid for the call, and the size is the struct's.
        let result =
            unsafe { fib_lookup(packet.as_ptr().cast(), fib, size_of::<bpf_fib_lookup>() as i32, 0) };
        if result < 0 {
            return Err(Reason::NotForwarded);
        }
        match result as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                // Volatile, in the halves that both are aligned for: the verifier allows no others on the stack.
                let half = |octets: &[u8; 6], i: usize| {
                    // SAFETY: within the octets, which the struct has at an even offset.
                    unsafe { octets.as_ptr().cast::<u16>().add(i).read_volatile() as u32 }
                };
                let (d, s) = (&fib.dmac, &fib.smac);
                // Joined in the machine's order, which is little-endian for this target.
                let word = |low: u32, high: u32| high << 16 | low;
                let addresses = Addresses([
                    word(half(d, 0), half(d, 1)),
                    word(half(d, 2), half(s, 0)),
                    word(half(s, 1), half(s, 2)),
                ]);
                Ok(NextHop { addresses, ifindex: fib.ifindex })
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => {
                Ok(NextHop { addresses: packet.addresses().ok_or(Reason::Truncated)?, ifindex: 0 })
            }
            BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT => {
                Err(Reason::NoRoute)
            }
            BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(Reason::NeedsFragmentation),
            _ => Err(Reason::NotForwarded),
        }
    }
}

impl NextHop {
    /// Sends the encapsulated packet, which has `addresses`: out of the interface that it came in on, or of another one.
    ///
    /// # Errors
    /// [`Reason::NoNeighbour`] when the next hop is unresolved. The packet keeps its Ethernet addresses, so the kernel
    /// takes it as a packet to be routed, asks for the neighbour, and sends this very packet on when it is found. Its source
    /// is an address of ours, so this needs `accept_local` on the interface that it came in on (ip-sysctl).
    #[inline(always)]
    pub fn send(&self, packet: &Packet) -> Result<u32, Reason> {
        if self.ifindex == 0 {
            return Err(Reason::NoNeighbour);
        }
        if self.ifindex == packet.ingress_ifindex() {
            return Ok(xdp_action::XDP_TX);
        }
        // SAFETY: takes no pointers.
        Ok(unsafe { bpf_redirect(self.ifindex, 0) } as u32)
    }
}

/// The kernel's struct, aligned for whole words.
#[repr(align(8))]
struct Fib(MaybeUninit<bpf_fib_lookup>);

impl Fib {
    /// The struct with all octets zero.
    #[inline(always)]
    fn zeroed(&mut self) -> &mut bpf_fib_lookup {
        const WORDS: usize = size_of::<bpf_fib_lookup>() / 8;
        const { assert!(WORDS * 8 == size_of::<bpf_fib_lookup>()) };
        let words = self.0.as_mut_ptr().cast::<u64>();
        for i in 0..WORDS {
            // Volatile, because of plain stores the compiler makes a call to a loop over single octets.
            // SAFETY: within the struct, which is aligned for it.
            unsafe { words.add(i).write_volatile(0) };
        }
        // SAFETY: all zero octets are a value of this struct of integers and unions of integers.
        unsafe { self.0.assume_init_mut() }
    }
}
