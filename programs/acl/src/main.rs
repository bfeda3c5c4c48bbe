//! The access list on inner packets: ordered rules, the first match decides.
//!
//! - Rules are compiled by user space to a decision tree, which is replaced as a whole: a packet is judged by one set of
//!   rules, and in a number of steps that does not depend on how many there are.
//! - A packet whose headers are cut short, whose IPv6 extension headers are more than are walked, or that is a later
//!   fragment whose upper layer only the first one tells, is dropped: what cannot be judged is not let through.
//! - A rule that asks for ports matches no fragment.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, xdp_action::XDP_PASS, xdp_md},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{
    ACL_RULES, AclConfig, AclRule, Reason, acl_action,
    acl_tables::{BLOCK, BLOCKS, ENTRIES, FLAGS, NODES, kind},
    direction,
};
use xdpchain_kit::Packet;
use xdpchain_wire::ethernet::ethertype;

mod plain;
mod scratch;
mod subject;
mod walk;

use plain::Plain;
use scratch::Scratch;
use walk::{Nodes, Tables};

xdpchain_kit::module!();

/// Both blocks of compiled rules.
type Blocks = Array<[u64; BLOCK / 8], BLOCKS, { FLAGS as usize }>;

/// Rules, by number. What is looked at is what they are compiled to.
#[btf_map(name = "rules")]
static RULES: HashMap<u32, AclRule, { ACL_RULES as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The decision tree, which is there as soon as there were rules.
#[btf_map(name = "rules_compiled")]
static COMPILED: ArrayOfMaps<Blocks, 1> = ArrayOfMaps::new();

/// What happens when no rule matches.
#[btf_map(name = "config")]
static CONFIG: Array<AclConfig, 1> = Array::new();

/// Packets that each rule decided on.
#[btf_map(name = "hits")]
static HITS: PerCpuArray<u64, { ACL_RULES as usize }> = PerCpuArray::new();

/// The key of the packet at hand, and what its walk has put aside.
#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Passes on what is allowed, drops what is denied.
#[xdp]
fn acl(ctx: XdpContext) -> u32 {
    let context = module::context();
    if context.direction == direction::NONE && !CONFIG.get(0).is_some_and(|config| config.all_packets != 0) {
        return XDP_PASS;
    }
    let action = match judge(&module::packet(&ctx, &context)) {
        Ok(action) => action.or_else(|| CONFIG.get(0).map(|config| config.default_action)),
        Err(verdict) => return verdict,
    };
    match action {
        // An array has its entry 0; only the verifier does not know.
        Some(acl_action::ALLOW) | None => XDP_PASS,
        Some(_) => module::refuse(Reason::AclDenied),
    }
}

/// What the rules say of a packet, `None` when none matches; or the verdict for one that they are not asked about.
///
/// Context and configuration are asked for where they are needed: what a body holds on to meanwhile costs more.
#[inline(always)]
fn judge(packet: &Packet) -> Result<Option<u8>, u32> {
    let rules = rules();
    let plain = Plain::parse(packet);
    // Before there is a key, which is most of the work for a packet that a rule that is alone does not match.
    if let (Some((_, nodes)), Some(plain)) = (rules, &plain)
        && nodes.is_guarded()
        && !nodes.lets_by(plain.low_halves())
    {
        return Ok(None);
    }
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(XDP_PASS)?;
    match plain {
        // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
        Some(plain) => plain.write(&module::context(), unsafe { &mut *scratch }),
        // SAFETY: the context is the packet's, and nobody has a reference to the value meanwhile.
        None => match unsafe { xdpchain_subject(packet.as_ptr()) } {
            FOUND => {}
            NOT_IP => return Err(XDP_PASS),
            _ => return Err(module::refuse(Reason::Truncated)),
        },
    }
    // SAFETY: as above.
    Ok(rules.and_then(|(blocks, nodes)| decide(blocks, nodes, unsafe { &mut *scratch })))
}

/// What [`xdpchain_subject`] returns.
const CUT: u32 = 0;
const FOUND: u32 = 1;
const NOT_IP: u32 = 2;

/// Writes the key of any packet. A global function: the verifier follows it once, and the walk not anew for each way through it.
///
/// # Safety
/// As for [`xdpchain_kit::Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_subject(ctx: *mut xdp_md) -> u32 {
    let context = module::context();
    // SAFETY: as the caller promises.
    let packet = unsafe { module::packet_of(ctx, &context) };
    let (Some(link), Some(scratch)) = (packet.link(), SCRATCH.get_ptr_mut(0)) else { return CUT };
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return NOT_IP;
    }
    // SAFETY: the value belongs to this CPU, and who asks has no reference to it meanwhile.
    match subject::parse(&packet, link, &context, unsafe { &mut *scratch }) {
        Some(()) => FOUND,
        None => CUT,
    }
}

/// The compiled rules.
#[inline(always)]
fn rules() -> Option<(&'static Blocks, Nodes<'static>)> {
    let Some(blocks) = COMPILED.get(0) else {
        keep_rules();
        return None;
    };
    Some((blocks, Nodes(blocks.get(NODES)?)))
}

/// The action of the first rule that matches.
#[inline(always)]
fn decide(blocks: &Blocks, nodes: Nodes, scratch: &mut Scratch) -> Option<u8> {
    let first = nodes.first(scratch);
    if first.kind() == kind::END {
        return None;
    }
    let tables = Tables { nodes, entries: blocks.get(ENTRIES)? };
    let found = tables.walk(first, scratch)?;
    if let Some(hits) = HITS.get_ptr_mut(found.rule) {
        // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
        unsafe { *hits += 1 };
    }
    Some(found.action)
}

/// Refers to the map of rules, as the linker leaves a map out that no program refers to.
#[inline(always)]
fn keep_rules() {
    let rules = core::ptr::from_ref(&RULES);
    // A real instruction, because line information for an empty one is refused by the kernel.
    // SAFETY: moves a register to another one and touches nothing else.
    unsafe { core::arch::asm!("{0} = {1}", out(reg) _, in(reg) rules, options(nomem, nostack)) };
}
