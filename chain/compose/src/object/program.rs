//! Entry points of an object, and which of them can be a module.

use super::ObjectError;

/// An entry point.
#[derive(Clone, Debug)]
pub struct Program {
    /// Symbol name.
    pub name: String,
    /// ELF section.
    pub section: String,
    /// Index in [`Object::functions`](super::Object::functions).
    pub function: usize,
    /// What it attaches to.
    pub kind: ProgramKind,
    /// Written for packets in several buffers (`xdp.frags`).
    pub frags: bool,
    /// What `.xdp_run_config` says of it.
    pub run_config: Option<RunConfig>,
}

/// What an entry point attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// An interface.
    Xdp,
    /// An entry of a cpumap or devmap.
    XdpMapEntry,
    /// Something that is not XDP.
    Other,
}

/// libxdp's `XDP_RUN_CONFIG`, as it stands in an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunConfig {
    /// Run priority; lower runs first.
    pub priority: Option<u32>,
    /// Bit n is set when the chain goes on after verdict n.
    pub chain_call_actions: u32,
}

/// Section names, up to the first `/`, of programs that are not XDP. From libbpf's documentation of program types.
const OTHER_SECTIONS: &[&str] = &[
    "action",
    "cgroup",
    "cgroup_skb",
    "classifier",
    "fentry",
    "fentry.s",
    "fexit",
    "fexit.s",
    "flow_dissector",
    "fmod_ret",
    "fmod_ret.s",
    "freplace",
    "iter",
    "iter.s",
    "kprobe",
    "kprobe.multi",
    "kretprobe",
    "kretprobe.multi",
    "ksyscall",
    "kretsyscall",
    "lirc_mode2",
    "lsm",
    "lsm.s",
    "lsm_cgroup",
    "lwt_in",
    "lwt_out",
    "lwt_seg6local",
    "lwt_xmit",
    "netfilter",
    "netkit",
    "perf_event",
    "raw_tp",
    "raw_tp.w",
    "raw_tracepoint",
    "raw_tracepoint.w",
    "sk_lookup",
    "sk_msg",
    "sk_reuseport",
    "sk_skb",
    "sockops",
    "socket",
    "struct_ops",
    "struct_ops.s",
    "syscall",
    "tc",
    "tcx",
    "tp",
    "tp_btf",
    "tracepoint",
    "uprobe",
    "uprobe.multi",
    "uprobe.s",
    "uretprobe",
    "uretprobe.multi",
    "uretprobe.s",
    "usdt",
];

/// A section's name without the mark that keeps loaders from loading its program unless they are told to.
pub(super) fn plain_section(section: &str) -> &str {
    section.strip_prefix('?').unwrap_or(section)
}

/// What a program of this section attaches to. `takes_xdp_md` is what BTF says of its argument, when it says anything:
/// an author's own loader may use any section name.
pub(super) fn kind(section: &str, takes_xdp_md: Option<bool>) -> ProgramKind {
    let section = plain_section(section);
    let (head, rest) = section.split_once('/').unwrap_or((section, ""));
    match head {
        "xdp" | "xdp.frags" if rest == "cpumap" || rest == "devmap" => ProgramKind::XdpMapEntry,
        "xdp_cpumap" | "xdp_devmap" => ProgramKind::XdpMapEntry,
        "xdp" | "xdp.frags" => ProgramKind::Xdp,
        _ if OTHER_SECTIONS.contains(&head) => ProgramKind::Other,
        _ if takes_xdp_md.unwrap_or(head.starts_with("xdp") || head == "prog") => ProgramKind::Xdp,
        _ => ProgramKind::Other,
    }
}

pub(super) fn select<'a>(programs: &'a [Program], name: Option<&str>) -> Result<&'a Program, ObjectError> {
    let names = |list: &[&Program]| {
        if list.is_empty() {
            return "none".to_owned();
        }
        list.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ")
    };
    let xdp: Vec<&Program> = programs.iter().filter(|p| p.kind == ProgramKind::Xdp).collect();
    if let Some(name) = name {
        return match programs.iter().find(|p| p.name == name) {
            Some(p) if p.kind == ProgramKind::Xdp => Ok(p),
            Some(p) if p.kind == ProgramKind::XdpMapEntry => {
                Err(ObjectError::NotForInterfaces { name: p.name.clone(), section: p.section.clone() })
            }
            _ => Err(ObjectError::NoSuchProgram { name: name.to_owned(), names: names(&xdp) }),
        };
    }
    // One that is not to be loaded unless somebody asks is chosen by name, or when there is no other.
    let asked: Vec<&Program> = xdp.iter().copied().filter(|p| !p.section.starts_with('?')).collect();
    let xdp = if asked.is_empty() { xdp } else { asked };
    match xdp.as_slice() {
        [one] => Ok(one),
        [] => {
            let found =
                programs.iter().map(|p| format!("`{}` in `{}`", p.name, p.section)).collect::<Vec<_>>();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            Err(ObjectError::NoProgram { found })
        }
        several => Err(ObjectError::SeveralPrograms { count: several.len(), names: names(several) }),
    }
}
