//! How large the verifier finds a program: loaded for nothing but that.

use std::os::fd::AsFd;

use xdpchain_compose::Image;

use crate::error::{Error, Result};
use crate::features;
use crate::load::{ATTACH_TYPE, ModuleBtfs, linked, load, load_btf};
use crate::sys::{self, ProgLoad};

/// What the verifier says of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Instructions that it is made of.
    pub instructions: usize,
    /// Instructions that the verifier looked at, 0 before kernel 5.16.
    pub verified: u32,
    /// Octets of stack of each function, in their order; empty when the kernel does not say.
    pub stack: Vec<u32>,
}

/// Loads `image` into nothing, and asks the verifier about each program.
///
/// # Errors
/// As [`load`](crate::load::load).
pub fn measure(image: &Image) -> Result<Vec<Measured>> {
    let loaded = load(image, &mut |_| Ok(None))?;
    let debug = image.debug_info(features::btf());
    let (btf, _) = load_btf(image, &debug)?;
    let mut found = Vec::with_capacity(image.programs.len());
    for (i, (program, debug)) in image.programs.iter().zip(&debug.programs).enumerate() {
        let info = sys::prog_info(loaded.program(i)).map_err(Error::query("the program just loaded"))?;
        let mut modules = ModuleBtfs::default();
        let insns = linked(program, &loaded.maps, &mut modules)?;
        let attempt = ProgLoad {
            name: &program.name,
            insns: &insns,
            license: &program.license,
            flags: 0,
            attach_type: ATTACH_TYPE,
            btf: btf
                .as_ref()
                .filter(|_| !program.functions.is_empty())
                .map(|btf| (btf.as_fd(), debug.functions.as_slice(), debug.lines.as_slice())),
            replaces: None,
            modules: &modules.array(),
        };
        // It was loaded once already; what it says beside that is welcome, but not needed.
        let log = sys::prog_load_stats(&attempt).map(|(_, log)| log).unwrap_or_default();
        found.push(Measured {
            instructions: program.insns.len(),
            verified: info.verified_insns,
            stack: stack_depths(&log),
        });
    }
    Ok(found)
}

/// `stack depth 40+0+16`: a number for each function.
fn stack_depths(log: &str) -> Vec<u32> {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "));
    line.map(|numbers| numbers.split('+').filter_map(|n| n.trim().parse().ok()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_depths_are_read_from_what_the_verifier_says() {
        let log = "verification time 93 usec\nstack depth 40+0+16\nprocessed 31 insns (limit 1000000)\n";
        assert_eq!(stack_depths(log), [40, 0, 16]);
        assert!(stack_depths("").is_empty());
    }
}
