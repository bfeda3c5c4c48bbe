//! Sets the DSCP of IPv4 packets whose protocol is listed in a map, as somebody would write it with aya alone.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    btf_maps::HashMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// DSCP, 0 to 63, by IP protocol number.
#[btf_map]
static DSCP: HashMap<u8, u8, 256> = HashMap::new();

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// Marks a packet.
#[xdp]
fn dscp(ctx: XdpContext) -> u32 {
    let data = ctx.data();
    if data + ETHERNET + IPV4 > ctx.data_end() {
        return XDP_PASS;
    }
    // SAFETY: the check above covers all of these octets, and nothing else refers to them.
    let frame = unsafe { &mut *(data as *mut [u8; ETHERNET + IPV4]) };
    if frame[12] != 0x08 || frame[13] != 0x00 {
        return XDP_PASS;
    }
    let Some((_, ip)) = frame.split_first_chunk_mut::<ETHERNET>() else { return XDP_PASS };
    // SAFETY: no program removes entries.
    if let Some(dscp) = unsafe { DSCP.get(ip[9]) } {
        mark(ip, *dscp);
    }
    XDP_PASS
}

/// Writes the DSCP, keeps ECN, and corrects the header checksum (RFC 1624).
#[inline(always)]
fn mark(ip: &mut [u8], dscp: u8) {
    let old = u16::from_be_bytes([ip[0], ip[1]]);
    ip[1] = dscp << 2 | ip[1] & 3;
    let new = u16::from_be_bytes([ip[0], ip[1]]);
    let mut sum = !u16::from_be_bytes([ip[10], ip[11]]) as u32 + !old as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    [ip[10], ip[11]] = (!(sum as u16)).to_be_bytes();
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
