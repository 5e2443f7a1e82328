//! Tier 3: SQLite databases replicated as they are written, by Litestream. It is driven, not reimplemented: the rclone remote
//! becomes its [`target`], databases that are found become its [`configuration`], [`supervise`] keeps it running while the
//! place is ours, and [`restore`] brings databases back at a start.
//!
//! ```text
//! plan (a file with SQLite's header) ─► replication ─► supervise ─► litestream replicate ─► database/<path>/
//!                                          ▲  positions of a snapshot    │ lag, growth, claims
//! init ─► registry ─► quick_check ─► litestream restore ─► integrity_check ─► into place
//! ```
//!
//! Litestream writes beside the database, so at tier 3 the sidecar's mount of the volume can be written.

pub mod begun;
pub mod check;
pub mod configuration;
pub mod continuity;
pub mod control;
pub mod copies;
mod ending;
mod fencing;
mod followed;
pub mod growth;
mod lag;
pub mod lineage;
pub mod local;
pub mod ltx;
mod outlived;
pub mod process;
mod register;
pub mod registry;
pub mod replica;
pub mod replication;
pub mod restore;
mod salvage;
mod seam;
pub mod supervise;
pub mod target;
pub mod turn;
mod whole;
