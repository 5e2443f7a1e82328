//! `agent backup`, the companion CronJob's command: the sidecar is asked, or, where there is none, the work is done here.
//! A question or the mounted volumes in; lines for `kubectl logs` out, the last one a snapshot's id, and an exit code
//! that is the result.

mod ask;
mod call;
mod claim;
mod here;

use crate::agent::arguments::BackupArguments;
use crate::agent::filters::InvalidPattern;
use crate::agent::sidecar::batch::with_sources;
use crate::store;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no backup to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A guard refused.
    #[error("{0}")]
    Refused(String),
    /// It was tried, and failed.
    #[error("{0}")]
    Failed(String),
    /// The store could not be asked.
    #[error("the store can't be asked about {place}")]
    Store {
        /// Which place.
        place: String,
        /// Why.
        source: store::Error,
    },
    /// A pattern of the owner's.
    #[error("nothing can be backed up")]
    Pattern(#[from] InvalidPattern),
    /// The volume or the scratch folder.
    #[error("{what} {path}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No runtime.
    #[error("the backup can't run")]
    System(#[source] std::io::Error),
}

impl Error {
    /// 1 failed, 3 refused by a guard.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 3,
            _ => 1,
        }
    }

    /// Several errors as one: a refusal only where all are.
    fn all(errors: &[Self]) -> Result<(), Self> {
        let refused = errors.iter().all(|error| matches!(error, Self::Refused(_)));
        let text = errors
            .iter()
            .map(|error| with_sources(error))
            .collect::<Vec<_>>()
            .join("; ");
        match errors.len() {
            0 => Ok(()),
            _ if refused => Err(Self::Refused(text)),
            _ => Err(Self::Failed(text)),
        }
    }
}

/// Makes the backup, or has it made.
pub fn run(arguments: &BackupArguments) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(Error::System)?;
    let result = runtime.block_on(Box::pin(async {
        let timeout = arguments.timeout.duration();
        let work = async {
            if arguments.ask.is_empty() {
                here::backup(arguments).await
            } else {
                ask::all(arguments).await
            }
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Failed(format!(
                "the backup did not end within {}: it may still be under way, see the next one",
                arguments.timeout
            ))),
        }
    }));
    runtime.shutdown_background();
    result
}

/// A line for whoever reads the log. Nobody reading it is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
