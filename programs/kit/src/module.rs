//! What every packet program has: the shared maps, verdicts with reasons, licence, panic handler.

/// Declares what every packet program has. Once in each program:
///
/// - the maps `xdpchain_ctx` and `xdpchain_reason`,
/// - `context()`, a copy of the packet's context, and `change_context(|context| …)`,
/// - `packet(ctx, context)`, `whole_packet(ctx)`, `take_off(packet, octets, …)`, `move_start(packet, delta, …)`, by which decapsulators leave
///   what they take off to the next move of the packet's start, where the chain takes care of that; every such program is
///   marked as one that heeds this, so what has left a tunnel it has to take from these and not from `Packet::new`,
/// - `count(Reason)`, `refuse(Reason)`: the verdict for a packet that is not forwarded, with its reason counted and
///   left in the context; `XDP_DROP`, or `XDP_PASS` with the chain ended, whichever is the reason's fate,
/// - the licence and the panic handler that a program without the standard library must have.
#[macro_export]
macro_rules! module {
    () => {
        #[allow(dead_code, reason = "not every program refuses, counts and reads")]
        mod module {
            use $crate::{
                Packet,
                aya_ebpf::{
                    bindings::{xdp_action, xdp_md},
                    btf_maps::PerCpuArray,
                    macros::btf_map,
                    programs::XdpContext,
                },
                xdpchain_abi::{Fate, PacketContext, REASONS, Reason, XDPCHAIN_FINAL},
            };

            #[btf_map(name = "xdpchain_ctx")]
            static CONTEXT: PerCpuArray<PacketContext, 1> = PerCpuArray::new();

            #[btf_map(name = "xdpchain_reason")]
            static REASON: PerCpuArray<u64, { REASONS as usize }> = PerCpuArray::new();

            /// What the slots before this one said about the packet.
            #[inline(always)]
            pub(crate) fn context() -> PacketContext {
                match CONTEXT.get_ptr(0) {
                    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
                    Some(context) => unsafe { *context },
                    // An array has its entry 0; only the verifier does not know.
                    None => PacketContext::default(),
                }
            }

            /// Tells the slots after this one about the packet.
            #[inline(always)]
            pub(crate) fn change_context(change: impl FnOnce(&mut PacketContext)) {
                if let Some(context) = CONTEXT.get_ptr_mut(0) {
                    // SAFETY: as in `context`; the borrow ends with the closure.
                    change(unsafe { &mut *context });
                }
            }

            /// The packet that the program was called for, as `context` says where it begins.
            #[inline(always)]
            pub(crate) fn packet(ctx: &XdpContext, context: &PacketContext) -> Packet {
                Packet::behind(ctx, context.skipped())
            }

            /// The same of the kernel's own context.
            ///
            /// # Safety
            /// As for `Packet::of`.
            #[inline(always)]
            pub(crate) unsafe fn packet_of(ctx: *mut xdp_md, context: &PacketContext) -> Packet {
                packet(&XdpContext::new(ctx), context)
            }

            /// The packet whose context this is, with nothing in front of it.
            ///
            /// # Safety
            /// As for `Packet::of`.
            #[inline(always)]
            pub(crate) unsafe fn whole_packet(ctx: *mut xdp_md) -> Packet {
                // SAFETY: as the caller promises.
                let mut packet = unsafe { Packet::of(ctx) };
                change_context(|context| {
                    if context.skipped() != 0 {
                        // What is behind it was found to be longer than an Ethernet header, so the kernel takes it away.
                        let _taken = packet.move_start(context.skipped() as i32);
                        context.skip(0);
                    }
                });
                packet
            }

            /// Takes `octets` off the packet's front, at once or with the next move of its start, before which it is not to be used
            /// any more; `say` then tells the slots after this one about it. `None`, and nothing has changed, when the driver
            /// cannot, which none is known to.
            ///
            /// What is left is at least an Ethernet header, as the kernel would ask for.
            #[inline(always)]
            #[must_use]
            pub(crate) fn take_off(
                packet: &mut Packet,
                octets: usize,
                say: impl FnOnce(&mut PacketContext),
            ) -> Option<()> {
                // SAFETY: as in `change_context`; one look-up for all that is asked and said.
                let context = unsafe { &mut *CONTEXT.get_ptr_mut(0)? };
                if context.may_skip() && octets + packet.skipped() <= u8::MAX as usize {
                    context.skip((octets + packet.skipped()) as u8);
                } else {
                    packet.move_start(octets as i32)?;
                }
                say(context);
                Some(())
            }

            /// Moves the start of a packet that may have skipped octets in front of it, as `Packet::move_start` does; `say` then
            /// tells the slots after this one about it.
            #[inline(always)]
            #[must_use]
            pub(crate) fn move_start(
                packet: &mut Packet,
                delta: i32,
                say: impl FnOnce(&mut PacketContext),
            ) -> Option<()> {
                packet.move_start(delta)?;
                change_context(|context| {
                    context.skip(0);
                    say(context);
                });
                Some(())
            }

            /// Counts `reason`.
            #[inline(always)]
            pub(crate) fn count(reason: Reason) {
                if let Some(counter) = REASON.get_ptr_mut(reason as u32) {
                    // SAFETY: as in `context`.
                    unsafe { *counter += 1 };
                }
            }

            /// The verdict for a packet that is not forwarded because of `reason`. A program with many reasons has them
            /// [forgotten]($crate::Packet::forget_reason) before.
            #[inline(always)]
            pub(crate) fn refuse(reason: Reason) -> u32 {
                refuse_as(reason, reason.fate())
            }

            /// As `refuse`, with a fate that may be another than the reason's.
            #[inline(always)]
            pub(crate) fn refuse_as(reason: Reason, fate: Fate) -> u32 {
                count(reason);
                change_context(|context| context.reason = reason as u16);
                verdict(fate)
            }

            #[inline(always)]
            fn verdict(fate: Fate) -> u32 {
                match fate {
                    Fate::Drop => xdp_action::XDP_DROP,
                    // Nobody further down may touch what the kernel is to judge.
                    Fate::Punt | Fate::Noted => xdp_action::XDP_PASS | XDPCHAIN_FINAL,
                }
            }
        }

        // As `SKIPPED_SECTION` is called. What is in it does not matter.
        #[unsafe(link_section = ".xdpchain_skipped")]
        #[unsafe(no_mangle)]
        static SKIPPED: u8 = 1;

        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            // The verifier refuses a program that could come here, so none does.
            loop {}
        }
    };
}
