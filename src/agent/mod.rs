//! The pod half: what runs inside the injected containers and the companions. It talks to the store and to the
//! volume, never to the Kubernetes API.

pub mod arguments;
pub mod layers;
pub mod prune;
pub mod start;

/// `vixens-backup agent …`: run by the injected containers and the companions.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Restore what is missing, then lay vanilla configuration and secrets (init container).
    Init(arguments::InitArguments),
    /// Back files up as they change (native sidecar).
    Sidecar(arguments::SidecarArguments),
    /// Make one backup now, or have the sidecar make it (CronJob).
    Backup(arguments::BackupArguments),
    /// Check the store and print what a restore would bring (restore Jobs).
    PreSync(arguments::PreSyncArguments),
    /// Start a backup at once, without waiting for it (preStop hook).
    Nudge(arguments::NudgeArguments),
}

/// Why an agent command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A guard refused.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// The process's exit code: 1 failed, 3 refused by a guard.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 3,
        }
    }
}

/// Runs one agent command to its end.
pub fn run(command: &Command) -> Result<(), Error> {
    Err(Error::Refused(format!("{command:?} is not part of this build")))
}
