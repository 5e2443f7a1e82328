//! The pod half: what runs inside the injected containers and the companions. It talks to the store and to the
//! volume, never to the Kubernetes API.

pub mod arguments;
pub mod database;
pub mod filters;
pub mod http;
pub mod layers;
mod log;
pub mod metrics;
pub mod nudge;
pub mod scan;
pub mod sidecar;
pub mod start;
pub mod token;
pub mod watch;

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
    /// The sidecar could not begin.
    #[error(transparent)]
    Sidecar(#[from] sidecar::Error),
}

impl Error {
    /// The process's exit code: 1 failed, 3 refused by a guard.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 3,
            Self::Sidecar(_) => 1,
        }
    }
}

/// Runs one agent command to its end.
pub fn run(command: &Command) -> Result<(), Error> {
    log::begin();
    match command {
        Command::Sidecar(arguments) => Ok(sidecar::run(arguments)?),
        Command::Nudge(arguments) => {
            nudge::run(arguments);
            Ok(())
        }
        other => Err(Error::Refused(format!("{other:?} is not part of this build"))),
    }
}
