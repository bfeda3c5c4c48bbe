//! What the data path does with a packet, by the rows of the conformance table.
//!
//! Pure: the contents of the maps and a packet go in; verdict, octets, reasons, and the rows that decided come out. It is
//! written from the table and not from the packet programs, shares no code with them but the views of headers, and puts
//! plainness before speed, so that where the two differ somebody has something to find out.
#![forbid(unsafe_code)]

mod chain;
mod entries;
mod error;
mod modules;
pub mod mutate;
mod network;
mod reasons;
mod rows;
mod tables;
mod trail;

pub use chain::{Arrival, Chain, HEADROOM, Module, Outcome, Slot, Verdict, run};
pub use entries::{context, tables};
pub use error::ReferenceError;
pub use network::{Hop, Network, Query, Route, TestNetwork};
pub use reasons::{EXPLAINED, Explained, explain, fate_name};
pub use rows::{Row, Section};
pub use tables::Tables;
pub use trail::Step;
