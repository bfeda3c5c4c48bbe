//! The agent: it applies chains.yaml at the start and when it changes, answers those who may ask, tells systemd, and leaves the
//! data path running whatever ends it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use xdpchain_tests::agent::{Agent, PATIENCE, wait_for};
use xdpchain_tests::{Netns, Port, Shell, veth};

const CHAINS: &str = "\
version: 1
modules:
  passing: { object: ./passing.o }
  dropping: { object: ./dropping.o }
chains:
  edge: { interfaces: [eth1], slots: [passing] }
agent: { socket: agent.sock, metrics: '127.0.0.1:9469', alarm_at: 100% }
";

fn pair() -> (Netns, Netns) {
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    (node, far)
}

fn slots(shell: &Shell<'_>) -> Option<Vec<String>> {
    let run = shell.xdpchain(&["status", "eth1", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&run.stdout).ok()?;
    let slots = status["interfaces"][0]["slots"].as_array()?.iter();
    Some(slots.map(|slot| slot["slot"].as_str().unwrap_or_default().to_owned()).collect())
}

/// `/metrics` by TCP in the namespace.
fn metrics(node: &Netns) -> Option<String> {
    node.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9469").ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

#[test]
fn it_applies_chains_yaml_at_the_start_and_when_it_changes() {
    let (node, far) = pair();
    let shell = Shell::new(&node, CHAINS);
    let agent = Agent::ready(&shell);
    assert_eq!(slots(&shell), Some(vec!["passing".to_owned()]));
    assert_eq!(agent.get("/healthz"), (200, "ok\n".to_owned()));
    shell.write("chains.yaml", &CHAINS.replace("[passing]", "[passing, dropping]"));
    wait_for("the change is applied", || (slots(&shell)?.len() == 2).then_some(()));
    // What cannot be used changes nothing, and is told.
    for broken in [CHAINS.replace("slots", "slits"), CHAINS.replace("./dropping.o", "./nothing.o")] {
        shell.write("chains.yaml", &broken.replace("[passing]", "[dropping]"));
        wait_for("it is told", || (agent.get("/healthz").0 == 503).then_some(()));
        assert_eq!(slots(&shell).map(|slots| slots.len()), Some(2));
        assert!(agent.get("/metrics").1.contains("xdpchain_applied{} 0"));
    }
    shell.write("chains.yaml", CHAINS);
    wait_for("it is well again", || (agent.get("/healthz").0 == 200).then_some(()));
    assert_eq!(slots(&shell), Some(vec!["passing".to_owned()]));
    // Somebody changed what runs; a hangup makes it what the file says again.
    shell.xdpchain(&["add", "eth1", "./dropping.o"]).expect(0);
    agent.signal(Signal::SIGHUP);
    wait_for("the file is applied again", || (slots(&shell)? == ["passing"]).then_some(()));
    // The JSON is that of `status`, and both ways to the metrics tell the same.
    let port = Port::open(&far, "far1");
    port.send(&[0xff; 64]);
    wait_for("the packet is counted", || {
        let told = metrics(&node)?;
        let line =
            "xdpchain_packets_total{interface=\"eth1\",chain=\"edge\",slot=\"passing\",verdict=\"pass\"} 1";
        told.contains(line).then_some(())
    });
    let (status, told) = agent.get("/status");
    assert_eq!(status, 200);
    let (told, own): (serde_json::Value, _) =
        (serde_json::from_str(&told).expect("JSON"), shell.json(&["status"]));
    assert_eq!((&told["apiVersion"], &told["kind"]), (&own["apiVersion"], &own["kind"]));
    assert_eq!(told["interfaces"][0]["slots"], own["interfaces"][0]["slots"]);
    assert_eq!(agent.get("/nothing").0, 404);
    assert_eq!(agent.stop(), 0);
    assert!(!shell.path().join("agent.sock").exists());
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    assert_eq!(shell.left(), Vec::<PathBuf>::new());
}

#[test]
fn whatever_ends_it_the_data_path_runs_on() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, CHAINS);
    let agent = Agent::ready(&shell);
    let program = node.xdp_program("eth1");
    assert!(program.is_some());
    agent.kill();
    assert_eq!(node.xdp_program("eth1"), program);
    // The socket that it left is in nobody's way, and what runs already is left alone.
    let agent = Agent::ready(&shell);
    assert_eq!(node.xdp_program("eth1"), program);
    let second = shell.xdpchain(&["agent"]).expect(8);
    assert!(second.stderr.contains("no other agent runs"), "{}", second.stderr);
    assert_eq!(agent.stop(), 0);
    assert_eq!(node.xdp_program("eth1"), program);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn only_those_who_may_ask_are_answered() {
    const NOBODY: u32 = 65534;
    let (node, _far) = pair();
    let shell = Shell::new(&node, CHAINS);
    std::fs::set_permissions(shell.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    let agent = Agent::ready(&shell);
    let ask = || {
        let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                      s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'); \
                      print(s.makefile().readline())";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(shell.path().join("agent.sock")).uid(NOBODY).gid(NOBODY);
        String::from_utf8(command.output().expect("Python is installed").stdout).expect("text")
    };
    assert!(ask().contains("403"), "{}", ask());
    shell.write("chains.yaml", &CHAINS.replace("agent: {", "agent: { allow: ['65534'],"));
    wait_for("the user may ask", || ask().contains("200").then_some(()));
    shell.write("chains.yaml", &CHAINS.replace(" metrics: '127.0.0.1:9469',", ""));
    wait_for("nobody is answered on loopback", || metrics(&node).is_none().then_some(()));
    wait_for("the user may not ask any more", || ask().contains("403").then_some(()));
    assert_eq!(agent.stop(), 0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_ends() {
    let (node, _far) = pair();
    let shell = Shell::new(&node, CHAINS);
    let path = shell.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    socket.set_read_timeout(Some(PATIENCE)).expect("it can wait");
    let agent = Agent::start(&shell, &[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
    let wait = |word: &str| {
        let mut octets = [0; 4096];
        loop {
            let length = socket.recv(&mut octets).unwrap_or_else(|error| panic!("no `{word}`: {error}"));
            if String::from_utf8_lossy(&octets[..length]).contains(word) {
                return;
            }
        }
    };
    wait("READY=1");
    assert_eq!(slots(&shell), Some(vec!["passing".to_owned()]), "it is ready when the chain runs");
    wait("WATCHDOG=1");
    agent.signal(Signal::SIGHUP);
    wait("RELOADING=1");
    wait("READY=1");
    assert_eq!(agent.stop(), 0);
    wait("STOPPING=1");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}
