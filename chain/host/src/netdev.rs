//! What a driver says of itself about XDP, by the generic netlink family `netdev`.
//!
//! Nothing is attached for it. Kernels that do not have the family leave the question open.

use std::io;

use crate::genl::{ask, attribute, family, make};

/// What a driver can do (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// Runs programs, with the verdicts ABORTED, DROP, PASS and TX.
    pub fn basic(self) -> bool {
        self.0 & 1 != 0
    }

    /// Takes the verdict REDIRECT.
    pub fn redirect(self) -> bool {
        self.0 & 2 != 0
    }

    /// Sends packets that another interface redirects to it.
    pub fn receives_redirected(self) -> bool {
        self.0 & 4 != 0
    }

    /// Gives programs packets in several buffers (`xdp.frags`).
    pub fn frags(self) -> bool {
        self.0 & 32 != 0
    }
}

/// Numbers of the family (include/uapi/linux/netdev.h).
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

/// What the driver of interface `ifindex` says; none when this kernel does not tell.
///
/// # Errors
/// `ENODEV` when there is no such interface.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let Some(family) = family(b"netdev\0")? else { return Ok(None) };
    let answer = ask(family, DEV_GET, &make(DEV_IFINDEX, &ifindex.to_ne_bytes()))?;
    let features = attribute(&answer, DEV_XDP_FEATURES);
    Ok(features.and_then(|octets| Some(XdpFeatures(u64::from_ne_bytes(octets.try_into().ok()?)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_native_xdp_where_the_kernel_tells() {
        let features = xdp_features(1).expect("there is a loopback");
        assert!(features.is_none_or(|features| !features.basic()));
    }
}
