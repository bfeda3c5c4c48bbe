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
use xdpchain_wire::ethernet::ethertype;

mod plain;
mod scratch;
mod subject;
mod walk;

use scratch::Scratch;
use walk::{Nodes, Tables};

xdpchain_kit::module!();

/// Rules, by number. What is looked at is what they are compiled to.
#[btf_map(name = "rules")]
static RULES: HashMap<u32, AclRule, { ACL_RULES as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The decision tree, which is there as soon as there were rules.
#[btf_map(name = "rules_compiled")]
static COMPILED: ArrayOfMaps<Array<[u64; BLOCK / 8], BLOCKS, { FLAGS as usize }>, 1> = ArrayOfMaps::new();

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
    let Some(config) = CONFIG.get(0) else { return XDP_PASS };
    let context = module::context();
    if context.direction == direction::NONE && config.all_packets == 0 {
        return XDP_PASS;
    }
    let packet = module::packet(&ctx, &context);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return XDP_PASS };
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    if plain::parse(&packet, &context, unsafe { &mut *scratch }).is_none() {
        // SAFETY: the context is the packet's, and nobody has a reference to the value meanwhile.
        match unsafe { xdpchain_subject(packet.as_ptr()) } {
            FOUND => {}
            NOT_IP => return XDP_PASS,
            _ => return module::refuse(Reason::Truncated),
        }
    }
    // SAFETY: as above.
    match decide(unsafe { &mut *scratch }).unwrap_or(config.default_action) {
        acl_action::ALLOW => XDP_PASS,
        _ => module::refuse(Reason::AclDenied),
    }
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

/// The action of the first rule that matches.
#[inline(always)]
fn decide(scratch: &mut Scratch) -> Option<u8> {
    let Some(blocks) = COMPILED.get(0) else {
        keep_rules();
        return None;
    };
    let nodes = Nodes(blocks.get(NODES)?);
    let first = nodes.first(scratch);
    if first.kind() == kind::END || first.is_guarded() && !nodes.lets_by(scratch) {
        return None;
    }
    let tables = Tables { nodes, entries: blocks.get(ENTRIES)? };
    let found = tables.walk(first, scratch)?;
    if let Some(hits) = HITS.get_ptr_mut(found.rule) {
        // SAFETY: as above.
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
