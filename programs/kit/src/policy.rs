//! What is done with a packet that an encapsulator cannot send.

use xdpchain_abi::{EncapConfig, Fate, Reason, refusal};

/// The fate that `config` gives a packet which is not sent because of `reason`.
#[inline(always)]
pub fn fate(config: Option<&EncapConfig>, reason: Reason) -> Fate {
    let config = config.copied().unwrap_or_default();
    let policy = match reason {
        Reason::NoSession | Reason::NoTunnel => config.not_found,
        Reason::InnerMulticast => config.inner_multicast,
        _ => return reason.fate(),
    };
    if policy == refusal::PUNT { Fate::Punt } else { Fate::Drop }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_policy_is_about_its_own_reasons_and_drops_unless_told_otherwise() {
        let punts = |not_found, inner_multicast| {
            let config = EncapConfig { not_found, inner_multicast, ..EncapConfig::default() };
            let punted = |reason: &&Reason| fate(Some(&config), **reason) != reason.fate();
            Reason::ALL.iter().filter(punted).copied().collect::<Vec<_>>()
        };
        assert_eq!(punts(refusal::DROP, refusal::DROP), []);
        assert_eq!(punts(refusal::PUNT, refusal::DROP), [Reason::NoSession, Reason::NoTunnel]);
        assert_eq!(punts(refusal::DROP, refusal::PUNT), [Reason::InnerMulticast]);
        assert_eq!(fate(None, Reason::NoSession), Fate::Drop);
    }
}
