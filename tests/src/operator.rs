//! An operator's edge between peers that nobody here wrote: the data path on both interfaces of the node, in front of it the
//! kernel's gtp device as a gNB, behind it the kernel's GRE devices as a customer's routers.
//!
//! The network is that of [`plan`]. Everything that crosses one of its links is kept, for [`Operator::crossed`].

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use xdpchain_abi::{Reason, tunnel_flags};

use crate::cli::{Run, Shell, xdpchain};
use crate::gtp_device::{self, Pdp};
use crate::plan::{self, NODE_CLOUD, NODE_RAN, RAN, SERVER, Session};
use crate::world::Links;
use crate::{Port, rows};

/// Sessions that the node has.
pub const SESSIONS: u32 = 8;
/// The session of the gNB's user, of customer 1, without QoS flow: not every kernel's gtp device knows extension headers.
pub const SESSION: Session = Session { number: 0 };
/// The gNB's gtp device.
pub const GTP: &str = "gtp0";
/// The customer's GRE device, and the node's own beside its chain.
pub const GRE: &str = "gre1";
/// Inside addresses of the tunnel of customer 1: of the node, and of the customer's router.
pub const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 6, 1), Ipv4Addr::new(169, 254, 6, 2)];
/// Length of the prefix that they are in.
pub const INSIDE_LEN: u8 = 29;

/// Modules that pass everything, on the far ends: a veth interface takes what the other end transmits by XDP when it has a
/// program of its own.
const PASSING: &str = "\
version: 1
modules: { passing: ./passing.o }
chains: { end: { interfaces: [ran0, cloud0], slots: [passing] } }
";

/// A GRE tunnel, as the node's maps have it; addresses of IPv6 are aliases.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// Whose it is; also its number.
    pub customer: u32,
    /// Our address.
    pub local: Ipv4Addr,
    /// The customer's.
    pub remote: Ipv4Addr,
    /// The key, if it has one.
    pub key: Option<u32>,
    /// More of [`tunnel_flags`].
    pub flags: u8,
}

impl Tunnel {
    /// The plain tunnel of a customer, over IPv4.
    pub fn of(customer: u32) -> Self {
        Self { customer, local: NODE_CLOUD, remote: plan::gateway(customer), key: None, flags: 0 }
    }
}

/// The network with the data path on its node.
#[derive(Debug)]
pub struct Operator {
    /// The namespaces.
    pub links: Links,
    folder: TempDir,
    ports: [Port; 2],
}

impl Operator {
    /// Builds it.
    #[expect(clippy::new_without_default, reason = "making namespaces is no default")]
    pub fn new() -> Self {
        let links = Links::new();
        let folder = tempfile::tempdir().expect("a folder can be made");
        fs::write(folder.path().join("chains.yaml"), plan::chains_yaml(SESSIONS))
            .expect("the folder is ours");
        // The outer source of what the kernel is to send is an address of the node itself, which it takes from outside only
        // when told to.
        links.node.run(|| {
            for (key, value) in [
                ("conf/n3/accept_local", "1"),
                ("conf/n6/accept_local", "1"),
                ("conf/n3/rp_filter", "0"),
                ("conf/n6/rp_filter", "0"),
                ("conf/all/rp_filter", "0"),
            ] {
                fs::write(format!("/proc/sys/net/ipv4/{key}"), value).expect("a namespace has its own");
            }
        });
        for (end, interface) in [(&links.ran, "ran0"), (&links.cloud, "cloud0")] {
            Shell::new(end, PASSING).xdpchain(&["attach", interface]).expect(0);
            // What was put together on receipt is none of the frames that crossed.
            end.sh("ethtool", &["-K", interface, "gro", "off"]);
        }
        let ports = [Port::open(&links.ran, "ran0"), Port::open(&links.cloud, "cloud0")];
        let operator = Self { links, folder, ports };
        for interface in ["n3", "n6"] {
            operator.xdpchain(&["attach", interface]);
        }
        for (map, table) in rows::data_path(SESSIONS) {
            operator.import(map, &table.csv());
        }
        operator
    }

    /// Runs `xdpchain ARGUMENTS` on the node.
    ///
    /// # Panics
    /// When it fails.
    pub fn xdpchain(&self, arguments: &[&str]) -> Run {
        xdpchain(&self.links.node, self.folder.path(), arguments).expect(0)
    }

    /// Writes rows of CSV, the names of their columns first, into a map.
    pub fn import(&self, map: &str, csv: &str) {
        fs::write(self.folder.path().join("rows.csv"), csv).expect("the folder is ours");
        self.xdpchain(&["map", "import", map, "rows.csv"]);
    }

    /// How often a module counted a reason.
    pub fn counted(&self, module: &str, reason: Reason) -> u64 {
        let map = format!("{module}/xdpchain_reason");
        let run = self.xdpchain(&["map", "get", &map, &(reason as u32).to_string()]);
        run.stdout.trim().parse().expect("the sum of all CPUs' counters")
    }

    /// The reasons that modules counted, none of which is zero: what was not just forwarded.
    pub fn reasons(&self) -> Vec<(&'static str, Reason, u64)> {
        let modules = ["gtp-decap", "gre-decap", "acl", "gre-steer", "gtp-encap"];
        let mut counted = Vec::new();
        for module in modules {
            let json = self.xdpchain(&["map", "export", &format!("{module}/xdpchain_reason")]).stdout;
            for line in json.lines() {
                let entry: Value = serde_json::from_str(line).expect("a line is JSON");
                let (key, count) = (&entry["key"], entry["value"].as_u64().expect("a counter"));
                let reason = Reason::ALL.iter().find(|reason| *key == **reason as u32);
                if let (Some(reason), 1..) = (reason, count) {
                    counted.push((module, *reason, count));
                }
            }
        }
        counted
    }

    /// Whole frames that crossed either link since the last call: first those toward and from the gNB, then the customer's.
    pub fn crossed(&self) -> [Vec<Vec<u8>>; 2] {
        self.ports.each_ref().map(|port| std::iter::from_fn(|| port.receive(Duration::ZERO)).collect())
    }

    /// Makes the gNB's gtp device, with the user of [`SESSION`] behind it, whom [`SERVER`] is reached by.
    pub fn gnb(&self) {
        let user = Ipv4Addr::from(SESSION.address().octets);
        let pdp = Self::pdp(user.into(), NODE_RAN.into());
        gtp_device::make(&self.links.ran, GTP, RAN.into(), &[pdp]).expect("the kernel takes the session");
        self.links.ran.ip(&format!("addr add {user}/32 dev {GTP}"));
        self.links.ran.ip(&format!("route add {SERVER} dev {GTP} src {user}"));
    }

    /// [`SESSION`] as the gNB's device has it, with an address of its user's, and one of ours.
    pub fn pdp(user: IpAddr, peer: IpAddr) -> Pdp {
        let incoming = SESSION.downlink()[0].1.teid.value();
        Pdp { user, peer, incoming, outgoing: SESSION.uplink().0.teid.value() }
    }

    /// Gives the customer's cloud its server.
    pub fn server(&self) {
        self.links.cloud.ip(&format!("addr add {SERVER}/32 dev lo"));
    }

    /// Makes the plain GRE device of customer 1's router, which reaches the users only when there is a route.
    pub fn router(&self) {
        let (local, remote) = (plan::gateway(1), NODE_CLOUD);
        self.links
            .cloud
            .ip(&format!("link add {GRE} type gre local {local} remote {remote} ttl 64 tos inherit"));
        // It would join groups, and report that into the tunnel.
        let path = format!("/proc/sys/net/ipv6/conf/{GRE}/disable_ipv6");
        self.links.cloud.run(|| fs::write(path, "1")).expect("an interface need not have IPv6");
        self.links.cloud.ip(&format!("link set dev {GRE} up"));
    }

    /// The customer's way to the users, by its GRE device.
    pub fn route_to_users(&self) {
        self.links.cloud.ip(&format!("route add 172.16.0.0/16 dev {GRE} src {SERVER}"));
    }

    /// Writes a tunnel into the node's maps, in both directions.
    pub fn tunnel(&self, tunnel: Tunnel) {
        let Tunnel { customer, local, remote, key, flags } = tunnel;
        let flags = flags | if key.is_some() { tunnel_flags::HAS_KEY } else { 0 };
        let (key, inside) = (key.unwrap_or(0), INSIDE[0]);
        self.import(
            "gre-decap/tunnels",
            &format!(
                "remote,local,customer,tunnel,value.key,inside,inside_len,flags\n\
                 {remote},{local},{customer},{customer},{key},{inside},{INSIDE_LEN},{flags}\n"
            ),
        );
        self.import(
            "gre-steer/tunnels",
            &format!(
                "key,local,remote,value.key,ttl,flags,dscp\n{customer},{local},{remote},{key},0,{flags},0\n"
            ),
        );
    }

    /// Of both directions, how long the longest inner packet is by which the MSS of TCP is lowered; 0 for not.
    pub fn clamp_mss(&self, longest: u16) {
        let config = format!(r#"{{"not_found": 0, "inner_multicast": 0, "mss_clamp": {longest}}}"#);
        for module in ["gre-steer", "gtp-encap"] {
            self.xdpchain(&["map", "set", &format!("{module}/config"), "0", &config]);
        }
    }

    /// Makes the ways out of the node take packets of `mtu` octets at most.
    pub fn narrow(&self, mtu: usize) {
        for (interface, network) in [("n3", "10.10.0.0/24"), ("n6", "10.20.0.0/24")] {
            // Of the route, because an interface with such an MTU takes no longer packets either.
            self.links.node.ip(&format!(
                "route replace {network} dev {interface} proto kernel scope link mtu lock {mtu}"
            ));
        }
    }

    /// What the gNB or the server knows of the longest packet on its way to `to`, when somebody told.
    pub fn path_mtu(ns: &crate::Netns, to: IpAddr) -> Option<usize> {
        let route = ns.ip(&format!("route get {to}"));
        let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1)?.parse().ok()
    }
}
