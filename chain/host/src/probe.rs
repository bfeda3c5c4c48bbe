//! What the running kernel can do: tried, not told from its version.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::{BPF_F_XDP_HAS_FRAGS, BPF_PSEUDO_MAP_FD, bpf_map_type};
use xdpchain_compose::Insn;
use xdpchain_compose::btf::{Btf, Composite, FuncInfo, Linkage, Param, Type, TypeId};

use crate::features;
use crate::load::ATTACH_TYPE;
use crate::sys::{self, BatchOp, MapCreate, MapFd, ProgLoad};

/// Something that a kernel can do or not.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// Why it is not there; none when it is.
    pub missing: Option<String>,
}

/// The features that engines ask for, by name.
pub mod feature {
    /// XDP programs can be loaded at all.
    pub const PROGRAMS: &str = "XDP programs";
    /// XDP programs can be attached by links.
    pub const LINKS: &str = "XDP links";
    /// A subprogram can tail call.
    pub const MIXING: &str = "tail calls in subprograms";
    /// Programs can extend others.
    pub const EXTENSIONS: &str = "extension programs";
}

/// Tries everything.
pub fn kernel() -> Vec<Feature> {
    sys::raise_memlock();
    let kinds = features::btf();
    let known = |known: bool| if known { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) };
    let tried: [(&str, &str, io::Result<()>); 11] = [
        (feature::PROGRAMS, "everything", program(0)),
        (feature::LINKS, "everything: a chain is swapped in its link", known(sys::has_xdp_links())),
        (feature::MIXING, "modules with tail calls, adopted programs", mixing()),
        ("xdp.frags", "packets in several buffers, large MTUs", program(BPF_F_XDP_HAS_FRAGS)),
        (feature::EXTENSIONS, "engine libxdp", extensions()),
        ("map batches", "fast import and export of maps", batches()),
        ("the kernel's types", "modules with CO-RE", kernel_types()),
        ("BTF floats", "types of modules in full", known(kinds.float)),
        ("BTF declaration tags", "types of modules in full", known(kinds.decl_tag)),
        ("BTF type tags", "types of modules in full", known(kinds.type_tag)),
        ("BTF 64-bit enumerations", "types of modules in full", known(kinds.enum64)),
    ];
    tried
        .into_iter()
        .map(|(name, purpose, result)| Feature {
            name,
            purpose,
            missing: result.err().map(|e| e.to_string()),
        })
        .collect()
}

fn insn(code: u8, regs: u8, imm: i32) -> Insn {
    Insn { code, regs, off: 0, imm }
}

const PASS: [Insn; 2] =
    [Insn { code: 0xb7, regs: 0, off: 0, imm: 2 }, Insn { code: 0x95, regs: 0, off: 0, imm: 0 }];

fn load(insns: &[Insn], flags: u32, btf: Option<(&OwnedFd, &[u8])>) -> io::Result<OwnedFd> {
    load_program(insns, flags, btf, None)
}

fn load_program(
    insns: &[Insn],
    flags: u32,
    btf: Option<(&OwnedFd, &[u8])>,
    replaces: Option<(BorrowedFd<'_>, TypeId)>,
) -> io::Result<OwnedFd> {
    let program = ProgLoad {
        name: "probe",
        insns,
        license: "Dual MIT/GPL",
        flags,
        attach_type: ATTACH_TYPE,
        btf: btf.map(|(fd, functions)| (fd.as_fd(), functions, &[][..])),
        replaces,
        modules: &[],
    };
    sys::prog_load(&program).map_err(|(error, log)| {
        tracing::debug!("probe: {error}: {log}");
        error
    })
}

fn program(flags: u32) -> io::Result<()> {
    load(&PASS, flags, None).map(drop)
}

fn map(map_type: bpf_map_type) -> io::Result<OwnedFd> {
    sys::map_create(&MapCreate {
        name: "probe",
        map_type: map_type as u32,
        key_size: 4,
        value_size: 4,
        max_entries: 4,
        flags: 0,
        extra: 0,
        numa_node: 0,
        inner: None,
        btf: None,
    })
}

/// A subprogram that tail calls.
fn mixing() -> io::Result<()> {
    let array = map(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY)?;
    let insns = [
        insn(0x85, 0x10, 1),
        insn(0x95, 0, 0),
        insn(0x18, 2 | (BPF_PSEUDO_MAP_FD as u8) << 4, array.as_raw_fd()),
        insn(0, 0, 0),
        insn(0xb7, 3, 0),
        insn(0x85, 0, 12),
        insn(0xb7, 0, 2),
        insn(0x95, 0, 0),
    ];
    // A kernel that can do it wants to know the functions' types.
    let types = Types::load(Linkage::Static)?;
    load(&insns, 0, Some((&types.fd, &types.functions))).map(drop)
}

fn batches() -> io::Result<()> {
    let map = MapFd::new(map(bpf_map_type::BPF_MAP_TYPE_HASH)?)?;
    sys::map_batch(BatchOp::Update, &map, &[1; 8], &[1; 8], 0).map_err(|e| e.error)
}

fn kernel_types() -> io::Result<()> {
    std::fs::metadata(Path::new("/sys/kernel/btf/vmlinux")).map(drop)
}

/// A program in which another replaces a function.
fn extensions() -> io::Result<()> {
    let types = Types::load(Linkage::Global)?;
    let insns = [insn(0x85, 0x10, 1), insn(0x95, 0, 0), PASS[0], PASS[1]];
    let target = load(&insns, 0, Some((&types.fd, &types.functions)))?;
    let own = FuncInfo::record(0, types.second);
    let replaced = (target.as_fd(), types.second);
    let extension = load_program(&PASS, 0, Some((&types.fd, &own)), Some(replaced))?;
    sys::link_create_replacement(extension.as_fd(), target.as_fd(), types.second).map(drop)
}

/// Types of a program of two functions, both `int (struct xdp_md *)`, of which the second begins at instruction 2.
struct Types {
    fd: OwnedFd,
    functions: Vec<u8>,
    second: TypeId,
}

impl Types {
    fn load(linkage: Linkage) -> io::Result<Self> {
        let mut btf = Btf::new();
        let int = btf.push(Type::Int { name: "int".into(), size: 4, encoding: 1, offset: 0, bits: 32 });
        let xdp_md =
            btf.push(Type::Struct(Composite { name: "xdp_md".into(), size: 24, ..Composite::default() }));
        let ctx = btf.push(Type::Ptr { to: xdp_md });
        let params = vec![Param { name: "ctx".into(), ty: ctx }];
        let proto = btf.push(Type::FuncProto { ret: int, params });
        let first = btf.push(Type::Func { name: "probe".into(), proto, linkage });
        let second = btf.push(Type::Func { name: "second".into(), proto, linkage });
        let fd = sys::btf_load(&btf.to_bytes()).map_err(|(error, _)| error)?;
        let functions = [FuncInfo::record(0, first), FuncInfo::record(2, second)].concat();
        Ok(Self { fd, functions, second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_asked_for_by_its_own_name() {
        let all = kernel();
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other.name != one.name));
        }
        for name in [feature::PROGRAMS, feature::LINKS, feature::MIXING, feature::EXTENSIONS] {
            assert!(all.iter().any(|feature| feature.name == name));
        }
    }
}
