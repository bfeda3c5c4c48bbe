//! What the maps of the six modules hold, typed.

use std::collections::{BTreeMap, HashMap};

use xdpchain_abi::{
    AclConfig, AclRule, Address6, Customer, DownlinkKey, DownlinkSession, EncapConfig, Endpoint, Endpoint6,
    FilterKey, FilterRule, GreIngress, GreKey, GreTunnel, Ipv4, Ipv6, Peer6, UplinkKey, UplinkSession,
};

/// The contents of every map that decides about a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `gtp-decap/endpoints`.
    pub endpoints: HashMap<Ipv4, Endpoint>,
    /// `gtp-decap/endpoints6`.
    pub endpoints6: HashMap<Ipv6, Endpoint6>,
    /// `gtp-decap/peers6`.
    pub peers6: HashMap<Ipv6, Peer6>,
    /// `gtp-decap/sessions`.
    pub uplink: HashMap<UplinkKey, UplinkSession>,
    /// `gtp-decap/filters`.
    pub filters: HashMap<FilterKey, FilterRule>,
    /// `gre-decap/tunnels`.
    pub ingress: HashMap<GreKey, GreIngress>,
    /// `acl/rules`, in their order.
    pub rules: BTreeMap<u32, AclRule>,
    /// `acl/config`.
    pub acl: AclConfig,
    /// `gre-steer/customers`.
    pub customers: HashMap<u32, Customer>,
    /// `gre-steer/tunnels`.
    pub tunnels: HashMap<u32, GreTunnel>,
    /// `gre-steer/config`.
    pub steer: EncapConfig,
    /// `gtp-encap/sessions`.
    pub downlink: HashMap<DownlinkKey, DownlinkSession>,
    /// `gre-decap/addresses6`.
    pub ends6: HashMap<Ipv6, Peer6>,
    /// `gtp-encap/addresses6` and `gre-steer/addresses6`.
    pub addresses6: HashMap<Ipv4, Address6>,
    /// `gtp-encap/config`.
    pub encap: EncapConfig,
}
