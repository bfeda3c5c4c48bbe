//! The answer to a packet that is too big for the way to the radio network, in the GRE tunnel that the packet came from.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{GreTunnel, Reason, direction, tunnel_flags};
use xdpchain_kit::{Ends, Inner, Outer, Packet, Told, TooBig};
use xdpchain_wire::{ethernet, gre, protocol};

use crate::{TTL, hops, module, outer::address6};

/// GRE tunnels by number: to be imported from `gre-steer`. Without them nobody is told of packets that are too big.
#[btf_map(name = "tunnels")]
static TUNNELS: HashMap<u32, GreTunnel, 4096> = HashMap::new();

/// Senders that were told.
static TOLD: Told<64> = Told::new();

/// Octets of the key field.
const KEY: usize = 4;

/// Sends, instead of the packet, the message that it was too big for `mtu` octets; 0 when that is not known.
///
/// # Errors
/// [`Reason::TooBig`] when nobody is told.
#[inline(always)]
pub(crate) fn tell(packet: &mut Packet, inner: &Inner, tunnel: u32, mtu: usize) -> Result<u32, Reason> {
    // SAFETY: nothing here changes the map, and the value is only read.
    let tunnel = unsafe { TUNNELS.get(tunnel) }.ok_or(Reason::TooBig)?;
    let answer = TooBig::new(packet, inner, mtu, &TOLD)?;
    let has_key = tunnel.flags & tunnel_flags::HAS_KEY != 0;
    let overhead = gre::LEN + if has_key { KEY } else { 0 };
    let tos = if tunnel.flags & tunnel_flags::FIXED_DSCP == 0 { TooBig::TOS } else { tunnel.dscp << 2 };
    let ends = Ends { source: tunnel.local, destination: tunnel.remote, protocol: protocol::GRE, tos };
    let hop = hops::toward(tunnel.remote).ok_or(Reason::TooBig)?;
    let outer =
        Outer::new(packet, ends, overhead + answer.total_len(), hop, address6).map_err(|_| Reason::TooBig)?;
    if !outer.next_hop.is_ready() {
        return Err(Reason::TooBig);
    }

    answer.write(packet, ethernet::LEN + outer.ip_len() + overhead).ok_or(Reason::Headroom)?;
    let ttl = if tunnel.ttl == 0 { TTL } else { tunnel.ttl };
    outer.emit(packet, ttl, 0).ok_or(Reason::Headroom)?;
    let gre =
        gre::Repr { protocol: answer.ethertype, key: has_key.then_some(tunnel.key), ..gre::Repr::default() };
    let at = packet.forget::<0x3f>(ethernet::LEN + outer.ip_len());
    gre.emit(packet, at).ok_or(Reason::Headroom)?;
    module::count(Reason::TooBig);
    module::change_context(|context| {
        context.direction = direction::UPLINK;
        context.inner_len = answer.total_len() as u16;
        context.reason = Reason::TooBig as u16;
    });
    outer.next_hop.send(packet)
}
