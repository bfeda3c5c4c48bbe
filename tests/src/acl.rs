//! Rules put into `acl`'s maps as the binary puts them there: compiled, and exchanged in one step.

use std::os::fd::OwnedFd;

use xdpchain_abi::AclRule;
use xdpchain_abi::acl_tables::{
    BLOCK, BLOCKS, LAYOUT_AT, NODE_COUNT, Node, ROOT, SHAPES, SHAPES_AT, SIEVED, Sieved, WINDOWS, kind,
};
use xdpchain_acl::Compiled;
use xdpchain_host::Map;
use xdpchain_host::compiled::shared_array;

/// Compiles `rules` into the array of maps `compiled`.
///
/// # Errors
/// A message, when they cannot be compiled or the kernel does not take them.
pub fn install(compiled: OwnedFd, rules: &[(u32, AclRule)]) -> Result<(), String> {
    install_changed(compiled, rules, |_| ())
}

/// As [`install`], in the layout that was the second one. Returns the number of ways to sieves.
///
/// # Errors
/// As [`install`].
pub fn install_layout_2(compiled: OwnedFd, rules: &[(u32, AclRule)]) -> Result<usize, String> {
    let mut sieves = 0;
    install_changed(compiled, rules, |octets| {
        let mut nodes: Vec<u32> =
            octets.as_chunks().0[..NODE_COUNT].iter().map(|n| u32::from_ne_bytes(*n)).collect();
        sieves = to_layout_2(&mut nodes);
        for (octets, node) in octets.as_chunks_mut().0.iter_mut().zip(nodes) {
            *octets = node.to_ne_bytes();
        }
    })?;
    Ok(sieves)
}

fn install_changed(
    compiled: OwnedFd,
    rules: &[(u32, AclRule)],
    change: impl FnOnce(&mut [u8]),
) -> Result<(), String> {
    let tables = Compiled::new(rules).map_err(|error| error.to_string())?;
    Map::from_fd(compiled, "rules_compiled")
        .and_then(|map| {
            map.replace_inner(0, &shared_array(BLOCK as u32, BLOCKS as u32), |octets| {
                tables.write(octets);
                change(octets);
            })
        })
        .map_err(|error| error.to_string())
}

/// Gives each sieve its windows and rules to itself, behind everything else, and forgets the shapes.
fn to_layout_2(nodes: &mut [u32]) -> usize {
    let used = nodes.iter().rposition(|node| *node != 0).map_or(0, |last| last + 1);
    let mut end = used.next_multiple_of(8) + Sieved::NODES;
    let (mut sieves, mut ways) = (0, vec![ROOT]);
    while let Some(at) = ways.pop() {
        let node = Node(nodes[at]);
        let table = node.table();
        if node.is_sieve() && node.shape() > 0 {
            for window in 0..WINDOWS {
                let cut = Node(nodes[SHAPES_AT + node.shape() * WINDOWS + window]);
                let vectors = (table + cut.table()) % NODE_COUNT;
                let width = (cut.mask() + 1).ilog2();
                nodes[end + window] = Node::cut(cut.word(), cut.shift(), width, vectors).0;
            }
            let rules = Sieved::first(table)..Sieved::first(table) + SIEVED * Sieved::NODES;
            nodes.copy_within(rules, Sieved::first(end));
            nodes[at] = Node::sieve(end, 0).0;
            end = Sieved::first(end) + SIEVED * Sieved::NODES;
            sieves += 1;
        } else if node.kind() == kind::CUT {
            ways.extend(table..=table + node.mask() as usize);
        }
    }
    nodes[SHAPES_AT..SHAPES_AT + SHAPES * WINDOWS].fill(0);
    nodes[LAYOUT_AT] = 2;
    sieves
}
