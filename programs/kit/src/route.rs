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
use xdpchain_abi::{Address6, Ipv4, Ipv6, Reason};

use crate::{Addresses, Hop, Packet, hops::Way, pack, unpack};

/// `AF_INET`, the same on every Linux.
const AF_INET: u8 = 2;
/// `AF_INET6`, the same on every Linux.
const AF_INET6: u8 = 10;

/// An outer packet that is to be sent, as far as routing asks.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Outer source: our address, or the alias of an IPv6 one.
    pub source: Ipv4,
    /// Outer destination, of the same family.
    pub destination: Ipv4,
    /// IP protocol of what the outer header carries.
    pub protocol: u8,
    /// TOS octet or traffic class.
    pub tos: u8,
    /// Octets of the outer packet, compared with the way out's MTU.
    pub total_len: u16,
}

/// Where an outer packet goes.
#[derive(Clone, Copy)]
pub struct NextHop<'a> {
    /// How it leaves. Read where it is needed, as a copy would take the stack's room meanwhile.
    way: &'a Way,
    /// Who sends the packet, one of the numbers below.
    sender: usize,
}

/// The program sends the packet.
const SENT: usize = 0;
/// The kernel does, as it has yet to ask for the neighbour's address.
const UNRESOLVED: usize = 1;
/// The kernel does, in fragments, as the packet is longer than the way out allows.
const TOO_LONG: usize = 2;

impl Route {
    /// The next hop: what the kernel told just before, as `hop` keeps it, or tells now. Forwarding must be on for the interface that
    /// the packet came in on. `ask` is a global function of the module's that calls [`ask`](Self::ask) with the same hop.
    ///
    /// # Errors
    /// The reason for which the packet is not forwarded.
    ///
    /// # Safety
    /// `hop` is a map's value that nobody else uses meanwhile, but for `ask`, which returns what [`ask`](Self::ask) or [`pack`] made.
    #[inline(always)]
    pub unsafe fn next_hop<'a>(
        &self,
        packet: &Packet,
        hop: *const Hop,
        ask: impl FnOnce(&Self) -> u64,
    ) -> Result<NextHop<'a>, Reason> {
        let mut sender = SENT;
        // SAFETY: as the caller promises.
        if !unsafe { &*hop }.is_of(self, packet.ingress_ifindex()) {
            // SAFETY: packed by `ask`.
            sender = unsafe { unpack(ask(self)) }? as usize;
        }
        let sender = packet.forget::<3>(sender);
        // A number and no branch, which the verifier would follow both ways.
        let by_the_kernel = packet.forget::<1>(sender | sender >> 1);
        // SAFETY: as above; `ask` has returned.
        Ok(NextHop { way: unsafe { &*hop }.way(by_the_kernel), sender })
    }

    /// The route as arguments of a function, to which it is [`unpacked`](Self::unpacked).
    #[inline(always)]
    pub fn packed(&self) -> (u32, u32, u32) {
        let rest = (self.protocol as u32) << 24 | (self.tos as u32) << 16 | self.total_len as u32;
        (u32::from_ne_bytes(self.source.octets), u32::from_ne_bytes(self.destination.octets), rest)
    }

    /// The route that was [`packed`](Self::packed).
    #[inline(always)]
    pub fn unpacked(source: u32, destination: u32, rest: u32) -> Self {
        Self {
            source: Ipv4 { octets: source.to_ne_bytes() },
            destination: Ipv4 { octets: destination.to_ne_bytes() },
            protocol: (rest >> 24) as u8,
            tos: (rest >> 16) as u8,
            total_len: rest as u16,
        }
    }

    /// Asks the kernel, and writes what it tells to `hop`, for other packets too when the program sends the packet. Who sends it is
    /// [packed](pack).
    #[inline(always)]
    pub fn ask<'a>(
        &self,
        packet: &Packet,
        hop: &mut Hop,
        address: impl Fn(Ipv4) -> Option<&'a Address6>,
    ) -> u64 {
        pack(self.told(packet, hop, address))
    }

    #[inline(always)]
    fn told<'a>(
        &self,
        packet: &Packet,
        hop: &mut Hop,
        address: impl Fn(Ipv4) -> Option<&'a Address6>,
    ) -> Result<u32, Reason> {
        let mut fib = Fib(MaybeUninit::uninit());
        let fib = fib.zeroed();
        fib.l4_protocol = self.protocol;
        fib.__bindgen_anon_1.tot_len = self.total_len;
        if is_alias(self.destination) {
            let (Some(source), Some(destination)) = (address(self.source), address(self.destination)) else {
                return Err(Reason::NoRoute);
            };
            fib.family = AF_INET6;
            fib.__bindgen_anon_2.flowinfo = ((self.tos as u32) << 20).to_be();
            // SAFETY: the fields hold four words each, and the addresses sixteen octets.
            unsafe {
                copy(&raw mut fib.__bindgen_anon_3.ipv6_src, &source.address);
                copy(&raw mut fib.__bindgen_anon_4.ipv6_dst, &destination.address);
            }
        } else {
            fib.family = AF_INET;
            fib.__bindgen_anon_2.tos = self.tos;
            fib.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(self.source.octets);
            fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(self.destination.octets);
        }
        let ingress = packet.ingress_ifindex();
        fib.ifindex = ingress;
        // SAFETY: context and struct are valid for the call, and the size is the struct's.
        let result =
            unsafe { fib_lookup(packet.as_ptr().cast(), fib, size_of::<bpf_fib_lookup>() as i32, 0) };
        if result < 0 {
            return Err(Reason::NotForwarded);
        }
        // SAFETY: both fields of the union are 16-bit numbers; the kernel writes the MTU over the length that it was asked about.
        let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
        match result as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                hop.keep(self, ingress, fib, mtu);
                Ok(SENT as u32)
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => {
                hop.lend(packet.addresses().ok_or(Reason::Truncated)?, 0);
                Ok(UNRESOLVED as u32)
            }
            BPF_FIB_LKUP_RET_FRAG_NEEDED => {
                let mtu = if mtu < self.total_len { mtu } else { 0 };
                hop.lend(packet.addresses().ok_or(Reason::Truncated)?, mtu);
                Ok(TOO_LONG as u32)
            }
            BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT => {
                Err(Reason::NoRoute)
            }
            _ => Err(Reason::NotForwarded),
        }
    }
}

/// Whether `address` stands for an IPv6 one: those out of 0.0.0.0/8 do.
#[inline(always)]
pub fn is_alias(address: Ipv4) -> bool {
    address.octets[0] == 0
}

/// Writes an address as the words that the kernel has it in.
///
/// # Safety
/// `to` is valid for writing.
#[inline(always)]
unsafe fn copy(to: *mut [u32; 4], from: &Ipv6) {
    let o = &from.octets;
    for i in 0..4 {
        let word = u32::from_ne_bytes([o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]]);
        // Volatile, as in `Fib::zeroed`.
        // SAFETY: one of the four words.
        unsafe { to.cast::<u32>().add(i).write_volatile(word) };
    }
}

impl NextHop<'_> {
    /// The link-layer addresses of the frame: the neighbour's, and that of the interface that it leaves by; those that the frame
    /// came with when the kernel is to send it.
    #[inline(always)]
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses(self.way.addresses)
    }

    /// Whether the packet is longer than the way out allows.
    #[inline(always)]
    pub fn is_too_long(&self) -> bool {
        self.sender == TOO_LONG
    }

    /// Whether the program sends the packet, and not the kernel.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.sender == SENT
    }

    /// Octets that the way out leaves for what has `overhead` octets in front; 0 when that is not known.
    #[inline(always)]
    pub fn room(&self, overhead: usize) -> usize {
        (self.way.mtu as u16 as usize).saturating_sub(overhead)
    }

    /// Sends the encapsulated packet.
    ///
    /// # Errors
    /// [`Reason::NoNeighbour`] when the next hop is unresolved, and [`Reason::NeedsFragmentation`] when the packet is too
    /// long. It keeps its Ethernet addresses, so the kernel takes it as a packet to be routed, and asks for the
    /// neighbour or fragments it. Its source is an address of ours, so this needs `accept_local` on the interface that
    /// it came in on (ip-sysctl).
    #[inline(always)]
    pub fn send(&self, packet: &Packet) -> Result<u32, Reason> {
        match self.sender {
            UNRESOLVED => return Err(Reason::NoNeighbour),
            TOO_LONG => return Err(Reason::NeedsFragmentation),
            _ => {}
        }
        Ok(send(packet.ingress_ifindex(), self.way.egress))
    }
}

/// The verdict that sends a packet that came in on the interface `ingress` out of `egress`.
#[inline(always)]
pub fn send(ingress: u32, egress: u32) -> u32 {
    if egress == ingress {
        return xdp_action::XDP_TX;
    }
    // SAFETY: takes no pointers.
    unsafe { bpf_redirect(egress, 0) as u32 }
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
