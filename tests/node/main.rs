//! The user's own tests of the pattern, bad days and figures: real pods on a real kubelet, from `deploy/` as a user
//! would install it. `make e2e` starts them, on the demo's node or on the cluster of `KUBECONFIG`.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(clippy::print_stdout, reason = "figures are printed as they are measured")]

mod alone;
mod app;
mod bad_days;
mod beside_kyverno;
mod bucket;
mod cluster;
mod figures;
mod guide;
mod image;
mod kernel;
#[path = "../kyverno/kyverno.rs"]
mod kyverno;
mod questions;
mod space;
mod store;
mod writer;
