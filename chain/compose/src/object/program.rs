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
    /// Whatever its author's own loader says: neither its section nor its types tell.
    Untold,
    /// Something that is not XDP.
    Other,
}

/// What BTF says of a program's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// `struct xdp_md`.
    Xdp,
    /// That of another type of program.
    Other,
    /// Nothing: no types, no parameter, or a type of the author's own.
    Untold,
}

impl Context {
    /// That of a program whose parameter points to a type with this name.
    pub(super) fn of_type(name: &str) -> Self {
        match name {
            "xdp_md" | "xdp_buff" => Self::Xdp,
            _ if OTHER_CONTEXTS.contains(&name) || name.starts_with("bpf_iter__") => Self::Other,
            _ => Self::Untold,
        }
    }
}

/// Contexts of programs that are not XDP. From the kernel's table of program types.
const OTHER_CONTEXTS: &[&str] = &[
    "__sk_buff",
    "bpf_cgroup_dev_ctx",
    "bpf_nf_ctx",
    "bpf_perf_event_data",
    "bpf_raw_tracepoint_args",
    "bpf_sk_lookup",
    "bpf_sock",
    "bpf_sock_addr",
    "bpf_sock_ops",
    "bpf_sockopt",
    "bpf_sysctl",
    "bpf_user_pt_regs_t",
    "pt_regs",
    "sk_msg_md",
    "sk_reuseport_md",
];

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

/// What a program of this section attaches to. `context` is what BTF says: an author's own loader may use any section name.
pub(super) fn kind(section: &str, context: Context) -> ProgramKind {
    let section = plain_section(section);
    let (head, rest) = section.split_once('/').unwrap_or((section, ""));
    match (head, context) {
        ("xdp" | "xdp.frags", _) if rest == "cpumap" || rest == "devmap" => ProgramKind::XdpMapEntry,
        // The old names of those are prefixes with a slash.
        ("xdp_cpumap" | "xdp_devmap", _) if section.contains('/') => ProgramKind::XdpMapEntry,
        ("xdp" | "xdp.frags", _) => ProgramKind::Xdp,
        _ if OTHER_SECTIONS.contains(&head) => ProgramKind::Other,
        (_, Context::Xdp) => ProgramKind::Xdp,
        (_, Context::Other) => ProgramKind::Other,
        (_, Context::Untold) if head.starts_with("xdp") || head == "prog" => ProgramKind::Xdp,
        (_, Context::Untold) => ProgramKind::Untold,
    }
}

pub(super) fn select<'a>(programs: &'a [Program], name: Option<&str>) -> Result<&'a Program, ObjectError> {
    let names = |list: &[&Program]| {
        if list.is_empty() {
            return "none".to_owned();
        }
        list.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ")
    };
    let of = |kind| programs.iter().filter(move |p| p.kind == kind).collect::<Vec<&Program>>();
    let (xdp, untold) = (of(ProgramKind::Xdp), of(ProgramKind::Untold));
    // One that says nothing is what the object is for when it has no other.
    let xdp = if xdp.is_empty() { untold } else { xdp };
    if let Some(name) = name {
        return match programs.iter().find(|p| p.name == name) {
            Some(p) if matches!(p.kind, ProgramKind::Xdp | ProgramKind::Untold) => Ok(p),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, section: &str, context: Context) -> Program {
        Program {
            name: name.to_owned(),
            section: section.to_owned(),
            function: 0,
            kind: kind(section, context),
            frags: false,
            run_config: None,
        }
    }

    #[test]
    fn sections_of_the_authors_own_naming_are_taken_unless_something_speaks_against_it() {
        for (section, context, wanted) in [
            ("xdp_firewall", Context::Untold, ProgramKind::Xdp),
            ("prog", Context::Untold, ProgramKind::Xdp),
            ("xdp_firewall", Context::Other, ProgramKind::Other),
            ("filter", Context::Xdp, ProgramKind::Xdp),
            ("filter", Context::Untold, ProgramKind::Untold),
            ("tc", Context::Xdp, ProgramKind::Other),
            ("xdp_devmap", Context::Xdp, ProgramKind::Xdp),
            ("xdp_devmap/map_prog", Context::Xdp, ProgramKind::XdpMapEntry),
            ("xdp/cpumap", Context::Xdp, ProgramKind::XdpMapEntry),
        ] {
            assert_eq!(kind(section, context), wanted, "{section}, {context:?}");
        }
        assert_eq!(Context::of_type("xdp_md"), Context::Xdp);
        assert_eq!(Context::of_type("__sk_buff"), Context::Other);
        assert_eq!(Context::of_type("ctx_md"), Context::Untold);
    }

    #[test]
    fn what_does_not_tell_is_chosen_by_name_or_when_there_is_nothing_else() {
        let own = program("own", "2/0", Context::Untold);
        let filter = program("filter", "ingress", Context::Other);
        let xdp = program("xdp", "xdp", Context::Xdp);
        let name =
            |list: &[Program], name| select(list, name).map(|p| p.name.clone()).map_err(|e| e.to_string());
        assert_eq!(name(&[own.clone(), filter.clone()], None).as_deref(), Ok("own"));
        assert_eq!(name(&[own.clone(), xdp.clone()], None).as_deref(), Ok("xdp"));
        assert_eq!(name(&[own.clone(), xdp.clone()], Some("own")).as_deref(), Ok("own"));
        let refused = name(&[filter, xdp], Some("filter")).unwrap_err();
        assert!(refused.starts_with("no XDP program `filter`; there is: `xdp`"), "{refused}");
    }
}
