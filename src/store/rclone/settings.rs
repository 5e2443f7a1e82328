//! How much of the machine rclone may use, and where it finds its configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How rclone is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program: `rclone`, found in PATH.
    pub program: PathBuf,
    /// A folder whose files `RCLONE_CONFIG_*` (one value each) and `rclone.conf` are the configuration, reread for each
    /// call; beside it the environment's `RCLONE_CONFIG_*`.
    pub config_dir: Option<PathBuf>,
    /// A configuration file, or none: then rclone's usual one where `config_dir` is not set either.
    pub config_file: Option<PathBuf>,
    /// A folder of our own for links to files with names that rclone can't be given.
    pub scratch_dir: PathBuf,
    /// Files under way at once.
    pub transfers: u32,
    /// Go's soft memory limit for each process, in MiB.
    pub memory: u32,
    /// How far the heap of a process that moves files may grow before it is collected, in percent of what is in use; none: as
    /// far as `memory` lets it. Others are soon over, and are not stopped for it: that is a third of what they cost.
    pub heap_growth: Option<u32>,
    /// How many of the processors that we may use each process may use at once.
    pub processors: usize,
    /// Between two tries of an object that can't be had though others can.
    pub pause: Duration,
}

impl Settings {
    /// What fits beside the sidecar in 128 MiB. With half of the processors, since what rclone does waits for the store
    /// most of the time, and more threads than that look for work more than they do any.
    #[must_use]
    pub fn lean(config_dir: &Path, scratch_dir: &Path) -> Self {
        Self {
            program: "rclone".into(),
            config_dir: Some(config_dir.to_owned()),
            config_file: None,
            scratch_dir: scratch_dir.to_owned(),
            transfers: 4,
            memory: 80,
            heap_growth: Some(100),
            processors: processors().div_ceil(2),
            pause: Duration::from_secs(2),
        }
    }

    /// What fits into the 256 MiB of a restore that everybody is waiting for.
    #[must_use]
    pub fn fast(config_dir: &Path, scratch_dir: &Path) -> Self {
        Self {
            transfers: 64,
            memory: 128,
            heap_growth: None,
            processors: processors(),
            ..Self::lean(config_dir, scratch_dir)
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
