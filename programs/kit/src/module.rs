//! What every packet program has: the shared maps, verdicts with reasons, licence, panic handler.

/// Declares what every packet program has. Once in each program:
///
/// - the maps `xdpchain_ctx` and `xdpchain_reason`,
/// - `context()`, a copy of the packet's context, and `change_context(|context| …)`,
/// - `count(Reason)`, `refuse(Reason)`: the verdict for a packet that is not forwarded, with its reason counted and
///   left in the context; `XDP_DROP`, or `XDP_PASS` with the chain ended, whichever is the reason's fate,
/// - the licence and the panic handler that a program without the standard library must have.
#[macro_export]
macro_rules! module {
    () => {
        #[allow(dead_code, reason = "not every program refuses, counts and reads")]
        mod module {
            use $crate::{
                aya_ebpf::{bindings::xdp_action, btf_maps::PerCpuArray, macros::btf_map},
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
