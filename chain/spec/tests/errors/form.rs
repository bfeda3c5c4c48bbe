//! Files that are not written as they should be.

use super::refused;

#[test]
fn a_file_that_is_no_configuration() {
    refused(
        "",
        r#"chains.yaml:1:1: the file is empty
help: a chains.yaml has at least `version: 1`, `modules:` and `chains:`
"#,
    );
    refused(
        r#"# nothing
"#,
        r#"chains.yaml:1:1: the file is empty
 1 | # nothing
   | ^
help: a chains.yaml has at least `version: 1`, `modules:` and `chains:`
"#,
    );
    refused(
        r#"hello
"#,
        r#"chains.yaml:1:1: wrong type of the file: found string "hello"
 1 | hello
   | ^^^^^
help: expected a mapping, `key: value`
"#,
    );
    refused(
        r#"- a
"#,
        r#"chains.yaml:1:1: wrong type of the file: found a list
 1 | - a
   | ^
help: expected a mapping, `key: value`
"#,
    );
    refused(
        r#"version: 2
new: 1
"#,
        r#"chains.yaml:1:10: version `2` is not supported
 1 | version: 2
   |          ^
help: this xdpchain reads `version: 1`
"#,
    );
    refused(
        r#"version: one
"#,
        r#"chains.yaml:1:10: wrong type for `version`: found string "one"
 1 | version: one
   |          ^^^
help: expected a whole number from 0 to 4294967295
"#,
    );
    refused(
        r#"modules: {}
"#,
        r#"chains.yaml:1:1: missing key `version`
 1 | modules: {}
   | ^
help: add `version:`
"#,
    );
    refused(
        r#"version: 1
---
version: 1
"#,
        r#"chains.yaml:2:1: a second document begins here
 2 | ---
   | ^^^
help: keep everything in one document, and remove the `---`
"#,
    );
}

#[test]
fn text_that_is_not_yaml() {
    // To YAML a carriage return alone ends a line.
    refused(
        "version: 1\rmodules:\r  a: { object: a.o\rchains: {}\r",
        r#"chains.yaml:4:7: not YAML: while parsing a flow mapping, did not find expected ',' or '}'
 4 | chains: {}
   |       ^
help: look at the indentation, the quotes and the brackets around this place
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o
chains: {}
"#,
        r#"chains.yaml:4:7: not YAML: while parsing a flow mapping, did not find expected ',' or '}'
 4 | chains: {}
   |       ^
help: look at the indentation, the quotes and the brackets around this place
"#,
    );
    refused(
        r#"version: 1
modules:
	a: { object: a.o }
"#,
        r#"chains.yaml:3:2: not YAML: tabs disallowed within this context (block indentation)
 3 |  a: { object: a.o }
   |  ^
help: look at the indentation, the quotes and the brackets around this place
"#,
    );
    refused(
        r#"version: 1
modules:
  a: &x { object: *x }
"#,
        r#"chains.yaml:3:19: an alias of something that it is part of
 3 |   a: &x { object: *x }
   |                   ^^
help: write the value out in place of the alias
"#,
    );
    refused(
        r#"version: 1
modules:
  a: *x
"#,
        r#"chains.yaml:3:6: not YAML: while parsing node, found unknown anchor
 3 |   a: *x
   |      ^
help: look at the indentation, the quotes and the brackets around this place
"#,
    );
    refused(
        r#"version: 1
? [a]
: 3
"#,
        r#"chains.yaml:2:3: a key must be a name
 2 | ? [a]
   |   ^
help: put a name in front of the colon
"#,
    );
    refused(
        r#"version: 1
modules: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
"#,
        r#"chains.yaml:2:41: nested more than 32 levels deep
 2 | modules: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
   |                                         ^
help: nothing in chains.yaml is nested so deep
"#,
    );
}

#[test]
fn an_unknown_key() {
    refused(
        r#"version: 1
modulse: {}
"#,
        r#"chains.yaml:2:1: unknown key `modulse`
 2 | modulse: {}
   | ^^^^^^^
help: did you mean `modules`? keys here are version, modules, chains, sources and agent
"#,
    );
    refused(
        r#"version: 1
frobnicate: {}
"#,
        r#"chains.yaml:2:1: unknown key `frobnicate`
 2 | frobnicate: {}
   | ^^^^^^^^^^
help: keys here are version, modules, chains, sources and agent
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: { objct: "builtin:acl" }
"#,
        r#"chains.yaml:3:10: unknown key `objct` in `modules.acl`
 3 |   acl: { objct: "builtin:acl" }
   |          ^^^^^
help: did you mean `object`? keys here are object, program, maps, imports, programs, exports and migrate
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { proced_on: [pass] }
"#,
        r#"chains.yaml:7:14: unknown key `proced_on` in `chains.edge.slots[0].a`
 7 |       - a: { proced_on: [pass] }
   |              ^^^^^^^^^
help: did you mean `proceed_on`? keys here are proceed_on, on_unknown, observer and at
"#,
    );
}

#[test]
fn a_duplicate_key() {
    refused(
        r#"version: 1
version: 1
"#,
        r#"chains.yaml:2:1: duplicate key `version`, first given in line 1
 2 | version: 1
   | ^^^^^^^
help: remove or rename one of the two `version`
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: { object: "builtin:acl" }
  acl: { object: x.o }
"#,
        r#"chains.yaml:4:3: duplicate key `acl` in `modules`, first given in line 3
 4 |   acl: { object: x.o }
   |   ^^^
help: remove or rename one of the two `acl`
"#,
    );
    refused(
        r#"version: 1
modules:
  acl:
    object: a.o
    maps: { rules: { max_entries: 5 } }
    object: b.o
"#,
        r#"chains.yaml:6:5: duplicate key `object` in `modules.acl`, first given in line 4
 6 |     object: b.o
   |     ^^^^^^
help: remove or rename one of the two `object`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { slots: [a] }
  edge: { slots: [a] }
"#,
        r#"chains.yaml:6:3: duplicate key `edge` in `chains`, first given in line 5
 6 |   edge: { slots: [a] }
   |   ^^^^
help: remove or rename one of the two `edge`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { at: order, at: exit }
"#,
        r#"chains.yaml:7:25: duplicate key `at` in `chains.edge.slots[0].a`, first given in line 7
 7 |       - a: { at: order, at: exit }
   |                         ^^
help: remove or rename one of the two `at`
"#,
    );
}

#[test]
fn a_missing_key() {
    refused(
        r#"version: 1
modules:
  acl:
    program: x
"#,
        r#"chains.yaml:3:3: missing key `object` in `modules.acl`
 3 |   acl:
   |   ^^^
help: add `object:`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { interfaces: [eth0] }
"#,
        r#"chains.yaml:5:3: missing key `slots` in `chains.edge`
 5 |   edge: { interfaces: [eth0] }
   |   ^^^^
help: add `slots:`
"#,
    );
}

#[test]
fn a_wrong_type() {
    refused(
        r#"version: 1
modules:
  acl:
    object: a.o
    maps: { rules: { max_entries: lots } }
"#,
        r#"chains.yaml:5:35: wrong type for `modules.acl.maps.rules.max_entries`: found string "lots"
 5 |     maps: { rules: { max_entries: lots } }
   |                                   ^^^^
help: expected a whole number from 0 to 4294967295
"#,
    );
    refused(
        r#"version: 1
modules:
  acl:
    object: a.o
    maps: { rules: { max_entries: 4294967296 } }
"#,
        r#"chains.yaml:5:35: wrong type for `modules.acl.maps.rules.max_entries`: found integer `4294967296`
 5 |     maps: { rules: { max_entries: 4294967296 } }
   |                                   ^^^^^^^^^^
help: expected a whole number from 0 to 4294967295
"#,
    );
    refused(
        r#"version: 1
modules:
  acl:
    object: a.o
    maps: [rules]
"#,
        r#"chains.yaml:5:11: wrong type for `modules.acl.maps`: found a list
 5 |     maps: [rules]
   |           ^
help: expected a mapping, `key: value`
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: [x.o]
"#,
        r#"chains.yaml:3:8: wrong type for `modules.acl`: found a list
 3 |   acl: [x.o]
   |        ^
help: expected an object, alone or with options: `builtin:acl` or `{ object: ./acl.o }`
"#,
    );
    refused(
        r#"version: 1
modules:
  acl:
    object: x.o
    programs: { jumps: { first: a } }
"#,
        r#"chains.yaml:5:24: wrong type for `modules.acl.programs.jumps`: found string "first"
 5 |     programs: { jumps: { first: a } }
   |                        ^^
help: expected a whole number from 0 to 4294967295
"#,
    );
    refused(
        r#"version: 1
modules:
  acl: { object: [a] }
"#,
        r#"chains.yaml:3:18: wrong type for `modules.acl.object`: found a list
 3 |   acl: { object: [a] }
   |                  ^
help: expected text that is not empty
"#,
    );
    refused(
        r#"version: 1
modules:
  acl:
    object:
    program: p
chains: {}
"#,
        r#"chains.yaml:4:5: wrong type for `modules.acl.object`: found nothing
 4 |     object:
   |     ^^^^^^
help: expected text that is not empty
"#,
    );
    refused(
        r#"version: 1
modules: { acl: "" }
chains: {}
"#,
        r#"chains.yaml:2:17: wrong type for `modules.acl`: found string ""
 2 | modules: { acl: "" }
   |                 ^^^
help: expected text that is not empty
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { interfaces: eth0, slots: [a] }
"#,
        r#"chains.yaml:5:23: wrong type for `chains.edge.interfaces`: found string "eth0"
 5 |   edge: { interfaces: eth0, slots: [a] }
   |                       ^^^^
help: expected a list, `[a, b]`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { mode: [native], slots: [a] }
"#,
        r#"chains.yaml:5:17: wrong type for `chains.edge.mode`: found a list
 5 |   edge: { mode: [native], slots: [a] }
   |                 ^
help: expected one word
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { proceed_on: pass }
"#,
        r#"chains.yaml:7:26: wrong type for `chains.edge.slots[0].a.proceed_on`: found string "pass"
 7 |       - a: { proceed_on: pass }
   |                          ^^^^
help: expected a list, `[a, b]`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { observer: maybe }
"#,
        r#"chains.yaml:7:24: wrong type for `chains.edge.slots[0].a.observer`: found string "maybe"
 7 |       - a: { observer: maybe }
   |                        ^^^^^
help: expected true or false
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots: [7]
"#,
        r#"chains.yaml:6:13: wrong type for `chains.edge.slots[0]`: found integer `7`
 6 |     slots: [7]
   |             ^
help: expected a module's name, alone or with options: `name` or `name: { at: exit }`
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a:
        proceed_on: [pass]
"#,
        r#"chains.yaml:7:9: a slot names one module, here are `a` and `proceed_on` in `chains.edge.slots[0]`
 7 |       - a:
   |         ^
help: write each module as its own `- item`, and indent options further than the module: `- a: { … }`
"#,
    );
}

#[test]
fn an_unknown_word() {
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { engine: fuse, slots: [a] }
"#,
        r#"chains.yaml:5:19: `chains.edge.engine` cannot be `fuse`
 5 |   edge: { engine: fuse, slots: [a] }
   |                   ^^^^
help: did you mean `fused`? it can be auto, fused, tail or libxdp
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge: { default: 3, slots: [a] }
"#,
        r#"chains.yaml:5:20: `chains.edge.default` cannot be `3`
 5 |   edge: { default: 3, slots: [a] }
   |                    ^
help: it can be keep, pass or drop
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { proceed_on: [pas, drop] }
"#,
        r#"chains.yaml:7:27: `chains.edge.slots[0].a.proceed_on[0]` cannot be `pas`
 7 |       - a: { proceed_on: [pas, drop] }
   |                           ^^^
help: did you mean `pass`? it can be aborted, drop, pass, tx or redirect
"#,
    );
    refused(
        r#"version: 1
modules:
  a: { object: a.o }
chains:
  edge:
    slots:
      - a: { on_unknown: XDP_DROP }
"#,
        r#"chains.yaml:7:26: `chains.edge.slots[0].a.on_unknown` cannot be `XDP_DROP`
 7 |       - a: { on_unknown: XDP_DROP }
   |                          ^^^^^^^^
help: did you mean `drop`? it can be aborted, drop, pass, tx or redirect
"#,
    );
}
