//! The module in whose place a program runs that was loaded and attached by somebody else.
//!
//! The program array is the chain's on its interface. A module that tail calls is called by its chain, so that what the
//! other program returns is this module's verdict.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::XDP_ABORTED,
    macros::{map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};

/// The other program, in entry 0.
#[map(name = "xdpchain_adopted")]
static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Hands the packet to the other program.
#[xdp(frags)]
fn adopted(ctx: XdpContext) -> u32 {
    // SAFETY: nothing is left to be dropped.
    unsafe { PROGRAM.tail_call(&ctx, 0) };
    // No program is there, or too many tail calls came before.
    XDP_ABORTED
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
