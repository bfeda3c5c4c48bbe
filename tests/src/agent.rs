//! `xdpchain agent` as a process, and what it answers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Shell, cli};

/// How long something may take that is waited for; only a failure takes so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `done` gives something.
///
/// # Panics
/// When it never does; `what` is what was waited for.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An agent that runs in a shell's namespace and folder, where its socket is `agent.sock`.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts one; `environment` is added to the test's own.
    pub fn start(shell: &Shell<'_>, environment: &[(&str, &str)]) -> Self {
        let log = shell.path().join("agent.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("the folder is ours");
        let mut command = Command::new(cli::binary());
        command.arg("agent").current_dir(shell.path()).env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.envs(environment.iter().copied()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a descriptor can be copied")).stderr(file);
        let child = shell.netns().run(|| command.spawn()).expect("the agent starts");
        Self { child, socket: shell.path().join("agent.sock"), log }
    }

    /// Starts one and waits until it answers.
    pub fn ready(shell: &Shell<'_>) -> Self {
        let mut agent = Self::start(shell, &[]);
        wait_for("the agent answers", || {
            assert!(agent.child.try_wait().expect("it is ours").is_none(), "it ended:\n{}", agent.said());
            get(&agent.socket, "/healthz")
        });
        agent
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it and those before it in the same folder printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status and body of what it answers.
    pub fn get(&self, path: &str) -> (u16, String) {
        wait_for("the agent answers", || get(&self.socket, path))
    }

    /// What it says of a source.
    pub fn source(&self, name: &str) -> Value {
        let (status, body) = self.get("/sources");
        assert_eq!(status, 200, "{body}");
        let mut all: Value = serde_json::from_str(&body).expect("JSON");
        let sources = all["sources"].as_array_mut().expect("a list");
        sources.iter_mut().find(|source| source["source"] == name).map(Value::take).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it is ours");
    }

    /// Ends it as nothing can be ended more suddenly.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Asks it to end, and returns its exit status.
    pub fn stop(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        let status = wait_for("the agent ends", || self.child.try_wait().expect("it is ours"));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks by HTTP on a unix socket; none when nobody answers.
pub fn get(socket: &Path, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
