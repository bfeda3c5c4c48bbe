//! What the maps of the six modules hold, typed.

use std::collections::{BTreeMap, HashMap};

use xdpchain_abi::{
    AclConfig, AclRule, Address6, Customer, DenseSession, DownlinkKey, DownlinkSession, EncapConfig,
    Endpoint, Endpoint6, FilterKey, FilterRule, GreIngress, GreKey, GreTunnel, Inside6, Ipv4, Ipv6, Peer6,
    UplinkKey, UplinkSession,
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
    /// `gtp-decap/sessions_dense`.
    pub dense: HashMap<u32, DenseSession>,
    /// `gtp-decap/filters`.
    pub filters: HashMap<FilterKey, FilterRule>,
    /// `gre-decap/tunnels`.
    pub ingress: HashMap<GreKey, GreIngress>,
    /// `gre-decap/inside6`.
    pub inside6: HashMap<u32, Inside6>,
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

impl Tables {
    /// The session whose packets arrive at `key`: from the place of its TEID in the array, or of any place in the table.
    pub fn session(&self, key: UplinkKey) -> Option<UplinkSession> {
        let dense = self.dense.get(&DenseSession::index(key.teid)).copied();
        match dense.map(DenseSession::split) {
            Some((found, session)) if found == key => Some(session),
            _ => self.uplink.get(&key).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use xdpchain_abi::Be32;

    use super::*;

    #[test]
    fn a_session_in_the_array_is_found_by_all_of_its_teid_at_its_own_address_only() {
        let key = |last, teid| UplinkKey { local: Ipv4 { octets: [192, 0, 2, last] }, teid: Be32::new(teid) };
        let mut tables = Tables::default();
        let dense = DenseSession { session: 1, ..DenseSession::default() };
        let UplinkKey { local, teid } = key(1, 0x0100_0007);
        tables.dense.insert(7, DenseSession { local, teid, ..dense });
        let other = UplinkSession { session: 2, ..UplinkSession::default() };
        tables.uplink.insert(key(2, 0x0100_0007), other);
        let found = |last, teid| tables.session(key(last, teid)).map(|session| session.session);
        assert_eq!(found(1, 0x0100_0007), Some(1));
        assert_eq!(found(2, 0x0100_0007), Some(2));
        assert_eq!(found(3, 0x0100_0007), None);
        assert_eq!(found(1, 0x0000_0007), None);
        assert_eq!(found(1, 0x0100_0008), None);
    }
}
