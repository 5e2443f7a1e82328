//! Whether the API server should send requests here, and what is waited for otherwise. Each part says for itself what
//! it still waits for; none of them depends on being the leader.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is waited for, by part; ready when nothing is.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waits: BTreeMap<&'static str, String>,
    draining: bool,
}

impl Readiness {
    /// `part` waits for something: a line for the person who asks why the pod is not ready.
    pub fn wait(&self, part: &'static str, why: impl Into<String>) {
        let why = why.into();
        let mut state = self.state();
        if state.waits.get(part) != Some(&why) {
            tracing::info!(part, "not ready: {why}");
            state.waits.insert(part, why);
        }
    }

    /// `part` waits for nothing any more.
    pub fn done(&self, part: &'static str) {
        if self.state().waits.remove(part).is_some() {
            tracing::info!(part, "ready");
        }
    }

    /// The process ends soon: never ready again, and connections are closed when they have been answered.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    /// Whether the process ends soon.
    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Ready, or a line for each part that waits.
    pub fn check(&self) -> Result<(), String> {
        let State { waits, draining } = &*self.state();
        let mut lines = String::new();
        if *draining {
            lines.push_str("shutdown: this process is ending\n");
        }
        for (part, why) in waits {
            // Writing to a String can't fail.
            let _ = writeln!(lines, "{part}: {why}");
        }
        if lines.is_empty() { Ok(()) } else { Err(lines) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left a whole value behind: each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_no_part_waits_and_never_again_once_draining() {
        let readiness = Readiness::default();
        readiness.wait("certificates", "no Secret yet");
        readiness.wait("cluster", "kube-system was not read");
        readiness.done("cluster");
        assert_eq!(readiness.check(), Err("certificates: no Secret yet\n".to_owned()));
        readiness.done("certificates");
        assert_eq!(readiness.check(), Ok(()));
        readiness.drain();
        assert_eq!(readiness.check(), Err("shutdown: this process is ending\n".to_owned()));
    }
}
