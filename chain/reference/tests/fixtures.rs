//! Every packet of tests/fixtures through the reference, which has to come to what the fixture says.

use std::fs;
use std::path::{Path, PathBuf};

use xdpchain_abi::{Fate, PacketContext};
use xdpchain_golden::{Fixture, difference};
use xdpchain_reference::mutate::{Mutant, Numbers};
use xdpchain_reference::{Arrival, Chain, HEADROOM, Module, Row, TestNetwork, Verdict, context, run, tables};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn fixtures() -> Vec<(String, Fixture)> {
    let mut fixtures = Vec::new();
    for entry in fs::read_dir(folder()).expect("the folder is part of the project") {
        let path = entry.expect("a folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a fixture is text");
            fixtures.push((name.clone(), Fixture::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"))));
        }
    }
    fixtures.sort_by(|a, b| a.0.cmp(&b.0));
    fixtures
}

/// What is wrong with what the reference makes of a fixture.
fn judge(name: &str, fixture: &Fixture) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut wrong = Vec::new();
    let module =
        Module::named(fixture.program.as_deref().ok_or("`program` is missing")?).ok_or("no module")?;
    let row = fixture.row.as_deref().and_then(Row::named).ok_or("`row` is none")?;
    let tables = tables(fixture, Some(module))?;
    let before = context(&fixture.context)?;
    let packet = fixture.input()?;
    let arrival = Arrival {
        packet: &packet,
        headroom: fixture.headroom.map_or(HEADROOM, |room| room as usize),
        context: before,
        told: false,
    };
    let network = TestNetwork { ingress: fixture.ingress.clone().unwrap_or_default() };
    let outcome = run(&Chain::alone(module), &tables, &network, &arrival);
    let verdict = format!("{}{}", outcome.verdict.name(), if outcome.ended { "+final" } else { "" });
    if verdict != fixture.expect.verdict {
        wrong.push(format!("verdict: expected {}, found {verdict}", fixture.expect.verdict));
    }
    wrong.extend(difference(&fixture.output()?, &outcome.packet));
    let reasons: Vec<&str> = outcome.reasons.iter().map(|(_, reason)| reason.name()).collect();
    let expected = fixture.reason()?;
    if reasons != expected.iter().map(|reason| reason.name()).collect::<Vec<_>>() {
        wrong.push(format!("reasons: expected {expected:?}, found {reasons:?}"));
    }
    let mut fields = fixture.context.clone();
    if let Some(reason) = expected.filter(|reason| reason.fate() != Fate::Noted) {
        fields.insert("reason".to_owned(), reason.name().into());
    }
    fields.extend(fixture.expect.context.clone());
    let after: PacketContext = context(&fields)?;
    if outcome.context != after {
        wrong.push(format!("context: expected {after:?}\n  found {:?}", outcome.context));
    }
    let rows = outcome.rows();
    if rows.is_empty() && module != Module::Stats {
        wrong.push("no row says why".to_owned());
    }
    // Of packets that are forwarded, some rows say that nothing is to be seen.
    let seen = expected.is_some() && !["g34-", "d04-"].iter().any(|begin| name.starts_with(begin));
    if seen && !rows.contains(&row) {
        let rows: Vec<&str> = rows.iter().map(|row| row.id()).collect();
        wrong.push(format!("rows: {} is not among {rows:?}", row.id()));
    }
    Ok(wrong)
}

#[test]
fn every_fixture_comes_out_as_it_says() {
    let fixtures = fixtures();
    assert!(fixtures.len() > 300, "{}", fixtures.len());
    let mut failed = 0;
    for (name, fixture) in &fixtures {
        let wrong = judge(name, fixture).unwrap_or_else(|error| vec![error.to_string()]);
        if !wrong.is_empty() {
            failed += 1;
            println!("{name}: {}", wrong.join("\n  "));
        }
    }
    assert_eq!(failed, 0, "of {} fixtures", fixtures.len());
}

/// Mutants of each fixture.
const MUTANTS: usize = 200;

#[test]
fn every_mutant_of_a_fixture_ends_somewhere() {
    let mut numbers = Numbers::new(0x5eed);
    for (name, fixture) in fixtures() {
        let module = fixture.program.as_deref().and_then(Module::named).expect("a fixture of a module");
        let tables = tables(&fixture, Some(module)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let context = context(&fixture.context).unwrap_or_else(|e| panic!("{name}: {e}"));
        let network = TestNetwork { ingress: fixture.ingress.clone().unwrap_or_default() };
        let input = fixture.input().expect("a fixture that was read");
        for _ in 0..MUTANTS {
            let packet = Mutant::draw(&input, 4, &[[192, 0, 2, 1], [203, 0, 113, 1]], &mut numbers).packet();
            let outcome =
                run(&Chain::alone(module), &tables, &network, &Arrival { context, ..Arrival::new(&packet) });
            assert_ne!(outcome.verdict, Verdict::Aborted, "{name}");
            // What is dropped is what came in: nothing is refused half-way.
            if outcome.verdict == Verdict::Drop {
                assert_eq!(outcome.packet, packet, "{name}");
            }
        }
    }
}
