//! What a snapshot is made of: what changed on the volumes, what of it a guard holds, and how both are kept until they
//! are published; and what a store does not take away. Files of the scratch folder in, files of the scratch folder out; the
//! store is others' to write, but for deletions.

pub mod changes;
pub mod deletions;
mod elsewhere;
pub mod guard;
pub mod holds;
pub mod questions;
pub mod spool;
