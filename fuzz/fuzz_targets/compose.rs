//! Arbitrary bytes as an ELF object, and objects with damage: an error or an image by every engine, in bounded time and memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_compose::btf::{Btf, Features};
use xdpchain_compose::object::{Kernel, Object};
use xdpchain_compose::{Chain, ComposeError, Image, Module, Slot, fused, libxdp, tail};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec, Verdict, VerdictSet};

/// A kernel that has no more than types, if any.
struct Types(Option<Btf>);

impl Kernel for Types {
    fn btf(&self) -> Option<&Btf> {
        self.0.as_ref()
    }

    fn version(&self) -> u32 {
        0
    }

    fn config(&self, _: &str) -> Option<String> {
        None
    }

    fn symbol(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }
}

/// Every relocation and every function of an image lies within it.
fn check(image: &Image) {
    for program in &image.programs {
        for relocation in &program.relocations {
            assert!(relocation.insn < program.insns.len());
        }
        assert!(program.functions.iter().all(|(insn, _)| (*insn as usize) < program.insns.len()));
        let mut second_half = false;
        for (at, insn) in program.insns.iter().enumerate() {
            if second_half {
                second_half = false;
                continue;
            }
            second_half = insn.is_wide();
            if insn.is_branch() {
                let to = at as i64 + 1 + insn.distance();
                assert!((0..program.insns.len() as i64).contains(&to), "instruction {at} branches to {to}");
            }
        }
        assert!(!second_half, "the last instruction is half a load");
    }
    assert!(image.fills.iter().all(|f| f.map < image.maps.len() && f.program < image.programs.len()));
    let debug = image.debug_info(Features::ALL);
    assert_eq!(debug.programs.len(), image.programs.len());
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut object) = Object::parse(bytes) else { return };
    // Every other object meets a kernel with the types that it has itself.
    object.link(&Types(object.btf.clone().filter(|_| bytes.len() % 2 == 1)));
    let names: Vec<String> = object.programs.iter().map(|program| program.name.clone()).take(4).collect();
    for name in names {
        let mut spec = ModuleSpec::new(ObjectRef::File("fuzzed.o".into()));
        spec.program = Some(name);
        let module = |name| Module { name, object: &object, spec: &spec, digest: "0" };
        if let Ok(image) = fused::compose_bare(&module("one")) {
            check(&image);
        }
        let (mut first, second) = (SlotSpec::new("one"), SlotSpec::new("two"));
        first.proceed_on = Some(VerdictSet::only(Verdict::Pass));
        let engines: [fn(&Chain<'_>) -> Result<Image, ComposeError>; 3] =
            [fused::compose, tail::compose, libxdp::compose];
        for engine in engines {
            let chain = Chain {
                name: "fuzzed",
                default: ChainDefault::Keep,
                modules: vec![module("one"), module("two")],
                slots: vec![Slot { spec: &first, row: 0 }, Slot { spec: &second, row: 1 }],
            };
            if let Ok(image) = engine(&chain) {
                check(&image);
            }
        }
    }
});
