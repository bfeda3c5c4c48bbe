//! What a driver says of itself about XDP, by the generic netlink family `netdev`.
//!
//! Nothing is attached for it. Kernels that do not have the family leave the question open.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

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

/// Numbers of the generic netlink controller, and of the family (include/uapi/linux/genetlink.h, netdev.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

/// What the driver of interface `ifindex` says; none when this kernel does not tell.
///
/// # Errors
/// `ENODEV` when there is no such interface.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let family = match ask(CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0") {
        Ok(answer) => {
            attribute(&answer, FAMILY_ID).and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => None,
        Err(e) => return Err(e),
    };
    let Some(family) = family else { return Ok(None) };
    let answer = ask(family, DEV_GET, DEV_IFINDEX, &ifindex.to_ne_bytes())?;
    let features = attribute(&answer, DEV_XDP_FEATURES);
    Ok(features.and_then(|octets| Some(XdpFeatures(u64::from_ne_bytes(octets.try_into().ok()?)))))
}

/// Sends a request with one attribute; the attributes of the answer.
fn ask(kind: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(kind, command, attribute, value), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    payload(&answer)
}

fn request(kind: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    let attribute_len = 4 + value.len();
    let length = (16 + 4 + attribute_len.next_multiple_of(4)) as u32;
    let mut out = Vec::new();
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([command, 1, 0, 0]);
    out.extend((attribute_len as u16).to_ne_bytes());
    out.extend(attribute.to_ne_bytes());
    out.extend(value);
    out.resize(length as usize, 0);
    out
}

/// What follows the two headers of a message, or the error that it is.
fn payload(message: &[u8]) -> io::Result<Vec<u8>> {
    const ERROR: u16 = 2;
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a generic netlink answer that is cut short");
    let kind = message.get(4..6).ok_or_else(short)?;
    if kind == ERROR.to_ne_bytes() {
        let code = message.get(16..20).and_then(|code| code.try_into().ok()).ok_or_else(short)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    message.get(20..).map(<[u8]>::to_vec).ok_or_else(short)
}

/// The value of the first attribute of that type.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(header) = attributes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The upper two bits say what is inside.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_among_others_and_never_beyond_the_end() {
        let mut message = request(CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0");
        message.extend([6, 0, 1, 0, 0x2a, 0, 0, 0]);
        let attributes = payload(&message).expect("no error");
        assert_eq!(attribute(&attributes, FAMILY_ID), Some(&[0x2a, 0][..]));
        assert_eq!(attribute(&attributes, FAMILY_NAME), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(&attributes, 9), None);
        for cut in 0..attributes.len() {
            let _ = attribute(&attributes[..cut], FAMILY_ID);
            let _ = payload(&message[..cut]);
        }
        assert_eq!(attribute(&[200, 0, 1, 0, 1], FAMILY_ID), None);
        assert_eq!(attribute(&[0, 0, 1, 0], FAMILY_ID), None);
    }

    #[test]
    fn loopback_has_no_native_xdp_where_the_kernel_tells() {
        let features = xdp_features(1).expect("there is a loopback");
        assert!(features.is_none_or(|features| !features.basic()));
    }
}
