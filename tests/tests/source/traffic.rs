//! Changes at random while packets flow, with the agent killed in between: the maps are the table in the end, and no packet of a
//! session that stays is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xdpchain_tests::agent::{Agent, wait_for};
use xdpchain_tests::plan::{self, Session};
use xdpchain_tests::{Shell, World, rows};

use crate::database::{Database, Kind};

/// Sessions that packets belong to, and that stay.
const STAY: u32 = 30;
/// Changes, and how often the agent is killed meanwhile; more by `XDPCHAIN_CHANGES` and `XDPCHAIN_KILLS`.
const CHANGES: u64 = 3000;
const KILLS: u64 = 5;
/// Between bursts of packets, so that their numbers last for as long as changes can take.
const PACE: Duration = Duration::from_millis(5);
/// Numbers of the other sessions begin here.
const OTHERS: u64 = 1000;
/// How many there are at most.
const MOST: u64 = 4000;

fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Numbers that look like any others, and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn yaml(database: &Database) -> String {
    let table = |name: &str, map: &str, columns: &str| {
        format!(
            "  {name}:\n    {}\n    table: {name}\n    key: id\n    maps: [{map}]\n    columns: {{ {columns} }}\n    defaults: true\n",
            database.from()
        )
    };
    plan::chains_yaml(16_384)
        + "sources:\n"
        + &table("up", "gtp-decap/sessions", "session: session")
        + &table("down", "gtp-encap/sessions", "session: session")
        + "agent: { socket: agent.sock }\n"
}

fn tables(database: &Database) {
    database.run(
        "CREATE TABLE up (id BIGINT PRIMARY KEY, local TEXT, teid BIGINT, customer BIGINT, session BIGINT, peer TEXT, inner4 TEXT,
                          inner6 TEXT, inner6_len BIGINT);
         CREATE TABLE down (id BIGINT PRIMARY KEY, customer BIGINT, address TEXT, session BIGINT, teid BIGINT, peer TEXT, local TEXT,
                            qfi BIGINT, flags BIGINT);",
    );
    let address = |octets: [u8; 4]| std::net::Ipv4Addr::from(octets);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for number in 0..STAY {
        let session = Session { number };
        let (key, value) = session.uplink();
        up.push(format!(
            "({number}, '{}', {}, {}, {number}, '{}', '{}', '{}', {})",
            address(key.local.octets),
            key.teid.value(),
            value.customer,
            address(value.peer.octets),
            address(value.inner4.octets),
            std::net::Ipv6Addr::from(value.inner6.octets),
            value.inner6_len
        ));
        for (at, (key, value)) in session.downlink().into_iter().enumerate() {
            down.push(format!(
                "({}, {}, '{}', {number}, {}, '{}', '{}', {}, {})",
                number * 2 + at as u32,
                key.customer,
                xdpchain_tests::rows::user(key.address),
                value.teid.value(),
                address(value.peer.octets),
                address(value.local.octets),
                value.qfi,
                value.flags
            ));
        }
    }
    database.run(&format!("INSERT INTO up VALUES {};", up.join(",")));
    database.run(&format!("INSERT INTO down VALUES {};", down.join(",")));
}

/// A change of one row of either table: it comes, goes, changes a value, or changes the key of its entry.
fn change(numbers: &mut Numbers) -> String {
    let id = OTHERS + numbers.below(MOST);
    // Some keys are wanted by several rows.
    let (key, value) = (OTHERS * 100 + numbers.below(MOST * 3), numbers.below(1 << 20));
    let octets = (key as u32).to_be_bytes();
    let address = format!("10.{}.{}.{}", octets[1], octets[2], octets[3]);
    match (numbers.below(2), numbers.below(10)) {
        (0, 0..3) => format!("DELETE FROM up WHERE id = {id};"),
        (0, 3..6) => format!("UPDATE up SET session = {value} WHERE id = {id};"),
        (0, 6) => format!("UPDATE up SET teid = {key} WHERE id = {id};"),
        (0, _) => format!(
            "INSERT INTO up VALUES ({id}, '10.10.0.1', {key}, 1, {value}, '10.10.0.2', '{address}', '::', 0) \
             ON CONFLICT (id) DO UPDATE SET teid = excluded.teid, session = excluded.session;"
        ),
        (_, 0..3) => format!("DELETE FROM down WHERE id = {id};"),
        (_, 3..6) => format!("UPDATE down SET session = {value} WHERE id = {id};"),
        (_, 6) => format!("UPDATE down SET address = '{address}' WHERE id = {id};"),
        _ => format!(
            "INSERT INTO down VALUES ({id}, 9, '{address}', {value}, {key}, '10.10.0.2', '10.10.0.1', 0, 0) \
             ON CONFLICT (id) DO UPDATE SET address = excluded.address, session = excluded.session;"
        ),
    }
}

/// The entries of a map as `key=session`, sorted; and what the table says, of rows whose key no other has.
fn compare(shell: &Shell<'_>, database: &Database) {
    for (map, field, sql) in [
        ("gtp-decap/sessions", "teid", "SELECT 0, teid, session FROM up"),
        ("gtp-encap/sessions", "address", "SELECT customer, address, session FROM down"),
    ] {
        let mut rows: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        for row in database.query(sql) {
            // IPv4 addresses are written in two ways.
            let key = format!("{} {}", row[0], row[1].replace("::ffff:", ""));
            rows.entry(key).or_default().push(row[2].clone());
        }
        let run = shell.xdpchain(&["map", "export", map]).expect(0);
        let mut count = 0;
        for line in run.stdout.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let customer = line["key"]["customer"].as_u64().unwrap_or(0);
            let key = format!("{customer} {}", line["key"][field].to_string().replace('"', ""));
            let session = line["value"]["session"].to_string();
            let wanted = rows.get(&key).unwrap_or_else(|| panic!("{map} has {key}, which no row has"));
            assert!(wanted.contains(&session), "{map}, {key}: {session}, and not {wanted:?}");
            count += 1;
        }
        assert_eq!(count, rows.len(), "{map} has an entry for each key");
    }
}

/// Makes changes, some in each commit, and kills the agent now and then; the one that runs in the end.
fn change_all(shell: &Shell<'_>, database: &Database, mut agent: Agent, changes: u64, kills: u64) -> Agent {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut done = 0;
    for kill in 0..=kills {
        let until = changes * (kill + 1) / (kills + 1);
        while done < until {
            let commit = (1 + numbers.below(40)).min(until - done);
            let statements: String = (0..commit).map(|_| change(&mut numbers)).collect();
            database.run(&format!("BEGIN; {statements} COMMIT;"));
            done += commit;
        }
        if kill < kills {
            // In the middle of its work, whatever that is.
            agent.get("/healthz");
            agent.kill();
            agent = Agent::start(shell, &[]);
        }
    }
    agent
}

fn changed(kind: Kind) {
    let (changes, kills) = (knob("XDPCHAIN_CHANGES", CHANGES), knob("XDPCHAIN_KILLS", KILLS));
    let world = World::new(1 << 24);
    let node = &world.links.node;
    let database = Database::new(kind, node);
    let shell = Shell::new(node, &yaml(&database));
    tables(&database);
    for source in ["up", "down"] {
        shell.xdpchain(&["source", "init", source]).expect(0);
    }
    // The agent attaches the chains; the maps that have no source are filled by hand.
    let mut agent = Agent::ready(&shell);
    for (map, table) in rows::data_path(STAY) {
        if !map.ends_with("sessions") {
            shell.write("rows.csv", &table.csv());
            shell.xdpchain(&["map", "import", map, "rows.csv"]).expect(0);
        }
    }
    let follows = |agent: &Agent, name: &str, rows: u64| {
        let source = agent.source(name);
        let all = source["rows"].as_u64().unwrap_or(0) + source["rejected"].as_u64().unwrap_or(0);
        (source["phase"] == "following" && all == rows).then_some(())
    };
    wait_for("the sessions are there", || follows(&agent, "up", STAY.into()));
    wait_for("the sessions are there", || follows(&agent, "down", u64::from(STAY) * 2));
    let mut sender = world.sender(STAY);
    // The first packets go by the kernel, which learns the neighbours.
    sender.send(&world, STAY);
    sender.settle(&world);
    let before = (sender.sent(), world.ran_end.right());
    let stop = AtomicBool::new(false);
    agent = std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let agent = change_all(&shell, &database, agent, changes, kills);
            stop.store(true, Ordering::Relaxed);
            agent
        });
        while !stop.load(Ordering::Relaxed) && !changing.is_finished() {
            sender.send(&world, 64);
            std::thread::sleep(PACE);
        }
        sender.settle(&world);
        changing.join().expect("changing does not panic")
    });
    for table in ["up", "down"] {
        let count = database.query(&format!("SELECT count(*) FROM {table}"));
        let count = count[0][0].parse().expect("a number");
        wait_for(&format!("`{table}` is followed to its end"), || follows(&agent, table, count));
    }
    // The last change of all may be of a value alone.
    database.run("UPDATE up SET session = 77 WHERE id = 1; UPDATE down SET session = 77 WHERE id = 1;");
    for (map, session) in [("gtp-decap/sessions", 77), ("gtp-encap/sessions", 77)] {
        wait_for("the last change is there", || {
            let held = crate::entries(&shell, map, &["session"]);
            held.values().any(|value| value[0] == session).then_some(())
        });
    }
    compare(&shell, &database);
    let (sent, back) = (sender.sent() - before.0, world.ran_end.right() - before.1);
    assert_eq!(u64::from(sent), back, "every packet of a session that stays comes back");
    assert!(sent > 1000, "packets flowed: {sent}");
    assert_eq!(agent.stop(), 0);
    for interface in ["n3", "n6"] {
        shell.xdpchain(&["detach", interface]).expect(0);
    }
}

#[test]
fn sqlite_changes_under_traffic() {
    changed(Kind::Sqlite);
}

#[test]
fn postgres_changes_under_traffic() {
    changed(Kind::Postgres);
}
