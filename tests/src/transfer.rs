//! Traffic of ordinary programs: ping, datagrams that are answered, TCP, iperf3.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::Netns;

/// How long one answer may take: the machine may be slow, and busy.
const WAIT: Duration = Duration::from_secs(60);

/// What ping printed of some echo requests with `options` beside it.
///
/// # Panics
/// When ping cannot be started.
pub fn ping(ns: &Netns, to: IpAddr, options: &[&str]) -> String {
    let mut ping = Command::new("ping");
    ping.args(["-n", "-i", "0.2", "-w", "60"]).args(options).arg(to.to_string());
    let output = ns.output(&mut ping);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).expect("ping prints UTF-8")
}

/// Datagrams of `lengths` octets from `client` to `address` of `server`, each of which is answered with the same; the address that
/// they came from.
///
/// # Panics
/// When one does not arrive, or not as it was sent, there or back.
pub fn datagrams(client: &Netns, server: &Netns, address: IpAddr, lengths: &[usize]) -> IpAddr {
    let listening = server.run(|| UdpSocket::bind((address, 0))).expect("the address is the server's");
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let asking = client.run(|| UdpSocket::bind(any)).expect("a port is free");
    for socket in [&listening, &asking] {
        socket.set_read_timeout(Some(WAIT)).expect("a time-out is always taken");
    }
    asking.connect(listening.local_addr().expect("it is bound")).expect("there is a route");
    let mut buffer = vec![0; 65_536];
    for length in lengths {
        let sent = octets(*length);
        asking.send(&sent).expect("the device takes it");
        let (len, from) = listening.recv_from(&mut buffer).expect("it arrives");
        assert!(buffer[..len] == sent, "{length} octets are not what was sent");
        listening.send_to(&sent, from).expect("the device takes it");
        let len = asking.recv(&mut buffer).expect("the answer arrives");
        assert!(buffer[..len] == sent, "{length} octets are not what was answered");
    }
    asking.local_addr().expect("it is connected").ip()
}

/// `length` octets, each other than its neighbours.
fn octets(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(next).collect()
}

/// A connection from `client` to `address` of `server`, by which `length` octets go there and then back.
///
/// # Panics
/// When an octet is not what was sent, or nothing moves for a minute.
pub fn file(client: &Netns, server: &Netns, address: IpAddr, length: usize) {
    let listener = server.run(|| TcpListener::bind((address, 0))).expect("the address is the server's");
    let to = listener.local_addr().expect("it is bound");
    let sent = octets(length);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("the client connects");
            let arrived = read(&mut stream, length);
            assert!(arrived == sent, "what arrived at the server is not what was sent");
            stream.write_all(&arrived).expect("the client reads");
        });
        let mut stream = client.run(|| TcpStream::connect_timeout(&to, WAIT)).expect("the server answers");
        stream.set_write_timeout(Some(WAIT)).expect("a time-out is always taken");
        stream.write_all(&sent).expect("the server reads");
        assert!(read(&mut stream, length) == sent, "what came back is not what was sent");
        serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(stream, Some(WAIT)).expect("a time-out is always taken");
    }
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets).expect("all of it arrives");
    octets
}

/// What iperf3's receiver counted of `length` octets by TCP from `client` to `address` of `server`, or back.
///
/// # Panics
/// When iperf3 fails.
pub fn iperf3(client: &Netns, server: &Netns, address: IpAddr, length: usize, back: bool) -> u64 {
    let mut serve = Command::new("iperf3");
    serve.args(["--server", "--one-off", "--forceflush", "--bind", &address.to_string()]);
    let mut serving = server
        .run(|| serve.stdin(Stdio::null()).stdout(Stdio::piped()).spawn())
        .expect("iperf3 runs\nhelp: cargo xtask setup");
    let mut printed = BufReader::new(serving.stdout.take().expect("the output is piped"));
    let mut line = String::new();
    while !line.contains("Server listening") {
        line.clear();
        assert_ne!(printed.read_line(&mut line).expect("it prints UTF-8"), 0, "iperf3 does not listen");
    }
    let mut ask = Command::new("iperf3");
    ask.args(["--json", "--bytes", &length.to_string(), "--client", &address.to_string()]);
    ask.args(back.then_some("--reverse"));
    let output = client.output(&mut ask);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        // It waits for a client, and none comes any more.
        let _ = serving.kill();
    }
    let _ = printed.read_to_string(&mut line);
    serving.wait().expect("it was started");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(&text).expect("iperf3 prints JSON");
    json["end"]["sum_received"]["bytes"].as_u64().unwrap_or_else(|| panic!("no count in {text}"))
}
