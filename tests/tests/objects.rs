//! Objects that leave something to the loader, in the kernel: they load where libbpf loads them, with the operands that
//! libbpf gives them, and between other modules do what they say.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use xdpchain_compose::btf::{Btf, Kind, Type};
use xdpchain_compose::object::{Kernel, Object, ProgramKind};
use xdpchain_compose::{Chain, ComposeError, Image, MapOwner, Module, Slot, fused, tail};
use xdpchain_host::RunningKernel;
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::sys::{self, MapFd, TestRun};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec, Verdict};
use xdpchain_tests::compat::is_limit;
use xdpchain_tests::kernel::lacks;

const OBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../chain/compose/tests/fixtures/objects");

fn path(name: &str) -> PathBuf {
    Path::new(OBJECTS).join(name)
}

fn linked(name: &str) -> Object {
    let mut object = Object::parse(&std::fs::read(path(name)).unwrap()).unwrap();
    object.link(&RunningKernel::new());
    object
}

/// A module of a chain.
struct Part<'a> {
    name: &'static str,
    object: &'a Object,
    program: &'a str,
}

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

fn compose(engine: Engine, parts: &[Part<'_>]) -> Result<Image, String> {
    let specs: Vec<(ModuleSpec, SlotSpec)> = parts
        .iter()
        .map(|part| {
            let mut module = ModuleSpec::new(ObjectRef::File("test.o".into()));
            module.program = Some(part.program.to_owned());
            (module, SlotSpec::new(part.name))
        })
        .collect();
    let modules = parts.iter().zip(&specs).map(|(part, (spec, _))| Module {
        name: part.name,
        object: part.object,
        spec,
        digest: "00000000",
    });
    let slots = specs.iter().enumerate().map(|(i, (_, spec))| Slot { spec, row: i as u32 });
    let chain = Chain {
        name: "objects",
        default: ChainDefault::Keep,
        modules: modules.collect(),
        slots: slots.collect(),
    };
    engine(&chain).map_err(|error| error.to_string())
}

fn loaded(engine: Engine, parts: &[Part<'_>]) -> Result<(Image, Loaded), String> {
    let image = compose(engine, parts)?;
    let loaded = load(&image, &mut |_| Ok(None)).map_err(|error| error.to_string())?;
    Ok((image, loaded))
}

/// Whether libbpf loads the fixture on this kernel. Where it does not, the kernel lacks what the object is about.
fn loadable(name: &str) -> bool {
    let loadable = bpftool(&path(name)).is_some();
    if !loadable {
        lacks(&format!("objects, {name}"), "support for all that it uses: libbpf does not load it either");
    }
    loadable
}

/// Whether this kernel has a type of this name and kind, and an enumerator of it.
fn has_enumerator(ty: &str, enumerator: &str) -> bool {
    let kernel = RunningKernel::new();
    let btf = kernel.btf().expect("a kernel with types");
    let Some(Type::Enum(e)) = btf.by_name(ty, Kind::Enum).and_then(|id| btf.get(id)) else { return false };
    e.values.iter().any(|v| &*v.name == enumerator)
}

/// The object's program alone, and between two modules that pass everything on, by either engine.
fn alone_and_between(object: &Object, program: &str) -> [(Image, Loaded); 3] {
    let several = linked("several.o");
    let pass = |name| Part { name, object: &several, program: "first" };
    let middle = || Part { name: "m", object, program };
    let load = |engine, parts: &[Part<'_>]| {
        loaded(engine, parts).unwrap_or_else(|error| panic!("{program}: {error}"))
    };
    let between = || [pass("before"), middle(), pass("after")];
    [load(fused::compose, &[middle()]), load(fused::compose, &between()), load(tail::compose, &between())]
}

fn run(loaded: &Loaded, ifindex: u32) -> Verdict {
    let run = TestRun { packet: &[0; 64], ingress_ifindex: ifindex, ..TestRun::default() };
    let result = sys::prog_test_run(loaded.program.as_fd(), &run).unwrap();
    Verdict::ALL[result.verdict as usize]
}

fn map(image: &Image, loaded: &Loaded, name: &str) -> MapFd {
    let named = |map: &xdpchain_compose::MapUse| {
        map.owner == MapOwner::Module("m".into())
            && (map.def.name == name || map.def.name == format!("{name}.00000000"))
    };
    let index = image.maps.iter().position(named).unwrap_or_else(|| panic!("map {name}"));
    MapFd::new(loaded.maps[index].fd.try_clone().unwrap()).unwrap()
}

/// Entry 0 of an array of the module.
fn value(image: &Image, loaded: &Loaded, name: &str) -> Vec<u8> {
    sys::map_lookup(&map(image, loaded, name), &[0; 4]).unwrap().unwrap()
}

/// The members of variable `variable` of section `.bss` as numbers, by name.
fn variables(object: &Object, image: &Image, loaded: &Loaded, variable: &str) -> HashMap<String, u64> {
    let bytes = value(image, loaded, ".bss");
    let btf = object.btf.as_ref().unwrap();
    let section = btf.by_name(".bss", Kind::DataSec).unwrap();
    let Some(Type::DataSec { vars, .. }) = btf.get(section) else { panic!("a section") };
    let var = vars.iter().find(|var| btf.name_of(var.ty) == variable).unwrap();
    let Some(Type::Var { ty, .. }) = btf.get(var.ty) else { panic!("a variable") };
    let Some(Type::Struct(c)) = btf.resolved(*ty) else { panic!("a struct") };
    let number = |at: usize, size: usize| {
        let mut octets = [0; 8];
        octets[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(octets)
    };
    c.members
        .iter()
        .filter_map(|m| {
            let size = btf.size_of(m.ty).filter(|size| *size <= 8)?;
            Some((m.name.to_string(), number((var.offset + m.bit_offset / 8) as usize, size as usize)))
        })
        .collect()
}

/// What libbpf says while bpftool loads an object; nothing when that fails.
fn bpftool(file: &Path) -> Option<String> {
    let pin = format!(
        "/sys/fs/bpf/xdpchain-objects-{}-{}",
        std::process::id(),
        file.file_stem()?.to_string_lossy()
    );
    let output = Command::new("bpftool")
        .args(["-d", "prog", "load"])
        .arg(file)
        .args([pin.as_str(), "type", "xdp"])
        .output()
        .expect("bpftool is installed");
    let _ = std::fs::remove_file(pin);
    output.status.success().then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(OBJECTS).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "o")).collect();
    files.sort();
    assert!(files.len() > 10);
    files
}

#[test]
fn what_libbpf_loads_is_loaded_alone_and_between_others() {
    let several = linked("several.o");
    let mut checked = 0;
    for file in fixtures() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if bpftool(&file).is_none() {
            continue;
        }
        let object = linked(&name);
        for program in object.programs.iter().filter(|p| p.kind == ProgramKind::Xdp) {
            let pass = |name| Part { name, object: &several, program: "first" };
            let part = || Part { name: "m", object: &object, program: &program.name };
            for parts in [vec![part()], vec![pass("before"), part(), pass("after")]] {
                if let Err(error) = loaded(fused::compose, &parts)
                    && !is_limit(&error)
                {
                    panic!("{name}, program {}, {} slots: {error}", program.name, parts.len());
                }
            }
            checked += 1;
        }
    }
    // Linux 5.10 takes those that only want what it always had.
    assert!(checked >= 4, "{checked}");
}

/// What libbpf says that it did to instructions: by program and instruction, the new operand, or nothing when it made the
/// instruction one that cannot be reached.
fn patched(log: &str) -> BTreeMap<(String, usize), Option<u64>> {
    let mut found = BTreeMap::new();
    for line in log.lines() {
        let Some((program, rest)) =
            line.strip_prefix("libbpf: prog '").and_then(|l| l.split_once("': relo #"))
        else {
            continue;
        };
        let insn = || {
            let (_, rest) = rest.split_once("insn #")?;
            rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<usize>().ok()
        };
        if rest.contains("substituting insn") {
            found.insert((program.to_owned(), insn().unwrap()), None);
        } else if rest.contains("patched insn") && rest.contains(" -> ") && !rest.contains("mem_sz") {
            let number = rest.rsplit_once(" -> ").unwrap().1.trim();
            let value = number.parse::<i64>().map(|v| v as u64).or_else(|_| number.parse()).unwrap();
            found.insert((program.to_owned(), insn().unwrap()), Some(value));
        }
    }
    found
}

#[test]
fn operands_are_those_that_libbpf_gives() {
    for (name, least) in [("core.o", 40), ("core_live.o", 12), ("state.o", 1)] {
        let Some(log) = bpftool(&path(name)) else {
            assert_ne!(name, "core.o", "it wants nothing of the kernel but types");
            lacks(
                &format!("objects, {name}"),
                "support for all that it uses: libbpf does not load it either",
            );
            continue;
        };
        let object = linked(name);
        let theirs = patched(&log);
        assert!(theirs.len() >= least, "{name}: {}", theirs.len());
        for ((program, at), wanted) in theirs {
            let function = object.functions.iter().find(|f| f.name == program).unwrap();
            let insn = function.insns[at];
            let ours = match insn.class() {
                _ if insn.is_wide() => {
                    Some(insn.imm as u32 as u64 | (function.insns[at + 1].imm as u32 as u64) << 32)
                }
                1..=3 => Some(insn.off as u64),
                4 | 7 => Some(i64::from(insn.imm) as u64),
                _ => None,
            };
            assert_eq!(ours, wanted, "{name}, {program}, instruction {at}");
        }
    }
}

#[test]
fn the_kernels_own_structures_are_read() {
    if !loadable("core_live.o") {
        return;
    }
    let object = linked("core_live.o");
    let kernel = RunningKernel::new();
    let btf = kernel.btf().unwrap();
    let size = |name: &str| u64::from(btf.size_of(btf.by_name(name, Kind::Struct).unwrap()).unwrap());
    let mtu: u64 = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse().unwrap();
    for (image, loaded) in alone_and_between(&object, "core_live") {
        assert_eq!(run(&loaded, 1), Verdict::Pass);
        let found = variables(&object, &image, &loaded, "found");
        let expected = [
            ("ifindex", 1),
            ("mtu", mtu),
            ("addr_len", 6),
            ("queue", 0),
            ("helper", 44),
            ("device_size", size("net_device")),
            ("comm_size", 16),
            ("jited", 63),
            ("id", u64::from(btf.by_name("net_device", Kind::Struct).unwrap())),
        ];
        for (name, value) in expected {
            assert_eq!(found[name], value, "{name}");
        }
        assert_eq!(member_offset(btf, "task_struct", "pid"), Some(found["pid_offset"]));
    }
}

fn member_offset(btf: &Btf, name: &str, member: &str) -> Option<u64> {
    let Some(Type::Struct(c)) = btf.get(btf.by_name(name, Kind::Struct)?) else { return None };
    c.members.iter().find(|m| &*m.name == member).map(|m| u64::from(m.bit_offset / 8))
}

#[test]
fn questions_about_types_that_no_kernel_has_are_answered_with_no() {
    let object = linked("core.o");
    for (image, loaded) in alone_and_between(&object, "core") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
        let out = variables(&object, &image, &loaded, "out");
        assert!(out.values().all(|value| *value == 0), "{out:?}");
    }
}

#[test]
fn options_are_those_of_the_running_kernel() {
    if !loadable("config.o") {
        return;
    }
    let object = linked("config.o");
    let kernel = RunningKernel::new();
    let number = |name: &str| kernel.config(name).unwrap().parse::<u64>().unwrap();
    for (image, loaded) in alone_and_between(&object, "config") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
        let found = variables(&object, &image, &loaded, "found");
        assert_eq!(found["version"], u64::from(kernel.version()));
        assert!(kernel.version() >= 5 << 16);
        assert_eq!(found["hz"], number("CONFIG_HZ"));
        assert_eq!((found["syscall"], found["bpf"], found["off"]), (1, 1, 0));
        assert_eq!((found["none"], found["another"]), (0, 0));
        assert_eq!(found["jit"], u64::from(b'y'));
        let host = kernel.config("CONFIG_DEFAULT_HOSTNAME").unwrap_or_default();
        let host: Vec<u8> = host.trim_matches('"').bytes().chain([0; 8]).take(7).collect();
        assert_eq!(found["host"].to_le_bytes()[..7], host);
    }
}

#[test]
fn kernel_functions_are_called_and_missing_ones_are_done_without() {
    if !loadable("ksyms.o") {
        return;
    }
    let object = linked("ksyms.o");
    let address = RunningKernel::new().symbol("bpf_prog_alloc");
    for (image, loaded) in alone_and_between(&object, "ksyms") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
        let found = variables(&object, &image, &loaded, "found");
        assert_eq!((found["context"], found["flavour"]), (1, 1));
        assert_eq!([found["alloc"]], address.as_slice());
        for name in ["no_symbol", "no_function", "no_variable", "odd"] {
            assert_eq!(found[name], 0, "{name}");
        }
    }
}

#[test]
fn functions_of_kernel_modules_are_called() {
    // Where it is a module, loading it is the caller's business.
    if !loadable("conntrack.o") {
        return;
    }
    let object = linked("conntrack.o");
    for (_, loaded) in alone_and_between(&object, "conntrack") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
    }
}

#[test]
fn what_is_missing_is_said_and_concerns_nobody_else() {
    let object = linked("missing.o");
    let part = |program| Part { name: "m", object: &object, program };
    for (program, words) in [
        ("no_option", "`no_option` needs the kernel's configuration option `CONFIG_XDPCHAIN_HAS_NONE`"),
        ("no_function", "`no_function` needs the kernel's `xdpchain_no_such_function`"),
        ("no_symbol", "`no_symbol` needs the kernel's `xdpchain_no_such_symbol`"),
        ("no_definition", "`no_definition` uses `elsewhere`, which the object does not define"),
    ] {
        let error = compose(fused::compose, &[part(program)]).unwrap_err();
        assert!(error.contains(words) && error.contains("\nhelp: "), "{error}");
    }
    let error = loaded(fused::compose, &[part("no_field")]).unwrap_err();
    assert!(error.contains("195896080"), "{error}");
    let (_, loaded) = loaded(fused::compose, &[part("nothing_missing")]).unwrap();
    assert_eq!(run(&loaded, 0), Verdict::Tx);
}

#[test]
fn maps_of_maps_hold_from_the_start_what_they_are_declared_with() {
    if !loadable("values.o") {
        return;
    }
    let object = linked("values.o");
    for (image, loaded) in alone_and_between(&object, "values") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
        let count = |name: &str| u64::from_le_bytes(value(&image, &loaded, name)[8..].try_into().unwrap());
        assert_eq!((count("one"), count("two"), count("three")), (1, 3 + 2, 4));
    }
}

#[test]
fn the_kernel_knows_the_types_of_map_values() {
    if !loadable("state.o") {
        return;
    }
    let object = linked("state.o");
    for (image, loaded) in alone_and_between(&object, "state") {
        assert_eq!((run(&loaded, 0), run(&loaded, 0)), (Verdict::Tx, Verdict::Pass));
        assert_ne!(map(&image, &loaded, "states").info().btf_value, 0);
    }
}

#[test]
fn pointers_in_map_values_are_kept() {
    let kernel = RunningKernel::new();
    if kernel.btf().and_then(|btf| btf.by_name("bpf_obj_new_impl", Kind::Func)).is_none() {
        lacks("objects, kptr.o", "objects of programs");
        return;
    }
    let mut object = linked("kptr.o");
    let btf = object.btf.as_mut().unwrap();
    let node = btf.by_name("own_node", Kind::Struct).unwrap();
    let tag = btf.push(Type::TypeTag { name: "kptr".into(), to: node, attribute: false });
    let pointer = btf.push(Type::Ptr { to: tag });
    let holder = btf.by_name("holder", Kind::Struct).unwrap();
    let Some(Type::Struct(c)) = btf.get_mut(holder) else { panic!("a struct") };
    c.members[0].ty = pointer;
    for (_, loaded) in alone_and_between(&object, "kptr") {
        assert_eq!((run(&loaded, 0), run(&loaded, 0)), (Verdict::Tx, Verdict::Pass));
    }
}

#[test]
fn maps_of_many_types_are_used() {
    if !loadable("kinds.o") {
        return;
    }
    let object = linked("kinds.o");
    for (_, loaded) in alone_and_between(&object, "kinds") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
    }
}

#[test]
fn data_of_many_sections_is_read_and_written() {
    if !loadable("sections.o") {
        return;
    }
    let object = linked("sections.o");
    for (image, loaded) in alone_and_between(&object, "sections") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
        let found = variables(&object, &image, &loaded, "found");
        let expected = [
            ("data", 5),
            ("bss", 1),
            ("rodata", 7),
            ("sixteen", 7),
            ("compare", 0),
            ("loops", 5),
            ("weak", 8),
            ("aliased", 9),
        ];
        for (name, value) in expected {
            assert_eq!(found[name], value, "{name}");
        }
        assert_eq!(value(&image, &loaded, "counts"), 10_u64.to_le_bytes());
        assert_eq!(value(&image, &loaded, ".data.large")[999], b'e');
    }
}

#[test]
fn objects_without_types_and_with_maps_of_their_own_kind_load() {
    if has_enumerator("bpf_func_id", "BPF_FUNC_loop") {
        let plain = linked("plain.o");
        for (image, loaded) in alone_and_between(&plain, "plain") {
            assert_eq!(run(&loaded, 0), Verdict::Pass);
            assert_eq!(value(&image, &loaded, "sums"), 6_u64.to_le_bytes());
        }
    } else {
        lacks("objects, plain.o", "helper bpf_loop");
    }
    let own = linked("own.o");
    for (image, loaded) in alone_and_between(&own, "own") {
        assert_eq!(run(&loaded, 0), Verdict::Pass);
        assert_eq!(value(&image, &loaded, "counts"), 1_u64.to_le_bytes());
        assert_eq!(value(&image, &loaded, ".bss.own"), 1_u32.to_le_bytes());
    }
}
