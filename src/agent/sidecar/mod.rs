//! `agent sidecar`: files are backed up as they change.

pub mod known;
pub mod plan;
pub mod volume;
