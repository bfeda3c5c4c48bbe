//! What a right chains.yaml means, and that no text at all makes the parser panic.

use std::path::Path;

use proptest::prelude::*;
use xdpchain_spec::{
    ChainDefault, Config, Engine, Mode, ModuleSpec, ObjectRef, Place, SlotSpec, Verdict, VerdictSet,
};

/// The example at the top of the repository.
const EXAMPLE: &str = include_str!("../../../chains.yaml");

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/xdpchain/chains.yaml")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_example_is_valid() {
    let config = parse(EXAMPLE);
    let edge = &config.chains["edge"];
    let names: Vec<&str> = edge.slots.iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(names, ["gtp-decap", "gre-decap", "acl", "gre-steer", "gtp-encap", "stats"]);
    assert_eq!(config.modules["gtp-decap"].maps["sessions"].max_entries, Some(1 << 20));
    assert_eq!(edge.slot("stats").unwrap().at, Place::Exit);
}

#[test]
fn the_example_stays_valid_when_its_commented_parts_are_used() {
    // A comment that is YAML begins with `# ` and a key, `- item` or deeper comment, never with prose.
    let uncommented: Vec<String> = EXAMPLE
        .lines()
        .map(|line| {
            let code = line.trim_start().strip_prefix("# ").unwrap_or_default().trim_start();
            let key = code.split(':').next().unwrap_or_default();
            let keys = [
                "imports",
                "sessions",
                "ratelimit",
                "object",
                "program",
                "- sampler",
                "sources",
                "from",
                "table",
                "key",
                "maps",
                "columns",
                "constants",
                "defaults",
                "agent",
                "socket",
                "allow",
                "metrics",
                "alarm_at",
                "alarms",
                "gate",
                "watch",
            ];
            if (code.contains(": ") || code.ends_with(':')) && keys.contains(&key) {
                line.replacen("# ", "", 1)
            } else {
                line.to_owned()
            }
        })
        .collect();
    let text = uncommented.join("\n").replacen(
        "  ratelimit:",
        "  sampler: { object: ./sampler.o }\n  ratelimit:",
        1,
    );
    let config = parse(&text);
    assert_eq!(config.modules["acl"].imports["sessions"].to_string(), "gtp-decap/sessions");
    assert_eq!(config.modules["ratelimit"].program.as_deref(), Some("xdp_ratelimit"));
    assert_eq!(
        config.modules["ratelimit"].object,
        ObjectRef::File("/etc/xdpchain/vendor/ratelimit.o".into())
    );
    assert!(config.chains["edge"].slot("sampler").unwrap().observer);
    assert_eq!(config.sources["sessions"].maps.len(), 2);
    assert_eq!(config.sources["sessions"].from.to_string(), "sqlite:/etc/xdpchain/sessions.db");
    assert_eq!(config.agent.alarm_of("gtp-decap/sessions").to_string(), "80%");
    assert_eq!(config.agent.alarm_of("gtp-encap/sessions").to_string(), "90%");
    assert_eq!(config.chains["edge"].gate.as_ref().map(|gate| gate.pcap.len()), Some(1));
    assert_eq!(config.chains["edge"].watch.and_then(|watch| watch.max_aborted), Some(0));
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = parse("version: 1\nmodules: { a: { object: a.o } }\nchains: { c: { slots: [a] } }\n");
    let chain = &config.chains["c"];
    assert_eq!((chain.engine, chain.mode, chain.default), (Engine::Auto, Mode::Auto, ChainDefault::Keep));
    assert!(chain.interfaces.is_empty());
    assert_eq!(chain.slots, [SlotSpec::new("a")]);
    assert_eq!(chain.slots[0].on_unknown, Verdict::Aborted);
    assert_eq!(chain.slots[0].proceed_on, None);
}

#[test]
fn options_reach_their_slot() {
    let text = "version: 1
modules: { a: { object: /opt/a.o }, b: { object: 'builtin:b' }, c: { object: ../c.o } }
chains:
  edge:
    engine: tail
    mode: generic
    default: drop
    slots:
      - c: { at: exit }
      - a: { proceed_on: [tx, pass], on_unknown: redirect }
      - b: { observer: true }
";
    let config = parse(text);
    let chain = &config.chains["edge"];
    assert_eq!((chain.engine, chain.mode, chain.default), (Engine::Tail, Mode::Generic, ChainDefault::Drop));
    let in_order: Vec<&str> = chain.in_order().map(|slot| slot.name.as_str()).collect();
    assert_eq!(in_order, ["a", "b"]);
    let a = chain.slot("a").unwrap();
    assert_eq!(a.proceed_on.map(VerdictSet::bits), Some(0b1100));
    assert_eq!(a.on_unknown, Verdict::Redirect);
    assert!(chain.slot("b").unwrap().observer && chain.slot("c").unwrap().observer);
    assert_eq!(config.modules["a"].object.to_string(), "/opt/a.o");
    assert_eq!(config.modules["b"].object, ObjectRef::Builtin("b".into()));
    assert_eq!(config.modules["c"].object.to_string(), "/etc/xdpchain/../c.o");
}

#[test]
fn anchors_and_a_byte_order_mark_are_yaml_too() {
    let text =
        "\u{feff}version: 1\nmodules: { a: &m { object: a.o }, b: *m }\nchains: { c: { slots: [a, b] } }\n";
    assert_eq!(parse(text).modules["b"], parse(text).modules["a"]);
}

#[test]
fn a_config_survives_json() {
    let config = parse(EXAMPLE);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}

/// Errors print without a panic, have a place in the text, and end in help.
fn answered(text: &str) {
    if let Err(error) = Config::parse(text, Path::new("f")) {
        let printed = error.to_string();
        assert!(printed.lines().last().is_some_and(|line| line.starts_with("help: ")), "{printed}");
        assert!(error.line() >= 1 && error.column() >= 1);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        answered(&text);
    }

    #[test]
    fn arbitrary_yaml_marks_are_answered(text in "[-a&*!|>'\"%@`{}\\[\\]:,?#<~ \n\t\r\u{85}é]{0,60}") {
        answered(&text);
    }

    #[test]
    fn a_damaged_example_is_answered(
        at in 0..EXAMPLE.len(),
        cut in 0..40_usize,
        put in "[-a-z&*!|>'\"{}\\[\\]:,?#<~ \n]{0,6}",
    ) {
        let mut text = EXAMPLE.to_owned();
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &put);
        answered(&text);
    }
}

#[test]
fn a_module_may_be_its_object_alone_and_say_what_its_program_arrays_hold() {
    let config = parse(
        "version: 1\nmodules:\n  acl: \"builtin:acl\"\n  own: ./own.o\n  jumps:\n    object: ./j.o\n    \
         programs: { table: { 0: first, 7: second } }\nchains: { edge: { slots: [acl, own, jumps] } }\n",
    );
    assert_eq!(config.modules["acl"], ModuleSpec::new(ObjectRef::Builtin("acl".into())));
    assert_eq!(config.modules["own"].object, ObjectRef::File("/etc/xdpchain/own.o".into()));
    let table = &config.modules["jumps"].programs["table"];
    assert_eq!((table[&0].as_str(), table[&7].as_str()), ("first", "second"));
    let json = serde_json::to_string(&config).expect("a configuration is JSON");
    assert_eq!(serde_json::from_str::<Config>(&json).expect("what was written is read"), config);
}

#[test]
fn a_gate_and_a_watch_are_read() {
    let config = parse(
        "version: 1\nmodules: { a: a.o }\nchains:\n  edge:\n    slots: [a]\n    gate: { fixtures: [./gold, \
         /opt/x.yaml], pcap: [busy.pcap] }\n    watch: { max_drop_increase: 2.5%, max_aborted: 0 }\n",
    );
    let chain = &config.chains["edge"];
    let gate = chain.gate.as_ref().expect("it was given");
    assert_eq!(gate.fixtures, [Path::new("/etc/xdpchain/gold"), Path::new("/opt/x.yaml")]);
    assert_eq!(gate.pcap, [Path::new("/etc/xdpchain/busy.pcap")]);
    let watch = chain.watch.expect("it was given");
    assert_eq!(watch.window.duration(), std::time::Duration::from_secs(10));
    assert_eq!(watch.max_drop_increase.map(|part| part.hundredths()), Some(250));
    assert_eq!(watch.max_aborted, Some(0));
    assert_eq!(watch.to_string(), "{ window: 10s, max_drop_increase: 2.5%, max_aborted: 0 }");
    let json = serde_json::to_string(&config).expect("a configuration is JSON");
    assert_eq!(serde_json::from_str::<Config>(&json).expect("what was written is read"), config);
}
