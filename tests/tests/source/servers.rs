//! PostgreSQL as it comes and goes, commits out of order, and is talked to in secret.

use std::io::Write as _;

use xdpchain_tests::Shell;
use xdpchain_tests::agent::{Agent, wait_for};
use xdpchain_tests::postgres::PASSWORD;

use crate::database::{Database, Kind};
use crate::{TABLE, chains, entries, pair, row, same, source};

fn rows(agent: &Agent) -> Option<u64> {
    let source = agent.source("sessions");
    (source["phase"] == "following").then(|| source["rows"].as_u64())?
}

#[test]
fn a_server_that_was_gone_is_followed_from_where_it_was() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Postgres, &node);
    let shell = Shell::new(&node, &(chains(1000) + &source(&database.from())));
    database.run(TABLE);
    database.run(&format!("INSERT INTO sessions VALUES {}, {};", row(1, 1), row(2, 2)));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let agent = Agent::ready(&shell);
    wait_for("it follows", || (rows(&agent) == Some(2)).then_some(()));
    for round in 0..3 {
        database.server().down();
        let gone = wait_for("it is told", || {
            let source = agent.source("sessions");
            (source["phase"] == "disconnected").then_some(source)
        });
        assert_eq!(gone["rows"], 2 + round * 2, "{gone}");
        assert_eq!(agent.get("/healthz").0, 503);
        assert!(agent.get("/metrics").1.contains("xdpchain_source_up{source=\"sessions\"} 0"));
        // The data path goes on with what it has.
        assert_eq!(entries(&shell, "gtp-decap/sessions", &[]).len() as u64, 2 + round * 2);
        database.server().up(&node);
        let (first, second) = (10 + round * 2, 11 + round * 2);
        // Perhaps before the agent is there again.
        database.run(&format!("INSERT INTO sessions VALUES {}, {};", row(first, first), row(second, second)));
        wait_for("it follows again", || (rows(&agent) == Some(4 + round * 2)).then_some(()));
        same(&shell, &database);
    }
    let source = agent.source("sessions");
    assert_eq!((source["comparisons"].as_u64(), source["changes"].as_u64()), (Some(1), Some(6)), "{source}");
    assert_eq!(agent.get("/healthz"), (200, "ok\n".to_owned()));
    // What empties a table at once tells of no row.
    database.run("TRUNCATE sessions;");
    wait_for("the table was emptied", || (rows(&agent) == Some(0)).then_some(()));
    same(&shell, &database);
    assert_eq!(agent.stop(), 0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn what_is_committed_late_is_neither_missed_nor_waited_for() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Postgres, &node);
    let shell = Shell::new(&node, &(chains(1000) + &source(&database.from())));
    database.run(TABLE);
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let agent = Agent::ready(&shell);
    wait_for("it follows", || (rows(&agent) == Some(0)).then_some(()));
    // The first to write is the last to commit.
    let mut late = database.server().psql();
    let mut input = late.stdin.take().expect("it is piped");
    writeln!(input, "BEGIN; INSERT INTO sessions VALUES {}; SELECT pg_advisory_lock(1);", row(1, 1))
        .expect("psql reads");
    input.flush().expect("psql reads");
    wait_for("it has written", || {
        let locks = database.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
        (locks[0][0] == "1").then_some(())
    });
    for id in 2..20 {
        database.run(&format!("INSERT INTO sessions VALUES {};", row(id, id)));
    }
    wait_for("others are not held up", || (rows(&agent) == Some(18)).then_some(()));
    input.write_all(b"COMMIT;\n").expect("psql reads");
    drop(input);
    assert!(late.wait().expect("psql ends").success());
    wait_for("the late one is there", || (rows(&agent) == Some(19)).then_some(()));
    same(&shell, &database);
    assert_eq!(agent.source("sessions")["comparisons"], 1);
    assert_eq!(agent.stop(), 0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn passwords_are_never_shown_and_tls_is_checked() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Postgres, &node);
    let server = database.server();
    database.run(TABLE);
    database.run(&format!("INSERT INTO sessions VALUES {};", row(1, 1)));
    let with = |password: &str, port: u16, rest: &str| {
        let from = format!(
            "from: 'postgres://xdp:{password}@localhost:{port}/postgres?sslmode=require'\n    {rest}"
        );
        chains(1000) + &source(&from)
    };
    let trusted = format!("ca_file: {}", server.certificate().display());
    let shell = Shell::new(&node, &with(PASSWORD, 5432, &trusted));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    let mut said = String::new();
    let mut run = |arguments: &[&str], status: i32| {
        let run = shell.xdpchain(arguments).expect(status);
        said += &run.stdout;
        said += &run.stderr;
        run.stderr
    };
    run(&["-vvv", "source", "sync", "--once"], 0);
    run(&["-vvv", "source", "init", "sessions"], 0);
    run(&["source", "status"], 0);
    run(&["source", "status", "-o", "yaml"], 0);
    let agent = Agent::start(&shell, &[("RUST_LOG", "trace")]);
    wait_for("it follows", || (rows(&agent) == Some(1)).then_some(()));
    let secure =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'xdpchain'";
    assert_eq!(database.query(secure), [["t"]]);
    let answers = ["/sources", "/metrics", "/healthz", "/status"].map(|path| agent.get(path).1).concat();
    let logged = agent.said();
    assert_eq!(agent.stop(), 0);
    same(&shell, &database);
    // A server that nobody vouches for, a wrong password, a wrong port, and an address that is none.
    for (yaml, why) in [
        (with(PASSWORD, 5432, "defaults: true").replacen("    defaults: true\n", "", 1), "ertificate"),
        (with(&format!("{PASSWORD}x"), 5432, &trusted), "password authentication failed"),
        (with(PASSWORD, 1, &trusted), "refused"),
        (with(PASSWORD, 5432, &trusted).replace("?sslmode=require", "?sslmode=perhaps"), "sslmode"),
    ] {
        shell.write("chains.yaml", &yaml);
        let stderr = run(&["-vvv", "source", "sync", "--once"], 8);
        assert!(stderr.contains("cannot reach") && stderr.contains(why), "{stderr}");
    }
    for yaml in [
        with(PASSWORD, 5432, "nonsense: 1"),
        with(PASSWORD, 5432, "").replace("postgres://xdp", "mysql://xdp"),
        with(PASSWORD, 5432, "").replace("from: ", "from: [").replace("require'", "require']"),
    ] {
        shell.write("chains.yaml", &yaml);
        run(&["source", "sync", "--once"], 3);
    }
    let files: String = shell.left().iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    for (what, text) in [("output", said), ("answers", answers), ("log", logged), ("files", files)] {
        assert!(!text.contains("geheim"), "the password is in the {what}:\n{text}");
    }
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}

#[test]
fn a_gap_in_the_log_and_a_column_that_is_gone_are_repaired_by_a_comparison() {
    let (node, _far) = pair();
    let database = Database::new(Kind::Sqlite, &node);
    let shell = Shell::new(&node, &(chains(1000) + &source(&database.from())));
    database.run(TABLE);
    database.run(&format!("INSERT INTO sessions VALUES {}, {};", row(1, 1), row(2, 2)));
    shell.xdpchain(&["attach", "eth1"]).expect(0);
    shell.xdpchain(&["source", "init", "sessions"]).expect(0);
    let agent = Agent::ready(&shell);
    wait_for("it follows", || (rows(&agent) == Some(2)).then_some(()));
    database.run(&format!(
        "BEGIN; DELETE FROM sessions WHERE id = 1; INSERT INTO sessions VALUES {}; \
         DELETE FROM xdpchain_sessions WHERE seq < (SELECT max(seq) FROM xdpchain_sessions); COMMIT;",
        row(3, 3)
    ));
    wait_for("the gap is seen", || (agent.source("sessions")["comparisons"] == 2).then_some(()));
    wait_for("it follows", || (rows(&agent) == Some(2)).then_some(()));
    same(&shell, &database);
    database.run(
        "ALTER TABLE sessions RENAME COLUMN peer_teid TO fellow; UPDATE sessions SET customer = 8 WHERE id = 3;",
    );
    wait_for("the column is missed", || {
        let source = agent.source("sessions");
        let said = source["error"].as_str().unwrap_or_default();
        (source["phase"] == "failed" && said.contains("has no column `peer_teid` for")).then_some(())
    });
    assert_eq!(entries(&shell, "gtp-decap/sessions", &[]).len(), 2);
    assert_eq!(agent.get("/healthz").0, 503);
    database.run("ALTER TABLE sessions RENAME COLUMN fellow TO peer_teid;");
    wait_for("it follows again", || (rows(&agent) == Some(2)).then_some(()));
    same(&shell, &database);
    assert_eq!(agent.stop(), 0);
    shell.xdpchain(&["detach", "eth1"]).expect(0);
}
