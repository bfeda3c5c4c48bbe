//! Maps filled from tables: whole, by changes under traffic with the agent killed in between, with rows that do not fit, full
//! maps, a database that goes and comes, and passwords that nobody sees.

mod database;
mod rows;
mod servers;
mod traffic;

use std::collections::BTreeMap;

use serde_json::Value;
use xdpchain_tests::{Netns, Shell, veth};

use database::{Database, Kind};

/// One table for both directions.
pub(crate) const TABLE: &str = "CREATE TABLE sessions (id BIGINT PRIMARY KEY, local TEXT, teid BIGINT, customer BIGINT, peer TEXT, \
                     inner4 TEXT, peer_teid BIGINT, note TEXT);";

/// The source of that table.
pub(crate) fn source(from: &str) -> String {
    format!(
        "sources:\n  sessions:\n    {from}\n    table: sessions\n    key: id\n    maps: [gtp-decap/sessions, \
         gtp-encap/sessions]\n    columns: {{ session: id, gtp-encap/sessions.address: inner4, \
         gtp-encap/sessions.teid: peer_teid }}\n    constants: {{ gtp-encap/sessions.qfi: 9 }}\n    defaults: true\n\
         agent: {{ socket: agent.sock }}\n"
    )
}

/// A chain of two modules whose maps have room for `room` sessions.
pub(crate) fn chains(room: u32) -> String {
    let module = |name: &str| {
        format!("  {name}: {{ object: 'builtin:{name}', maps: {{ sessions: {{ max_entries: {room} }} }} }}\n")
    };
    format!(
        "version: 1\nmodules:\n{}{}chains:\n  edge: {{ interfaces: [eth1], slots: [gtp-decap, gtp-encap] }}\n",
        module("gtp-decap"),
        module("gtp-encap"),
    )
}

/// Two namespaces with a link.
pub(crate) fn pair() -> (Netns, Netns) {
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    (node, far)
}

/// A row of the table; every session has its own TEIDs and addresses by `serial`.
pub(crate) fn row(id: u64, serial: u64) -> String {
    let [_, _, a, b] = (serial as u32).to_be_bytes();
    let c = (serial >> 16) & 0x0f;
    format!(
        "({id}, '10.0.0.1', {}, {}, '192.0.2.7', '172.{}.{a}.{b}', {}, NULL)",
        0x1000 + serial,
        1 + id % 5,
        16 + c,
        0x8000_0000_u64 + serial
    )
}

/// A map's entries: the keys with the values of some fields.
pub(crate) fn entries(shell: &Shell<'_>, map: &str, fields: &[&str]) -> BTreeMap<String, Vec<Value>> {
    let run = shell.xdpchain(&["map", "export", map]).expect(0);
    let lines = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines
        .map(|line| {
            let value = fields.iter().map(|field| line["value"][field].clone()).collect();
            (line["key"].to_string(), value)
        })
        .collect()
}

/// What the maps have of each session: the TEID and customer of the uplink, the address and customer of the downlink.
pub(crate) fn held(shell: &Shell<'_>) -> [Vec<(u64, String, u64)>; 2] {
    let read = |map: &str, field: &str| {
        let run = shell.xdpchain(&["map", "export", map]).expect(0);
        let mut held: Vec<(u64, String, u64)> = run
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
            .map(|line| {
                let number = |value: &Value| value.as_u64().expect("a number");
                let customer = [&line["key"]["customer"], &line["value"]["customer"]];
                let customer = customer.into_iter().find_map(Value::as_u64).expect("a customer");
                (number(&line["value"]["session"]), line["key"][field].to_string(), customer)
            })
            .collect();
        held.sort();
        held
    };
    [read("gtp-decap/sessions", "teid"), read("gtp-encap/sessions", "address")]
}

/// The same by the table.
pub(crate) fn wanted(database: &Database) -> [Vec<(u64, String, u64)>; 2] {
    let rows = database.query("SELECT id, teid, customer, inner4 FROM sessions ORDER BY id");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let up = rows.iter().map(|row| (number(&row[0]), row[1].clone(), number(&row[2])));
    let down = rows.iter().map(|row| (number(&row[0]), format!("\"{}\"", row[3]), number(&row[2])));
    [up.collect(), down.collect()]
}

#[track_caller]
pub(crate) fn same(shell: &Shell<'_>, database: &Database) {
    let (held, wanted) = (held(shell), wanted(database));
    for (map, (held, wanted)) in ["gtp-decap", "gtp-encap"].into_iter().zip(held.into_iter().zip(wanted)) {
        let missing = wanted.iter().filter(|entry| held.binary_search(entry).is_err()).count();
        let more = held.iter().filter(|entry| !wanted.contains(entry)).take(5).collect::<Vec<_>>();
        assert_eq!(held.len(), wanted.len(), "{map}: {missing} are missing, {more:?} are too many");
        assert!(held == wanted, "{map}: {missing} are missing, {more:?} are too many");
    }
}

fn filled_and_repaired(kind: Kind) {
    let (node, _far) = pair();
    let database = Database::new(kind, &node);
    let shell = Shell::new(&node, &(chains(20_000) + &source(&database.from())));
    database.run(TABLE);
    let rows: Vec<String> = (0..10_000).map(|id| row(id, id)).collect();
    database.run(&format!("INSERT INTO sessions VALUES {};", rows.join(",")));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    // Without a change log, too, a table fills its maps.
    let synced = shell.json(&["source", "sync", "--once"]);
    assert_eq!(
        (&synced["sources"][0]["rows"], &synced["sources"][0]["position"]),
        (&Value::from(10_000), &Value::Null)
    );
    same(&shell, &database);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let printed = shell.xdpchain(&["source", "init", "sessions", "--print"]).expect(0).stdout;
    assert!(printed.contains("CREATE TABLE IF NOT EXISTS") && printed.contains("TRIGGER"), "{printed}");
    // One entry is gone, one is another, and one is nobody's.
    shell.xdpchain(&["map", "del", "gtp-decap/sessions", "local=10.0.0.1,teid=4096"]).expect(0);
    let uplink = shell.json(&["map", "get", "gtp-decap/sessions", "local=10.0.0.1,teid=4097"]);
    let changed = uplink["value"].to_string().replace("192.0.2.7", "192.0.2.8");
    shell.xdpchain(&["map", "set", "gtp-decap/sessions", "local=10.0.0.1,teid=4097", &changed]).expect(0);
    shell.xdpchain(&["map", "set", "gtp-decap/sessions", "local=10.9.9.9,teid=1", &changed]).expect(0);
    let synced = shell.json(&["source", "sync", "--once", "sessions"]);
    let map = &synced["sources"][0]["maps"][0];
    assert_eq!(
        [&map["written"], &map["same"], &map["removed"]].map(Value::as_u64),
        [Some(2), Some(9_998), Some(1)],
        "{synced}"
    );
    same(&shell, &database);
    let status = shell.json(&["source", "status", "sessions"]);
    assert_eq!(status["sources"][0]["phase"], "compared");
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn sqlite_fills_and_repairs() {
    filled_and_repaired(Kind::Sqlite);
}

#[test]
fn postgres_fills_and_repairs() {
    filled_and_repaired(Kind::Postgres);
}

#[test]
fn a_first_filling_leaves_a_map_no_emptier_unless_told() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Sqlite, &node);
    let shell = Shell::new(&node, &(chains(100) + &source(&database.from())));
    database.run(TABLE);
    database.run(&format!("INSERT INTO sessions VALUES {};", row(1, 1)));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.write(
        "rows.csv",
        "local,teid,customer,session,peer\n10.0.0.9,1,7,7,192.0.2.1\n10.0.0.9,2,7,8,192.0.2.1\n",
    );
    shell.xdpchain(&["map", "import", "--defaults", "gtp-decap/sessions", "rows.csv"]).expect(0);
    let first = shell.xdpchain(&["source", "sync", "--once"]).expect(1);
    assert!(first.stderr.contains("keeps 2 entries that the table does not have"), "{}", first.stderr);
    assert_eq!(entries(&shell, "gtp-decap/sessions", &[]).len(), 3);
    let second = shell.xdpchain(&["source", "sync", "--once"]).expect(1);
    assert!(second.stderr.contains("keeps 2 entries"), "{}", second.stderr);
    shell.xdpchain(&["source", "sync", "--once", "--prune"]).expect(0);
    same(&shell, &database);
    // From then on the map is the table's.
    database.run("DELETE FROM sessions;");
    shell.xdpchain(&["source", "sync", "--once"]).expect(0);
    same(&shell, &database);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}
