//! `vixens-backup`: one annotation on a workload, and its files are backed up and restored.
//!
//! Two halves. The cluster half is an admission webhook and a controller; the pod half is the `agent` commands that run
//! inside the injected containers, from a program of their own (`src/bin`) where it lies beside the other.
//!
//! ```text
//! kubectl apply / Argo CD ──► API server ──► POST /mutate
//!     AdmissionReview ─► policy (annotations parsed once) ─► workload facts ─► plan
//!         ─► strip what was injected before ─► inject ─► JSON Patch ─► AdmissionReview
//! watch ─► the plan of the live block ─► companions, applied and owned by the workload; Events for its owner
//! pod start:  agent init      restore what is missing ─► vanilla where missing ─► secrets
//!             agent sidecar   watch ─► settle ─► guard ─► copy what changed ─► snapshot ─► prune
//! pod stop:   agent sidecar   one last backup, after the app has stopped
//! ```
//!
//! Dependencies point one way: `policy ← workload ← inject ← {admission, controller, cli}`; `store ← agent`; the two
//! halves meet only in [`agent::arguments`], which `inject` writes and `agent` parses.

#![forbid(unsafe_code)]

pub mod admission;
pub mod agent;
pub mod certificates;
pub mod cli;
pub mod contract;
pub mod controller;
pub mod inject;
pub mod manifests;
pub mod operator;
pub mod policy;
pub mod serve;
pub mod store;
pub mod workload;
