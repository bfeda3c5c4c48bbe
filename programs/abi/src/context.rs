//! The packet context: what the modules of a chain tell each other about the packet at hand.

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
    /// Octets of padding, zero.
    pub reserved: [u8; 10],
}

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
