//! A volume → its entries, in order, one at a time: what a full scan sees. Reads names and metadata, never contents,
//! and never writes. Memory follows the largest folder, not the volume.
//!
//! Paths are raw bytes. Their order is by component: a folder, all of its content, then its next sibling, which is
//! byte order with `/` below every other byte ([`path_order`]).

mod entry;
mod table;
mod walk;

pub use entry::{Entry, Kind, path_order};
pub use table::{Record, Table, TableError, TableWriter};
pub use walk::{Found, Walk};
