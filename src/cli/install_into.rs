//! `install-into`: this very program → a folder, for an init container that brings it beside the programs of another
//! image. Ours has no shell, and no cp.

use super::Failure;
use anyhow::Context;
use std::fs;
use std::path::PathBuf;

/// `vixens-backup install-into`.
#[derive(Debug, clap::Args)]
pub(super) struct InstallInto {
    /// The folder; there it is called vixens-backup
    folder: PathBuf,
}

impl InstallInto {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let program = std::env::current_exe().context("this program can't be found")?;
        let target = self.folder.join("vixens-backup");
        // Whoever runs a former one is not disturbed, and nobody finds half of this one.
        let part = self.folder.join(".vixens-backup.part");
        fs::copy(&program, &part)
            .and_then(|_| fs::rename(&part, &target))
            .with_context(|| format!("{} can't be copied to {}", program.display(), target.display()))?;
        Ok(())
    }
}
