//! The kernel's gtp device, as a gNB has it: it puts what its users send into GTP-U, and takes out what is for them.
//!
//! Made over netlink: Debian has no command for its sessions, and none of Debian 12 for a device over IPv6.

use std::io;
use std::net::{IpAddr, UdpSocket};
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
const PEER_ADDRESS6: u16 = 11;
const MS_ADDRESS6: u16 = 12;
const FAMILY: u16 = 13;

/// Messages and attributes of links (linux/rtnetlink.h, linux/if_link.h).
const NEW_LINK: u16 = 16;
const NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const GTP_ROLE: u16 = 4;
const GTP_CREATE_SOCKETS: u16 = 5;
const GTP_LOCAL6: u16 = 8;
/// `GTP_ROLE_SGSN`: users are who sends from their addresses.
const SGSN: u32 = 1;
/// Octets of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
/// Octets of the netlink header and of the generic one behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const WAIT: Duration = Duration::from_secs(10);

/// A session of the device.
#[derive(Clone, Copy, Debug)]
pub struct Pdp {
    /// The user's address; of IPv6, its upper half is.
    pub user: IpAddr,
    /// Where the device sends GTP-U.
    pub peer: IpAddr,
    /// TEID of what comes.
    pub incoming: u32,
    /// TEID of what goes.
    pub outgoing: u32,
}

/// Makes the device `name` of `ns`, up, whose sockets are of the address `local`, with these sessions. Its users are who sends from
/// their addresses.
///
/// # Errors
/// When the kernel does not take it; before Linux 6.10 it takes no IPv6, neither inside nor outside.
pub fn make(ns: &Netns, name: &str, local: IpAddr, sessions: &[Pdp]) -> io::Result<()> {
    ns.run(|| {
        let links = Socket::open(SockProtocol::NetlinkRoute);
        links.ask(NEW_LINK, ACKNOWLEDGE | CREATE, &link(name, local))
    })?;
    ns.ip(&format!("link set dev {name} addrgenmode none up"));
    let device = ns.ifindex(name);
    ns.run(|| {
        let socket = Socket::open(SockProtocol::NetlinkGeneric);
        let asked = [&[GET_FAMILY, 0, 0, 0][..], &attribute(FAMILY_NAME, b"gtp\0")].concat();
        let reply = socket.ask(CONTROLLER, 0, &asked)?;
        let family = find(&reply[GENERIC..], FAMILY_ID).expect("the controller tells a family's number");
        let family = u16::from_ne_bytes(family.try_into().expect("two octets"));
        sessions.iter().try_for_each(|pdp| {
            let command = [&[NEW_PDP, 0, 0, 0][..], &session(device, pdp)].concat();
            socket.ask(family, ACKNOWLEDGE, &command).map(drop)
        })
    })
}

/// What makes the device.
fn link(name: &str, local: IpAddr) -> Vec<u8> {
    let mut data = [attribute(GTP_ROLE, &SGSN.to_ne_bytes()), attribute(GTP_CREATE_SOCKETS, &[1])].concat();
    if let IpAddr::V6(local) = local {
        data.extend(attribute(GTP_LOCAL6, &local.octets()));
    }
    let info = [attribute(INFO_KIND, b"gtp"), attribute(INFO_DATA, &data)].concat();
    let name = attribute(NAME, format!("{name}\0").as_bytes());
    [vec![0; LINK_HEADER], name, attribute(LINK_INFO, &info)].concat()
}

/// What makes a session of the device.
fn session(device: u32, pdp: &Pdp) -> Vec<u8> {
    let address = |address, kind, kind6| match address {
        IpAddr::V4(address) => attribute(kind, &address.octets()),
        IpAddr::V6(address) => attribute(kind6, &address.octets()),
    };
    let mut attributes = [
        attribute(LINK, &device.to_ne_bytes()),
        attribute(VERSION, &1u32.to_ne_bytes()),
        address(pdp.peer, PEER_ADDRESS, PEER_ADDRESS6),
        address(pdp.user, MS_ADDRESS, MS_ADDRESS6),
        attribute(INCOMING_TEID, &pdp.incoming.to_ne_bytes()),
        attribute(OUTGOING_TEID, &pdp.outgoing.to_ne_bytes()),
    ]
    .concat();
    if pdp.user.is_ipv6() {
        attributes.extend(attribute(FAMILY, &[nix::libc::AF_INET6 as u8]));
    }
    attributes
}

/// A netlink socket to the kernel.
struct Socket(
    /// A socket type of the standard library, of which `send` and `recv` are the same system calls for every family.
    UdpSocket,
);

impl Socket {
    fn open(protocol: SockProtocol) -> Self {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .expect("the kernel has netlink");
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("the kernel is there");
        let socket = UdpSocket::from(fd);
        socket.set_read_timeout(Some(WAIT)).expect("a time-out is always taken");
        Self(socket)
    }

    /// Sends a message, and returns what is behind the netlink header of the answer.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let len = (HEADER + body.len()) as u32;
        let mut message = len.to_ne_bytes().to_vec();
        message.extend([kind, REQUEST | flags].into_iter().flat_map(u16::to_ne_bytes));
        // Sequence number and sender: the kernel answers on this socket, and one thing at a time is asked.
        message.extend([0; 8]);
        message.extend(body);
        self.0.send(&message)?;
        let mut reply = vec![0; 65_536];
        let len = self.0.recv(&mut reply)?;
        reply.truncate(len);
        if reply[4..6] == ERROR.to_ne_bytes() {
            let code = i32::from_ne_bytes(reply[HEADER..HEADER + 4].try_into().expect("four octets"));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
        Ok(reply.split_off(HEADER))
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
