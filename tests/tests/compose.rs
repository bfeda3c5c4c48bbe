//! Composed images in the kernel: they load, and mean what their modules mean alone.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::path::Path;

use xdpchain_abi::{PacketContext, direction};
use xdpchain_compose::object::Object;
use xdpchain_compose::{
    Chain, ComposeError, EXIT_COLUMNS, EXIT_MAP, Image, MapOwner, Module, Slot, fused, tail,
};
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::sys::{self, MapFd, TestRun};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, Place, SlotSpec, Verdict, VerdictSet};
use xdpchain_tests::cli::{object, objects};

const OBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../chain/compose/tests/fixtures/objects");

/// A packet of zeros is a frame of no known protocol; these are a UDP one and one of the least size.
fn packets() -> Vec<Vec<u8>> {
    let mut udp = vec![
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2,
        1, 192, 0, 2, 2, 0x30, 0x39, 0x08, 0x68, 0, 26, 0, 0,
    ];
    udp.resize(60, 0xa5);
    vec![vec![0; 14], vec![0xff; 64], udp]
}

fn spec(program: Option<&str>) -> ModuleSpec {
    let mut spec = ModuleSpec::new(ObjectRef::File("test.o".into()));
    spec.program = program.map(str::to_owned);
    spec
}

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

const ENGINES: [Engine; 2] = [fused::compose, tail::compose];

/// A chain of modules, each an object and the name of its program.
struct Build {
    modules: Vec<(String, Object, ModuleSpec)>,
    slots: Vec<SlotSpec>,
    default: ChainDefault,
}

impl Build {
    fn new() -> Self {
        Self { modules: Vec::new(), slots: Vec::new(), default: ChainDefault::Keep }
    }

    fn slot(
        mut self,
        name: &str,
        object: &[u8],
        program: Option<&str>,
        set: impl FnOnce(&mut SlotSpec),
    ) -> Self {
        let object = Object::parse(object).unwrap();
        let mut slot = SlotSpec::new(name);
        set(&mut slot);
        self.modules.push((name.to_owned(), object, spec(program)));
        self.slots.push(slot);
        self
    }

    fn image(&self, engine: Engine) -> Image {
        let modules = self
            .modules
            .iter()
            .map(|(name, object, spec)| Module { name, object, spec, digest: "00000000" })
            .collect();
        let slots = self.slots.iter().enumerate().map(|(i, spec)| Slot { spec, row: i as u32 }).collect();
        engine(&Chain { name: "test", default: self.default, modules, slots }).unwrap()
    }

    fn load(&self, engine: Engine) -> (Image, Loaded) {
        let mut image = self.image(engine);
        // A million would be most of the time that it takes.
        image
            .maps
            .iter_mut()
            .filter(|map| map.def.name == "sessions")
            .for_each(|map| map.def.max_entries = 64);
        match load(&image, &mut |_| Ok(None)) {
            Ok(loaded) => {
                assert_ne!(loaded.info.btf_id, 0, "the kernel took the program without its BTF");
                (image, loaded)
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(OBJECTS).join(name)).unwrap()
}

fn run(loaded: &Loaded, packet: &[u8]) -> (u32, Vec<u8>) {
    let run = TestRun { packet, ..TestRun::default() };
    let result = sys::prog_test_run(loaded.program.as_fd(), &run).unwrap();
    (result.verdict, result.packet)
}

/// Packets counted in the exit counters, by (row, column).
fn exits(image: &Image, loaded: &Loaded) -> BTreeMap<(u32, u32), u64> {
    let index = image.maps.iter().position(|m| m.def.name == EXIT_MAP).unwrap();
    let def = &image.maps[index].def;
    let map = MapFd::new(loaded.maps[index].fd.try_clone().unwrap()).unwrap();
    let count = |key: u32| {
        let value = sys::map_lookup(&map, &key.to_ne_bytes()).unwrap().unwrap();
        let packets = |cpu: &[u8]| u64::from_ne_bytes(cpu[..8].try_into().unwrap());
        value.chunks_exact(def.value_size as usize).map(packets).sum::<u64>()
    };
    (0..def.max_entries)
        .map(|key| ((key / EXIT_COLUMNS, key % EXIT_COLUMNS), count(key)))
        .filter(|(_, packets)| *packets != 0)
        .collect()
}

/// Octets counted in all exit counters.
fn exit_octets(image: &Image, loaded: &Loaded) -> u64 {
    let index = image.maps.iter().position(|m| m.def.name == EXIT_MAP).unwrap();
    let map = MapFd::new(loaded.maps[index].fd.try_clone().unwrap()).unwrap();
    let octets = |value: &[u8]| u64::from_ne_bytes(value[8..16].try_into().unwrap());
    (0..image.maps[index].def.max_entries)
        .flat_map(|key| {
            let value = sys::map_lookup(&map, &key.to_ne_bytes()).unwrap().unwrap();
            value.chunks_exact(16).map(octets).collect::<Vec<_>>()
        })
        .sum()
}

#[test]
fn a_module_between_others_does_what_it_does_alone() {
    let (features, legacy) = (fixture("features.o"), fixture("legacy.o"));
    for engine in ENGINES {
        let (_, alone) = Build::new().slot("m", &features, None, |_| ()).load(engine);
        let (_, between) = Build::new()
            .slot("before", &legacy, None, |_| ())
            .slot("m", &features, None, |s| s.proceed_on = Some(VerdictSet::only(Verdict::Pass)))
            .slot("after", &legacy, None, |_| ())
            .load(engine);
        for packet in packets() {
            assert_eq!(run(&alone, &packet), run(&between, &packet));
        }
    }
}

#[test]
fn every_installed_xdp_object_means_the_same_alone_and_in_a_chain() {
    let folder = format!("/usr/lib/{}-linux-gnu/bpf", std::env::consts::ARCH);
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let object = Object::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let Ok(program) = object.xdp_program(None) else { continue };
        // What cannot run outside a dispatcher (it is a `freplace` target) is no module.
        if !name.starts_with("xdpfilt") {
            continue;
        }
        let program = program.name.clone();
        let pass = fixture("several.o");
        for engine in ENGINES {
            let (_, alone) = Build::new().slot("m", &bytes, Some(&program), |_| ()).load(engine);
            let (_, between) = Build::new()
                .slot("before", &pass, Some("first"), |_| ())
                .slot("m", &bytes, Some(&program), |s| s.proceed_on = Some(VerdictSet::only(Verdict::Pass)))
                .slot("after", &pass, Some("first"), |_| ())
                .load(engine);
            for packet in packets() {
                assert_eq!(run(&alone, &packet), run(&between, &packet), "{name}");
            }
        }
        tried += 1;
    }
    assert!(tried > 0, "no object found; `cargo xtask setup` installs libxdp1, which has some");
}

#[test]
fn a_packet_is_counted_once_where_its_chain_ended() {
    let several = fixture("several.o");
    let build = Build::new()
        .slot("pass", &several, Some("first"), |_| ())
        .slot("watch", &several, Some("second"), |s| s.observer = true)
        .slot("drop", &several, Some("second"), |_| ())
        .slot("never", &several, Some("first"), |_| ())
        .slot("exit", &several, Some("first"), |s| (s.observer, s.at) = (true, Place::Exit));
    for engine in ENGINES {
        let (image, loaded) = build.load(engine);
        for packet in packets() {
            assert_eq!(run(&loaded, &packet), (Verdict::Drop as u32, packet));
        }
        assert_eq!(exits(&image, &loaded), BTreeMap::from([((2, Verdict::Drop as u32), 3)]));
    }
}

/// The packet context in which this many octets may be, or are, left in front of an uplink packet.
fn skipping(octets: u8) -> [u8; size_of::<PacketContext>()] {
    let mut context = [0; size_of::<PacketContext>()];
    context[offset_of!(PacketContext, direction)] = direction::UPLINK;
    context[PacketContext::MAY_SKIP] = 1;
    context[PacketContext::SKIPPED] = octets;
    context
}

/// A map of a chain, by the module that it belongs to and its name.
fn map(image: &Image, loaded: &Loaded, owner: &str, name: &str) -> MapFd {
    let owner = MapOwner::Module(owner.to_owned());
    let index = image.maps.iter().position(|map| map.owner == owner && map.def.name == name).unwrap();
    MapFd::new(loaded.maps[index].fd.try_clone().unwrap()).unwrap()
}

/// Length and first octets of the last frame that the module `looks` found.
fn found(image: &Image, loaded: &Loaded) -> (u32, Vec<u8>) {
    let found = sys::map_lookup(&map(image, loaded, "looks", "found"), &[0; 4]).unwrap().unwrap();
    (u32::from_ne_bytes(found[..4].try_into().unwrap()), found[8..].to_vec())
}

#[test]
fn who_does_not_heed_skipped_octets_finds_none_wherever_it_stands() {
    type Set = fn(&mut SlotSpec);
    let places: [(&str, &[u8], Set); 4] = [
        ("order", object::LOOKS, |_| ()),
        ("called", object::LOOKS_CALLED, |_| ()),
        ("observer", object::LOOKS, |slot| slot.observer = true),
        ("exit", object::LOOKS, |slot| slot.at = Place::Exit),
    ];
    for (place, looks, set) in places {
        let (image, loaded) = Build::new()
            .slot("preset", object::PRESET, None, |_| ())
            .slot("looks", looks, None, set)
            .load(fused::compose);
        let wanted = map(&image, &loaded, "preset", "wanted");
        for octets in [0, 36] {
            sys::map_update(&wanted, &[0; 4], &skipping(octets), 0).unwrap();
            let mut packet = vec![0x11; 100];
            packet[20] = octets;
            assert_eq!(run(&loaded, &packet), (Verdict::Pass as u32, packet.clone()), "{place}");
            assert_eq!(found(&image, &loaded), (100, packet[..48].to_vec()), "{place}");
        }
        let row = if place == "exit" { 0 } else { 1 };
        assert_eq!(exits(&image, &loaded), [((row, Verdict::Pass as u32), 2)].into(), "{place}");
        assert_eq!(exit_octets(&image, &loaded), 200, "{place}");
    }
}

#[test]
fn skipped_octets_are_there_for_who_heeds_them_and_gone_in_the_end() {
    let (image, loaded) = Build::new()
        .slot("preset", object::PRESET, None, |_| ())
        .slot("looks", object::LOOKS_HEEDING, None, |_| ())
        .load(fused::compose);
    sys::map_update(&map(&image, &loaded, "preset", "wanted"), &[0; 4], &skipping(36), 0).unwrap();
    let packet = vec![0x11; 100];
    assert_eq!(run(&loaded, &packet), (Verdict::Pass as u32, packet));
    assert_eq!(found(&image, &loaded).0, 136);
    assert_eq!(exit_octets(&image, &loaded), 100);
}

/// An IPv4 packet of this protocol to this address, with these octets in it.
fn ipv4(protocol: u8, to: [u8; 4], inside: &[u8]) -> Vec<u8> {
    let len = (20 + inside.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1]);
    packet.extend(to);
    packet.extend(inside);
    packet
}

fn frame(packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00], packet].concat()
}

/// The same frame with this many tags.
fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 5].repeat(tags), &frame[12..]].concat()
}

/// Entries for a module's map: its name, a key and the beginning of a value.
type Entry = (&'static str, Vec<u8>, Vec<u8>);

/// Decapsulators, what each has to know of a packet, and that packet with another one in it.
fn decapsulators(inner: &[u8]) -> [(&'static str, Vec<Entry>, Vec<u8>); 2] {
    let (ours, peer, user) = ([198, 51, 100, 1], [192, 0, 2, 1], [192, 0, 2, 1]);
    let gre = frame(&ipv4(47, ours, &[&[0, 0, 0x08, 0x00], inner].concat()));
    let tunnel = ("tunnels", [peer, ours].concat(), 7u32.to_ne_bytes().to_vec());

    let mut gtp = [&2152u16.to_be_bytes()[..]; 2].concat();
    gtp.extend((16 + inner.len() as u16).to_be_bytes());
    gtp.extend([0, 0, 0x30, 0xff]);
    gtp.extend((inner.len() as u16).to_be_bytes());
    gtp.extend([0, 0, 1, 1]);
    let gtp = frame(&ipv4(17, ours, &[&gtp, inner].concat()));
    let session = [&7u32.to_ne_bytes()[..], &42u32.to_ne_bytes(), &peer, &user].concat();
    let sessions =
        vec![("endpoints", ours.to_vec(), vec![0; 4]), ("sessions", [ours, [0, 0, 1, 1]].concat(), session)];
    [("gre-decap", vec![tunnel], gre), ("gtp-decap", sessions, gtp)]
}

#[test]
fn a_decapsulator_leaves_what_it_takes_off_only_where_somebody_takes_it_away() {
    let inner = ipv4(17, [203, 0, 113, 9], &[0x11; 60]);
    let exit = |slot: &mut SlotSpec| slot.at = Place::Exit;
    let in_order = |_: &mut SlotSpec| ();
    type Set = fn(&mut SlotSpec);
    // Where it stands, who looks, and whether that one finds the outer packet's headers still.
    let chains: [(Set, &[u8], Set, bool); 4] = [
        (in_order, object::LOOKS_HEEDING, in_order, true),
        (in_order, object::LOOKS, in_order, false),
        (in_order, object::LOOKS_HEEDING, exit, false),
        (exit, object::LOOKS_HEEDING, exit, false),
    ];
    for (name, entries, outer) in decapsulators(&inner) {
        let object = std::fs::read(objects().join(format!("{name}.o"))).unwrap();
        for (number, (place, looks, set, finds)) in chains.into_iter().enumerate() {
            let (image, loaded) = Build::new()
                .slot("passing", object::PASSING, None, |_| ())
                .slot(name, &object, None, place)
                .slot("looks", looks, None, set)
                .load(fused::compose);
            for (of, key, value) in &entries {
                let map = map(&image, &loaded, name, of);
                let mut whole = value.clone();
                whole.resize(map.info().value_size as usize, 0);
                sys::map_update(&map, key, &whole, 0).unwrap();
            }
            // Twice, as what is asked for by the first one may be kept.
            for outer in [&outer, &outer, &tagged(&outer, 1), &tagged(&outer, 2)] {
                let len = if finds { outer.len() } else { frame(&inner).len() };
                let expected = (Verdict::Pass as u32, frame(&inner));
                assert_eq!(run(&loaded, outer), expected, "{name}, chain {number}");
                assert_eq!(found(&image, &loaded).0 as usize, len, "{name}, chain {number}");
            }
        }
    }
}

#[test]
fn a_slot_that_never_proceeds_may_have_others_behind_it() {
    let several = fixture("several.o");
    let build = Build::new()
        .slot("end", &several, Some("first"), |s| s.proceed_on = Some(VerdictSet::EMPTY))
        .slot("dead", &several, Some("second"), |_| ());
    for engine in ENGINES {
        let (image, loaded) = build.load(engine);
        assert_eq!(run(&loaded, &[0; 64]).0, Verdict::Pass as u32);
        assert_eq!(exits(&image, &loaded), BTreeMap::from([((0, Verdict::Pass as u32), 1)]));
    }
}

#[test]
fn the_default_is_the_verdict_of_a_chain_that_proceeded() {
    let several = fixture("several.o");
    for (default, verdict) in [
        (ChainDefault::Keep, Verdict::Drop),
        (ChainDefault::Pass, Verdict::Pass),
        (ChainDefault::Drop, Verdict::Drop),
    ] {
        let mut build = Build::new().slot("a", &several, Some("first"), |_| ()).slot(
            "b",
            &several,
            Some("second"),
            |s| s.proceed_on = Some(VerdictSet::only(Verdict::Drop)),
        );
        build.default = default;
        for engine in ENGINES {
            let (_, loaded) = build.load(engine);
            assert_eq!(run(&loaded, &[0; 64]).0, verdict as u32);
        }
    }
}
