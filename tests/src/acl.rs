//! Rules put into `acl`'s maps as the binary puts them there: compiled, and exchanged in one step.

use std::os::fd::OwnedFd;

use xdpchain_abi::AclRule;
use xdpchain_abi::acl_tables::{BLOCK, BLOCKS};
use xdpchain_acl::Compiled;
use xdpchain_host::Map;
use xdpchain_host::compiled::shared_array;

/// Compiles `rules` into the array of maps `compiled`.
///
/// # Errors
/// A message, when they cannot be compiled or the kernel does not take them.
pub fn install(compiled: OwnedFd, rules: &[(u32, AclRule)]) -> Result<(), String> {
    let tables = Compiled::new(rules).map_err(|error| error.to_string())?;
    Map::from_fd(compiled, "rules_compiled")
        .and_then(|map| {
            map.replace_inner(0, &shared_array(BLOCK as u32, BLOCKS as u32), |octets| tables.write(octets))
        })
        .map_err(|error| error.to_string())
}
