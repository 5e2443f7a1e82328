//! How the API server comes to trust us: an authority of our own and a short-lived leaf, kept in a Secret, made known
//! in the webhook configuration's `caBundle`, renewed and served without a restart; or a certificate from files.
//!
//! ```text
//! keeper (watches Secret and configuration) ─► decision (pure: what to do now) ─► kept (what the Secret holds)
//!     ─► authority (makes and signs) ─► served (what connections get)
//! files (cert-manager, or anybody) ─► served                    served + configuration ─► trust ─► ready, or why not
//! ```
//!
//! Two replicas run this at once and need no leader: the Secret is written only in the version that was read, and
//! whoever comes second reads what the first one wrote. A leaf is signed by an authority only when that authority was
//! seen in `caBundle`, and an authority leaves `caBundle` only when its last leaf has gone.

mod authority;
mod configuration;
mod decision;
mod files;
mod keeper;
mod kept;
mod pem;
mod replica;
mod served;
mod trust;

pub use authority::{Authority, Leaf, Unusable};
pub use configuration::{Configuration, FIELD_MANAGER};
pub use decision::Lifetimes;
pub use files::{Files, FilesError};
pub use keeper::Keeper;
pub use kept::Kept;
pub use replica::Replica;
pub use served::Served;
pub use trust::{trusts, watch_trust};
