//! Edits written back into a file: what was to change changes, every comment and every other line stays.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use xdpchain_spec::save::{FileEdit, SaveError, save};
use xdpchain_spec::{Config, ObjectRef, Place, Position, SlotSpec, Verdict, VerdictSet};

/// The example at the top of the repository.
const EXAMPLE: &str = include_str!("../../../chains.yaml");

const FILE: &str = "/etc/xdpchain/chains.yaml";

/// Both styles, comments everywhere, quotes of both kinds.
const MIXED: &str = "# head
version: 1 # one
modules:
  # the first
  a: './a.o' # a's object
  b: { object: \"builtin:b\", program: main } # b's
  c:
    # where c is
    object: /opt/c.o   # there
    program: one # of two
    maps: { m: { max_entries: 5 } }
    # c's end
  # after c
chains: # here
  one:
    interfaces: [eth1] # in
    slots:
      # before a
      - a # beside a
      # before b
      - b: { at: order }
      - c:
          # inside c
          proceed_on:
            - pass # proceeds
          # below c
      # the end
    engine: fused
  two: { interfaces: [eth2], slots: [c, \"a\" , b: { at: exit }] } # two
# tail";

fn saved(text: &str, chain: &str, edit: &FileEdit<'_>) -> String {
    save(text, Path::new(FILE), chain, edit).unwrap_or_else(|error| panic!("{error}"))
}

/// The lines of `after` that `before` has not, and the other way round.
fn diff<'a>(before: &'a str, after: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut gone: Vec<&str> = before.lines().collect();
    let mut came = Vec::new();
    for line in after.lines() {
        match gone.iter().position(|other| *other == line) {
            Some(at) => drop(gone.remove(at)),
            None => came.push(line),
        }
    }
    (gone, came)
}

fn add<'a>(slot: &'a SlotSpec, position: &'a Position, object: &'a ObjectRef) -> FileEdit<'a> {
    FileEdit::Add { slot, position, object, program: None }
}

#[test]
fn a_new_slot_is_one_line_and_its_module_another() {
    let object: ObjectRef = "/etc/xdpchain/vendor/ratelimit.o".parse().unwrap();
    let slot = SlotSpec { on_unknown: Verdict::Drop, ..SlotSpec::new("ratelimit") };
    let after = saved(EXAMPLE, "edge", &add(&slot, &Position::After("acl".into()), &object));
    let (gone, came) = diff(EXAMPLE, &after);
    assert_eq!(gone, Vec::<&str>::new());
    let module = "  ratelimit: { object: \"./vendor/ratelimit.o\" }";
    assert_eq!(came, [module, "      - ratelimit: { on_unknown: drop }"]);
    let lines: Vec<&str> = after.lines().collect();
    let at = lines.iter().position(|line| line.contains("on_unknown: drop }")).unwrap();
    assert_eq!(lines[at - 1].trim(), "on_unknown: drop", "right behind the options of `acl`");

    let flow = saved(MIXED, "two", &add(&slot, &Position::Last, &object));
    assert!(
        flow.contains("slots: [c, \"a\" , ratelimit: { on_unknown: drop }, b: { at: exit }] } # two"),
        "{flow}"
    );
    let exit = SlotSpec { observer: true, at: Place::Exit, ..SlotSpec::new("true") };
    let end = saved(MIXED, "two", &add(&exit, &Position::Last, &ObjectRef::Builtin("stats".into())));
    assert!(end.contains("b: { at: exit }, \"true\": { at: exit }] } # two"), "{end}");
    assert!(end.contains("\n  \"true\": { object: \"builtin:stats\" }\n"), "{end}");
}

#[test]
fn a_slot_that_goes_leaves_the_comments_around_it() {
    let after = saved(MIXED, "one", &FileEdit::Remove { slot: "b" });
    assert_eq!(diff(MIXED, &after), (vec!["      - b: { at: order }"], vec![]));
    let after = saved(MIXED, "one", &FileEdit::Remove { slot: "c" });
    let (gone, came) = diff(MIXED, &after);
    assert_eq!(gone.len(), 5, "{gone:?}");
    assert!(came.is_empty() && after.contains("      # the end\n    engine: fused"), "{after}");
    for (slot, rest) in
        [("c", "[\"a\" , b: { at: exit }]"), ("a", "[c, b: { at: exit }]"), ("b", "[c, \"a\"]")]
    {
        let after = saved(MIXED, "two", &FileEdit::Remove { slot });
        assert!(after.contains(&format!("slots: {rest} }} # two")), "{after}");
    }
}

#[test]
fn a_slot_moves_with_what_is_said_of_it() {
    let edit = FileEdit::Move { slot: "c", position: &Position::First };
    let after = saved(MIXED, "one", &edit);
    let expected = "    slots:
      - c:
          # inside c
          proceed_on:
            - pass # proceeds
          # below c
      # before a
      - a # beside a
      # before b
      - b: { at: order }
      # the end
";
    assert!(after.contains(expected), "{after}");
    let edit = FileEdit::Move { slot: "a", position: &Position::Last };
    let after = saved(MIXED, "one", &edit);
    assert!(
        after.contains("          # below c\n      # before a\n      - a # beside a\n      # the end\n"),
        "{after}"
    );
    let edit = FileEdit::Move { slot: "a", position: &Position::First };
    let after = saved(MIXED, "two", &edit);
    assert!(after.contains("slots: [\"a\", c, b: { at: exit }] } # two"), "{after}");
    let same = FileEdit::Move { slot: "a", position: &Position::First };
    assert_eq!(saved(MIXED, "one", &same), MIXED);
}

#[test]
fn another_object_is_written_where_the_old_one_was() {
    let object: ObjectRef = "/etc/xdpchain/new a.o".parse().unwrap();
    let replace = |slot, program| FileEdit::Replace { slot, object: &object, program };
    let after = saved(MIXED, "one", &replace("a", None));
    assert_eq!(diff(MIXED, &after).1, ["  a: \"./new a.o\" # a's object"]);
    let after = saved(MIXED, "one", &replace("a", Some("two")));
    assert_eq!(diff(MIXED, &after).1, ["  a: { object: \"./new a.o\", program: two } # a's object"]);
    let after = saved(MIXED, "one", &replace("b", Some("main")));
    assert_eq!(diff(MIXED, &after).1, ["  b: { object: \"./new a.o\", program: main } # b's"]);
    let after = saved(MIXED, "two", &replace("b", None));
    assert_eq!(diff(MIXED, &after).1, ["  b: { object: \"./new a.o\" } # b's"]);
    let after = saved(MIXED, "one", &replace("c", None));
    let (gone, came) = diff(MIXED, &after);
    assert_eq!(gone, ["    object: /opt/c.o   # there", "    program: one # of two"]);
    assert_eq!(came, ["    object: \"./new a.o\"   # there"]);
    let builtin = ObjectRef::Builtin("c".into());
    let edit = FileEdit::Replace { slot: "c", object: &builtin, program: Some("2nd") };
    let after = saved(MIXED, "one", &edit);
    assert_eq!(diff(MIXED, &after).1, ["    object: builtin:c   # there", "    program: \"2nd\" # of two"]);
}

#[test]
fn a_file_that_cannot_be_edited_so_stays_as_it_is() {
    let remove = FileEdit::Remove { slot: "a" };
    let refused = |text: &str, chain: &str, edit: &FileEdit<'_>| {
        save(text, Path::new(FILE), chain, edit).expect_err("it cannot be saved")
    };
    let shared =
        "version: 1\nmodules: { a: a.o, b: b.o }\nchains:\n  x: { slots: &s [a, b] }\n  y: { slots: *s }\n";
    let error = refused(shared, "y", &remove);
    assert!(matches!(error, SaveError::Layout { .. }), "{error}");
    assert!(error.to_string().contains("\nhelp: change it by hand"), "{error}");
    assert!(matches!(refused(MIXED, "three", &remove), SaveError::NoChain { .. }));
    assert!(matches!(refused(MIXED, "one", &FileEdit::Remove { slot: "q" }), SaveError::Edit { .. }));
    assert!(matches!(refused("version: 2\n", "one", &remove), SaveError::Spec(_)));
    let lines = "version: 1\nmodules: { a: a.o, b: b.o }\nchains:\n  x:\n    slots: [\n      a, # first\n      b\n    ]\n";
    assert!(matches!(refused(lines, "x", &remove), SaveError::Layout { .. }));
}

#[test]
fn line_ends_and_a_byte_order_mark_stay() {
    let windows = format!("\u{feff}{}", MIXED.replace('\n', "\r\n"));
    let edit = FileEdit::Move { slot: "b", position: &Position::Last };
    let after = saved(&windows, "one", &edit);
    assert_eq!(after.replace("\r\n", "\n"), format!("\u{feff}{}", saved(MIXED, "one", &edit)));
    assert!(!after.replace("\r\n", "").contains('\n'));
}

#[derive(Clone, Debug)]
enum Owned {
    Add(SlotSpec, Position, ObjectRef, Option<String>),
    Remove(String),
    Replace(String, ObjectRef, Option<String>),
    Move(String, Position),
}

impl Owned {
    fn edit(&self) -> FileEdit<'_> {
        match self {
            Self::Add(slot, position, object, program) => {
                FileEdit::Add { slot, position, object, program: program.as_deref() }
            }
            Self::Remove(slot) => FileEdit::Remove { slot },
            Self::Replace(slot, object, program) => {
                FileEdit::Replace { slot, object, program: program.as_deref() }
            }
            Self::Move(slot, position) => FileEdit::Move { slot, position },
        }
    }
}

fn an_edit() -> impl Strategy<Value = Owned> {
    let name = || select(&["a", "b", "c", "acl", "stats", "gre-decap", "new", "on", "7"][..]);
    let position = (0..4, name()).prop_map(|(kind, slot)| match kind {
        0 => Position::First,
        1 => Position::Last,
        2 => Position::Before(slot.to_owned()),
        _ => Position::After(slot.to_owned()),
    });
    let object = select(&["builtin:acl", "/etc/xdpchain/x.o", "/opt/é \"x\" # y.o", "/opt/x: y.o"][..])
        .prop_map(|text| text.parse::<ObjectRef>().expect("any text names an object"));
    let program = proptest::option::of(select(&["main", "null", "a b", "#"][..]).prop_map(str::to_owned));
    let slot =
        (name(), proptest::option::of(0..32_u32), any::<bool>()).prop_map(|(name, set, exit)| SlotSpec {
            proceed_on: set.filter(|_| !exit).map(VerdictSet::from_bits),
            observer: exit,
            at: if exit { Place::Exit } else { Place::Order },
            ..SlotSpec::new(name)
        });
    prop_oneof![
        (slot, position.clone(), object.clone(), program.clone())
            .prop_map(|(s, p, o, m)| Owned::Add(s, p, o, m)),
        name().prop_map(|slot| Owned::Remove(slot.to_owned())),
        (name(), object, program).prop_map(|(s, o, m)| Owned::Replace(s.to_owned(), o, m)),
        (name(), position).prop_map(|(s, p)| Owned::Move(s.to_owned(), p)),
    ]
}

/// What stands behind the first `#` that is not in quotes, of each line.
fn comments(text: &str) -> Vec<String> {
    let comment = |line: &str| {
        let mut quote = None;
        for (at, c) in line.char_indices() {
            match (quote, c) {
                (None, '#') if at == 0 || line[..at].ends_with(' ') => {
                    return Some(line[at..].trim().to_owned());
                }
                (None, '"' | '\'') if line[..at].ends_with([' ', '[', '{', ',']) => quote = Some(c),
                (Some(open), c) if c == open && !line[..at].ends_with('\\') => quote = None,
                _ => {}
            }
        }
        None
    };
    let mut all: Vec<String> = text.lines().filter_map(comment).collect();
    all.sort();
    all
}

proptest! {
    #[test]
    fn no_comment_is_lost_and_every_edit_in_the_example_is_made(
        edits in proptest::collection::vec(an_edit(), 1..5),
        base in select(&[(EXAMPLE, "edge"), (MIXED, "one"), (MIXED, "two")][..]),
    ) {
        let (mut text, chain) = (base.0.to_owned(), base.1);
        for owned in edits {
            match save(&text, Path::new(FILE), chain, &owned.edit()) {
                Ok(after) => {
                    let removed = matches!(owned, Owned::Remove(_) | Owned::Replace(..));
                    // A module that is there already, and is added without the name of a program, loses the entry that names one.
                    let unnamed = matches!(owned, Owned::Add(_, _, _, None));
                    let mut lost = comments(&text);
                    for comment in comments(&after) {
                        let at = lost.iter().position(|before| *before == comment);
                        prop_assert!(at.is_some(), "{comment} is new\n{owned:?}\n{text}\n->\n{after}");
                        lost.remove(at.expect("it was asked for just now"));
                    }
                    let beside_program = |comment: &String| {
                        let stands = |line: &str| line.trim_start().starts_with("program:") && line.ends_with(&**comment);
                        text.lines().any(stands)
                    };
                    let may = removed || unnamed && lost.len() <= 1 && lost.iter().all(beside_program);
                    prop_assert!(may || lost.is_empty(), "{owned:?}\n{text}\n->\n{after}");
                    Config::parse(&after, Path::new(FILE)).unwrap();
                    text = after;
                }
                Err(SaveError::Edit { .. }) => {}
                Err(error) => prop_assert!(false, "{owned:?}: {error}\n{text}"),
            }
        }
    }

    #[test]
    fn a_damaged_file_is_saved_right_or_refused(
        at in 0..MIXED.len(),
        put in "[-a-c&*!|>'\"{}\\[\\]:,?#<~ \n]{0,4}",
        owned in an_edit(),
    ) {
        let mut text = MIXED.to_owned();
        text.insert_str(at, &put);
        for chain in ["one", "two"] {
            if let Ok(after) = save(&text, Path::new(FILE), chain, &owned.edit()) {
                Config::parse(&after, Path::new(FILE)).unwrap();
            }
        }
    }
}
