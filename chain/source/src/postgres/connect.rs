//! Which server, as whom, with which password, and over TLS or not.
//!
//! A password is taken from the address, else from the source's file, else from `PGPASSWORD`, else from `~/.pgpass`, and goes
//! nowhere but to the server.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Connection, Socket};
use xdpchain_spec::{PostgresUrl, SourceSpec, redact};

use super::tls::{MakeTls, Stream};
use crate::{Error, Result};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long without a sign a server counts as gone.
const SILENCE: Duration = Duration::from_secs(15);
/// Where Debian's servers listen.
const SOCKETS: &str = "/var/run/postgresql";

/// A server, and how to connect to it.
pub(crate) struct Place {
    config: Config,
    tls: MakeTls,
    shown: String,
}

pub(crate) fn unreachable(shown: &str, problem: &str) -> Error {
    let help = "the maps keep what they have; check the address, the password and whether the server runs";
    Error::Connect { database: shown.to_owned(), problem: problem.to_owned(), help }
}

/// What the server or the connection says, with all that it says.
pub(crate) fn failed(shown: &str, error: &tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if !text.contains(&cause.to_string()) {
                text = format!("{text}: {cause}");
            }
            source = cause.source();
        }
        return unreachable(shown, &text);
    };
    let code = said.code().code();
    // Connections that end, and servers that are going down or coming up.
    if code.starts_with("08") || code.starts_with("57P") || code.starts_with("28") || code == "3D000" {
        return unreachable(shown, said.message());
    }
    let help = "check `table`, `key` and `columns` of the source, and what the user may read";
    Error::Database { database: shown.to_owned(), problem: said.message().to_owned(), help }
}

impl Place {
    pub(crate) fn of(url: &PostgresUrl, source: &SourceSpec) -> Result<Self> {
        let shown = source.from.to_string();
        let bad = |problem: String| Error::Connect {
            database: shown.clone(),
            problem: redact(&problem),
            help: "write `postgres://USER@HOST:PORT/DATABASE?sslmode=disable|require`",
        };
        let (address, parameters) = url.expose().split_once('?').unwrap_or((url.expose(), ""));
        let (mut mode, mut ca_file, mut rest) = (None, source.ca_file.clone(), Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => ca_file = ca_file.or_else(|| Some(PathBuf::from(value))),
                _ => rest.push(parameter),
            }
        }
        let plain = format!("{address}?{}", rest.join("&"));
        // What the parser says may quote a part of the address.
        let mut config: Config = plain.parse().map_err(|_| bad("the address cannot be read".to_owned()))?;
        if config.get_hosts().is_empty() {
            match std::env::var("PGHOST") {
                Ok(host) if !host.is_empty() => drop(config.host(host)),
                _ => drop(config.host_path(SOCKETS)),
            }
        }
        if config.get_user().is_none()
            && let Ok(user) = std::env::var("PGUSER")
        {
            config.user(user);
        }
        let encrypt = match mode {
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            // Nobody listens on the way to this machine itself.
            None => !config.get_hosts().iter().all(is_local),
            Some(other) => return Err(bad(format!("unknown `sslmode={other}`"))),
        };
        config.ssl_mode(if encrypt { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(PATIENCE).tcp_user_timeout(SILENCE);
        config.keepalives(true).keepalives_idle(SILENCE).keepalives_interval(Duration::from_secs(5));
        if config.get_password().is_none()
            && let Some(password) = password(&config, source)?
        {
            config.password(password);
        }
        let tls = match encrypt {
            true => MakeTls::new(ca_file.as_deref()).map_err(bad)?,
            false => MakeTls::without(),
        };
        Ok(Self { config, tls, shown })
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn unreachable(&self, problem: &str) -> Error {
        unreachable(&self.shown, problem)
    }

    pub(crate) async fn connect(&self) -> Result<(Client, Connection<Socket, Stream<Socket>>)> {
        let connected = self.config.connect(self.tls.clone()).await;
        connected.map_err(|error| match failed(&self.shown, &error) {
            // Whatever a server says to somebody who wants in, there is no way in.
            Error::Database { problem, .. } => self.unreachable(&problem),
            other => other,
        })
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    }
}

fn password(config: &Config, source: &SourceSpec) -> Result<Option<String>> {
    if let Some(path) = &source.password_file {
        let failed = |source| Error::File { path: path.clone(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        return Ok(Some(text.lines().next().unwrap_or_default().to_owned()));
    }
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Ok(Some(password));
    }
    let file = std::env::var_os("PGPASSFILE").map(PathBuf::from);
    let file = file.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".pgpass")));
    let Some(file) = file.filter(|file| file.is_file()) else { return Ok(None) };
    let mode = std::fs::metadata(&file).map(|metadata| metadata.permissions().mode()).unwrap_or(0o777);
    if mode & 0o077 != 0 {
        tracing::warn!("`{}` is not used, since others may read it: `chmod 600` it", file.display());
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).map_err(|source| Error::File { path: file, source })?;
    let host = config.get_hosts().first().map_or_else(String::new, |host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(_) => "localhost".to_owned(),
    });
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    Ok(text.lines().find_map(|line| matching(line, &[&host, &port, database, user])))
}

/// The password of a line of `.pgpass` that is about this host, port, database and user.
fn matching(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => fields.last_mut()?.push(characters.next()?),
            // What is behind the fourth colon is the password, whatever it is.
            ':' if fields.len() <= 4 => fields.push(String::new()),
            other => fields.last_mut()?.push(other),
        }
    }
    let password = fields.get(4)?.clone();
    let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
    fits.then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_pgpass_is_for_whom_it_names() {
        let wanted = ["db.example", "5432", "net", "u"];
        assert_eq!(matching("db.example:5432:net:u:ge:heim", &wanted), Some("ge:heim".to_owned()));
        assert_eq!(matching("*:*:*:u:a\\:b\\\\", &wanted), Some("a:b\\".to_owned()));
        assert_eq!(matching("db.example:5433:net:u:x", &wanted), None);
        assert_eq!(matching("# *:*:*:*:x", &wanted), None);
        assert_eq!(matching("*:*:*", &wanted), None);
    }
}
