//! AdmissionReview over HTTPS → the pure core → JSON Patch: router, review, limits, metrics. The decision itself lies
//! in [`crate::inject`]; nothing here reads an annotation.
//!
//! ```text
//! server (TLS, connections) ─► router (paths, limits) ─► review (bytes → request) ─► decision ─► review (answer → bytes)
//! ```

mod decision;
mod metrics;
mod readiness;
mod review;
mod router;
mod server;

pub use metrics::{Ending, Metrics};
pub use readiness::Readiness;
pub use review::{API_VERSION, Operation};
pub use router::{Admission, BODY_LIMIT, router};
pub use server::{Listener, serve};

use crate::{inject, policy};

/// How a request is decided: [`inject::admit`], or a test's own.
pub type Admit = fn(&inject::Review<'_>, &policy::Installation) -> inject::Outcome;
