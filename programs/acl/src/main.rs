//! The access list on inner packets: ordered rules, the first match decides.
//!
//! - Rules are searched from the first on, so that what an operator reads is what happens.
//! - A packet whose headers are cut short, or has more IPv6 extension headers than are walked, is dropped: what cannot
//!   be judged is not let through.
//! - A rule that asks for ports matches no fragment.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    btf_maps::{Array, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{ACL_RULES, AclConfig, AclRule, Reason, acl_action, direction};
use xdpchain_kit::Packet;
use xdpchain_wire::{
    ethernet::{Link, ethertype},
    flow::Flow,
};

mod rule;

use rule::Subject;

xdpchain_kit::module!();

/// Rules, in order.
#[btf_map(name = "rules")]
static RULES: Array<AclRule, { ACL_RULES as usize }> = Array::new();

/// How many rules there are and what happens when none matches.
#[btf_map(name = "config")]
static CONFIG: Array<AclConfig, 1> = Array::new();

/// Packets that each rule decided on.
#[btf_map(name = "hits")]
static HITS: PerCpuArray<u64, { ACL_RULES as usize }> = PerCpuArray::new();

/// Passes on what is allowed, drops what is denied.
#[xdp]
fn acl(ctx: XdpContext) -> u32 {
    let Some(config) = CONFIG.get(0) else { return XDP_PASS };
    let context = module::context();
    if context.direction == direction::NONE && config.all_packets == 0 {
        return XDP_PASS;
    }
    let packet = Packet::new(&ctx);
    let Some(link) = Link::parse(&packet) else { return module::refuse(Reason::Truncated) };
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return XDP_PASS;
    }
    let Some(flow) = Flow::parse(&packet, link.ethertype, link.network) else {
        return module::refuse(Reason::Truncated);
    };
    match decide(&Subject::new(context.customer, context.direction, &flow), config) {
        acl_action::ALLOW => XDP_PASS,
        _ => module::refuse(Reason::AclDenied),
    }
}

/// The action of the first rule that matches, else the default one.
#[inline(always)]
fn decide(subject: &Subject, config: &AclConfig) -> u8 {
    for i in 0..ACL_RULES {
        if i >= config.count {
            break;
        }
        // The map may have fewer entries than the configuration says.
        let Some(rule) = RULES.get(i) else { break };
        if subject.matches(rule) {
            if let Some(hits) = HITS.get_ptr_mut(i) {
                // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
                unsafe { *hits += 1 };
            }
            return rule.action;
        }
    }
    config.default_action
}
