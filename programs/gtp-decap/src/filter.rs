//! What a session may send: filters of up to four rules.

use aya_ebpf::{bindings::xdp_md, btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{FILTER_RULES, FilterKey, FilterRule, Reason};
use xdpchain_kit::{Inner, Packet};
use xdpchain_wire::{Octets as _, ipv4, ipv6, protocol};

/// Rules of filters.
#[btf_map(name = "filters")]
static FILTERS: HashMap<FilterKey, FilterRule, 4096> = HashMap::new();

/// What rules ask of a packet.
struct Subject {
    /// Upper and lower half of the destination; IPv4 is IPv4-mapped.
    dst: [u64; 2],
    /// Destination port; 0 for none, as no packet is to port 0.
    port: u16,
    protocol: u8,
}

/// Whether `inner` passes the filter with this number.
///
/// # Errors
/// [`Reason::Filtered`] when no rule allows it.
#[inline(always)]
pub(crate) fn judge(packet: &Packet, inner: &Inner, filter: u16) -> Result<(), Reason> {
    let (offset, end) = (inner.offset as u32, (inner.offset + inner.len) as u32);
    // SAFETY: the context is the packet's, whose octets are only read.
    let passes = unsafe { xdpchain_passes_filter(packet.as_ptr(), offset, end, filter as u32) };
    if passes != 0 { Ok(()) } else { Err(Reason::Filtered) }
}

/// Whether the IP packet from `offset` to `end` passes the filter with this number, 1 or 0. A global function: the verifier follows
/// it once, and not anew for each way that leads here.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_passes_filter(ctx: *mut xdp_md, offset: u32, end: u32, filter: u32) -> u32 {
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    passes(&packet, offset as usize & 0x3fff, end as usize, filter as u16).is_some() as u32
}

#[inline(always)]
fn passes(packet: &Packet, offset: usize, end: usize, filter: u16) -> Option<()> {
    let subject = Subject::of(packet, offset, end)?;
    for rule in 0..FILTER_RULES {
        // SAFETY: nothing here changes the map, and a rule that user space replaces meanwhile is read field by field at
        // worst from both.
        let rule = unsafe { FILTERS.get(FilterKey { filter, rule }) }?;
        if subject.is_allowed(rule) {
            return Some(());
        }
    }
    None
}

impl Subject {
    #[inline(always)]
    fn of(packet: &Packet, offset: usize, end: usize) -> Option<Self> {
        let (dst, protocol, upper) = if packet.at::<1>(offset)?[0] & 0x20 == 0 {
            let header: &[u8; ipv4::LEN] = packet.at(offset)?;
            let view = ipv4::View(header);
            let dst = [0, 0xffff << 32 | u32::from_be_bytes(view.destination().octets) as u64];
            let upper = if view.is_fragment() { 0 } else { offset + view.header_len() };
            (dst, view.protocol(), upper)
        } else {
            let header: &[u8; ipv6::LEN] = packet.at(offset)?;
            let half = |i: usize| {
                let o: [u8; 8] = [
                    header[i],
                    header[i + 1],
                    header[i + 2],
                    header[i + 3],
                    header[i + 4],
                    header[i + 5],
                    header[i + 6],
                    header[i + 7],
                ];
                u64::from_be_bytes(o)
            };
            ([half(24), half(32)], ipv6::View(header).next_header(), offset + ipv6::LEN)
        };
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP) && upper != 0;
        let port = if has_ports && upper + 4 <= end {
            let upper = packet.forget::<0x3fff>(upper);
            u16::from_be_bytes(*packet.at(upper + 2)?)
        } else {
            0
        };
        Some(Self { dst, port, protocol })
    }

    #[inline(always)]
    fn is_allowed(&self, rule: &FilterRule) -> bool {
        if rule.protocol != 0 && rule.protocol != self.protocol {
            return false;
        }
        let [low, high] = rule.dst_port;
        if (low, high) != (0, 0) && (self.port == 0 || self.port < low || self.port > high) {
            return false;
        }
        let half = |i: usize| {
            let o = &rule.dst.octets;
            u64::from_be_bytes([o[i], o[i + 1], o[i + 2], o[i + 3], o[i + 4], o[i + 5], o[i + 6], o[i + 7]])
        };
        let (upper, lower) = (half(0) ^ self.dst[0], half(8) ^ self.dst[1]);
        match rule.dst_len {
            0 => true,
            len @ 1..=64 => upper >> (64 - len) == 0,
            len @ 65..=128 => upper == 0 && lower >> (128 - len) == 0,
            _ => false,
        }
    }
}
