//! Why rules are not compiled.

use xdpchain_abi::{ACL_RULES, acl_tables};

/// Rules that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AclError {
    /// The rule's number is too large.
    #[error(
        "rule `{key}` is beyond the last possible one\n\
         help: rules are numbered from 0 to {}, in the order of evaluation",
        ACL_RULES - 1
    )]
    Key {
        /// The rule's number.
        key: u32,
    },
    /// The rule says what no rule can mean.
    #[error("rule `{key}`: {problem}\nhelp: {help}")]
    Rule {
        /// The rule's number.
        key: u32,
        /// What is wrong.
        problem: String,
        /// What would be right.
        help: &'static str,
    },
    /// There are packets that would take too many steps.
    #[error(
        "these {rules} rules overlap in so many ways that one packet could take {visits} visits of the decision tree, and \
         {} are the most\n\
         help: remove rules that an earlier one makes idle, or make those with many open fields more specific, as {closest}",
        acl_tables::VISITS
    )]
    Complex {
        /// How many rules there are.
        rules: usize,
        /// The most visits that a packet could take.
        visits: usize,
        /// Where most rules stay together.
        closest: String,
    },
    /// The decision tree does not fit its memory.
    #[error(
        "these {rules} rules overlap in so many ways that their decision tree has more than {} nodes\n\
         help: remove rules that an earlier one makes idle, or make those with many open fields more specific",
        acl_tables::NODE_COUNT
    )]
    Large {
        /// How many rules there are.
        rules: usize,
    },
}
