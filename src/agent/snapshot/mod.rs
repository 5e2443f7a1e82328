//! What a snapshot is made of: what changed on the volumes, what of it a guard holds, and how both are kept until they
//! are published. Files of the scratch folder in, files of the scratch folder out; the store is others' to write.

pub mod changes;
pub mod guard;
pub mod holds;
pub mod questions;
pub mod spool;
