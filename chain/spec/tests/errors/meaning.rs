//! Files that are well written and make no sense.

use super::refused;

#[test]
fn a_name_that_cannot_be() {
    refused(
        r#"version: 1
modules:
  a.b: { object: a.o }
"#,
        r#"chains.yaml:3:3: `a.b` cannot be the name of a module
 3 |   a.b: { object: a.o }
   |   ^^^
help: use up to 63 letters, digits, `-` and `_`, with a letter or digit first
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: { object: "builtin:" }
"#,
        r#"chains.yaml:3:18: `` cannot be the name of a builtin object
 3 |   acl: { object: "builtin:" }
   |                  ^^^^^^^^^^^
help: use up to 63 letters, digits, `-` and `_`, with a letter or digit first
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: { object: a.o, imports: { rules: gtp } }
"#,
        r#"chains.yaml:3:41: `gtp` names no map in `modules.acl.imports.rules`
 3 |   acl: { object: a.o, imports: { rules: gtp } }
   |                                         ^^^
help: write it as `module/map`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { interfaces: [eth0/1], slots: [a] }
"#,
        r#"chains.yaml:5:24: `eth0/1` cannot be the name of an interface
 5 |   edge: { interfaces: [eth0/1], slots: [a] }
   |                        ^^^^^^
help: the kernel wants 1 to 15 octets without spaces, `/` and `:`; `ip link` lists the interfaces
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  "": { slots: [a] }
"#,
        r#"chains.yaml:5:3: `` cannot be the name of a chain
 5 |   "": { slots: [a] }
   |   ^^
help: use up to 63 letters, digits, `-` and `_`, with a letter or digit first
"#,
    );
}

#[test]
fn an_unknown_module() {
    refused(
        r#"version: 1
modules:
  gtp-decap: { object: "builtin:gtp-decap" }
  acl: { object: "builtin:acl" }
chains:
  edge: { slots: [gtp-decap, ac1] }
"#,
        r#"chains.yaml:6:30: unknown module `ac1` in `chains.edge.slots`
 6 |   edge: { slots: [gtp-decap, ac1] }
   |                              ^^^
help: did you mean `acl`? else declare `ac1` under `modules:`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { slots: [ratelimit] }
"#,
        r#"chains.yaml:5:19: unknown module `ratelimit` in `chains.edge.slots`
 5 |   edge: { slots: [ratelimit] }
   |                   ^^^^^^^^^
help: declare it under `modules:`; declared are a
"#,
    );
    refused(
        r#"version: 1
chains:
  edge: { slots: [acl] }
"#,
        r#"chains.yaml:3:19: unknown module `acl` in `chains.edge.slots`
 3 |   edge: { slots: [acl] }
   |                   ^^^
help: declare `acl` under `modules:`
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: { object: a.o, imports: { rules: alc/rules } }
"#,
        r#"chains.yaml:3:41: unknown module `alc` in `modules.acl.imports.rules`
 3 |   acl: { object: a.o, imports: { rules: alc/rules } }
   |                                         ^^^^^^^^^
help: did you mean `acl`? else declare `alc` under `modules:`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
sources:
  s: { from: "sqlite:s.db", table: t, maps: [a/x, b/x], key: id }
"#,
        r#"chains.yaml:5:51: unknown module `b` in `sources.s.maps[1]`
 5 |   s: { from: "sqlite:s.db", table: t, maps: [a/x, b/x], key: id }
   |                                                   ^^^
help: declare it under `modules:`; declared are a
"#,
    );
}

#[test]
fn imports_that_cannot_be() {
    refused(
        r#"version: 1
modules:
  acl: { object: a.o, imports: { rules: acl/rules } }
"#,
        r#"chains.yaml:3:41: modules import from each other in a circle: acl -> acl
 3 |   acl: { object: a.o, imports: { rules: acl/rules } }
   |                                         ^^^^^^^^^
help: let one of these modules own the map, and import it only in the others
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o, imports: { x: b/x } }
  b: { object: b.o, imports: { n: d/n, x: c/x } }
  c: { object: c.o, imports: { x: b/y } }
  d: { object: d.o }
"#,
        r#"chains.yaml:4:43: modules import from each other in a circle: b -> c -> b
 4 |   b: { object: b.o, imports: { n: d/n, x: c/x } }
   |                                           ^^^
help: let one of these modules own the map, and import it only in the others
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o, imports: { x: b/x }, maps: { x: { max_entries: 3 } } }
  b: { object: b.o }
"#,
        r#"chains.yaml:3:50: map `x` of module `a` is imported, so it has no size of its own
 3 |   a: { object: a.o, imports: { x: b/x }, maps: { x: { max_entries: 3 } } }
   |                                                  ^
help: set the size where the map is: under `maps:` of module `b`; remove `x` here
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o, imports: { x: b/x }, programs: { x: { 0: p } } }
  b: b.o
"#,
        r#"chains.yaml:3:54: program array `x` of module `a` is imported, so it holds what its owner puts there
 3 |   a: { object: a.o, imports: { x: b/x }, programs: { x: { 0: p } } }
   |                                                      ^
help: name programs of `b` under its own `programs:`; remove `x` here
"#,
    );
    refused(
        r#"version: 1
modules:
  acl:
    object: a.o
    maps: { rules: { max_entries: 0 } }
"#,
        r#"chains.yaml:5:35: map `rules` of module `acl` cannot have 0 entries
 5 |     maps: { rules: { max_entries: 0 } }
   |                                   ^
help: give at least 1, or remove the line to keep the object's size
"#,
    );
}

#[test]
fn an_order_that_cannot_be() {
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { slots: [] }
"#,
        r#"chains.yaml:5:11: chain `edge` has no slots
 5 |   edge: { slots: [] }
   |           ^^^^^
help: list at least one module under `slots:`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a
      - a: {}
"#,
        r#"chains.yaml:8:9: module `a` is twice in chain `edge`, which is not supported yet; first in line 7
 8 |       - a: {}
   |         ^
help: declare a second module with the object of `a` and another name, and use that
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { at: exit }
"#,
        r#"chains.yaml:6:5: every slot of chain `edge` runs at exit
 6 |     slots:
   |     ^^^^^
help: an exit slot only watches; add at least one slot without `at: exit`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
  b: { object: b.o }
chains:
  edge:
    slots:
      - a: { proceed_on: [] }
      - b
"#,
        r#"chains.yaml:9:9: slot `b` can never run: `a` before it has an empty `proceed_on`
 9 |       - b
   |         ^
help: move `b` before `a`, or let `a` proceed on some verdict
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
  b: { object: b.o }
chains:
  edge:
    slots:
      - a
      - b:
          at: exit
          proceed_on: [pass]
"#,
        r#"chains.yaml:11:11: `proceed_on` means nothing for slot `b`, whose verdict is ignored
 11 |           proceed_on: [pass]
    |           ^^^^^^^^^^
help: remove `proceed_on`, or remove `observer` and `at: exit` to let the module decide
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
  b: { object: b.o }
chains:
  edge:
    slots:
      - a
      - b: { at: exit, observer: false }
"#,
        r#"chains.yaml:9:24: slot `b` runs at exit, so it cannot be anything but an observer
 9 |       - b: { at: exit, observer: false }
   |                        ^^^^^^^^
help: remove `observer: false`, or remove `at: exit`
"#,
    );
}

#[test]
fn an_interface_in_two_chains() {
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { interfaces: [eth0, eth1], slots: [a] }
  core:
    interfaces:
      - eth1
    slots: [a]
"#,
        r#"chains.yaml:8:9: interface `eth1` is in chain `edge` already, in line 5
 8 |       - eth1
   |         ^^^^
help: an interface has one chain; remove `eth1` from one of the two
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { interfaces: [eth0, eth0], slots: [a] }
"#,
        r#"chains.yaml:5:30: interface `eth0` is in chain `edge` already, in line 5
 5 |   edge: { interfaces: [eth0, eth0], slots: [a] }
   |                              ^^^^
help: an interface has one chain; remove `eth0` from one of the two
"#,
    );
}

#[test]
fn a_gate_or_a_watch_that_looks_at_nothing() {
    refused(
        r#"version: 1
modules: { a: a.o }
chains:
  edge:
    slots: [a]
    gate: { fixtures: [] }
"#,
        r#"chains.yaml:6:5: the gate of chain `edge` has no packets
 6 |     gate: { fixtures: [] }
   |     ^^^^
help: list files under `fixtures:` or `pcap:`, or remove `gate`
"#,
    );
    refused(
        r#"version: 1
modules: { a: a.o }
chains:
  edge:
    slots: [a]
    gate:
      pcap:
        - gold.pcap
        - ""
"#,
        r#"chains.yaml:9:11: a path in `pcap` is empty
 9 |         - ""
   |           ^^
help: write the path of a file, or remove the item
"#,
    );
    refused(
        r#"version: 1
modules: { a: a.o }
chains:
  edge:
    slots: [a]
    watch: { window: 30s }
"#,
        r#"chains.yaml:6:5: the watch of chain `edge` has no limit
 6 |     watch: { window: 30s }
   |     ^^^^^
help: give `max_drop_increase` or `max_aborted`, or remove `watch`
"#,
    );
}

#[test]
fn a_number_without_its_unit() {
    refused(
        r#"version: 1
modules: { a: a.o }
chains:
  edge: { slots: [a], watch: { window: 30, max_aborted: 0 } }
"#,
        r#"chains.yaml:4:40: `30` is no span of time in `chains.edge.watch.window`
 4 |   edge: { slots: [a], watch: { window: 30, max_aborted: 0 } }
   |                                        ^^
help: write a whole number and a unit, from `1ms` to `24h`: `500ms`, `10s`, `5m`
"#,
    );
    refused(
        r#"version: 1
modules: { a: a.o }
chains:
  edge:
    slots: [a]
    watch:
      max_drop_increase: 0.2
"#,
        r#"chains.yaml:7:26: `0.2` is no percentage in `chains.edge.watch.max_drop_increase`
 7 |       max_drop_increase: 0.2
   |                          ^^^
help: write a number from 0 to 100 and the sign, `20%`, with up to two digits behind the point
"#,
    );
    refused(
        r#"version: 1
modules: { a: a.o }
chains:
  edge:
    slots: [a]
    watch: { max_aborted: -1 }
"#,
        r#"chains.yaml:6:27: wrong type for `chains.edge.watch.max_aborted`: found integer `-1`
 6 |     watch: { max_aborted: -1 }
   |                           ^^
help: expected a whole number, 0 or more
"#,
    );
}

fn refused_source(source: &str, said: &str) {
    refused(
        &format!(
            "version: 1\nmodules: {{ a: a.o, b: {{ object: b.o, imports: {{ m: a/m }} }} }}\nsources:\n{source}\n"
        ),
        said,
    );
}

#[test]
fn sources_that_cannot_fill_what_they_name() {
    refused_source(
        "  s: { from: 'sqlite:s.db', table: t, key: id, maps: [a/m] }
  t: { from: 'sqlite:s.db', table: u, key: id, maps: [a/n, a/m] }",
        "chains.yaml:5:60: map `a/m` is filled by source `s` already, in line 4
 5 |   t: { from: 'sqlite:s.db', table: u, key: id, maps: [a/n, a/m] }
   |                                                            ^^^
help: rows of one table fill a map; remove `a/m` from one of the two, or join the tables
",
    );
    refused_source(
        "  s: { from: 'sqlite:s.db', table: t, key: id, maps: [b/m] }",
        "chains.yaml:4:55: map `m` of module `b` is imported, so a source cannot fill it by this name
 4 |   s: { from: 'sqlite:s.db', table: t, key: id, maps: [b/m] }
   |                                                       ^^^
help: name its owner's map: `a/m`
",
    );
    refused_source(
        "  s: { from: 'sqlite:s.db', table: t, key: id, maps: [] }",
        "chains.yaml:4:54: source `s` fills no map
 4 |   s: { from: 'sqlite:s.db', table: t, key: id, maps: [] }
   |                                                      ^
help: list at least one, as `module/map`
",
    );
    refused_source(
        "  s: { columns: { a/n.x: y }, from: 'sqlite:s.db', table: t, key: id, maps: [a/m] }",
        "chains.yaml:4:19: `a/n.x` is about no map of source `s`
 4 |   s: { columns: { a/n.x: y }, from: 'sqlite:s.db', table: t, key: id, maps: [a/m] }
   |                   ^^^^^
help: write `module/map.field` with one of its `maps`
",
    );
    refused_source(
        "  s: { constants: { x: 1 }, columns: { x: y }, from: 'sqlite:s.db', table: t, key: id, maps: [a/m] }",
        "chains.yaml:4:21: `x` of source `s` has both a column and a constant
 4 |   s: { constants: { x: 1 }, columns: { x: y }, from: 'sqlite:s.db', table: t, key: id, maps: [a/m] }
   |                     ^
help: remove one of the two
",
    );
}

#[test]
fn a_password_is_never_shown() {
    refused_source(
        "  s: { maps: [], from: 'postgres://u:geheim@h/d', table: t, key: id }",
        "chains.yaml:4:14: source `s` fills no map
 4 |   s: { maps: [], from: 'postgres://u:******@h/d', table: t, key: id }
   |              ^
help: list at least one, as `module/map`
",
    );
    refused_source(
        "  s: 'postgres://u:geheim@h/d'",
        "chains.yaml:4:6: wrong type for `sources.s`: found string \"postgres://u:******@h/d\"
 4 |   s: 'postgres://u:******@h/d'
   |      ^^^^^^^^^^^^^^^^^^^^^^^^^
help: expected a mapping, `key: value`
",
    );
}
