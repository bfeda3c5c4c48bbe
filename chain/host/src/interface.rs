//! Interfaces: what the kernel says about one, and which XDP programs run on it.
//!
//! A program that was attached by netlink, without a link, is only seen here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya_obj::generated::{
    XDP_FLAGS_DRV_MODE, XDP_FLAGS_HW_MODE, XDP_FLAGS_REPLACE, XDP_FLAGS_SKB_MODE, XDP_FLAGS_UPDATE_IF_NOEXIST,
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys;

/// An interface of the calling thread's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet without the link-layer header, octets.
    pub mtu: u32,
    /// Kind of a virtual interface, such as `veth`; none for a device with a driver.
    pub kind: Option<String>,
    /// The XDP programs that run on it.
    pub programs: Vec<AttachedProgram>,
}

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The kernel's number of the program.
    pub id: u32,
    /// Where in the receive path.
    pub place: AttachPlace,
}

/// Where in the receive path a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachPlace {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// In the device.
    Offload,
}

impl AttachPlace {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

impl Interface {
    /// Asks the kernel about the interface `name`.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Query`].
    pub fn by_name(name: &str) -> Result<Self> {
        // An interface name ends at 15 octets; the kernel would answer EINVAL to a longer one.
        let index = if name.is_empty() || name.len() > 15 { None } else { sys::interface_index(name).ok() };
        let index = index.ok_or_else(|| Error::NoInterface { name: name.to_owned() })?;
        Self::by_index(index).map_err(Error::query(format!("interface `{name}`")))
    }

    /// Asks the kernel about the interface number `index`.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn by_index(index: u32) -> io::Result<Self> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        match ask(RouteNetlinkMessage::GetLink(request), 0)? {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Self::from_message(&link)),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts `program` on the interface without a link, or takes off what is there when there is none, and only when
    /// that is `expected`; with neither, nothing may be there.
    ///
    /// # Errors
    /// `EEXIST` when another program is there, what the driver says.
    pub(crate) fn set_xdp(
        &self,
        place: AttachPlace,
        program: Option<BorrowedFd<'_>>,
        expected: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut flags = match place {
            AttachPlace::Native => XDP_FLAGS_DRV_MODE,
            AttachPlace::Generic => XDP_FLAGS_SKB_MODE,
            AttachPlace::Offload => XDP_FLAGS_HW_MODE,
        };
        let mut attributes = vec![LinkXdp::Fd(program.map_or(-1, |program| program.as_raw_fd()))];
        match expected {
            Some(expected) => {
                attributes.push(LinkXdp::ExpectedFd(expected.as_raw_fd() as u32));
                flags |= XDP_FLAGS_REPLACE;
            }
            None => flags |= XDP_FLAGS_UPDATE_IF_NOEXIST,
        }
        attributes.push(LinkXdp::Flags(flags));
        let mut request = LinkMessage::default();
        request.header.index = self.index;
        request.attributes.push(LinkAttribute::Xdp(attributes));
        match ask(RouteNetlinkMessage::SetLink(request), NLM_F_ACK)? {
            NetlinkPayload::Error(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn from_message(link: &LinkMessage) -> Self {
        let mut interface = Self { index: link.header.index, ..Self::default() };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    interface.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind_name(kind)),
                        _ => None,
                    });
                }
                LinkAttribute::Xdp(attributes) => interface.programs = programs(attributes),
                _ => {}
            }
        }
        interface
    }
}

/// Sends a request, and waits for the one answer. An answer that is an error is one here, too.
fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut out = vec![0; message.buffer_len()];
    message.serialize(&mut out);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&out, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(e) if e.code.is_some() => Err(e.to_io()),
        payload => Ok(payload),
    }
}

fn unexpected(answer: &NetlinkPayload<RouteNetlinkMessage>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {answer:?}"))
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Veth => "veth".to_owned(),
        InfoKind::Other(other) => other.clone(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The programs in an `IFLA_XDP` attribute: the kernel gives one attribute for each place when there are several, and
/// says in `IFLA_XDP_ATTACHED` where the only one is.
fn programs(attributes: &[LinkXdp]) -> Vec<AttachedProgram> {
    let mut found = Vec::new();
    let mut single = None;
    let mut attached = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(to) => attached = Some(*to),
            LinkXdp::ProgId(id) => single = Some(*id),
            LinkXdp::DrvProgId(id) => found.push(AttachedProgram { id: *id, place: AttachPlace::Native }),
            LinkXdp::SkbProgId(id) => found.push(AttachedProgram { id: *id, place: AttachPlace::Generic }),
            LinkXdp::HwProgId(id) => found.push(AttachedProgram { id: *id, place: AttachPlace::Offload }),
            _ => {}
        }
    }
    if let (true, Some(id)) = (found.is_empty(), single) {
        let place = match attached {
            Some(XdpAttached::SocketBuffer) => AttachPlace::Generic,
            Some(XdpAttached::Hardware) => AttachPlace::Offload,
            _ => AttachPlace::Native,
        };
        found.push(AttachedProgram { id, place });
    }
    found.retain(|p| p.id != 0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_interface_without_a_kind() {
        let lo = Interface::by_name("lo").expect("every network namespace has it");
        assert_eq!((lo.index, lo.name.as_str(), lo.kind.as_deref()), (1, "lo", None));
        assert!(lo.mtu >= 1280);
    }

    #[test]
    fn an_unknown_interface_is_a_usage_error() {
        for name in ["no-such-if", "", "a-name-that-is-longer-than-fifteen"] {
            let error = Interface::by_name(name).expect_err("there is none");
            assert!(matches!(&error, Error::NoInterface { name: n } if n == name), "{error}");
            assert_eq!(error.class().code(), 2);
        }
    }

    #[test]
    fn one_and_several_programs_are_read() {
        let one = [LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(7), LinkXdp::SkbProgId(7)];
        assert_eq!(programs(&one), [AttachedProgram { id: 7, place: AttachPlace::Generic }]);
        let two = [LinkXdp::Attached(XdpAttached::Multiple), LinkXdp::DrvProgId(8), LinkXdp::HwProgId(9)];
        assert_eq!(programs(&two).len(), 2);
        let old = [LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(3)];
        assert_eq!(programs(&old), [AttachedProgram { id: 3, place: AttachPlace::Native }]);
        assert!(programs(&[LinkXdp::Attached(XdpAttached::None)]).is_empty());
    }
}
