//! Objects linked for kernels that are made up.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use xdpchain_compose::btf::{Btf, Kind, Linkage, Name, Param, Type, encoding};
use xdpchain_compose::insn::{call, code};
use xdpchain_compose::object::{Kernel, KernelSymbolKind, ModuleBtf, Object, OptionKind, Referent};
use xdpchain_compose::{Initial, Insn};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/objects/", $name)).as_slice()
    };
}

/// A kernel that has what a test gives it.
#[derive(Default)]
struct Fake {
    btf: Option<Arc<Btf>>,
    modules: Vec<ModuleBtf>,
    config: HashMap<&'static str, &'static str>,
    symbols: HashMap<&'static str, Vec<u64>>,
}

impl Kernel for Fake {
    fn btf(&self) -> Option<&Btf> {
        self.btf.as_deref()
    }
    fn modules(&self) -> &[ModuleBtf] {
        &self.modules
    }
    fn version(&self) -> u32 {
        0x06_01_73
    }
    fn config(&self, option: &str) -> Option<String> {
        self.config.get(option).map(|value| (*value).to_owned())
    }
    fn symbol(&self, name: &str) -> Vec<u64> {
        self.symbols.get(name).cloned().unwrap_or_default()
    }
}

/// A kernel whose types are those that an object defines.
fn with_types_of(object: &[u8]) -> Fake {
    Fake { btf: Object::parse(object).unwrap().btf.map(Arc::new), ..Fake::default() }
}

/// What became of the operand of a relocated instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Value(u64),
    Poisoned,
}

/// Every relocation of an object with its operand afterwards: (kind, path with the type's name in front, operand).
fn relocated(bytes: &[u8], kernel: &dyn Kernel) -> Vec<(u32, String, Operand)> {
    let before = Object::parse(bytes).unwrap();
    let mut after = Object::parse(bytes).unwrap();
    after.link(kernel);
    let btf = before.btf.as_ref().unwrap();
    let mut out = Vec::new();
    for (old, new) in before.functions.iter().zip(&after.functions) {
        assert_eq!(new.problem, None);
        assert!(new.core.is_empty());
        for core in &old.core {
            let path = format!("{} {}", btf.name_of(core.record.type_id), core.record.access);
            out.push((core.record.kind, path, operand(&new.insns, core.insn)));
        }
    }
    out
}

fn operand(insns: &[Insn], at: usize) -> Operand {
    let insn = insns[at];
    match insn.code {
        code::CALL => Operand::Poisoned,
        _ if insn.is_wide() => {
            Operand::Value(insn.imm as u32 as u64 | (insns[at + 1].imm as u32 as u64) << 32)
        }
        _ if matches!(insn.class(), 1..=3) => Operand::Value(insn.off as u64),
        _ => Operand::Value(i64::from(insn.imm) as u64),
    }
}

const OFFSET: u32 = 0;
const SIZE: u32 = 1;
const EXISTS: u32 = 2;
const SIGNED: u32 = 3;
const LEFT: u32 = 4;
const RIGHT: u32 = 5;

#[test]
fn operands_follow_the_types_of_the_kernel() {
    let found = relocated(fixture!("core.o"), &with_types_of(fixture!("core_kernel.o")));
    let all = |kind: u32, path: &str| {
        let here = found.iter().filter(|(k, p, _)| (*k, p.as_str()) == (kind, path)).map(|(_, _, o)| *o);
        let here: Vec<_> = here.collect();
        assert!(!here.is_empty(), "{kind} of {path} in {found:?}");
        here
    };
    let expect = |kind: u32, path: &str, value: u64| {
        for operand in all(kind, path) {
            assert_eq!(operand, Operand::Value(value), "{kind} of {path}");
        }
    };
    // Members that moved, into anonymous members, out of them, and out of ones to others.
    for (path, offset) in [
        ("xdpchain_sample 0:0", 112),
        ("xdpchain_sample 0:1", 24),
        ("xdpchain_sample 0:2", 28),
        ("xdpchain_sample 0:3:0", 52),
        ("xdpchain_sample 0:3:1", 48),
        ("xdpchain_sample 0:4:2", 64),
        ("xdpchain_sample 0:5:0", 98),
        ("xdpchain_sample 0:5:1:0", 88),
        ("xdpchain_sample 0:5:1:1", 104),
        ("xdpchain_sample 0:10", 120),
        ("xdpchain_sample___old 0:1", 24),
    ] {
        expect(OFFSET, path, offset);
    }
    // `low : 3` at bit 941, `mid : 12` at 944 of a `__u64`, `high : 9` at 932, no longer signed.
    for (path, [offset, size, left, right, signed]) in [
        ("xdpchain_sample 0:6", [116, 4, 48, 61, 0]),
        ("xdpchain_sample 0:7", [112, 8, 4, 52, 0]),
        ("xdpchain_sample 0:8", [116, 4, 51, 55, 0]),
    ] {
        for (kind, value) in [(OFFSET, offset), (SIZE, size), (LEFT, left), (RIGHT, right), (SIGNED, signed)]
        {
            expect(kind, path, value);
        }
    }
    expect(SIZE, "xdpchain_sample 0:2", 2);
    expect(SIGNED, "xdpchain_sample 0:11", 1);
    expect(EXISTS, "xdpchain_sample 0:2", 1);
    expect(EXISTS, "xdpchain_sample 0:9", 0);
    expect(EXISTS, "xdpchain_sample___old 0:0", 1);
    expect(8, "xdpchain_sample 0", 1);
    expect(8, "xdpchain_gone 0", 0);
    expect(9, "xdpchain_sample 0", 136);
    expect(10, "xdpchain_colour 1", 1);
    expect(11, "xdpchain_colour 1", 77);
    expect(10, "xdpchain_colour 2", 0);
    // What the kernel does not have, and a signed member that a load of its new size would not extend.
    assert_eq!(all(11, "xdpchain_colour 2"), [Operand::Poisoned]);
    assert_eq!(all(OFFSET, "xdpchain_sample 0:9"), [Operand::Poisoned]);
    assert_eq!(all(OFFSET, "xdpchain_sample 0:11"), [Operand::Poisoned]);
}

#[test]
fn loads_take_the_size_that_the_member_has_in_the_kernel() {
    let before = Object::parse(fixture!("core.o")).unwrap();
    let mut after = Object::parse(fixture!("core.o")).unwrap();
    after.link(&with_types_of(fixture!("core_kernel.o")));
    let main = before.xdp_program(None).unwrap().function;
    let size = |object: &Object, path: &str| {
        let load = |insn: usize| before.functions[main].insns[insn].class() == 1;
        let mut loads =
            before.functions[main].core.iter().filter(|c| &*c.record.access == path && load(c.insn));
        let at = loads.next().unwrap_or_else(|| panic!("a load of {path}")).insn;
        [4, 2, 1, 8][usize::from(object.functions[main].insns[at].code >> 3 & 3)]
    };
    for (path, sizes) in [("0:0", [4, 4]), ("0:1", [8, 4]), ("0:5:0", [4, 2]), ("0:10", [8, 8])] {
        assert_eq!([size(&before, path), size(&after, path)], sizes, "{path}");
    }
}

#[test]
fn without_the_types_every_question_is_answered_with_no() {
    let found = relocated(fixture!("core.o"), &with_types_of(fixture!("features.o")));
    for (kind, path, operand) in found {
        let expected = if matches!(kind, EXISTS | 8..=10) { Operand::Value(0) } else { Operand::Poisoned };
        assert_eq!(operand, expected, "{kind} of {path}");
    }
}

#[test]
fn types_of_one_name_have_to_agree() {
    let mut btf = Object::parse(fixture!("core_kernel.o")).unwrap().btf.unwrap();
    let sample = btf.by_name("xdpchain_sample", Kind::Struct).unwrap();
    // A second one that lacks the member is no candidate for it; one that has it elsewhere is one too many.
    btf.push(Type::Struct(xdpchain_compose::btf::Composite {
        name: "xdpchain_sample___tiny".into(),
        size: 8,
        ..Default::default()
    }));
    let kernel = Fake { btf: Some(Arc::new(btf.clone())), ..Fake::default() };
    let linked = |kernel: &Fake, path: &str, kind: u32| {
        let mut object = Object::parse(fixture!("core.o")).unwrap();
        for function in &mut object.functions {
            function.core.retain(|c| &*c.record.access == path && c.record.kind == kind);
        }
        object.link(kernel);
        let problem = object.functions.iter().find_map(|f| f.problem.as_ref());
        problem.map(|problem| problem.to_string()).unwrap_or_default()
    };
    assert_eq!(linked(&kernel, "0:2", OFFSET), "");
    let text = linked(&kernel, "0", 9);
    assert!(text.contains("the size of `struct xdpchain_sample` in this kernel"), "{text}");

    let Some(Type::Struct(mut other)) = btf.get(sample).cloned() else { panic!("a struct") };
    let c = other.members.iter_mut().find(|m| &*m.name == "c").unwrap();
    c.bit_offset += 16;
    btf.push(Type::Struct(other));
    let kernel = Fake { btf: Some(Arc::new(btf)), ..Fake::default() };
    let text = linked(&kernel, "0:2", OFFSET);
    assert!(text.contains("the offset of `struct xdpchain_sample.c`"), "{text}");
    assert!(text.contains("have that name, and differ in it"), "{text}");
}

#[test]
fn an_object_that_was_not_linked_says_what_it_waits_for() {
    let problem = |bytes: &[u8]| {
        let object = Object::parse(bytes).unwrap();
        let program = object.xdp_program(None).unwrap().function;
        object.functions[program].problem.as_ref().map(|problem| problem.to_string())
    };
    let core = problem(fixture!("core.o")).unwrap();
    assert!(core.starts_with("`core` needs the kernel's types (CO-RE), and no kernel was asked"), "{core}");
    let config = problem(fixture!("config.o")).unwrap();
    assert!(config.starts_with("`config` needs the kernel's configuration"), "{config}");
    let ksyms = problem(fixture!("ksyms.o")).unwrap();
    assert!(ksyms.starts_with("`ksyms` needs the kernel's `"), "{ksyms}");
    assert_eq!(problem(fixture!("features.o")), None);

    let mut object = Object::parse(fixture!("core.o")).unwrap();
    object.link(&Fake::default());
    let text =
        object.functions[object.xdp_program(None).unwrap().function].problem.as_ref().unwrap().to_string();
    assert!(text.contains("and this kernel has none"), "{text}");
}

/// The octets of an option's variable in the linked object's map.
fn option<'a>(object: &'a Object, name: &str) -> &'a [u8] {
    let option = object.externs.options.iter().find(|o| o.name == name).unwrap();
    let map = &object.maps[object.externs.options_map.unwrap()];
    let bytes = &map.initial.as_ref().unwrap().bytes;
    &bytes[option.offset as usize..(option.offset + option.size) as usize]
}

#[test]
fn options_are_variables_of_a_constant_map() {
    let mut kernel = with_types_of(fixture!("core_kernel.o"));
    kernel.config.extend([
        ("CONFIG_HZ", "0x3e8"),
        ("CONFIG_BPF_SYSCALL", "y"),
        ("CONFIG_BPF_JIT", "m"),
        ("CONFIG_BPF", "m"),
        ("CONFIG_DEFAULT_HOSTNAME", "\"a name that is too long\""),
    ]);
    kernel.symbols.insert("__x64_sys_bpf", vec![0]);
    let mut object = Object::parse(fixture!("config.o")).unwrap();
    object.link(&kernel);
    assert_eq!(object.functions[0].problem, None);
    assert_eq!(option(&object, "LINUX_KERNEL_VERSION"), 0x06_01_73_u32.to_le_bytes());
    assert_eq!(option(&object, "LINUX_HAS_BPF_COOKIE"), [0]);
    assert_eq!(option(&object, "LINUX_HAS_SYSCALL_WRAPPER"), [1]);
    assert_eq!(option(&object, "LINUX_OF_ANOTHER_TIME"), [0; 8]);
    assert_eq!(option(&object, "CONFIG_HZ"), 1000_u32.to_le_bytes());
    assert_eq!(option(&object, "CONFIG_BPF_SYSCALL"), [1]);
    assert_eq!(option(&object, "CONFIG_BPF_JIT"), *b"m");
    assert_eq!(option(&object, "CONFIG_BPF"), 2_u32.to_le_bytes());
    assert_eq!(option(&object, "CONFIG_DEFAULT_HOSTNAME"), *b"a name that is \0");
    assert_eq!(option(&object, "CONFIG_XDPCHAIN_HAS_NONE"), [0; 8]);

    let kind = |name: &str| object.externs.options.iter().find(|o| o.name == name).unwrap().kind;
    assert_eq!(kind("CONFIG_BPF"), OptionKind::Tristate);
    assert_eq!(kind("CONFIG_HZ"), OptionKind::Int { signed: false });
    let map = &object.maps[object.externs.options_map.unwrap()];
    assert!(map.initial.as_ref().unwrap().frozen);
    // The kernel is told what is where, as for any section.
    let Some(Type::DataSec { size, vars, .. }) = object.btf.as_ref().unwrap().get(map.btf_value) else {
        panic!("a section");
    };
    assert_eq!((*size, vars.len()), (map.value_size, object.externs.options.len()));
}

#[test]
fn an_option_that_is_missing_or_does_not_fit_is_a_problem_of_those_that_read_it() {
    let mut kernel = with_types_of(fixture!("core_kernel.o"));
    kernel.config.extend([("CONFIG_HZ", "0x100000000"), ("CONFIG_BPF_SYSCALL", "y"), ("CONFIG_BPF", "y")]);
    let problem = |kernel: &Fake| {
        let mut object = Object::parse(fixture!("config.o")).unwrap();
        object.link(kernel);
        object.functions[0].problem.as_ref().map(|problem| problem.to_string()).unwrap_or_default()
    };
    let text = problem(&kernel);
    assert!(
        text.contains("option `CONFIG_HZ`: it is 0x100000000 there, which the variable cannot hold"),
        "{text}"
    );
    kernel.config.insert("CONFIG_HZ", "\"many\"");
    assert!(problem(&kernel).contains("which is no number"), "{}", problem(&kernel));
    kernel.config.remove("CONFIG_HZ");
    assert!(problem(&kernel).contains("does not set it"), "{}", problem(&kernel));
    kernel.config.insert("CONFIG_HZ", "250");
    assert_eq!(problem(&kernel), "");
    kernel.config.insert("CONFIG_BPF_SYSCALL", "m");
    assert!(problem(&kernel).contains("not a value of the variable's type"), "{}", problem(&kernel));
}

/// A kernel with the functions that `ksyms.c` wants of one, and a variable.
fn with_functions() -> Fake {
    let mut btf = Btf::new();
    let pointer = btf.push(Type::Ptr { to: 0 });
    let number = btf.push(Type::Int { name: "u32".into(), size: 4, encoding: 0, offset: 0, bits: 32 });
    let long =
        btf.push(Type::Int { name: "long".into(), size: 8, encoding: encoding::SIGNED, offset: 0, bits: 64 });
    let param = |ty| Param { name: Name::from("p"), ty };
    let one = btf.push(Type::FuncProto { ret: pointer, params: vec![param(pointer)] });
    let two = btf.push(Type::FuncProto { ret: pointer, params: vec![param(pointer), param(number)] });
    for (name, proto) in [("bpf_cast_to_kern_ctx", one), ("bpf_rdonly_cast", two)] {
        btf.push(Type::Func { name: name.into(), proto, linkage: Linkage::Static });
    }
    btf.push(Type::Var { name: "this_cpu_off".into(), ty: long, linkage: Linkage::Global });
    let mut kernel = Fake { btf: Some(Arc::new(btf)), ..Fake::default() };
    kernel.symbols.insert("bpf_prog_alloc", vec![0xffff_ffff_8123_4567]);
    kernel
}

#[test]
fn kernel_functions_and_variables_become_ids_and_addresses() {
    let kernel = with_functions();
    let of = |object: &Object, name: &str| {
        let index = object.externs.symbols.iter().position(|s| s.name == name).unwrap();
        let at = |r: &&xdpchain_compose::object::Reference| r.to == Referent::Extern(index);
        object.functions[0].references.iter().filter(at).map(|r| r.insn).collect::<Vec<_>>()
    };
    let before = Object::parse(fixture!("ksyms.o")).unwrap();
    let mut object = Object::parse(fixture!("ksyms.o")).unwrap();
    object.link(&kernel);
    assert_eq!(object.functions[0].problem, None);
    let left = |r: &xdpchain_compose::object::Reference| {
        matches!(r.to, Referent::Extern(_) | Referent::ModuleBtf(_))
    };
    assert!(!object.functions[0].references.iter().any(left));

    let insns = &object.functions[0].insns;
    let id = kernel.btf().unwrap().by_name("bpf_cast_to_kern_ctx", Kind::Func).unwrap();
    for name in ["bpf_cast_to_kern_ctx", "bpf_cast_to_kern_ctx___v2"] {
        for at in of(&before, name) {
            let source = if insns[at].is_wide() { 3 } else { call::KFUNC };
            assert_eq!((insns[at].src(), insns[at].off, insns[at].imm), (source, 0, id as i32), "{name}");
        }
    }
    let wide = |name: &str| operand(insns, of(&before, name)[0]);
    assert_eq!(wide("bpf_prog_alloc"), Operand::Value(0xffff_ffff_8123_4567));
    assert_eq!(wide("xdpchain_no_such_symbol"), Operand::Value(0));
    assert_eq!(wide("xdpchain_no_such_variable"), Operand::Value(0));
    // Missing functions, and one that is of another type in the kernel, are 0 to ask for and no helper to call.
    for name in ["xdpchain_no_such_function", "bpf_rdonly_cast___odd"] {
        for at in of(&before, name) {
            match insns[at].code {
                code::CALL => assert!(insns[at].src() == call::HELPER && insns[at].imm >= 2_002_000_000),
                _ => assert_eq!(operand(insns, at), Operand::Value(0)),
            }
        }
    }

    let mut object = Object::parse(fixture!("variable.o")).unwrap();
    object.link(&kernel);
    let id = kernel.btf().unwrap().by_name("this_cpu_off", Kind::Var).unwrap();
    assert!(matches!(object.externs.symbols[0].kind, KernelSymbolKind::Variable(_)));
    let load = object.functions[0].insns.iter().find(|insn| insn.is_wide()).unwrap();
    assert_eq!((load.src(), load.imm), (3, id as i32));
}

#[test]
fn functions_of_kernel_modules_keep_the_number_of_their_types() {
    // vmlinux has the types, the module has the function, whose name and id go on where those of vmlinux end.
    let base = with_functions().btf.unwrap();
    let proto = base.iter().find(|(_, ty)| ty.kind() == Kind::FuncProto).unwrap().0;
    let base_bytes = base.to_bytes();
    let base_strings = u32::from_le_bytes(base_bytes[20..24].try_into().unwrap());
    let base = Arc::new(Btf::parse(&base_bytes).unwrap());
    let strings = b"\0xdpchain_no_such_function\0own\0";
    let mut types = Vec::new();
    for word in [base_strings + 1, 12 << 24, proto, base_strings + 27, 8 << 24, base.len() + 1] {
        types.extend(word.to_le_bytes());
    }
    let mut bytes = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
    for word in [0, types.len() as u32, types.len() as u32, strings.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    let btf = Btf::parse_on(&base, &bytes).unwrap();
    assert_eq!((btf.len(), btf.iter().count()), (base.len() + 2, 2));
    assert_eq!(btf.name_of(base.len() + 1), "xdpchain_no_such_function");
    assert_eq!(btf.name_of(base.len() + 2), "own");
    assert_eq!(btf.get(proto), base.get(proto));
    assert_eq!(btf.source_string(base_strings + 27).unwrap(), "own");

    let mut kernel = with_functions();
    kernel.modules.push(ModuleBtf { name: "own".into(), id: 77, btf });
    let mut object = Object::parse(fixture!("missing.o")).unwrap();
    object.link(&kernel);
    // It takes a pointer there, and a number here.
    let function = object.functions.iter().find(|f| f.name == "no_function").unwrap();
    let text = function.problem.as_ref().unwrap().to_string();
    assert!(text.contains("this kernel's is of another type"), "{text}");

    let Some(Type::FuncProto { .. }) = base.get(proto) else { panic!("a function type") };
    let mut object = Object::parse(fixture!("missing.o")).unwrap();
    let symbol = object.externs.symbols.iter_mut().find(|s| s.name == "xdpchain_no_such_function").unwrap();
    let types = object.btf.as_mut().unwrap();
    let pointer = types.push(Type::Ptr { to: 0 });
    let like =
        types.push(Type::FuncProto { ret: pointer, params: vec![Param { name: "p".into(), ty: pointer }] });
    symbol.kind = KernelSymbolKind::Function(like);
    object.link(&kernel);
    let function = object.functions.iter().find(|f| f.name == "no_function").unwrap();
    assert_eq!(function.problem, None);
    let reference = function.references.iter().find(|r| r.to == Referent::ModuleBtf(77)).unwrap();
    let insn = function.insns[reference.insn];
    assert_eq!((insn.src(), insn.imm), (call::KFUNC, base.len() as i32 + 1));
}

#[test]
fn each_function_has_problems_of_its_own() {
    let mut object = Object::parse(fixture!("missing.o")).unwrap();
    object.link(&with_types_of(fixture!("core_kernel.o")));
    let problem = |name: &str| object.functions.iter().find(|f| f.name == name).unwrap().problem.clone();
    let text = |name: &str| problem(name).map(|problem| problem.to_string()).unwrap_or_default();
    assert!(text("no_option").contains("option `CONFIG_XDPCHAIN_HAS_NONE`"), "{}", text("no_option"));
    assert!(text("no_function").contains("kernel's `xdpchain_no_such_function`"), "{}", text("no_function"));
    assert!(text("no_symbol").contains("kernel's `xdpchain_no_such_symbol`"), "{}", text("no_symbol"));
    assert!(text("no_definition").contains("uses `elsewhere`, which the object does not define"));
    // The verifier refuses it, and only when it gets there.
    assert_eq!((problem("no_field"), problem("nothing_missing")), (None, None));
    let function = object.functions.iter().find(|f| f.name == "no_field").unwrap();
    assert_eq!(function.insns[0].code, code::CALL);
}

#[test]
fn ids_of_own_types_move_with_the_types() {
    let mut object = Object::parse(fixture!("state.o")).unwrap();
    object.link(&with_types_of(fixture!("core_kernel.o")));
    let node = object.btf.as_ref().unwrap().by_name("own_node", Kind::Struct).unwrap();
    assert!(object.functions.iter().flat_map(|f| &f.references).any(|r| r.to == Referent::Type(node)));
}

#[test]
fn maps_and_program_arrays_say_what_they_hold() {
    let object = Object::parse(fixture!("values.o")).unwrap();
    let index = |name: &str| object.maps.iter().position(|m| m.name == name).unwrap();
    let values = |name: &str| object.maps[index(name)].values.clone();
    let map = |at, name: &str| (at, Initial::Map(index(name)));
    assert_eq!(values("outer"), [map(0, "one"), map(2, "two"), map(3, "three")]);
    assert_eq!(values("by_name"), [map(1, "two")]);
    let program = |at, name: &str| (at, Initial::Program(name.to_owned()));
    assert_eq!(values("jumps"), [program(1, "other"), program(3, "dropped")]);
    assert!(object.maps[index("outer")].inner.is_some());
}

#[test]
fn sections_of_many_names_are_maps() {
    let object = Object::parse(fixture!("sections.o")).unwrap();
    let size = |name: &str| object.maps.iter().find(|m| m.name == name).map(|m| m.value_size);
    for name in [".data.own", ".data.large", ".rodata.own", ".rodata.cst16", ".rodata", ".bss"] {
        assert!(size(name).is_some(), "{name}");
    }
    assert_eq!((size(".data.own"), size(".data.large")), (Some(8), Some(1000)));
    let own = Object::parse(fixture!("own.o")).unwrap();
    let counts = own.maps.iter().position(|m| m.name == "counts").unwrap();
    let program = &own.functions[own.xdp_program(Some("own")).unwrap().function];
    assert!(program.references.iter().any(|r| r.to == Referent::Map(counts)));
    let plain = Object::parse(fixture!("plain.o")).unwrap();
    assert!(plain.btf.is_none());
    assert_eq!(plain.maps[0].name, "sums");
}

#[test]
fn maps_are_told_all_that_they_are_declared_with() {
    let object = Object::parse(fixture!("kinds.o")).unwrap();
    let map = |name: &str| object.maps.iter().find(|m| m.name == name).unwrap();
    assert_eq!((map("bloom").extra, map("bloom").key_size, map("bloom").value_size), (3, 0, 4));
    assert_eq!((map("near").flags, map("near").numa_node), (5, 0));
    assert_eq!(object.maps.len(), 9);
}

#[test]
fn a_program_that_is_left_out_has_to_be_named() {
    let object = Object::parse(fixture!("optional.o")).unwrap();
    assert_eq!(object.xdp_program(None).unwrap().name, "usual");
    assert!(object.xdp_program(Some("asked_for")).unwrap().frags);
}

#[test]
fn only_variables_that_hold_addresses_are_remarked() {
    let object = Object::parse(fixture!("addresses.o")).unwrap();
    let function = |name: &str| object.functions.iter().find(|f| f.name == name).unwrap().clone();
    let text = function("uses_addresses").remark.unwrap();
    assert!(
        text.starts_with("`uses_addresses` uses `names` in section `.data`, which is to hold addresses"),
        "{text}"
    );
    assert_eq!(function("uses_addresses").problem, None);
    assert_eq!(function("uses_none").remark, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damage_is_an_error_or_a_problem_never_a_panic(
        which in 0usize..6,
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        static KERNEL: OnceLock<Arc<Btf>> = OnceLock::new();
        let types = KERNEL.get_or_init(|| with_types_of(fixture!("core_kernel.o")).btf.unwrap());
        let objects = [
            fixture!("core.o"),
            fixture!("config.o"),
            fixture!("ksyms.o"),
            fixture!("values.o"),
            fixture!("state.o"),
            fixture!("addresses.o"),
        ];
        let mut bytes = objects[which].to_vec();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(mut object) = Object::parse(&bytes) {
            object.link(&Fake { btf: Some(types.clone()), ..Fake::default() });
        }
    }
}
