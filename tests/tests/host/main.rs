//! The host crate on real interfaces, with programs of a few instructions made by hand.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use xdpchain_compose::{EXIT_COLUMNS, EXIT_MAP, EXIT_ROWS, MapOwner, MapUse};
use xdpchain_host::load::load;
use xdpchain_host::sys;
use xdpchain_host::{AttachMode, Compose, Error, Host, Objects, Places, Recovered, Terms};
use xdpchain_spec::Mode;
use xdpchain_tests::{Netns, Port, veth};

mod made;
mod maps;

use made::*;

#[test]
fn a_chain_outlives_its_command_is_swapped_and_leaves_nothing() {
    let (node, peer) = pair();
    let roots = Roots::new();
    let first = roots.with(&node, |host| attach(host, "eth0", counting(PASS)));
    assert_eq!((first.generation, first.mode, first.mode_reason.as_deref()), (1, AttachMode::Native, None));
    assert_eq!(node.xdp_program("eth0"), Some(first.program.id), "the command is over and the chain runs");

    let (out, into) = (Port::open(&peer, "eth0"), Port::open(&node, "eth0"));
    let frame = frame(&node, &peer);
    out.send(&frame);
    assert_eq!(into.receive_where(Duration::from_secs(2), |f| f == frame).as_deref(), Some(&frame[..]));
    assert_eq!(roots.with(&node, hits), 1);

    let second = roots.with(&node, |host| attach(host, "eth0", counting(DROP)));
    assert_eq!(second.generation, 2);
    assert_ne!(second.program.id, first.program.id);
    assert_eq!(node.xdp_program("eth0"), Some(second.program.id));
    assert_eq!(second.maps, first.maps, "the module keeps its map over a swap");
    out.send(&frame);
    eventually("the new program counts on", || roots.with(&node, hits) == 2);
    assert_eq!(into.receive_where(Duration::from_millis(100), |f| f == frame), None, "and drops");
    eventually("the old program is unloaded", || sys::prog_by_id(first.program.id).is_err());

    roots.with(&node, |host| {
        let status = host.status("eth0").expect("a chain");
        assert_eq!(status.problems, Vec::<String>::new());
        assert_eq!(status.manifest, second);
        assert_eq!(status.program.map(|p| p.id), Some(second.program.id));
        assert_eq!(status.maps.len(), 1);
        assert!(status.maps[0].memory > 0);
        assert_eq!(host.history("eth0").expect("readable"), [first.clone(), second.clone()]);
        assert_eq!(host.interfaces().expect("readable"), ["eth0"]);
        assert_eq!(host.detach("eth0").expect("detaches").manifest, Some(second.clone()));
    });
    assert_eq!(node.xdp_program("eth0"), None);
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
    eventually("the program is unloaded", || sys::prog_by_id(second.program.id).is_err());
    roots.with(&node, |host| {
        let error = host.detach("eth0").expect_err("there is none any more");
        assert!(matches!(error, Error::NoChain { .. }), "{error}");
        let error = host.detach("eth7").expect_err("there is no such interface");
        assert!(matches!(error, Error::NoInterface { .. }), "{error}");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_link_that_something_else_updated_is_not_overwritten() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let first = attach(host, "eth0", image("first", returning(PASS), vec![], vec![]));
        let other = load(&image("other", returning(DROP), vec![], vec![]), &mut |_| Ok(None)).expect("loads");
        let link = sys::open_pin(&roots.pins.join(node.inode().to_string()).join("interfaces/eth0/link"))
            .expect("pinned");
        let old = sys::prog_by_id(first.program.id).expect("runs");
        sys::link_update(link.as_fd(), other.program.as_fd(), old.as_fd()).expect("as another tool would");
        let stale = sys::link_update(link.as_fd(), old.as_fd(), old.as_fd());
        assert!(stale.is_err(), "the compare in compare-and-swap");

        let error = change_to(host, "eth0", &["counter"], Mode::Auto, counting(PASS)).expect_err("refused");
        assert!(matches!(error, Error::Swapped { found, .. } if found == other.info.id), "{error}");
        assert_eq!(error.class().code(), 7);
        assert_eq!(node.xdp_program("eth0"), Some(other.info.id), "what ran still runs");
        assert_eq!(host.manifest("eth0").expect("kept"), first);
        assert_eq!(host.maps().expect("readable"), [], "the map that was made for it is gone");
        assert!(host.module_map("counter", "hits").is_err());
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn two_interfaces_share_a_modules_map_until_the_last_one_leaves() {
    let (node, peer) = pair();
    veth((&node, "eth1"), (&peer, "eth1"));
    let roots = Roots::new();
    roots.with(&node, |host| {
        let (a, b) = (attach(host, "eth0", counting(PASS)), attach(host, "eth1", counting(DROP)));
        assert_eq!(a.maps, b.maps);
        let maps = host.maps().expect("readable");
        assert_eq!(maps.len(), 1);
        assert_eq!(maps[0].interfaces, ["eth0", "eth1"]);
        host.detach("eth0").expect("detaches");
        assert_eq!(hits(host), 0, "the map is still there");
        assert!(node.xdp_program("eth1").is_some());
        host.detach("eth1").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let theirs =
            load(&image("theirs", returning(PASS), vec![], vec![]), &mut |_| Ok(None)).expect("loads");
        let link = sys::link_create_xdp(theirs.program.as_fd(), node.ifindex("eth0"), 0).expect("free");
        let error = change_to(host, "eth0", &["counter"], Mode::Auto, counting(DROP)).expect_err("busy");
        assert_eq!(error.class().code(), 7);
        let text = error.to_string();
        assert!(text.contains(&format!("id {}, `theirs`", theirs.info.id)), "{text}");
        assert!(text.contains("bpftool link detach id"), "{text}");
        assert_eq!(node.xdp_program("eth0"), Some(theirs.info.id));
        assert_eq!(roots.left(), Vec::<PathBuf>::new());

        drop(link);
        let pin = PathBuf::from(format!("{}-theirs", roots.pins.display()));
        sys::pin(theirs.program.as_fd(), &pin).expect("pinned");
        // Not by `ip -n`, which hides /sys/fs/bpf.
        node.sh("ip", &["link", "set", "dev", "eth0", "xdpgeneric", "pinned", &pin.to_string_lossy()]);
        std::fs::remove_file(&pin).expect("there");
        let error = change_to(host, "eth0", &["counter"], Mode::Auto, counting(DROP)).expect_err("busy");
        assert!(matches!(&error, Error::Foreign { id, .. } if *id == theirs.info.id), "{error}");
        assert!(error.to_string().contains("`ip link set dev eth0 xdpgeneric off`"), "{error}");
        node.ip("link set dev eth0 xdpgeneric off");
        attach(host, "eth0", counting(PASS));
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_driver_without_native_xdp_is_told_and_gets_generic() {
    let ns = Netns::new("lo");
    let roots = Roots::new();
    roots.with(&ns, |host| {
        let error = change_to(host, "lo", &["counter"], Mode::Native, counting(PASS)).expect_err("it cannot");
        assert!(matches!(error, Error::Driver { mode: "native", .. }), "{error}");
        assert_eq!(error.class().code(), 5);
        assert_eq!(roots.left(), Vec::<PathBuf>::new());

        let auto = attach(host, "lo", counting(PASS));
        assert_eq!(auto.mode, AttachMode::Generic);
        assert!(
            auto.mode_reason.as_deref().is_some_and(|r| r.contains("no XDP in this mode")),
            "{:?}",
            auto.mode_reason
        );
        let error = change_to(host, "lo", &["counter"], Mode::Native, counting(PASS)).expect_err("attached");
        assert!(matches!(error, Error::ModeChange { current: "generic", .. }), "{error}");
        let again = change_to(host, "lo", &["counter"], Mode::Generic, counting(DROP)).expect("swaps").after;
        assert_eq!((again.mode, again.generation), (AttachMode::Generic, 2));
        host.detach("lo").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_refusal_names_the_module_and_changes_nothing() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let before = attach(host, "eth0", counting(PASS));
        let mut bad = counting(PASS);
        // A hash, whose look-ups may fail, without the check for NULL.
        bad.maps[0].def.map_type = 1;
        bad.maps[0].def.name = "others".into();
        bad.programs[0].insns[6] = insn(0x05, 0, 0, 0, 0);
        let error = change_to(host, "eth0", &["counter"], Mode::Auto, bad).expect_err("refused");
        assert_eq!(error.class().code(), 6);
        let Error::Verifier(refusal) = &error else { panic!("{error}") };
        assert_eq!(refusal.module.as_deref(), Some("counter"));
        assert_eq!(refusal.insn, Some(8));
        assert!(refusal.message.as_deref().is_some_and(|m| m.contains("map_value_or_null")), "{refusal:?}");
        assert!(refusal.cause.is_some_and(|c| c.contains("NULL")));
        assert_eq!(host.manifest("eth0").expect("kept"), before);
        assert_eq!(node.xdp_program("eth0"), Some(before.program.id));
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_map_with_another_definition_is_refused_with_both() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        attach(host, "eth0", counting(PASS));
        let mut other = counting(PASS);
        other.maps[0].def.map_type = 1;
        let error = change_to(host, "eth0", &["counter"], Mode::Auto, other).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("`hits` of module `counter`"), "{text}");
        assert!(text.contains("expected hash") && text.contains("found array"), "{text}");
        assert_eq!(host.manifest("eth0").expect("kept").generation, 1);
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_dry_run_verifies_and_leaves_nothing() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let mut objects = Objects::default();
        let state = state(&["counter"], Mode::Auto, &mut objects);
        let compose: &Compose<'_> = &|_, _, _| Ok(fused(&counting(PASS)));
        let dry = Terms { dry_run: true, ..terms(compose) };
        let change =
            host.change("eth0", &mut |_| Ok(desired(&state, &objects)), &dry).expect("it would work");
        assert!(change.dry_run && change.verified_insns > 0);
    });
    assert_eq!(node.xdp_program("eth0"), None);
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_callers_error_comes_back_and_nothing_is_left() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let error = host
            .change(
                "eth0",
                &mut |_| Err("no such module".into()),
                &terms(&|_, _, _| Err("not reached".into())),
            )
            .expect_err("the edit fails");
        assert!(matches!(&error, Error::Edit(e) if e.to_string() == "no such module"), "{error}");
        let mut objects = Objects::default();
        let state = state(&["counter"], Mode::Auto, &mut objects);
        let error = host
            .change(
                "eth0",
                &mut |_| Ok(desired(&state, &objects)),
                &terms(&|_, _, _| Err("does not fuse".into())),
            )
            .expect_err("the composition fails");
        assert!(matches!(&error, Error::Compose(e) if e.to_string() == "does not fuse"), "{error}");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn the_composer_gets_stored_objects_and_counts_are_carried_on() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    let exits = || {
        let mut def = array(EXIT_MAP, 16, EXIT_ROWS * EXIT_COLUMNS);
        def.map_type = 6;
        image("rows", returning(PASS), vec![MapUse { owner: MapOwner::Chain, def }], vec![])
    };
    roots.with(&node, |host| {
        change_to(host, "eth0", &["a", "b"], Mode::Auto, exits()).expect("attaches");
        let counters = host.chain_map("eth0", EXIT_MAP).expect("pinned");
        // As if 3 packets of 100 octets had ended in `b` (row 1) by PASS, on the last CPU.
        let mut value = vec![0; counters.value_len()];
        let last = value.len() - 16;
        value[last..last + 8].copy_from_slice(&3u64.to_ne_bytes());
        value[last + 8..].copy_from_slice(&300u64.to_ne_bytes());
        let key = |row: u32| (row * EXIT_COLUMNS + PASS as u32).to_ne_bytes();
        counters.update(&key(1), &value).expect("written");
        // And garbage in the rows that come next.
        for row in 2..5 {
            counters.update(&key(row), &value).expect("written");
        }

        // `c` is added before `b` and only its object is given; those of `a` and `b` come from the store.
        let mut objects = Objects::default();
        let mut only = Objects::default();
        only.insert(b"c".as_slice());
        let state = state(&["a", "c", "b"], Mode::Auto, &mut objects);
        let seen = std::cell::RefCell::new(BTreeMap::new());
        host.change(
            "eth0",
            &mut |before| {
                assert_eq!(before.map(|m| m.generation), Some(1));
                Ok(desired(&state, &only))
            },
            &terms(&|state, objects, _| {
                for module in state.modules.values() {
                    assert!(objects.bytes(module.object).is_some());
                }
                seen.borrow_mut().clone_from(&state.rows);
                Ok(fused(&exits()))
            }),
        )
        .expect("swaps");
        assert_eq!(seen.into_inner(), BTreeMap::from([("a".into(), 2), ("c".into(), 3), ("b".into(), 4)]));
        let told = |host: &Host| -> Vec<_> {
            let exits = host.status("eth0").expect("a chain").exits;
            let packets = exits.slots.iter().map(|e| (e.slot.clone(), e.reached, e.total().packets));
            packets.chain([("total".to_owned(), exits.total.packets, exits.total.bytes)]).collect()
        };
        let expected = |rows: &[(&str, u64, u64)]| -> Vec<_> {
            rows.iter().map(|(slot, reached, ended)| ((*slot).to_owned(), *reached, *ended)).collect()
        };
        assert_eq!(told(host), expected(&[("a", 3, 0), ("c", 0, 0), ("b", 3, 3), ("total", 3, 300)]));
        // 3 more that end in `b`, then `b` goes: what ended there was seen by the others all the same.
        counters.update(&key(4), &value).expect("written");
        assert_eq!(told(host), expected(&[("a", 6, 0), ("c", 3, 0), ("b", 6, 6), ("total", 6, 600)]));
        change_to(host, "eth0", &["a", "c"], Mode::Auto, exits()).expect("swaps");
        assert_eq!(told(host), expected(&[("a", 6, 0), ("c", 3, 0), ("total", 6, 600)]));
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn crashes_around_the_swap_are_finished_or_cleared() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let first = attach(host, "eth0", counting(PASS));
        let second = attach(host, "eth0", counting(DROP));
        let directory = roots.run_root().join(node.inode().to_string()).join("interfaces/eth0");
        // As if the process had died after the swap, before it was recorded.
        std::fs::rename(directory.join("gen-2.json"), directory.join("staged.json")).expect("there");
        std::fs::remove_file(directory.join("current")).expect("there");
        std::os::unix::fs::symlink("gen-1.json", directory.join("current")).expect("made");
        let finished = Recovered::Finished { ifname: "eth0".into(), generation: 2 };
        assert_eq!(host.recover().expect("recovers"), [finished]);
        assert_eq!(host.manifest("eth0").expect("recorded"), second);

        // As if it had died right before the swap.
        let mut staged = first.clone();
        staged.generation = 3;
        let text = serde_json::to_vec(&staged).expect("a manifest is JSON");
        std::fs::write(directory.join("staged.json"), text).expect("written");
        let cleared = Recovered::Cleared { ifname: "eth0".into(), generation: 3 };
        assert_eq!(host.recover().expect("recovers"), [cleared]);
        assert_eq!(host.manifest("eth0").expect("kept"), second);
        assert_eq!(node.xdp_program("eth0"), Some(second.program.id));
        assert_eq!(host.recover().expect("nothing to do"), []);

        // And another tool takes the chain off, or the interface goes away.
        node.ip("link del eth0");
        let status = host.status("eth0").expect("the manifest is there");
        assert!(status.problems.len() >= 2, "{:?}", status.problems);
        assert_eq!(host.recover().expect("recovers"), [Recovered::Gone { ifname: "eth0".into() }]);
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_renamed_interface_keeps_its_chain_and_another_of_its_name_does_not_get_it() {
    let (node, peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let first = attach(host, "eth0", counting(PASS));
        node.ip("link set dev eth0 down");
        node.ip("link set dev eth0 name old0");
        veth((&node, "eth0"), (&peer, "eth9"));
        let error =
            change_to(host, "eth0", &["counter"], Mode::Auto, counting(DROP)).expect_err("not the same");
        assert!(matches!(error, Error::Identity { .. }), "{error}");
        assert!(error.to_string().contains("named `old0`"), "{error}");
        assert_eq!(node.xdp_program("old0"), Some(first.program.id));
        assert_eq!(node.xdp_program("eth0"), None);
        host.detach("eth0").expect("takes it off the renamed one");
        assert_eq!(node.xdp_program("old0"), None);
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_chain_whose_manifest_cannot_be_read_can_still_be_detached() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    roots.with(&node, |host| {
        let first = attach(host, "eth0", counting(PASS));
        let directory = roots.run_root().join(node.inode().to_string()).join("interfaces/eth0");
        std::fs::write(directory.join("gen-1.json"), "{\"version\":99}").expect("written");
        let error =
            change_to(host, "eth0", &["counter"], Mode::Auto, counting(DROP)).expect_err("unreadable");
        assert!(matches!(error, Error::Manifest { .. }), "{error}");
        assert!(error.to_string().contains("expected version 1, found 99"), "{error}");
        assert_eq!(node.xdp_program("eth0"), Some(first.program.id));
        assert_eq!(host.detach("eth0").expect("detaches").manifest, None);
        assert_eq!(node.xdp_program("eth0"), None);
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn commands_at_the_same_time_take_turns() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    std::thread::scope(|scope| {
        for verdict in [PASS, DROP, PASS, DROP] {
            let (node, roots) = (&node, &roots);
            scope.spawn(move || {
                for _ in 0..5 {
                    roots.with(node, |host| attach(host, "eth0", counting(verdict)));
                }
            });
        }
    });
    roots.with(&node, |host| {
        let now = host.manifest("eth0").expect("a chain");
        assert_eq!(now.generation, 20, "no change was lost");
        assert_eq!(node.xdp_program("eth0"), Some(now.program.id));
        let kept: Vec<u64> = host.history("eth0").expect("readable").iter().map(|m| m.generation).collect();
        assert_eq!(kept, [16, 17, 18, 19, 20]);
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_vanished_namespace_is_swept_by_the_next_change_elsewhere() {
    let (node, _peer) = pair();
    let roots = Roots::new();
    let gone = {
        let (gone, _other) = pair();
        roots.with(&gone, |host| attach(host, "eth0", counting(PASS)));
        gone.inode()
    };
    let pins = roots.pins.join(gone.to_string());
    assert!(pins.exists());
    // The kernel takes a namespace down in its own time.
    eventually("swept", || {
        roots.with(&node, |host| attach(host, "eth0", counting(PASS)));
        !pins.exists()
    });
    roots.with(&node, |host| host.detach("eth0").expect("detaches"));
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}

/// Runs this test again, as another process under `ip netns exec`, which hides `/sys/fs/bpf`.
#[test]
fn pins_are_the_hosts_also_under_ip_netns_exec() {
    const TEST: &str = "pins_are_the_hosts_also_under_ip_netns_exec";
    if let (Ok(pins), Ok(run)) = (std::env::var("XCT_PINS"), std::env::var("XCT_RUN")) {
        let kind = sys::file_system_type(Path::new(PINS)).expect("there is a /sys");
        assert_ne!(kind, sys::BPF_FS_MAGIC, "else this test tests nothing");
        let host =
            Host::at(Places::new(Path::new(&pins), run).expect("the host's bpffs")).expect("a namespace");
        attach(&host, "eth0", counting(PASS));
        return;
    }
    let (node, _peer) = pair();
    let roots = Roots::new();
    let output = Command::new("ip")
        .args(["netns", "exec", node.name()])
        .arg(std::env::current_exe().expect("this test"))
        .args([TEST, "--exact", "--nocapture"])
        .env("XCT_PINS", &roots.pins)
        .env("XCT_RUN", roots.run_root())
        .output()
        .expect("ip is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(node.xdp_program("eth0").is_some());
    roots.with(&node, |host| {
        assert_eq!(hits(host), 0);
        assert_eq!(host.status("eth0").expect("seen from outside").problems, Vec::<String>::new());
        host.detach("eth0").expect("detaches");
    });
    assert_eq!(roots.left(), Vec::<PathBuf>::new());
}
