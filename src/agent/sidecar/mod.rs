//! `agent sidecar`: files are backed up as they change.

pub mod backup;
pub mod batch;
pub mod destination;
pub mod guard;
pub mod inbox;
pub mod known;
pub mod opening;
pub mod plan;
pub mod stage;
pub mod status;
pub mod volume;
