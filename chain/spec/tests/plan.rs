//! That a plan leads to what was asked for, by as few steps as it can, and back from anywhere on the way.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use xdpchain_spec::plan::{Action, ModuleBuild, Role, Running, State, Step};
use xdpchain_spec::{
    ChainDefault, ChainSpec, Engine, GateSpec, InterfacePlan, MapOverride, MapRef, MigrateSpec, Mode,
    ModuleSpec, ObjectRef, Percentage, Place, Plan, SlotSpec, Timespan, Verdict, VerdictSet, WatchSpec,
};

const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

/// Different names in any order.
fn names() -> impl Strategy<Value = Vec<String>> {
    vec(any::<Index>(), 0..NAMES.len()).prop_map(|draws| {
        let mut left: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        draws.iter().map(|draw| left.remove(draw.index(left.len()))).collect()
    })
}

fn slot(name: String) -> impl Strategy<Value = SlotSpec> {
    let fields = (
        option::weighted(0.1, crate::name()),
        option::of((0..32_u32).prop_map(VerdictSet::from_bits)),
        select(&Verdict::ALL[..]),
        any::<bool>(),
        select(&[Place::Order, Place::Order, Place::Exit][..]),
    );
    fields.prop_map(move |(module, proceed_on, on_unknown, observer, at)| SlotSpec {
        module: module.unwrap_or_else(|| name.clone()),
        proceed_on,
        on_unknown,
        observer,
        at,
        ..SlotSpec::new(&name)
    })
}

fn module() -> impl Strategy<Value = ModuleBuild> {
    let object = prop_oneof![
        name().prop_map(ObjectRef::Builtin),
        name().prop_map(|name| ObjectRef::File(format!("/{name}.o").into())),
    ];
    let map_override = option::of(1..4_u32).prop_map(|max_entries| MapOverride { max_entries });
    let import = (name(), name()).prop_map(|(module, map)| MapRef { module, map });
    let programs = vec((0..3_u32, name()), 0..3).prop_map(IndexMap::from_iter);
    let migrate = vec(name(), 0..2).prop_map(|newest| MigrateSpec { newest, ..MigrateSpec::default() });
    let fields = (
        object,
        option::of(name()),
        vec((name(), map_override), 0..3),
        vec((name(), import), 0..3),
        vec((name(), programs), 0..2),
        option::of(vec(name(), 0..2)),
        vec((name(), migrate), 0..2),
        0..4_u32,
    );
    fields.prop_map(|(object, program, maps, imports, programs, exports, migrate, build)| ModuleBuild {
        spec: ModuleSpec {
            program,
            maps: maps.into_iter().collect(),
            imports: imports.into_iter().collect(),
            programs: programs.into_iter().collect(),
            exports,
            migrate: migrate.into_iter().collect(),
            ..ModuleSpec::new(object)
        },
        sha256: format!("{build:064x}"),
    })
}

fn state() -> impl Strategy<Value = State> {
    let slots = names().prop_flat_map(|names| names.into_iter().map(slot).collect::<Vec<_>>());
    let gate = option::of(vec(name(), 1..3).prop_map(|paths| GateSpec {
        fixtures: paths.into_iter().map(Into::into).collect(),
        pcap: Vec::new(),
    }));
    let watch = option::of((1..3_u64, option::of(0..3_u32)).prop_map(|(seconds, hundredths)| WatchSpec {
        window: Timespan::seconds(seconds),
        max_drop_increase: hundredths.map(Percentage::from_hundredths),
        max_aborted: None,
    }));
    let fields = (
        name(),
        select(&[Engine::Auto, Engine::Fused, Engine::Tail, Engine::Libxdp][..]),
        select(&[Mode::Auto, Mode::Native, Mode::Generic][..]),
        select(&[ChainDefault::Keep, ChainDefault::Pass, ChainDefault::Drop][..]),
        slots,
        (gate, watch),
        vec((name(), module()), 0..6),
    );
    fields.prop_map(|(name, engine, mode, default, slots, (gate, watch), modules)| {
        let chain = ChainSpec { engine, mode, default, gate, watch, ..ChainSpec::new(name, slots) };
        State::new(&chain, modules.into_iter().collect())
    })
}

/// A state, and one that differs from it a little or wholly.
fn two_states() -> impl Strategy<Value = (State, State)> {
    let near = (state(), vec(any::<Index>(), 0..4)).prop_map(|(state, draws)| {
        let mut chain = state.chain().clone();
        let mut modules = state.modules().clone();
        for draw in draws {
            if chain.slots.is_empty() {
                break;
            }
            let slot = chain.slots.remove(draw.index(chain.slots.len()));
            match draw.index(4) {
                0 => drop(modules.remove(&slot.module)),
                _ => chain.slots.insert(draw.index(chain.slots.len() + 1), slot),
            }
        }
        let other = State::new(&chain, modules);
        (state, other)
    });
    prop_oneof![near, (state(), state())]
}

fn running(state: &State) -> Running {
    Running { generation: 7, state: state.clone() }
}

/// The most slots that are in the same order in both.
fn longest_common(before: &State, wanted: &State) -> usize {
    let (before, wanted) = (&before.chain().slots, &wanted.chain().slots);
    let mut best = vec![vec![0; wanted.len() + 1]; before.len() + 1];
    for (i, a) in before.iter().enumerate() {
        for (j, b) in wanted.iter().enumerate() {
            best[i + 1][j + 1] = match a.name == b.name {
                true => best[i][j] + 1,
                false => best[i][j + 1].max(best[i + 1][j]),
            };
        }
    }
    best[before.len()][wanted.len()]
}

proptest! {
    #[test]
    fn applying_a_plan_gives_what_was_asked((before, wanted) in two_states()) {
        let plan = InterfacePlan::between("eth1", Some(&running(&before)), Some(&wanted));
        prop_assert_eq!(plan.after().unwrap(), Some(wanted.clone()));
        prop_assert_eq!(plan.is_empty(), before == wanted);
    }

    #[test]
    fn a_plan_to_the_same_state_is_empty(state in state()) {
        let plan = InterfacePlan::between("eth1", Some(&running(&state)), Some(&state));
        prop_assert_eq!(plan.steps(), &[]);
        prop_assert_eq!(plan.action(), Action::Keep);
    }

    #[test]
    fn undoing_any_prefix_restores_the_start((before, wanted) in two_states(), cut in any::<Index>()) {
        let plan = InterfacePlan::between("eth1", Some(&running(&before)), Some(&wanted));
        let cut = cut.index(plan.steps().len() + 1);
        let mut state = Some(before.clone());
        for step in &plan.steps()[..cut] {
            step.apply(&mut state).unwrap();
        }
        for step in plan.undo(cut) {
            step.apply(&mut state).unwrap();
        }
        prop_assert_eq!(state, Some(before));
    }

    #[test]
    fn no_slot_moves_that_can_stay((before, wanted) in two_states()) {
        let plan = InterfacePlan::between("eth1", Some(&running(&before)), Some(&wanted));
        let moved = plan.steps().iter().filter(|step| matches!(step, Step::MoveSlot { .. })).count();
        let kept = before.chain().slots.iter().filter(|s| wanted.chain().slot(&s.name).is_some()).count();
        prop_assert_eq!(moved, kept - longest_common(&before, &wanted));
    }

    #[test]
    fn a_plan_for_another_state_is_refused_or_still_has_an_inverse(
        (before, wanted) in two_states(),
        other in state(),
    ) {
        let plan = InterfacePlan::between("eth1", Some(&running(&before)), Some(&wanted));
        let mut state = Some(other);
        for step in plan.steps() {
            let start = state.clone();
            if step.apply(&mut state).is_ok() {
                step.inverse().apply(&mut state).unwrap();
            }
            prop_assert_eq!(&state, &start);
        }
    }

    #[test]
    fn what_differs_is_told((before, wanted) in two_states()) {
        let plan = InterfacePlan::between("eth1", Some(&running(&before)), Some(&wanted));
        let lines = plan.lines();
        prop_assert_eq!(lines[0].role, Role::Heading);
        prop_assert_eq!(lines.iter().any(|l| !matches!(l.role, Role::Heading | Role::Same)), !plan.is_empty());
        for slot in before.chain().slots.iter().filter(|slot| wanted.chain().slot(&slot.name).is_none()) {
            let start = format!("slot {}", slot.name);
            prop_assert!(lines.iter().any(|l| l.role == Role::Removed && l.text.starts_with(&start)));
        }
        serde_json::to_string(&plan).unwrap();
    }
}

fn chain(text: &str) -> State {
    let config = xdpchain_spec::Config::parse(text, std::path::Path::new("/etc/chains.yaml")).unwrap();
    let chain = &config.chains[0];
    let digest = |name: &str, spec: &ModuleSpec| {
        let sha256 = format!("{:0<64}", name.len() + spec.object.to_string().len());
        (name.to_owned(), ModuleBuild { spec: spec.clone(), sha256 })
    };
    let modules: BTreeMap<_, _> = config.modules.iter().map(|(name, spec)| digest(name, spec)).collect();
    State::new(chain, modules)
}

const BEFORE: &str = "version: 1
modules: { a: 'builtin:a', b: 'builtin:b', c: 'builtin:c', old: 'builtin:old' }
chains: { edge: { engine: auto, slots: [a, old, b, c] } }
";

const WANTED: &str = "version: 1
modules:
  a: { object: './a.o', maps: { rules: { max_entries: 64 } } }
  b: { object: 'builtin:b', imports: { sessions: a/sessions } }
  c: 'builtin:c'
  new: 'builtin:new'
chains:
  edge:
    engine: tail
    watch: { window: 90s, max_drop_increase: 2.5% }
    slots: [c, a: { proceed_on: [pass, tx] }, b, new: { on_unknown: drop }]
";

#[test]
fn a_plan_reads_like_the_chain() {
    let before: IndexMap<_, _> = [("eth1", BEFORE), ("eth3", BEFORE), ("eth4", BEFORE)]
        .map(|(i, t)| (i.to_owned(), running(&chain(t))))
        .into();
    let wanted: IndexMap<_, _> =
        [("eth1", WANTED), ("eth2", WANTED), ("eth4", BEFORE)].map(|(i, t)| (i.to_owned(), chain(t))).into();
    let plan = Plan::between(&before, &wanted);
    let expected = "\
eth1: change chain `edge`, generation 7
  ~ engine: auto -> tail
  ~ watch: none -> { window: 90s, max_drop_increase: 2.5% }
  ~ module a: object builtin:a (sha256 100000000000) -> /etc/a.o (sha256 900000000000)
  ~ module a: max_entries of rules as in the object -> 64
  ~ module b: map sessions its own -> imported from a/sessions
  + module new: builtin:new (sha256 140000000000)
  - module old: builtin:old (sha256 140000000000)
  > slot c: moved, was behind b
  ~ slot a: proceed_on as in the object -> [pass, tx]
  - slot old
    slot b
  + slot new (on_unknown drop)
eth2: attach chain `edge`
  + slot c: builtin:c (sha256 100000000000)
  + slot a (proceed_on [pass, tx]): /etc/a.o (sha256 900000000000)
  + slot b: builtin:b (sha256 100000000000)
  + slot new (on_unknown drop): builtin:new (sha256 140000000000)
eth4: chain `edge` runs as it is wanted, generation 7
eth3: detach chain `edge`, generation 7
  - slot a: builtin:a (sha256 100000000000)
  - slot old: builtin:old (sha256 140000000000)
  - slot b: builtin:b (sha256 100000000000)
  - slot c: builtin:c (sha256 100000000000)
";
    assert_eq!(plan.to_string(), expected);
    assert!(!plan.is_empty());
    assert!(
        Plan::between(&before, &before.iter().map(|(i, r)| (i.clone(), r.state.clone())).collect())
            .is_empty()
    );
}

#[test]
fn a_plan_is_json() {
    let plan = InterfacePlan::between("eth1", Some(&running(&chain(BEFORE))), Some(&chain(WANTED)));
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["interface"], "eth1");
    assert_eq!(json["action"], "change");
    assert_eq!(json["generation"], 7);
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(
        steps[0],
        serde_json::json!({ "step": "change-chain", "field": "engine", "from": "auto", "to": "tail" })
    );
    let of = |kind: &str| steps.iter().filter(|step| step["step"] == kind).collect::<Vec<_>>();
    assert_eq!(of("remove-slot")[0]["slot"]["name"], "old");
    assert_eq!(
        of("move-slot")[0],
        &serde_json::json!({ "step": "move-slot", "slot": "c", "from": 2, "to": 0 })
    );
    assert_eq!(of("change-slot")[0]["to"], serde_json::json!(["pass", "tx"]));
    assert_eq!(of("change-module")[0]["map"], "rules");
    assert_eq!(of("replace-object")[0]["to"]["object"], "/etc/a.o");
    assert_eq!(of("add-module")[0]["build"]["sha256"].as_str().unwrap().len(), 64);
}
