//! Database tables that fill maps: read whole, compared, followed by their change logs.
//!
//! What a row means is state's, and how maps are written is host's; here are the databases, and so the I/O that state does
//! without. A map is filled so that nobody who looks at it meanwhile misses an entry that stays.
#![forbid(unsafe_code)]

mod datum;
mod error;
mod fill;
mod follow;
mod index;
mod key;
mod layout;
#[cfg(feature = "postgres")]
mod postgres;
mod reject;
mod sink;
#[cfg(feature = "sqlite")]
mod sqlite;
mod status;
mod table;

pub use datum::Datum;
pub use error::{Error, Result};
pub use fill::{Batch, Done, Filler};
pub use follow::{Follower, Synced};
pub use key::RowKey;
pub use layout::Layout;
pub use reject::Rejected;
pub use sink::{Refused, Sink, Target};
pub use status::{MapFill, Phase, Rejection, SourceStatus, Store};
pub use table::{Changes, Each, Position, Row, Table, change_log, install, open};
