//! Ports: a packet socket on one interface, to send and see whole Ethernet frames.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt};

use crate::Netns;

/// A packet socket bound to one interface.
#[derive(Debug)]
pub struct Port {
    /// A socket type of the standard library, for its time-outs; only `send` and `recv` are used, which are the same
    /// system calls for every family.
    socket: UdpSocket,
}

impl Port {
    /// Opens `interface` of `ns`. Frames that arrive from now on are kept for [`Self::receive`].
    pub fn open(ns: &Netns, interface: &str) -> Self {
        ns.run(|| {
            let fd =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                    .expect("root may open packet sockets");
            // The address that getifaddrs gives has protocol 0, which keeps the socket's own: every frame.
            let address = getifaddrs()
                .expect("interfaces can be listed")
                .filter(|i| i.interface_name == interface)
                .find_map(|i| i.address?.as_link_addr().copied())
                .unwrap_or_else(|| panic!("no interface `{interface}` in {}", ns.name()));
            bind(fd.as_raw_fd(), &address).expect("the interface is there");
            // Enough for the frames that come while a busy machine runs something else.
            setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20)).expect("root may have large buffers");
            Self { socket: UdpSocket::from(fd) }
        })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = self.socket.send(frame).expect("the interface takes frames");
        assert_eq!(sent, frame.len());
    }

    /// Offers one frame; whether the interface took it, which it does not when what receives at its other end has no room.
    ///
    /// # Panics
    /// When the interface is gone.
    pub fn offer(&self, frame: &[u8]) -> bool {
        match self.socket.send(frame) {
            Ok(sent) => sent == frame.len(),
            Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => false,
            Err(e) => panic!("packet socket: {e}"),
        }
    }

    /// The next frame that is there within `wait`, ours among them.
    pub fn receive(&self, wait: Duration) -> Option<Vec<u8>> {
        // A time-out of zero would mean forever.
        self.socket
            .set_read_timeout(Some(wait.max(Duration::from_micros(1))))
            .expect("a time-out is always taken");
        let mut buffer = vec![0; 65_536];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(e) => panic!("packet socket: {e}"),
        }
    }

    /// The next frame within `wait` that `wanted` says yes to; others are thrown away.
    pub fn receive_where(&self, wait: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + wait;
        loop {
            let frame = self.receive(end.saturating_duration_since(Instant::now()))?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}
