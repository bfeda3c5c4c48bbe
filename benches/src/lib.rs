//! What the benchmarks share: C programs, loading, measuring in turn, and the report.
#![forbid(unsafe_code)]

pub mod chains;
pub mod cpu;
pub mod datapath;
pub mod dpdk;
pub mod entries;
pub mod frames;
pub mod lab;
pub mod measure;
pub mod programs;
pub mod report;
pub mod rig;
pub mod sources;
