//! What the benchmarks share: C programs, loading, measuring in turn, and the report.
#![forbid(unsafe_code)]

pub mod chains;
pub mod datapath;
pub mod entries;
pub mod frames;
pub mod measure;
pub mod programs;
pub mod report;
pub mod rig;
pub mod sources;
