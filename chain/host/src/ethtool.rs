//! Switches of a driver's own, as `ethtool --show-priv-flags` shows them.

use std::io;

use crate::genl::{ask, attribute, attributes, family, make, nest};

/// Numbers of the family (include/uapi/linux/ethtool_netlink.h).
const PRIVATE_FLAGS_GET: u8 = 13;
const HEADER: u16 = 1;
const HEADER_IFINDEX: u16 = 1;
const FLAGS: u16 = 2;
const SET_BITS: u16 = 3;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// The names of the switches that are on; none when the driver has no switches.
pub(crate) fn private_flags(ifindex: u32) -> io::Result<Vec<String>> {
    let Some(family) = family(b"ethtool\0")? else { return Ok(Vec::new()) };
    let header = nest(HEADER, &make(HEADER_IFINDEX, &ifindex.to_ne_bytes()));
    match ask(family, PRIVATE_FLAGS_GET, &header) {
        Ok(answer) => Ok(on(&answer)),
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The names of the bits that an answer says are set.
fn on(answer: &[u8]) -> Vec<String> {
    let bits = attribute(answer, FLAGS).and_then(|set| attribute(set, SET_BITS)).unwrap_or_default();
    let set = attributes(bits).filter(|(_, bit)| attribute(bit, BIT_VALUE).is_some());
    let name = |bit| attribute(bit, BIT_NAME).map(|name| name.strip_suffix(b"\0").unwrap_or(name));
    set.filter_map(|(_, bit)| Some(String::from_utf8_lossy(name(bit)?).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_set_bits_are_found() {
        // Written by hand from the family's description: two bits, of which the second one is set.
        let bit = |index: u32, name: &[u8], set: bool| {
            let mut bit = [make(1, &index.to_ne_bytes()), make(BIT_NAME, name)].concat();
            if set {
                bit.extend(make(BIT_VALUE, &[]));
            }
            nest(1, &bit)
        };
        let bits = [bit(0, b"flow-director-atr\0", false), bit(1, b"legacy-rx\0", true)].concat();
        let set = [make(2, &2u32.to_ne_bytes()), nest(SET_BITS, &bits)].concat();
        let answer = [nest(HEADER, &make(HEADER_IFINDEX, &[3, 0, 0, 0])), nest(FLAGS, &set)].concat();
        assert_eq!(on(&answer), ["legacy-rx"]);
        for cut in 0..answer.len() {
            assert!(on(&answer[..cut]).iter().all(|name| name == "legacy-rx"));
        }
    }

    #[test]
    fn loopback_has_none() {
        assert_eq!(private_flags(1).expect("there is a loopback"), Vec::<String>::new());
    }
}
