//! FRR's daemons, as a BGP speaker in a namespace.
//!
//! They have their own folder for configuration, sockets and logs, and end with the value.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::Value;
use tempfile::TempDir;

use crate::Netns;

/// Where Debian has them.
const DAEMONS: &str = "/usr/lib/frr";
/// Between two questions to a daemon, so that it has time to do what is asked for.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a daemon may take to clear away.
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of an eBGP session with TTL 2.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// Its number.
    pub number: u32,
    /// Its address on the session.
    pub address: Ipv4Addr,
    /// The other end, whose number is another one.
    pub neighbour: Ipv4Addr,
    /// The other end's number.
    pub neighbours_number: u32,
    /// What it announces.
    pub announced: &'a str,
    /// Seconds between keepalives, a third of what the session lives without.
    pub keepalive: u32,
}

/// A running speaker: zebra, which knows the kernel's routes, and bgpd.
#[derive(Debug)]
pub struct Frr {
    folder: TempDir,
    daemons: Vec<Child>,
}

impl Frr {
    /// Starts one.
    ///
    /// # Panics
    /// When FRR is missing.
    pub fn start(ns: &Netns, speaker: Speaker<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        // They give root up, and write as somebody else.
        let user = User::from_name("frr")
            .expect("users can be listed")
            .expect("FRR is there\nhelp: cargo xtask setup");
        chown(folder.path(), Some(user.uid.as_raw()), None).expect("root may give a folder away");
        let Speaker { number, address, neighbour, neighbours_number, announced, keepalive } = speaker;
        let hold = 3 * keepalive;
        let bgp = format!(
            "\
router bgp {number}
 bgp router-id {address}
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp {keepalive} {hold}
 neighbor {neighbour} remote-as {neighbours_number}
 neighbor {neighbour} ebgp-multihop 2
 neighbor {neighbour} update-source {address}
 neighbor {neighbour} timers connect 2
 address-family ipv4 unicast
  network {announced}
 exit-address-family
"
        );
        let mut frr = Self { folder, daemons: Vec::new() };
        for (daemon, config) in [("zebra", ""), ("bgpd", &*bgp)] {
            let path = |name: &str| frr.folder.path().join(format!("{daemon}.{name}"));
            fs::write(path("conf"), config).expect("the folder is ours");
            let log = fs::File::create(path("log")).expect("the folder is ours");
            let mut command = Command::new(Path::new(DAEMONS).join(daemon));
            command.arg("--config_file").arg(path("conf")).arg("--pid_file").arg(path("pid"));
            command.arg("--socket").arg(frr.folder.path().join("zserv.api"));
            command.arg("--vty_socket").arg(frr.folder.path());
            // No port for people.
            command.args(["--vty_port", "0", "--log", "stdout"]);
            command.stdin(Stdio::null()).stderr(log.try_clone().expect("a file can have two")).stdout(log);
            let child = ns.run(|| command.spawn()).expect("FRR is there\nhelp: cargo xtask setup");
            frr.daemons.push(child);
        }
        frr
    }

    /// What bgpd answers to a question, as JSON; nothing while it is not up.
    pub fn ask(&self, question: &str) -> Option<Value> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(self.folder.path());
        let output = vtysh.args(["-d", "bgpd", "-c", question]).output().expect("FRR is there");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What bgpd knows of its neighbour, as soon as `wanted` says yes to it.
    ///
    /// # Panics
    /// When that takes longer than `wait`.
    pub fn neighbour(&self, speaker: &Speaker<'_>, wait: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let address = speaker.neighbour.to_string();
        let end = Instant::now() + wait;
        let mut last = None;
        loop {
            let answer = self.ask(&format!("show bgp neighbors {address} json"));
            if let Some(found) = answer.as_ref().map(|answer| &answer[&address]).filter(|found| wanted(found))
            {
                return found.clone();
            }
            last = answer.or(last);
            assert!(Instant::now() < end, "{last:#?}\n{}", self.logs());
            std::thread::sleep(PAUSE);
        }
    }

    /// What the daemons wrote.
    fn logs(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}\n{}", read("zebra.log"), read("bgpd.log"))
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        // The last one first: bgpd takes its routes back as long as zebra is there. A panic may be under way, and each is
        // to go.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
            let end = Instant::now() + PATIENCE;
            while matches!(daemon.try_wait(), Ok(None)) {
                if Instant::now() > end {
                    let _ = daemon.kill();
                }
                std::thread::sleep(PAUSE / 20);
            }
        }
    }
}
