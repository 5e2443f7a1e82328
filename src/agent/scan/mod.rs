//! A volume → its entries, in order, one at a time: what a full scan sees. Reads names and metadata, never contents,
//! and never writes. Memory follows the largest folder, not the volume.
//!
//! Paths are raw bytes, those of folders end with `/`, and their order is the order of their bytes, as in a snapshot's
//! index ([`crate::store::index`]).

mod entry;
mod table;
mod tally;
mod walk;

pub use entry::{Entry, Kind};
pub use table::{Record, Records, Table, TableError, TableWriter};
pub use tally::{Part, Tally};
pub use walk::{Found, Walk};
