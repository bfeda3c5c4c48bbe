//! A PostgreSQL server of a test's own, in a folder of its own, and removed with its value.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::User;
use tempfile::TempDir;

use crate::Netns;

/// The password of the server's only user, `xdp`.
pub const PASSWORD: &str = "geheim-4711";

/// A server. It listens on a socket in its folder, and on loopback of the network namespace that it was started in.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    user: (u32, u32),
    programs: PathBuf,
}

/// Where the programs of a server are, of the newest one that is installed.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("a PostgreSQL server is installed").flatten();
    let newest =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("postgres").is_file());
    newest.max().expect("a PostgreSQL server is installed")
}

impl Postgres {
    /// Makes a server with TLS for `localhost`, and starts it in `ns`.
    ///
    /// # Panics
    /// When no server is installed, or it does not start.
    pub fn start(ns: &Netns) -> Self {
        // A server refuses to run as root.
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.expect("there is a user who is not root");
        let server = Self {
            folder: tempfile::tempdir().expect("a folder can be made"),
            user: (user.uid.as_raw(), user.gid.as_raw()),
            programs: programs(),
        };
        fs::set_permissions(server.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        chown(server.path(), Some(server.user.0), Some(server.user.1)).expect("root may give it away");
        fs::write(server.path().join("password"), PASSWORD).expect("the folder is ours");
        server.program(
            "initdb",
            &[
                "-D",
                "data",
                "-U",
                "xdp",
                "--auth=scram-sha-256",
                "--pwfile=password",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
        );
        let request = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
                       -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
                       -keyout data/server.key -out data/server.crt";
        server.run(&mut Command::new("openssl"), &request.split_whitespace().collect::<Vec<_>>());
        server.up(ns);
        server
    }

    /// Starts it again.
    pub fn up(&self, ns: &Netns) {
        let socket = self.path().display();
        let options = format!(
            "-k {socket} -c listen_addresses=127.0.0.1 -c fsync=off -c ssl=on -c shared_buffers=64MB -c max_wal_size=4GB"
        );
        ns.run(|| {
            self.program("pg_ctl", &["-D", "data", "-l", "log", "-w", "-t", "120", "-o", &options, "start"])
        });
    }

    /// Stops it at once, with every connection.
    pub fn down(&self) {
        self.program("pg_ctl", &["-D", "data", "-w", "-t", "120", "-m", "fast", "stop"]);
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate that vouches for it.
    pub fn certificate(&self) -> PathBuf {
        self.path().join("data/server.crt")
    }

    /// A file with the password.
    pub fn password_file(&self) -> PathBuf {
        self.path().join("password")
    }

    /// Its address by the socket, without a password.
    pub fn url(&self) -> String {
        format!("postgres://xdp@{}/postgres", self.path().display().to_string().replace('/', "%2F"))
    }

    fn program(&self, name: &str, arguments: &[&str]) {
        self.run(&mut Command::new(self.programs.join(name)), arguments);
    }

    fn run(&self, command: &mut Command, arguments: &[&str]) {
        // A server keeps what it was started with open, so nobody may wait for that to be closed.
        let said = fs::File::create(self.path().join("said")).expect("the folder is ours");
        let heard = said.try_clone().expect("a descriptor can be copied");
        let command = command.args(arguments).current_dir(self.path()).uid(self.user.0).gid(self.user.1);
        let status = command.stdin(Stdio::null()).stdout(said).stderr(heard).status();
        let read = |name: &str| fs::read_to_string(self.path().join(name)).unwrap_or_default();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{command:?}:\n{}\n{}",
            read("said"),
            read("log")
        );
    }

    /// Runs statements, and returns what they print, without headings.
    ///
    /// # Panics
    /// When one fails.
    pub fn sql(&self, statements: &str) -> String {
        let mut child = self.psql();
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(statements.as_bytes()).expect("psql reads");
        drop(input);
        let output = child.wait_with_output().expect("psql ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A `psql` that takes statements, for what is to stay open.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn psql(&self) -> std::process::Child {
        Command::new("psql")
            .args(["-h", &self.path().display().to_string(), "-U", "xdp", "-d", "postgres"])
            .args(["-v", "ON_ERROR_STOP=1", "-q", "-A", "-t", "-X"])
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql is installed")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stop = ["-D", "data", "-w", "-m", "immediate", "stop"];
        let _ = Command::new(self.programs.join("pg_ctl"))
            .args(stop)
            .current_dir(self.path())
            .uid(self.user.0)
            .gid(self.user.1)
            .output();
    }
}
