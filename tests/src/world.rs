//! The test network of [`plan`](crate::plan): three namespaces, two links, and the far ends that count.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use xdpchain_abi::GTPU_PORT;

use crate::far_end::{FarEnd, Role};
use crate::plan::{self, CLOUD, CUSTOMERS, NODE_CLOUD, NODE_RAN, RAN, Session};
use crate::{Netns, veth};

/// Packets under way at most: a veth queues 256, and both directions may share one.
const WINDOW: u32 = 96;
/// How long a packet may be under way before it counts as lost.
const PATIENCE: Duration = Duration::from_millis(500);

/// The three namespaces, connected, with addresses, neighbours and fixed link-layer addresses.
#[derive(Debug)]
pub struct Links {
    /// The radio network, on `ran0`.
    pub ran: Netns,
    /// The node with the chains, on `n3` and `n6`.
    pub node: Netns,
    /// The customers' clouds, on `cloud0`.
    pub cloud: Netns,
}

impl Links {
    /// Builds them. Link-layer addresses are `02:00` and the IPv4 address of the interface.
    #[expect(clippy::new_without_default, reason = "making namespaces is no default")]
    pub fn new() -> Self {
        let (ran, node, cloud) = (Netns::new("ran"), Netns::new("node"), Netns::new("cloud"));
        veth((&ran, "ran0"), (&node, "n3"));
        veth((&cloud, "cloud0"), (&node, "n6"));
        let ends = [
            (&ran, "ran0", RAN),
            (&node, "n3", NODE_RAN),
            (&node, "n6", NODE_CLOUD),
            (&cloud, "cloud0", CLOUD),
        ];
        for (ns, interface, address) in ends {
            ns.ip(&format!("link set dev {interface} address {}", plan::mac_text(address)));
            ns.ip(&format!("addr add {address}/24 dev {interface}"));
        }
        // Fixed neighbours: a lookup that has to wait for ARP is the kernel's business and would count as lost here.
        let neighbour = |ns: &Netns, on: &str, address, at| {
            ns.ip(&format!("neigh replace {address} lladdr {} dev {on} nud permanent", plan::mac_text(at)));
        };
        neighbour(&ran, "ran0", NODE_RAN, NODE_RAN);
        neighbour(&node, "n3", RAN, RAN);
        neighbour(&node, "n6", CLOUD, CLOUD);
        for customer in 1..=CUSTOMERS {
            cloud.ip(&format!("addr add {}/24 dev cloud0", plan::gateway(customer)));
            neighbour(&node, "n6", plan::gateway(customer), CLOUD);
        }
        node.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .expect("a namespace can be a router");
        Self { ran, node, cloud }
    }
}

/// The links with far ends that count.
pub struct World {
    /// Counts what the radio side receives.
    pub ran_end: FarEnd,
    /// Counts what the cloud receives, and answers.
    pub cloud_end: FarEnd,
    /// The namespaces.
    pub links: Links,
}

impl World {
    /// Builds it, for packets numbered below `numbers`.
    pub fn new(numbers: u32) -> Self {
        let links = Links::new();
        let ran_end = FarEnd::attach(&links.ran, "ran0", Role::Ran, numbers);
        let cloud_end = FarEnd::attach(&links.cloud, "cloud0", Role::Cloud, numbers);
        Self { ran_end, cloud_end, links }
    }

    /// A sender of GTP-U on the radio side.
    pub fn sender(&self, sessions: u32) -> Sender {
        let socket = self.links.ran.run(|| UdpSocket::bind((RAN, GTPU_PORT))).expect("the port is free");
        socket.connect((NODE_RAN, GTPU_PORT)).expect("the node is a neighbour");
        Sender { socket, sessions, sent: 0, given_up: 0 }
    }
}

/// Sends numbered packets by a UDP socket, as many at a time as no queue can overflow.
#[derive(Debug)]
pub struct Sender {
    socket: UdpSocket,
    sessions: u32,
    sent: u32,
    /// Packets that were waited for in vain.
    given_up: u32,
}

impl Sender {
    /// Packets sent, which are numbered from 0.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Sends `count` packets, session after session, each one when fewer than a window's worth are under way.
    pub fn send(&mut self, world: &World, count: u32) {
        for _ in 0..count {
            if self.sent.is_multiple_of(WINDOW / 4) {
                self.wait(world, WINDOW * 3 / 4);
            }
            let session = Session { number: self.sent % self.sessions };
            let message = session.gtpu(self.sent);
            // Told once about an ICMP error that came back; then the socket sends again.
            while let Err(error) = self.socket.send(&message) {
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionRefused,
                    "the radio side's link takes packets: {error}"
                );
            }
            self.sent += 1;
        }
    }

    /// Waits until every packet came back, or is given up.
    pub fn settle(&mut self, world: &World) {
        self.wait(world, 0);
    }

    /// Waits until at most `under_way` packets have not come back.
    fn wait(&mut self, world: &World, under_way: u32) {
        let mut start = Instant::now();
        let mut before = 0;
        loop {
            let back = world.ran_end.right() as u32;
            let open = self.sent.saturating_sub(back + self.given_up);
            if open <= under_way {
                return;
            }
            if back > before {
                (before, start) = (back, Instant::now());
            } else if start.elapsed() > PATIENCE {
                self.given_up += open;
                return;
            }
            std::thread::yield_now();
        }
    }
}
