//! The modules, each a function from what is known to what it returns.

mod acl;
mod gre_decap;
mod gre_steer;
mod gtp_decap;
mod gtp_encap;
mod inner;
mod outer;
mod too_big;

pub(crate) use outer::checksum;

use crate::Module;
use crate::chain::{Return, Visit};

/// Runs a module.
pub(crate) fn run(module: Module, visit: &mut Visit<'_>) -> Return {
    match module {
        Module::GtpDecap => gtp_decap::run(visit),
        Module::GreDecap => gre_decap::run(visit),
        Module::Acl => acl::run(visit),
        Module::GreSteer => gre_steer::run(visit),
        Module::GtpEncap => gtp_encap::run(visit),
        // It counts, and changes nothing.
        Module::Stats => Return::PASS,
    }
}
