//! Generic netlink: one question to a family of the kernel's, and its answer.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// Numbers of the generic netlink controller (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Set in the type of an attribute that has attributes inside.
const NESTED: u16 = 1 << 15;

/// The number of the family of this name, which ends with a zero; none when this kernel has no such family.
pub(crate) fn family(name: &[u8]) -> io::Result<Option<u16>> {
    match ask(CONTROLLER, GET_FAMILY, &make(FAMILY_NAME, name)) {
        Ok(answer) => {
            Ok(attribute(&answer, FAMILY_ID).and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?))))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sends a request with these attributes; the attributes of the answer.
pub(crate) fn ask(kind: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(kind, command, attributes), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    payload(&answer)
}

/// An attribute, padded to a multiple of four octets.
pub(crate) fn make(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// An attribute that has these inside.
pub(crate) fn nest(kind: u16, attributes: &[u8]) -> Vec<u8> {
    make(kind | NESTED, attributes)
}

fn request(kind: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    let mut out = ((16 + 4 + attributes.len()) as u32).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([command, 1, 0, 0]);
    out.extend(attributes);
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

/// The attributes there are, as types and values, up to one that is cut short.
pub(crate) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = octets.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The upper two bits say what is inside.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = octets.get(4..length)?;
        // What stands behind the last attribute need not be padded.
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of that type.
pub(crate) fn attribute(octets: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(octets).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_among_others_and_never_beyond_the_end() {
        let mut message = request(CONTROLLER, GET_FAMILY, &make(FAMILY_NAME, b"netdev\0"));
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
}
