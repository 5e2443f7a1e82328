//! `vixens-backup backup`: run in a sidecar's container, it has that sidecar make a backup now. What it needs to know
//! lies in the pod's own folder; the work is that of `agent backup`.

use crate::agent::arguments::{
    BackupArguments, Backups, Databases, Destination, Folders, Identity, Invalid, Protection, QuestionId, RCLONE_PATH,
    RESTORE_PATH, Span,
};
use crate::agent::http::{ANNOUNCEMENT, Announcement};
use crate::agent::start::{Start, Unreadable};
use crate::agent::{self, Command};
use std::io;
use std::path::PathBuf;

/// Make a backup now: `kubectl exec POD -c backup-sidecar -- vixens-backup backup`.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// Answer a question by yes, once: its id, as the log and the status say it; repeated
    #[arg(long, value_name = "ID")]
    accept: Vec<QuestionId>,
    /// How long to wait for the backup's end
    #[arg(long, default_value = "30m")]
    timeout: Span,
    /// The folder that the pod's injected containers share
    #[arg(long, value_name = "FOLDER", default_value = RESTORE_PATH)]
    restore_dir: PathBuf,
    /// The folder with rclone.conf, where the Secret holds one
    #[arg(long, value_name = "FOLDER", default_value = RCLONE_PATH)]
    rclone_dir: PathBuf,
}

/// Why there was no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// This is no sidecar's container.
    #[error(
        "there is no sidecar here ({} is missing); run it in one: kubectl exec POD -c backup-sidecar -- vixens-backup backup",
        path.display()
    )]
    NoSidecar {
        /// What it would have written.
        path: PathBuf,
    },
    /// `start.json` can't be read.
    #[error("what init left for the sidecar can't be read")]
    Start(#[from] Unreadable),
    /// `sidecar.json` can't be read.
    #[error("{} can't be read", path.display())]
    Announcement {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `start.json` names what is no workload or destination.
    #[error("what init left for the sidecar can't be understood")]
    Invalid(#[from] Invalid),
    /// The backup itself.
    #[error(transparent)]
    Agent(#[from] agent::Error),
}

impl BackupError {
    /// The process's exit code: 1 failed, 3 refused by a guard.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Agent(error) => error.exit_code(),
            _ => 1,
        }
    }
}

impl Backup {
    /// Asks, and follows until the end.
    pub fn run(&self) -> Result<(), BackupError> {
        let path = self.restore_dir.join(ANNOUNCEMENT);
        let missing = |path: &PathBuf| BackupError::NoSidecar { path: path.clone() };
        let bytes = std::fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(&path),
            _ => BackupError::Announcement {
                path: path.clone(),
                source,
            },
        })?;
        let announcement: Announcement = serde_json::from_slice(&bytes).map_err(|error| BackupError::Announcement {
            path: path.clone(),
            source: error.into(),
        })?;
        let start = Start::read(&self.restore_dir)?.ok_or_else(|| missing(&path))?;
        let destinations: Vec<Destination> = start
            .destinations
            .iter()
            .map(|destination| destination.destination.parse())
            .collect::<Result<_, Invalid>>()?;
        agent::run(&Command::Backup(BackupArguments {
            identity: Identity {
                namespace: start.owner.namespace.clone(),
                pod: start.pod.clone(),
                generation: start.generation.clone(),
                cluster_id: start.owner.cluster.clone(),
            },
            protection: Protection {
                workload: format!("{}/{}", start.owner.kind, start.owner.name).parse()?,
                volumes: Vec::new(),
                destinations,
                includes: Vec::new(),
                excludes: Vec::new(),
                max_size: None,
                databases: Databases::Auto,
            },
            folders: Folders {
                restore_dir: self.restore_dir.clone(),
                rclone_dir: self.rclone_dir.clone(),
                ..Folders::default()
            },
            backups: Backups::default(),
            ask: vec![format!("127.0.0.1:{}", announcement.port)],
            accepted: self.accept.clone(),
            manual: true,
            cron_job: None,
            job: String::new(),
            timeout: self.timeout,
        }))?;
        Ok(())
    }
}
