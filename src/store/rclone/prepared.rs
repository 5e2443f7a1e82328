//! rclone takes some sixty milliseconds of a processor to begin. Whoever knows which call comes next has it begin while
//! another one is under way, or waits for the store: it stands still where it reads what it is to do from its standard input.
//! Where nobody comes, or ours is killed, that ends with nothing in it, and the process with nothing done.

use super::process::{Call, Configuration};
use crate::store::Soon;
use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::Child;

/// A process that stood still for longer began with credentials of another time.
const FRESH: Duration = Duration::from_secs(10);

/// What a process was begun with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) args: Vec<OsString>,
    pub(super) heap_growth: u32,
    pub(super) configuration: Configuration,
}

#[derive(Debug)]
struct Waiting {
    begun: Begun,
    child: Child,
    since: Instant,
}

/// Processes that wait for what they are to do.
#[derive(Debug, Default)]
pub(super) struct Prepared(Mutex<Vec<Waiting>>);

impl Prepared {
    /// One that was begun in just this way, a moment ago.
    pub(super) fn take(&self, begun: &Begun) -> Option<Child> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| one.since.elapsed() < FRESH);
        let found = waiting.iter().position(|one| one.begun == *begun)?;
        Some(waiting.swap_remove(found).child)
    }

    /// Nothing waits any more.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn put(&self, begun: Begun, child: Child) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| one.since.elapsed() < FRESH);
        waiting.push(Waiting {
            begun,
            child,
            since: Instant::now(),
        });
    }

    /// Begins a call. Where that fails, it fails again when its time has come, and is told then.
    pub(super) fn begin(&self, call: &Call<'_>, heap_growth: u32) {
        if let Ok(begun) = call.begun(heap_growth)
            && let Ok(child) = call.command(&begun).spawn()
        {
            self.put(begun, child);
        }
    }
}

impl super::Rclone {
    /// The calls of the trait that can be begun before it is known what they are to do.
    pub(super) fn begin(&self, soon: &Soon<'_>) {
        let (call, heap_growth) = match soon {
            Soon::List { prefix } => (
                self.listing(self.folder(prefix), super::RECURSIVE),
                super::QUICK_HEAP_GROWTH,
            ),
            Soon::Read { folder } => (self.reading(folder), super::QUICK_HEAP_GROWTH),
            Soon::Download { prefix, to } => (self.downloading(prefix, to), self.settings.heap_growth),
            Soon::DownloadMost { prefix, to } => (self.downloading_most(prefix, to), self.settings.heap_growth),
        };
        self.prepared.begin(&call, heap_growth);
    }
}
