//! The data path before the kernel's own tunnels: its gtp device as a gNB, its GRE devices as customers' routers. What one of
//! them sends arrives at the other, in both directions, and tshark finds nothing wrong with any frame of it.
#![forbid(unsafe_code)]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use xdpchain_abi::{GTPU_PORT, Reason, tunnel_flags};
use xdpchain_tests::{
    gtp_device,
    judged::agreed,
    kernel,
    operator::{GRE, GTP, Operator, SESSION, Tunnel},
    plan::{self, NODE_CLOUD, NODE_RAN, RAN, SERVER, Session},
    transfer::{datagrams, file, ping},
    tshark::sound,
};
use xdpchain_wire::{gtpu, udp};

/// How long a packet may take: the machine may be slow, and busy.
const WAIT: Duration = Duration::from_secs(30);
/// The customer that the sockets' sessions are of.
const CUSTOMER: u32 = 1;
const KEY: u32 = 0x0102_0304;

#[test]
fn the_kernels_gtp_and_gre_devices_understand_each_other_through_the_chain() {
    const TOS: &str = "0x28";
    let test = "the_kernels_gtp_and_gre_devices_understand_each_other_through_the_chain";
    if kernel::lacks_devices(test, &[kernel::GTP, kernel::GRE]) {
        return;
    }
    let operator = Operator::new();
    let (ran, cloud) = (&operator.links.ran, &operator.links.cloud);
    operator.gnb();
    operator.server();
    operator.router();
    operator.route_to_users();
    let server = IpAddr::from(SERVER);

    let printed = ping(ran, server, &["-c", "3", "-Q", TOS]);
    assert!(printed.contains(" 0% packet loss"), "{printed}");
    // The answer began with 64, and the chain is one hop.
    assert!(printed.contains("ttl=63"), "{printed}");
    let from = datagrams(ran, cloud, server, &[0, 1, 2, 17, 999, 1000, 1001, 1300]);
    assert_eq!(from, IpAddr::from(SESSION.address().octets));
    file(ran, cloud, server, 200_000);
    assert_eq!(operator.reasons(), [], "everything was just forwarded");

    let [at_gnb, at_cloud] = operator.crossed();
    let fields = ["frame.protocols", "ip.dsfield", "ip.ttl", "gtp.teid"];
    for (frames, layers, name) in [(&at_gnb, ":ip:udp:gtp:ip:", "gNB"), (&at_cloud, ":ip:gre:ip:", "cloud")] {
        let rows = sound(frames, &fields);
        let tunnelled: Vec<_> = rows.iter().filter(|row| row[0].contains(layers)).collect();
        assert!(tunnelled.len() > 300, "{} of {} toward the {name}", tunnelled.len(), rows.len());
        // Of the pings, there and back, the octet is inside as outside.
        let marked = tunnelled.iter().filter(|row| row[1] == format!("{TOS},{TOS}")).count();
        assert_eq!(marked, 6, "toward the {name}");
        let hops: Vec<_> = tunnelled.iter().filter(|row| !["64,64", "64,63"].contains(&&*row[2])).collect();
        assert!(hops.is_empty(), "toward the {name}: {hops:?}");
    }
    agreed("gtp device", &["G01", "D01", "B01", "B07"]);
    agreed("GRE device", &["R01", "R14", "B01", "B07"]);
}

/// A device that a customer may have at the far end of its tunnel.
struct Device {
    name: &'static str,
    /// Of `ip link add`.
    kind: String,
    /// Of `ip route add`.
    way: String,
    key: Option<u32>,
    flags: u8,
    rows: &'static [&'static str],
}

/// Address of ours toward the clouds, and of the far end, over IPv6; and what the maps call them.
const OVER6: [(&str, Ipv4Addr); 2] =
    [("fd00:20::1", Ipv4Addr::new(0, 0, 0, 1)), ("fd00:20::11", Ipv4Addr::new(0, 0, 0, 3))];

/// The same toward the gNB.
const RAN6: [(&str, Ipv4Addr); 2] =
    [("fd00:10::1", Ipv4Addr::new(0, 0, 0, 5)), ("fd00:10::2", Ipv4Addr::new(0, 0, 0, 6))];
/// The server over IPv6.
const SERVER6: &str = "2001:db8:ffff::1";

#[test]
fn the_kernels_gtp_device_carries_ipv6() {
    users_of_both_families("the_kernels_gtp_device_carries_ipv6", false);
}

#[test]
fn the_kernels_gtp_device_works_over_ipv6() {
    users_of_both_families("the_kernels_gtp_device_works_over_ipv6", true);
}

/// A gtp device whose user has addresses of both families, and reaches a server of both; its tunnels are over IPv6 when `over6` says so.
fn users_of_both_families(test: &str, over6: bool) {
    if kernel::lacks_devices(test, &[kernel::GTP, kernel::GRE]) {
        return;
    }
    let operator = Operator::new();
    let (ran, cloud, node) = (&operator.links.ran, &operator.links.cloud, &operator.links.node);
    let [(ours, our_alias), (theirs, their_alias)] = RAN6;
    let (near, far) = if over6 { (theirs, ours) } else { (&*RAN.to_string(), &*NODE_RAN.to_string()) };
    let (near, far): (IpAddr, IpAddr) = (near.parse().unwrap(), far.parse().unwrap());
    if over6 {
        node.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")).unwrap();
        for (ns, interface, address, other, at) in
            [(node, "n3", ours, theirs, RAN), (ran, "ran0", theirs, ours, NODE_RAN)]
        {
            ns.ip(&format!("addr add {address}/64 dev {interface} nodad"));
            let mac = plan::mac_text(at);
            ns.ip(&format!("neigh replace {other} lladdr {mac} dev {interface} nud permanent"));
        }
        // What tshark sees is to have its checksum.
        ran.sh("ethtool", &["-K", "ran0", "tx", "off"]);
        operator.import("gtp-decap/endpoints6", &format!("key,flags,alias\n{ours},0,{our_alias}\n"));
        operator.import("gtp-decap/peers6", &format!("key,alias,flags\n{theirs},{their_alias},0\n"));
        operator.import(
            "gtp-encap/addresses6",
            &format!("key,address,flags\n{our_alias},{ours},0\n{their_alias},{theirs},0\n"),
        );
    }
    let (local, peer) = if over6 { (our_alias, their_alias) } else { (NODE_RAN, RAN) };
    let (user4, user6) = (Ipv4Addr::from(SESSION.address().octets), Ipv6Addr::from(SESSION.prefix().octets));
    let (teid, downlink) = (SESSION.uplink().0.teid.value(), SESSION.downlink()[0].1.teid.value());
    operator.import(
        "gtp-decap/sessions",
        &format!(
            "local,teid,customer,session,peer,inner4,inner6,inner6_len,flags,vlan,tags,filter\n\
             {local},{teid},{CUSTOMER},0,{peer},{user4},{user6},64,0,0,0,0\n"
        ),
    );
    for address in [IpAddr::from(user4), user6.into()] {
        operator.import(
            "gtp-encap/sessions",
            &format!(
                "customer,address,session,teid,peer,local,qfi,flags,dscp\n\
                 {CUSTOMER},{address},0,{downlink},{peer},{local},0,0,0\n"
            ),
        );
    }
    let sessions = [user4.into(), user6.into()].map(|user| Operator::pdp(user, far));
    if let Err(error) = gtp_device::make(ran, GTP, near, &sessions) {
        return kernel::lacks(test, &format!("gtp device that knows IPv6 ({error})"));
    }
    // A device without hardware addresses makes up none of its own, and sends nothing by itself.
    let address6 = Ipv6Addr::from(u128::from(user6) + 1);
    ran.ip(&format!("addr add {user4}/32 dev {GTP}"));
    ran.ip(&format!("addr add {address6}/128 dev {GTP} nodad"));
    ran.ip(&format!("route add {SERVER} dev {GTP} src {user4}"));
    ran.ip(&format!("-6 route add {SERVER6} dev {GTP} src {address6}"));
    operator.server();
    cloud.ip(&format!("-6 addr add {SERVER6}/128 dev lo nodad"));
    let (router, gateway) = (NODE_CLOUD, plan::gateway(CUSTOMER));
    cloud.ip(&format!("link add {GRE} type gre local {gateway} remote {router} ttl 64 tos inherit"));
    cloud.ip(&format!("link set dev {GRE} addrgenmode none up"));
    operator.route_to_users();
    cloud.ip(&format!("-6 route add 2001:db8::/32 dev {GRE}"));

    let pairs = [(IpAddr::from(SERVER), IpAddr::from(user4)), (SERVER6.parse().unwrap(), address6.into())];
    for (server, user) in pairs {
        let printed = ping(ran, server, &["-c", "3"]);
        assert!(printed.contains(" 0% packet loss"), "{printed}\n{:?}", operator.reasons());
        assert_eq!(datagrams(ran, cloud, server, &[0, 1, 2, 17, 999, 1000, 1001, 1200]), user);
        file(ran, cloud, server, 100_000);
    }
    let mut reasons = operator.reasons();
    reasons.retain(|(module, reason, _)| (*module, *reason) != ("gtp-encap", Reason::InnerMulticast));
    assert_eq!(reasons, [], "everything but what the GRE device reports to groups was just forwarded");

    let [at_gnb, _] = operator.crossed();
    let rows = sound(&at_gnb, &["frame.protocols"]);
    let outer = if over6 { ":ipv6:udp:gtp:" } else { ":ip:udp:gtp:" };
    for inner in ["ip:", "ipv6:"] {
        let layers = format!("{outer}{inner}");
        let tunnelled = rows.iter().filter(|row| row[0].contains(&layers)).count();
        assert!(tunnelled > 150, "{tunnelled} of {} are {layers}", rows.len());
    }
    agreed("gtp device", if over6 { &["G34", "D04", "G35", "D01"] } else { &["G35", "D01"] });
}

fn devices(over6: bool) -> Vec<Device> {
    let (kind, encap, ours, theirs, hops, plain) = if over6 {
        // Without `encaplimit none` the device puts an extension header in front, which is left to the kernel.
        (
            "ip6gre",
            "ip6",
            OVER6[0].0.to_owned(),
            OVER6[1].0.to_owned(),
            "hoplimit",
            "encaplimit none hoplimit 64",
        )
    } else {
        ("gre", "ip", NODE_CLOUD.to_string(), plan::gateway(CUSTOMER).to_string(), "ttl", "ttl 64")
    };
    let fixed = |more: &str| format!("{kind} local {theirs} remote {ours} {plain} {more}");
    let each = |more: &str, key: &str| {
        format!("encap {encap} {more} dst {ours} src {theirs} {hops} 64 {key} dev {GRE}")
    };
    let device = |name, kind, way, key, flags, rows| Device { name, kind, way, key, flags, rows };
    let by_device = format!("dev {GRE}");
    vec![
        device("plain", fixed(""), by_device.clone(), None, 0, &["R01", "R14"]),
        device("with a key", fixed(&format!("key {KEY}")), by_device.clone(), Some(KEY), 0, &["R03", "R14"]),
        device(
            "with a key, a checksum and sequence numbers",
            fixed(&format!("key {KEY} ocsum oseq")),
            by_device,
            Some(KEY),
            tunnel_flags::VERIFY_CHECKSUM,
            &["R02", "R03", "R04"],
        ),
        device("external", format!("{kind} external"), each("", ""), None, 0, &["R01", "R14"]),
        device(
            "external with a key",
            format!("{kind} external"),
            each(&format!("id {KEY}"), "key"),
            Some(KEY),
            0,
            &["R03", "R14"],
        ),
    ]
}

#[test]
fn each_of_the_kernels_gre_devices_takes_what_the_chain_sends_and_sends_what_it_takes() {
    let test = "each_of_the_kernels_gre_devices_takes_what_the_chain_sends_and_sends_what_it_takes";
    if kernel::lacks_devices(test, &[kernel::GRE]) {
        return;
    }
    let operator = Operator::new();
    operator.server();
    let mut rows = Vec::new();
    for device in devices(false) {
        let tunnel = Tunnel { key: device.key, flags: device.flags, ..Tunnel::of(CUSTOMER) };
        rows.extend(device.rows);
        try_out(&operator, tunnel, device);
    }
    sound(&operator.crossed().concat(), &[]);
    agreed("GRE device", &rows);
}

#[test]
fn each_of_the_kernels_gre_devices_over_ipv6_does_too() {
    if kernel::lacks_devices("each_of_the_kernels_gre_devices_over_ipv6_does_too", &[kernel::GRE6]) {
        return;
    }
    let operator = Operator::new();
    let cloud = &operator.links.cloud;
    let node = &operator.links.node;
    let [(ours, our_alias), (theirs, their_alias)] = OVER6;
    node.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")).unwrap();
    node.ip(&format!("addr add {ours}/64 dev n6 nodad"));
    node.ip(&format!("neigh replace {theirs} lladdr {} dev n6 nud permanent", plan::mac_text(plan::CLOUD)));
    cloud.ip(&format!("addr add {theirs}/64 dev cloud0 nodad"));
    operator.import(
        "gre-decap/addresses6",
        &format!("key,alias,flags\n{ours},{our_alias},0\n{theirs},{their_alias},0\n"),
    );
    operator.import(
        "gre-steer/addresses6",
        &format!("key,address,flags\n{our_alias},{ours},0\n{their_alias},{theirs},0\n"),
    );
    operator.server();
    let mut rows = Vec::new();
    for device in devices(true) {
        let tunnel = Tunnel {
            local: our_alias,
            remote: their_alias,
            key: device.key,
            flags: device.flags,
            ..Tunnel::of(CUSTOMER)
        };
        rows.extend(device.rows);
        try_out(&operator, tunnel, device);
    }
    sound(&operator.crossed().concat(), &[]);
    agreed("GRE device", &rows);
}

/// Sends packets of two sessions of the customer, over IPv4 and IPv6, through its tunnel to a device, behind which a server
/// answers each.
fn try_out(operator: &Operator, tunnel: Tunnel, device: Device) {
    let (ran, cloud) = (&operator.links.ran, &operator.links.cloud);
    operator.tunnel(tunnel);
    cloud.ip(&format!("link add {GRE} type {}", device.kind));
    cloud.ip(&format!("link set dev {GRE} addrgenmode none up"));
    cloud.ip(&format!("route add 172.16.0.0/16 {}", device.way));
    cloud.ip(&format!("-6 route add 2001:db8::/32 {}", device.way));
    cloud.ip(&format!("-6 addr replace {SERVER6}/128 dev lo nodad"));
    let gnb = ran.run(|| UdpSocket::bind((RAN, GTPU_PORT))).unwrap();
    let servers: [UdpSocket; 2] = [SERVER.into(), SERVER6.parse::<IpAddr>().unwrap()]
        .map(|address: IpAddr| cloud.run(|| UdpSocket::bind((address, 7))).unwrap());
    for socket in servers.iter().chain([&gnb]) {
        socket.set_read_timeout(Some(WAIT)).unwrap();
    }
    let mut buffer = vec![0; 2048];
    // Each fourth packet is IPv6, and every other session of a customer has a QoS flow.
    for number in 0..8 {
        let session = Session { number: number / 4 * plan::CUSTOMERS };
        assert_eq!(session.customer(), CUSTOMER);
        gnb.send_to(&session.gtpu(number), (NODE_RAN, GTPU_PORT)).unwrap();
        let inner = session.inner(number);
        let server = &servers[usize::from(inner[0] >> 4 == 6)];
        let (len, from) = server.recv_from(&mut buffer).unwrap_or_else(|error| {
            panic!("{}: packet {number} does not arrive: {error}\n{:?}", device.name, operator.reasons())
        });
        assert!(inner.ends_with(&buffer[..len]) && len > udp::LEN, "{}: packet {number}", device.name);
        server.send_to(&buffer[..len], from).unwrap();
        let payload = buffer[..len].to_vec();
        let len = gnb.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("{}: answer {number} does not arrive: {error}\n{:?}", device.name, operator.reasons())
        });
        let header = gtpu::View(buffer.first_chunk().unwrap());
        assert_eq!(header.teid(), session.downlink()[0].1.teid, "{}: answer {number}", device.name);
        assert!(buffer[..len].ends_with(&payload), "{}: answer {number}", device.name);
    }
    // The device itself joins groups, and reports that into the tunnel, where it is for nobody.
    let mut reasons = operator.reasons();
    reasons.retain(|(module, reason, _)| (*module, *reason) != ("gtp-encap", Reason::InnerMulticast));
    assert_eq!(reasons, [], "{}: everything else was just forwarded", device.name);
    cloud.ip(&format!("link del {GRE}"));
}
