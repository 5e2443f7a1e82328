//! What must hold before a backup writes, and again before its index is published: the volumes are what they were. Facts
//! in, a refusal out. Whose the place is: [`crate::agent::lease::check`]; what would vanish stops no backup:
//! [`crate::agent::snapshot::holds`].

use super::volume::Trouble;

/// A backup that was not made, because making it would have hurt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no backup was made, nothing was changed in the store: {why}")]
pub struct Refusal {
    /// `reason` of `vixens_backup_guard_refusals_total`.
    pub reason: &'static str,
    why: String,
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self {
            reason: trouble.reason(),
            why: trouble.to_string(),
        }
    }
}
