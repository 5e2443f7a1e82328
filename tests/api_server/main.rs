//! The webhook on a real API server, with real kubectl: every way to apply, what a denial reads like, an outage, trust
//! and its rotation. One control plane for all of it, a namespace for each case.
//!
//! It is started by `tests/bed/control-plane`, from the pinned tools or from `KUBEBUILDER_ASSETS`. The webhook is the
//! built program, on loopback, which is why a cluster elsewhere can't be used.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]

mod apply;
mod catch_up;
mod companions;
mod connection;
mod control_plane;
mod load;
mod messages;
mod mounted;
mod namespace;
mod outage;
mod owner_events;
mod presync;
mod questions;
mod record;
mod replicas;
mod rolling;
mod sidecar;
mod trust;
mod webhook;
mod workload;
