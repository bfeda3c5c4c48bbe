//! The packet context: what the modules of a chain tell each other about the packet at hand.

use core::mem::offset_of;

use crate::sized;

/// Name of the per-CPU array of one [`PacketContext`] that a module declares to take part. The chain binds every map
/// of this name and type to its own and clears it before each packet.
pub const CONTEXT_MAP: &str = "xdpchain_ctx";

/// What is known about the packet so far. All zero before the first slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketContext {
    /// The customer that the packet belongs to; meaningful when `direction` is not 0.
    pub customer: u32,
    /// The session's number, [`NO_SESSION`] when none is known yet; meaningful when `direction` is not 0.
    pub session: u32,
    /// The GRE tunnel's number; downlink: where it came from, uplink: where it goes, 0 when not yet chosen.
    pub tunnel: u32,
    /// Octets of the inner IP packet as it was when decapsulated.
    pub inner_len: u16,
    /// [`Reason`](crate::Reason) why the packet was dropped or punted; 0 while it is under way.
    pub reason: u16,
    /// [`direction`] of the packet, 0 for one that no decapsulator claimed.
    pub direction: u8,
    /// QoS flow identifier of the PDU Session Container; meaningful when `has_qfi` is 1.
    pub qfi: u8,
    /// 1 when the packet carried a PDU Session Container.
    pub has_qfi: u8,
    /// The chain's final verdict; meaningful when `ended` is 1.
    pub verdict: u8,
    /// TOS or traffic class octet of the outer header that was removed.
    pub outer_tos: u8,
    /// 1 for slots that run at exit.
    pub ended: u8,
    /// Octets of padding, zero but for what the chain and modules that heed it say there of [skipped](Self::skipped) octets.
    pub reserved: [u8; 10],
}

impl PacketContext {
    /// Where it stands, from the context's start, whether octets may be skipped: at the start of a word of eight octets.
    pub const MAY_SKIP: usize = offset_of!(Self, reserved) + 2;
    /// Where the number of skipped octets stands.
    pub const SKIPPED: usize = Self::MAY_SKIP + 1;

    /// Whether the chain takes care of skipped octets, so that modules may leave some.
    #[inline(always)]
    pub fn may_skip(&self) -> bool {
        self.reserved[Self::MAY_SKIP - offset_of!(Self, reserved)] != 0
    }

    /// Octets at the frame's front that have left the packet and still stand there: it begins behind them. Who moves the frame's
    /// start next takes them along, so that a packet that goes from one tunnel into another is moved once. A module that is not
    /// [marked](SKIPPED_SECTION) finds none: the chain takes them away before.
    #[inline(always)]
    pub fn skipped(&self) -> u8 {
        self.reserved[Self::SKIPPED - offset_of!(Self, reserved)]
    }

    /// Says how many octets are skipped.
    #[inline(always)]
    pub fn skip(&mut self, octets: u8) {
        self.reserved[Self::SKIPPED - offset_of!(Self, reserved)] = octets;
    }
}

const _: () = assert!(PacketContext::MAY_SKIP.is_multiple_of(8));

/// Section of an object whose module heeds octets that were [skipped](PacketContext::skipped), whatever is in it.
pub const SKIPPED_SECTION: &str = ".xdpchain_skipped";

/// `PacketContext::session` of a packet whose session is not known (yet).
pub const NO_SESSION: u32 = u32::MAX;

/// Values of [`PacketContext::direction`].
pub mod direction {
    /// Nobody claimed the packet: it is not tunnelled, or not to us.
    pub const NONE: u8 = 0;
    /// From the radio network to the customer's cloud.
    pub const UPLINK: u8 = 1;
    /// From the customer's cloud to the radio network.
    pub const DOWNLINK: u8 = 2;
}

sized!(PacketContext = 32);
