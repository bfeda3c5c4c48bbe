//! That the schema takes what the parser takes, and refuses keys that nobody knows.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use xdpchain_spec::{Config, schema};

const EXAMPLE: &str = include_str!("../../../chains.yaml");

fn document(text: &str) -> Value {
    serde_yaml::from_str(text).expect("it is YAML")
}

fn takes(text: &str) -> bool {
    jsonschema::validator_for(&schema()).expect("the schema is one").is_valid(&document(text))
}

#[test]
fn the_example_is_valid() {
    let (schema, example) = (schema(), document(EXAMPLE));
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let errors: Vec<_> = validator.iter_errors(&example).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn every_form_is_taken_and_what_the_parser_refuses_by_its_form_is_refused() {
    let good = "version: 1
modules:
  a: ./a.o
  b: { object: b.o, program: p, maps: { m: { max_entries: 5 } }, imports: { s: a/s }, programs: { t: { 0: x } } }
chains:
  c:
    interfaces: [eth1]
    engine: tail
    mode: native
    default: drop
    gate: { fixtures: [gold], pcap: [x.pcap] }
    watch: { window: 10s, max_drop_increase: 2.5%, max_aborted: 0 }
    slots: [a, b: { proceed_on: [pass, tx], on_unknown: drop, observer: false, at: order }]
sources:
  s:
    from: \"postgres://u@db.example/net\"
    table: t
    key: id
    maps: [a/m]
    columns: { x: y, a/m.z: { column: net, cast: prefix_length, when_null: 32 } }
    constants: { f: 1, g: true }
    defaults: true
    poll: 50ms
    password_file: pw
agent: { socket: a.sock, allow: [prometheus], metrics: \"127.0.0.1:9469\", alarm_at: 80%, alarms: { a/m: 50% } }
";
    let parses = |text: &str| Config::parse(text, Path::new("chains.yaml")).is_ok();
    assert!(parses(good) && takes(good));
    for (from, to) in [
        ("version: 1", "version: 2"),
        ("version: 1\n", ""),
        ("chains:", "chians:"),
        ("program: p", "progam: p"),
        ("max_entries: 5", "max_entris: 5"),
        ("max_entries: 5", "max_entries: -5"),
        ("a/s", "as"),
        ("{ 0: x }", "{ zero: x }"),
        ("engine: tail", "engine: tails"),
        ("engine: tail", "engin: tail"),
        ("default: drop", "default: tx"),
        ("fixtures: [gold]", "fixture: [gold]"),
        ("fixtures: [gold]", "fixtures: gold"),
        ("window: 10s", "window: 10"),
        ("2.5%", "0.025"),
        ("max_aborted: 0", "max_aborted: -1"),
        ("[pass, tx]", "[pass, XDP_TX]"),
        ("observer: false", "observers: false"),
        ("at: order", "at: end"),
        ("slots: [a, ", "slots: [a, a: {}, { x: {}, y: {} }, "),
        ("postgres://u@", "mysql://u@"),
        ("cast: prefix_length", "cast: length"),
        ("when_null: 32", "when_nul: 32"),
        ("when_null: 32", "when_null: [32]"),
        ("{ f: 1", "{ f: [1]"),
        ("    key: id\n", ""),
        ("key: id", "key: id\n    keys: id"),
        ("defaults: true", "defaults: maybe"),
        ("poll: 50ms", "poll: 50"),
        ("127.0.0.1:9469", "0.0.0.0:9469"),
        ("alarm_at: 80%", "alarm_at: 0.8"),
        ("alarms: { a/m: 50% }", "alarms: { am: 50% }"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(!parses(&bad), "the parser takes {to}");
        assert!(!takes(&bad), "the schema takes {to}");
    }
}

#[test]
fn every_key_is_described() {
    fn walk(path: &str, value: &Value, missing: &mut Vec<String>) {
        let Value::Object(fields) = value else { return };
        if let Some(Value::Object(properties)) = fields.get("properties") {
            for (name, property) in properties {
                if property.get("description").is_none() {
                    missing.push(format!("{path}.{name}"));
                }
            }
        }
        for (name, inner) in fields {
            walk(&format!("{path}.{name}"), inner, missing);
        }
    }
    let mut missing = Vec::new();
    walk("", &schema(), &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

proptest! {
    #[test]
    fn what_the_parser_takes_the_schema_takes(at in 0..EXAMPLE.len(), cut in 0..30_usize) {
        let mut text = EXAMPLE.to_owned();
        let end = (at + cut).min(text.len());
        if text.is_char_boundary(at) && text.is_char_boundary(end) {
            text.replace_range(at..end, "");
        }
        if Config::parse(&text, Path::new("chains.yaml")).is_ok() {
            prop_assert!(takes(&text));
        }
    }
}
