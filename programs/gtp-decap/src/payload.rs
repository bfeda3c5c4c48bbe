//! What a GTP-U message carries behind its headers.

use aya_ebpf::bindings::xdp_md;
use xdpchain_abi::Reason;
use xdpchain_kit::{Packet, pack, unpack};
use xdpchain_wire::{Octets as _, gtpu};

use crate::outer::Message;

/// What a message carries.
pub(crate) struct Payload {
    /// Where it begins, from the start of the packet that it was found in.
    pub(crate) offset: usize,
    /// Whether a PDU Session Container said a QoS flow.
    pub(crate) has_qfi: bool,
    /// Which one.
    pub(crate) qfi: u8,
}

/// Where the QoS flow stands in what [`xdpchain_gtp_payload`] returns, above the offset.
const QFI_SHIFT: u32 = 16;

impl Payload {
    /// The payload of `message`, which lies within the packet.
    ///
    /// # Errors
    /// Why there is none.
    #[inline(always)]
    pub(crate) fn find(packet: &Packet, message: &Message) -> Result<Self, Reason> {
        if !message.has_optional {
            return Ok(Self { offset: message.offset + gtpu::LEN, has_qfi: false, qfi: 0 });
        }
        let (offset, end) = (packet.skipped() + message.offset, packet.skipped() + message.end);
        // SAFETY: the context is the packet's, whose octets are only read, and the result is packed.
        let found = unsafe { unpack(xdpchain_gtp_payload(packet.as_ptr(), offset as u32, end as u32)) }?;
        let qfi = (found >> QFI_SHIFT) as u8;
        let has_qfi = qfi != gtpu::Payload::NO_QFI;
        let offset = (found as usize & 0xffff) - packet.skipped();
        Ok(Self { offset, has_qfi, qfi: if has_qfi { qfi } else { 0 } })
    }
}

/// The payload of the message from `offset` to `end` of the frame, whose header has more than its mandatory part, [packed](pack). A
/// global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_gtp_payload(ctx: *mut xdp_md, offset: u32, end: u32) -> u64 {
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    pack(walk(&packet, offset as usize & 0x3fff, end as usize & 0x1ffff))
}

#[inline(always)]
fn walk(packet: &Packet, offset: usize, end: usize) -> Result<u32, Reason> {
    let header = packet.at(offset).ok_or(Reason::Truncated)?;
    let payload = gtpu::Payload::parse(packet, gtpu::View(header), offset, end);
    let payload = payload.map_err(|error| match error {
        gtpu::Error::Truncated => Reason::Truncated,
        gtpu::Error::Length => Reason::GtpLength,
        gtpu::Error::BadExtension => Reason::BadExtension,
        gtpu::Error::NotSupported => Reason::ExtensionNotSupported,
    })?;
    Ok((payload.qfi as u32) << QFI_SHIFT | payload.offset as u32 & 0xffff)
}
