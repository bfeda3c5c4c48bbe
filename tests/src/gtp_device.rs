//! The kernel's gtp device, as a gNB has it: it puts what its users send into GTP-U, and takes out what is for them.
//!
//! iproute2 makes the device; its sessions are made over generic netlink, for which Debian has no command.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, socket};

use crate::Netns;

/// The family of `nlctrl`, which knows the numbers of all others.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Commands and attributes of the family `gtp` (linux/gtp.h).
const NEW_PDP: u8 = 0;
const LINK: u16 = 1;
const VERSION: u16 = 2;
const PEER_ADDRESS: u16 = 4;
const MS_ADDRESS: u16 = 5;
const INCOMING_TEID: u16 = 8;
const OUTGOING_TEID: u16 = 9;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;
/// Octets of the netlink header and of the generic one behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const WAIT: Duration = Duration::from_secs(10);

/// A session of the device.
#[derive(Clone, Copy, Debug)]
pub struct Pdp {
    /// The user's address.
    pub user: Ipv4Addr,
    /// Where the device sends GTP-U.
    pub peer: Ipv4Addr,
    /// TEID of what comes.
    pub incoming: u32,
    /// TEID of what goes.
    pub outgoing: u32,
}

/// Makes the device `name` of `ns`, up, with one session. Its users are who sends from their addresses.
///
/// # Panics
/// When the kernel does not take it.
pub fn make(ns: &Netns, name: &str, pdp: Pdp) {
    ns.ip(&format!("link add {name} type gtp role sgsn"));
    ns.ip(&format!("link set dev {name} up"));
    let device = ns.ifindex(name);
    ns.run(|| {
        let socket = Socket::open();
        let reply = socket.ask(CONTROLLER, 0, GET_FAMILY, &attribute(FAMILY_NAME, b"gtp\0"));
        let family = find(&reply[GENERIC..], FAMILY_ID).expect("the controller tells a family's number");
        let family = u16::from_ne_bytes(family.try_into().expect("two octets"));
        let attributes = [
            attribute(LINK, &device.to_ne_bytes()),
            attribute(VERSION, &1u32.to_ne_bytes()),
            attribute(PEER_ADDRESS, &pdp.peer.octets()),
            attribute(MS_ADDRESS, &pdp.user.octets()),
            attribute(INCOMING_TEID, &pdp.incoming.to_ne_bytes()),
            attribute(OUTGOING_TEID, &pdp.outgoing.to_ne_bytes()),
        ]
        .concat();
        socket.ask(family, ACKNOWLEDGE, NEW_PDP, &attributes);
    });
}

/// A generic netlink socket to the kernel.
struct Socket(
    /// A socket type of the standard library, of which `send` and `recv` are the same system calls for every family.
    UdpSocket,
);

impl Socket {
    fn open() -> Self {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )
        .expect("the kernel has generic netlink");
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("the kernel is there");
        let socket = UdpSocket::from(fd);
        socket.set_read_timeout(Some(WAIT)).expect("a time-out is always taken");
        Self(socket)
    }

    /// Sends a command, and returns what is behind the netlink header of the answer.
    fn ask(&self, family: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
        let len = (HEADER + GENERIC + attributes.len()) as u32;
        let mut message = len.to_ne_bytes().to_vec();
        message.extend([family, REQUEST | flags].into_iter().flat_map(u16::to_ne_bytes));
        // Sequence number and sender: the kernel answers on this socket, and one command at a time is asked.
        message.extend([0; 8]);
        message.extend([command, 0, 0, 0]);
        message.extend(attributes);
        self.0.send(&message).expect("the kernel takes netlink messages");
        let mut reply = vec![0; 65_536];
        let len = self.0.recv(&mut reply).expect("the kernel answers");
        reply.truncate(len);
        if reply[4..6] == ERROR.to_ne_bytes() {
            let code = i32::from_ne_bytes(reply[HEADER..HEADER + 4].try_into().expect("four octets"));
            let error = std::io::Error::from_raw_os_error(-code);
            assert_eq!(code, 0, "generic netlink command {command} of family {family}: {error}");
        }
        reply.split_off(HEADER)
    }
}

/// An attribute, padded to a multiple of four octets.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut octets: Vec<u8> = [4 + value.len() as u16, kind].into_iter().flat_map(u16::to_ne_bytes).collect();
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *attributes {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([c, d]) == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}
