//! The pod half: what runs inside the injected containers and the companions. It talks to the store and to the
//! volume, never to the Kubernetes API.

pub mod amount;
pub mod arguments;
pub mod backup;
pub mod database;
pub mod filters;
pub mod http;
pub mod init;
mod last_words;
pub mod layers;
pub mod lease;
pub mod litestream;
mod log;
pub mod metrics;
pub mod nudge;
pub mod pre_sync;
pub mod prune;
pub mod restore;
pub mod scan;
pub mod sidecar;
pub mod snapshot;
pub mod start;
pub mod token;
pub mod volume;
pub mod watch;

use crate::store::claims::Owner;
use arguments::{Identity, WorkloadKind, WorkloadName};

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
    /// The app must not start.
    #[error(transparent)]
    Init(#[from] init::Error),
    /// The store can't be trusted.
    #[error(transparent)]
    PreSync(#[from] pre_sync::Error),
    /// The sidecar could not begin.
    #[error(transparent)]
    Sidecar(#[from] sidecar::Error),
    /// There is no backup to show.
    #[error(transparent)]
    Backup(#[from] backup::Error),
    /// The process was told to end. What was under way is finished by the next start.
    #[error("told to end (SIGTERM)")]
    Stopped,
    /// The process could not be set up.
    #[error("the process can't be set up")]
    Setup(#[source] std::io::Error),
}

impl Error {
    /// The process's exit code: 1 failed, 3 refused by a guard.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 3,
            Self::PreSync(_) | Self::Sidecar(_) | Self::Stopped | Self::Setup(_) => 1,
            Self::Init(error) => error.exit_code(),
            Self::Backup(error) => error.exit_code(),
        }
    }
}

/// Runs one agent command to its end. Why it failed is left as the container's last words, too.
pub fn run(command: &Command) -> Result<(), Error> {
    log::begin();
    let done = run_to_its_end(command);
    if let Err(error) = &done {
        last_words::leave(&sidecar::batch::with_sources(error));
    }
    done
}

fn run_to_its_end(command: &Command) -> Result<(), Error> {
    match command {
        Command::Init(arguments) => runtime()?.block_on(until_stopped(init::run(arguments))),
        Command::Sidecar(arguments) => Ok(sidecar::run(arguments)?),
        Command::Backup(arguments) => Ok(backup::run(arguments)?),
        Command::Nudge(arguments) => {
            nudge::run(arguments);
            Ok(())
        }
        Command::PreSync(arguments) => runtime()?.block_on(until_stopped(pre_sync::run(arguments))),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Setup)
}

/// A command that can be killed anywhere ends at once when it is told to.
async fn until_stopped<E: Into<Error>>(command: impl Future<Output = Result<(), E>>) -> Result<(), Error> {
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(Error::Setup)?;
    tokio::select! {
        result = command => result.map_err(Into::into),
        _ = stop.recv() => Err(Error::Stopped),
    }
}

/// Whose files they are, from what the command was told. A StatefulSet's pods have a place each.
#[must_use]
pub fn owner(identity: &Identity, workload: &WorkloadName) -> Owner {
    Owner {
        cluster: identity.cluster_id.clone(),
        namespace: identity.namespace.clone(),
        kind: workload.kind.to_string(),
        name: workload.name.clone(),
        pod: match workload.kind {
            WorkloadKind::StatefulSet => identity.pod.clone(),
            WorkloadKind::Deployment => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::question::Question;
    use arguments::QuestionKind;

    #[test]
    fn a_start_that_asks_ends_as_refused_and_is_understood_by_its_last_words() {
        let question = Question::new(QuestionKind::Missing, &[b"config/a"], "nobody has config/a");
        let error = Error::from(init::Error::Asks(question.clone()));
        assert_eq!(error.exit_code(), 3);
        let words = sidecar::batch::with_sources(&error);
        assert_eq!(Question::find(&words), Some(question));
        assert_eq!(words.matches("vixens-backup asks").count(), 1, "{words}");
    }
}
