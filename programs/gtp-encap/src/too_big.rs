//! The answer to a packet that is too big for the way to the radio network, in the GRE tunnel that the packet came from.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{GreTunnel, Reason, direction, tunnel_flags};
use xdpchain_kit::{Inner, Packet, Route, Told, TooBig};
use xdpchain_wire::{
    OctetsMut as _,
    ethernet::{self, ethertype},
    gre, ipv4, protocol,
};

use crate::{TTL, module};

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
    let overhead = ipv4::LEN + gre::LEN + if has_key { KEY } else { 0 };
    let total_len = (overhead + answer.total_len()) as u16;
    let route = Route {
        source: tunnel.local,
        destination: tunnel.remote,
        protocol: protocol::GRE,
        tos: TooBig::TOS,
        total_len,
    };
    let next_hop = route.next_hop(packet).map_err(|_| Reason::TooBig)?;
    if next_hop.is_too_long() {
        return Err(Reason::TooBig);
    }

    answer.write(packet, ethernet::LEN + overhead).ok_or(Reason::Headroom)?;
    packet.put_ethernet(&next_hop.addresses, ethertype::IPV4).ok_or(Reason::Headroom)?;
    let ip = ipv4::Repr {
        tos: TooBig::TOS,
        total_len,
        dont_fragment: true,
        ttl: if tunnel.ttl == 0 { TTL } else { tunnel.ttl },
        protocol: protocol::GRE,
        source: tunnel.local,
        destination: tunnel.remote,
        ..ipv4::Repr::default()
    };
    ip.emit(packet.at_mut(ethernet::LEN).ok_or(Reason::Headroom)?);
    let gre =
        gre::Repr { protocol: answer.ethertype, key: has_key.then_some(tunnel.key), ..gre::Repr::default() };
    gre.emit(packet, ethernet::LEN + ipv4::LEN).ok_or(Reason::Headroom)?;
    module::count(Reason::TooBig);
    module::change_context(|context| {
        context.direction = direction::UPLINK;
        context.inner_len = answer.total_len() as u16;
        context.reason = Reason::TooBig as u16;
    });
    next_hop.send(packet)
}
