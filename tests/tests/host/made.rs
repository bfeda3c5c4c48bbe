//! What the tests of the host crate work with: programs of a few instructions, places of their own, a pair of interfaces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use xdpchain_compose::btf::Btf;
use xdpchain_compose::{Image, Insn, MapDef, MapOwner, MapUse, ProgramImage, Relocation, Target};
use xdpchain_host::{
    ChainState, Change, Compose, Composed, Desired, Error, Foreign, Host, Manifest, ModuleState, Objects,
    Places, Terms,
};
use xdpchain_spec::{ChainSpec, Engine, Mode, ModuleSpec, ObjectRef, SlotSpec};
use xdpchain_tests::{Netns, veth};

pub(crate) const PASS: i32 = 2;
pub(crate) const DROP: i32 = 1;
/// Where the tests' pins go, one directory for each test.
pub(crate) const PINS: &str = "/sys/fs/bpf";

/// Pins and files of one test, removed with the value.
pub(crate) struct Roots {
    pub(crate) pins: PathBuf,
    run: tempfile::TempDir,
}

impl Roots {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = Path::new(PINS).join(format!("xct-host-{}-{number}", std::process::id()));
        Self { pins, run: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn run_root(&self) -> PathBuf {
        self.run.path().join("xdpchain")
    }

    /// The host as a new command in `ns` would see it.
    pub(crate) fn with<T: Send>(&self, ns: &Netns, f: impl FnOnce(&Host) -> T + Send) -> T {
        ns.run(|| {
            let places = Places::new(&self.pins, self.run_root()).expect("a bpffs");
            f(&Host::at(places).expect("a namespace"))
        })
    }

    /// What is left of pins and files.
    pub(crate) fn left(&self) -> Vec<PathBuf> {
        [self.pins.clone(), self.run_root()].into_iter().filter(|path| path.exists()).collect()
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

pub(crate) fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: dst | (src << 4), off, imm }
}

pub(crate) fn array(name: &str, value_size: u32, max_entries: u32) -> MapDef {
    MapDef { name: name.into(), map_type: 2, key_size: 4, value_size, max_entries, ..MapDef::default() }
}

/// `r0 = verdict; exit`
pub(crate) fn returning(verdict: i32) -> Vec<Insn> {
    vec![insn(0xb7, 0, 0, 0, verdict), insn(0x95, 0, 0, 0, 0)]
}

pub(crate) fn image(name: &str, insns: Vec<Insn>, maps: Vec<MapUse>, relocations: Vec<Relocation>) -> Image {
    Image {
        programs: vec![ProgramImage {
            name: name.into(),
            insns,
            relocations,
            functions: Vec::new(),
            lines: Vec::new(),
            license: "Dual MIT/GPL".into(),
            frags: true,
            origins: vec![(0, "counter".into())],
        }],
        maps,
        fills: Vec::new(),
        btf: Btf::new(),
        chain_calls: Vec::new(),
    }
}

/// Adds one to entry 0 of the module `counter`'s map `hits`, then returns `verdict`.
pub(crate) fn counting(verdict: i32) -> Image {
    let map = MapUse { owner: MapOwner::Module("counter".into()), def: array("hits", 8, 1) };
    let insns = vec![
        insn(0x62, 10, 0, -4, 0),
        insn(0xbf, 2, 10, 0, 0),
        insn(0x07, 2, 0, 0, -4),
        insn(0x18, 1, 0, 0, 0),
        insn(0, 0, 0, 0, 0),
        insn(0x85, 0, 0, 0, 1),
        insn(0x15, 0, 0, 2, 0),
        insn(0xb7, 1, 0, 0, 1),
        insn(0xdb, 0, 1, 0, 0),
        insn(0xb7, 0, 0, 0, verdict),
        insn(0x95, 0, 0, 0, 0),
    ];
    image("counting", insns, vec![map], vec![Relocation { insn: 3, target: Target::Map { map: 0 } }])
}

pub(crate) fn state(slots: &[&str], mode: Mode, objects: &mut Objects) -> ChainState {
    let module = |name: &&str| {
        let spec = ModuleSpec::new(ObjectRef::File(format!("./{name}.o").into()));
        ((*name).to_owned(), ModuleState { spec, object: objects.insert(name.as_bytes()) })
    };
    ChainState {
        modules: slots.iter().map(module).collect(),
        chain: ChainSpec {
            interfaces: vec!["eth0".into()],
            engine: Engine::Fused,
            mode,
            ..ChainSpec::new("edge", slots.iter().map(|slot| SlotSpec::new(*slot)).collect())
        },
        rows: BTreeMap::new(),
    }
}

/// What is to run, with nothing but its objects said.
pub(crate) fn desired(state: &ChainState, objects: &Objects) -> Desired {
    Desired {
        state: state.clone(),
        objects: objects.clone(),
        foreign: Foreign::Refuse,
        cause: "a test".to_owned(),
    }
}

/// Composition by `compose`, and no gate.
pub(crate) fn terms<'a>(compose: &'a Compose<'a>) -> Terms<'a> {
    Terms { compose, gate: None, trial: None, dry_run: false }
}

/// An image as if composed by engine fused.
pub(crate) fn fused(image: &Image) -> Composed {
    Composed { image: image.clone(), engine: Engine::Fused, engine_reason: None, fallback: false }
}

pub(crate) fn change_to(
    host: &Host,
    ifname: &str,
    slots: &[&str],
    mode: Mode,
    image: Image,
) -> Result<Change, Error> {
    let mut objects = Objects::default();
    let state = state(slots, mode, &mut objects);
    host.change(ifname, &mut |_| Ok(desired(&state, &objects)), &terms(&|_, _, _| Ok(fused(&image))))
}

pub(crate) fn attach(host: &Host, ifname: &str, image: Image) -> Manifest {
    change_to(host, ifname, &["counter"], Mode::Auto, image).expect("attaches").after
}

/// Two namespaces and a veth between them; the chain goes on `eth0` of the first.
pub(crate) fn pair() -> (Netns, Netns) {
    let (node, peer) = (Netns::new("node"), Netns::new("peer"));
    veth((&node, "eth0"), (&peer, "eth0"));
    (node, peer)
}

pub(crate) fn frame(node: &Netns, peer: &Netns) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(node.mac("eth0"));
    frame.extend(peer.mac("eth0"));
    frame.extend([0x88, 0xb5]);
    frame.resize(60, 7);
    frame
}

pub(crate) fn hits(host: &Host) -> u64 {
    let map = host.module_map("counter", "hits").expect("pinned");
    let value = map.lookup(&[0; 4]).expect("readable").expect("an array entry is always there");
    u64::from_ne_bytes(value.try_into().expect("8 octets"))
}

pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
