//! What the pod half says → standard error, a line each, for `kubectl logs`.

use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;

/// Begins the log. Where one was begun before, it goes on.
pub(super) fn begin() {
    // No filter from the environment: its regular expressions would weigh more than the sidecar at rest.
    let _ = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
