//! Rows that do not fit, maps that are full, and columns of PostgreSQL's own types.

use serde_json::Value;
use xdpchain_tests::Shell;
use xdpchain_tests::agent::{Agent, wait_for};

use crate::database::{Database, Kind};
use crate::{TABLE, chains, entries, pair, row, same, source};

/// Waits until the source has so many rows in the maps, and so many that do not fit.
fn wait_until(agent: &Agent, rows: u64, rejected: u64) -> Value {
    wait_for(&format!("{rows} rows and {rejected} that do not fit"), || {
        let source = agent.source("sessions");
        let there = (source["rows"].as_u64(), source["rejected"].as_u64()) == (Some(rows), Some(rejected));
        (source["phase"] == "following" && there).then_some(source)
    })
}

fn bad_rows(kind: Kind) {
    let (node, _far) = pair();
    let database = Database::new(kind, &node);
    let shell = Shell::new(&node, &(chains(100) + &source(&database.from())));
    database.run(TABLE);
    database.run(&format!("INSERT INTO sessions VALUES {}, {}, {};", row(1, 1), row(2, 2), row(3, 3)));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let agent = Agent::ready(&shell);
    wait_until(&agent, 3, 0);
    same(&shell, &database);
    let bad = [
        (10, "local = NULL", "`local`: null"),
        (11, "teid = 4294967296", "`teid`: expected an integer from 0 to 4294967295"),
        (12, "peer = '192.0.2.256'", "`peer`: expected an IPv4 address"),
        (13, "teid = 4097", "row 1 has the same key in map `gtp-decap/sessions`"),
        (14, "customer = -1", "`customer`: expected an integer from 0"),
        (15, "inner4 = 'nobody'", "`inner4`: expected an IPv4 address"),
    ];
    for (id, change, _) in bad {
        database.run(&format!("INSERT INTO sessions VALUES {};", row(id, id)));
        database.run(&format!("UPDATE sessions SET {change} WHERE id = {id};"));
    }
    wait_until(&agent, 3, 6);
    let told = wait_for("the rows are told", || {
        let run = shell.xdpchain(&["source", "status", "sessions", "-o", "json"]);
        let told: Value = serde_json::from_str(&run.stdout).expect("JSON");
        (told["sources"][0]["rejected"] == 6).then_some(told)
    });
    for (id, _, reason) in bad {
        let mut rows = told["sources"][0]["rejections"].as_array().expect("a list").iter();
        let found = rows
            .find(|row| row["key"].as_str() == Some(&id.to_string()))
            .unwrap_or_else(|| panic!("no row {id} in {told}"));
        let said = found["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "row {id}: {said}");
    }
    // A row that had entries and does not fit any more has none; one that is mended gets in; so does one whose key is free.
    database.run(
        "UPDATE sessions SET peer = 'x' WHERE id = 2; UPDATE sessions SET local = '10.0.0.1' WHERE id = 10;",
    );
    wait_until(&agent, 3, 6);
    database.run("DELETE FROM sessions WHERE id = 1;");
    wait_until(&agent, 3, 5);
    let held = entries(&shell, "gtp-decap/sessions", &["session"]);
    let mut sessions: Vec<_> = held.values().map(|value| value[0].as_u64().expect("a number")).collect();
    sessions.sort_unstable();
    assert_eq!(sessions, [3, 10, 13]);
    // A comparison from nothing comes to the same.
    agent.kill();
    let agent = Agent::ready(&shell);
    wait_until(&agent, 3, 5);
    assert_eq!(entries(&shell, "gtp-decap/sessions", &["session"]), held);
    database.run("DELETE FROM sessions WHERE id NOT IN (3, 10, 13);");
    wait_until(&agent, 3, 0);
    same(&shell, &database);
    assert_eq!(agent.stop(), 0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn sqlite_rows_that_do_not_fit_are_left_out_alone() {
    bad_rows(Kind::Sqlite);
}

#[test]
fn postgres_rows_that_do_not_fit_are_left_out_alone() {
    bad_rows(Kind::Postgres);
}

#[test]
fn a_full_map_takes_what_it_can_and_the_rest_when_there_is_room() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Sqlite, &node);
    let shell = Shell::new(&node, &(chains(50) + &source(&database.from())));
    database.run(TABLE);
    let rows: Vec<String> = (0..80).map(|id| row(id, id)).collect();
    database.run(&format!("INSERT INTO sessions VALUES {};", rows.join(",")));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let once = shell.xdpchain(&["source", "sync", "--once"]).expect(1);
    assert!(once.stderr.contains("is full: 30 rows have no room"), "{}", once.stderr);
    assert_eq!(entries(&shell, "gtp-decap/sessions", &[]).len(), 50);
    let agent = Agent::ready(&shell);
    let no_room = |agent: &Agent| agent.source("sessions")["maps"][0]["noRoom"].as_u64();
    wait_for("rows without room are counted", || (no_room(&agent) == Some(30)).then_some(()));
    // A row that has its place can change, and rows that go make room for others.
    database
        .run("UPDATE sessions SET customer = 9 WHERE id = 0; DELETE FROM sessions WHERE id < 40 AND id > 9;");
    wait_for("there is room", || (no_room(&agent) == Some(0)).then_some(()));
    wait_for("the rest is there", || (entries(&shell, "gtp-encap/sessions", &[]).len() == 50).then_some(()));
    same(&shell, &database);
    // Somebody else makes room where the agent did not.
    database.run(&format!("INSERT INTO sessions VALUES {};", row(100, 100)));
    wait_for("there is no room", || (no_room(&agent) == Some(1)).then_some(()));
    shell.write("chains.yaml", &(chains(200) + &source(&database.from())));
    wait_for("the larger map has room", || {
        (no_room(&agent) == Some(0) && entries(&shell, "gtp-decap/sessions", &[]).len() == 51).then_some(())
    });
    wait_for("both maps are as the table", || {
        (entries(&shell, "gtp-encap/sessions", &[]).len() == 51).then_some(())
    });
    same(&shell, &database);
    assert_eq!(agent.stop(), 0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn columns_of_every_type_become_fields() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Postgres, &node);
    let yaml = format!(
        "{}sources:\n  s:\n    {}\n    table: net.typed\n    key: name\n    maps: [gtp-decap/sessions]\n    columns: \
         {{ session: number, inner6: {{ column: prefix, cast: address }}, inner6_len: {{ column: prefix, cast: \
         prefix_length, when_null: 0 }}, inner4: {{ column: network, cast: address, when_null: 0.0.0.0 }} }}\n    \
         constants: {{ customer: 7 }}\n    defaults: true\n",
        chains(100),
        database.from()
    );
    let yaml = yaml.replace("cast: address }, inner6_len", "cast: address, when_null: '::' }, inner6_len");
    let shell = Shell::new(&node, &yaml);
    database.run(
        "CREATE SCHEMA net; CREATE TYPE colour AS ENUM ('red'); CREATE DOMAIN teid AS bigint;
         CREATE TABLE net.typed (name varchar PRIMARY KEY, local inet, teid teid, number numeric(10,0), peer bytea, network cidr,
                                 prefix cidr, flags smallint, colour colour, at timestamptz DEFAULT now());
         INSERT INTO net.typed VALUES
           ('whole', '10.0.0.1', 1, 5000000, '\\xc0000201', '172.16.0.9/32', '2001:db8:1::/56', 1, 'red'),
           ('none', '10.0.0.1', 2, 7, '\\xc0000202', NULL, NULL, 0, NULL),
           ('net', '10.0.0.0/8', 3, 7, '\\xc0000202', NULL, NULL, 0, NULL),
           ('short', '10.0.0.1', 4, 7, '\\xc00002', NULL, NULL, 0, NULL);",
    );
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let once = shell.xdpchain(&["source", "sync", "--once", "-o", "json"]).expect(1);
    let told: Value = serde_json::from_str(&once.stdout).expect("JSON");
    let reasons = told["sources"][0]["rejections"].to_string();
    assert!(reasons.contains("`10.0.0.0/8` is a network") && reasons.contains("`0xc00002`"), "{reasons}");
    let fields = ["session", "customer", "peer", "inner4", "inner6", "inner6_len", "flags"];
    let held = entries(&shell, "gtp-decap/sessions", &fields);
    let text = |teid: u32| {
        serde_json::to_string(&held[&format!(r#"{{"local":"10.0.0.1","teid":{teid}}}"#)]).unwrap()
    };
    assert_eq!(held.len(), 2);
    assert_eq!(text(1), r#"[5000000,7,"192.0.2.1","172.16.0.9","2001:db8:1::",56,1]"#);
    assert_eq!(text(2), r#"[7,7,"192.0.2.2","0.0.0.0","::",0,0]"#);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}
