//! How long a table takes to fill two maps, and how long a commit takes to reach one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use xdpchain_host::sys::{self, MapFd};
use xdpchain_tests::agent::{Agent, wait_for};
use xdpchain_tests::postgres::Postgres;
use xdpchain_tests::{Netns, Shell, cli, veth};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, with write-ahead logging.
    Sqlite,
    /// A server on this machine, by its socket.
    Postgres,
}

/// What a filling took.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Seconds, of the whole command.
    pub seconds: f64,
    /// MiB that its process had at most.
    pub peak: f64,
}

/// How long commits take to reach a map, from before the statement is sent; milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// Half of them are faster.
    pub p50: f64,
    /// All but one of a hundred are faster.
    pub p99: f64,
}

const COLUMNS: &str = "id BIGINT PRIMARY KEY, local TEXT NOT NULL, teid BIGINT NOT NULL, customer BIGINT NOT NULL, \
                       peer TEXT NOT NULL, inner4 TEXT NOT NULL, peer_teid BIGINT NOT NULL";

fn chains(room: u32, from: &str) -> String {
    let module = |name: &str| {
        format!("  {name}: {{ object: 'builtin:{name}', maps: {{ sessions: {{ max_entries: {room} }} }} }}\n")
    };
    format!(
        "version: 1\nmodules:\n{}{}chains:\n  edge: {{ interfaces: [eth1], slots: [gtp-decap, gtp-encap] }}\n\
         sources:\n  sessions:\n    {from}\n    table: sessions\n    key: id\n    maps: [gtp-decap/sessions, \
         gtp-encap/sessions]\n    columns: {{ session: id, gtp-encap/sessions.address: inner4, \
         gtp-encap/sessions.teid: peer_teid }}\n    defaults: true\nagent: {{ socket: agent.sock }}\n",
        module("gtp-decap"),
        module("gtp-encap"),
    )
}

/// The address of a server's source.
fn by_socket(server: &Postgres) -> String {
    format!("from: '{}'\n    password_file: {}", server.url(), server.password_file().display())
}

/// Puts so many sessions into a server's table.
fn fill_server(server: &Postgres, sessions: u32) {
    server.sql(&format!(
        "CREATE TABLE sessions ({COLUMNS});
         INSERT INTO sessions SELECT n, '192.0.2.1', (n::bigint * 2654435769) % 4294967296, n % 1000, '198.51.100.7',
           host('10.0.0.0'::inet + n), 2147483648 + n FROM generate_series(0, {sessions} - 1) AS n;
         ANALYZE sessions;"
    ));
}

/// Puts them into a file.
fn fill_file(path: &std::path::Path, sessions: u32) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE sessions ({COLUMNS});
         WITH RECURSIVE every(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM every WHERE n + 1 < {sessions})
         INSERT INTO sessions SELECT n, '192.0.2.1', (n * 2654435769) % 4294967296, n % 1000, '198.51.100.7',
           printf('10.%d.%d.%d', n >> 16 & 255, n >> 8 & 255, n & 255), 2147483648 + n FROM every;"
    ))?;
    Ok(())
}

/// Fills two empty maps from a table with so many sessions, several times.
///
/// # Errors
/// When a command fails, or the maps do not have every session in the end.
pub fn fill(kind: Kind, sessions: u32, rounds: usize) -> anyhow::Result<Vec<Filled>> {
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    let server = (kind == Kind::Postgres).then(|| Postgres::start(&node));
    let from = server.as_ref().map_or_else(|| "from: 'sqlite:sessions.db'".to_owned(), by_socket);
    let shell = Shell::new(&node, &chains(sessions.next_power_of_two(), &from));
    match &server {
        Some(server) => fill_server(server, sessions),
        None => fill_file(&shell.path().join("sessions.db"), sessions)?,
    }
    let mut filled = Vec::new();
    for _ in 0..rounds {
        shell.xdpchain(&["attach", "eth1"]).expect(0);
        let mut command = Command::new(cli::binary());
        command.args(["source", "sync", "--once"]).current_dir(shell.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let child = node.run(|| command.spawn())?;
        let ended = sys::wait(child.id())?;
        let seconds = start.elapsed().as_secs_f64();
        ensure!(ended.status == Some(0), "`source sync` ended with {:?}", ended.status);
        filled.push(Filled { seconds, peak: ended.peak_memory as f64 / f64::from(1 << 20) });
        let status = shell.json(&["source", "status"])["sources"][0].take();
        for map in status["maps"].as_array().context("a list")? {
            ensure!(map["written"] == sessions, "not every session was written: {status}");
        }
        shell.xdpchain(&["detach", "eth1"]).expect(0);
    }
    Ok(filled)
}

/// Commits so many changes, so many a second, to a table that the agent follows, and looks when each is in the map.
///
/// # Errors
/// When a command fails, or a change does not come.
pub fn delay(changes: u32, per_second: u32) -> anyhow::Result<Delay> {
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    let server = Postgres::start(&node);
    let shell = Shell::new(&node, &chains(changes.next_power_of_two(), &by_socket(&server)));
    fill_server(&server, changes);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let agent = Agent::ready(&shell);
    wait_for("the agent follows", || (agent.source("sessions")["phase"] == "following").then_some(()));
    let maps = shell.json(&["map", "list"])["maps"].take();
    let map = maps.as_array().context("a list")?.iter().find(|map| map["map"] == "gtp-decap/sessions");
    let id = map.and_then(|map: &Value| map["id"].as_u64()).context("the chain has the map")?;
    let map = MapFd::new(sys::map_by_id(u32::try_from(id)?)?)?;
    let mut psql = server.psql();
    let mut input = psql.stdin.take().expect("it is piped");
    let mut output = BufReader::new(psql.stdout.take().expect("it is piped")).lines();
    let (sender, sent) = mpsc::channel::<Instant>();
    let delays = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let begin = Instant::now();
            for number in 0..changes {
                let due = begin + Duration::from_secs(1) * number / per_second;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                sender.send(Instant::now())?;
                // The next one is not sent before this one is committed.
                writeln!(
                    input,
                    "UPDATE sessions SET customer = {} WHERE id = {number};\n\\echo",
                    100_000 + number
                )?;
                input.flush()?;
                output.next().context("psql answers")??;
            }
            Ok::<_, anyhow::Error>(begin.elapsed())
        });
        let mut delays = Vec::new();
        for (number, start) in (0..changes).zip(sent) {
            let teid = (u64::from(number) * 2_654_435_769) as u32;
            let key = [[192, 0, 2, 1], teid.to_be_bytes()].concat();
            let wanted = (100_000 + number).to_ne_bytes();
            // The customer is the value's first field.
            while sys::map_lookup(&map, &key)?.is_none_or(|value| value[..4] != wanted) {
                ensure!(start.elapsed() < Duration::from_secs(60), "change {number} does not come");
                std::thread::sleep(Duration::from_micros(100));
            }
            delays.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        let took = writer.join().expect("the writer does not panic")?;
        let rate = f64::from(changes) / took.as_secs_f64();
        ensure!(rate > f64::from(per_second) * 0.9, "only {rate:.0} changes a second were committed");
        Ok(delays)
    });
    ensure!(psql.wait()?.success(), "psql failed");
    let delays = delays?;
    ensure!(agent.stop() == 0, "the agent failed");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
    let mut sorted = delays;
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    Ok(Delay { p50: at(0.5), p99: at(0.99) })
}
