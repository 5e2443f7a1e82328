//! The end of replication: everything that is not sent yet is, also where Litestream was not running just then; what can't be
//! sent in time is saved by the last backup as a file. Part of [`Supervisor`].

use super::ltx::Txid;
use super::replication::{Database, Permission};
use super::supervise::Supervisor;
use super::turn::LOOKING;
use super::{control, local};
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::with_sources;
use crate::store::claims::Holder;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Kept of the time for ending the processes themselves.
const FOR_THE_END: Duration = Duration::from_secs(2);
/// Between two attempts.
const BREATH: Duration = Duration::from_millis(250);

/// What has come of the last synchronisation.
#[derive(Default)]
struct Sent {
    /// Databases of which the store has everything.
    files: BTreeSet<PathBuf>,
    /// What stood in the way last.
    why: Option<String>,
}

impl Supervisor {
    /// Ends everything, with a last synchronisation.
    pub(super) async fn end(&mut self, deadline: Instant) {
        let databases = self.replication.databases();
        let mut sent = Sent::default();
        match self.replication.permission() {
            Permission::Held(_) if databases.is_empty() => {}
            Permission::Held(_) if self.replication.turn() > Instant::now() => {
                sent.why = Some("whoever had the place before may still send".to_owned());
            }
            Permission::Held(holder) => {
                // Whatever it was resting from, there is no later attempt.
                self.lag.begin_again();
                let until = deadline.checked_sub(FOR_THE_END).unwrap_or(deadline);
                if timeout_at(until, self.send_all(&holder, &mut sent)).await.is_err() {
                    sent.why
                        .get_or_insert_with(|| "not everything was sent in time".to_owned());
                }
            }
            Permission::Fenced | Permission::NotYet => return self.halt().await,
        }
        if self.replication.permission() == Permission::Fenced {
            return self.halt().await;
        }
        let patience = deadline.saturating_duration_since(Instant::now()).max(BREATH);
        let ends = std::mem::take(&mut self.running)
            .into_values()
            .map(|running| async move {
                let files: Vec<PathBuf> = running.files.iter().map(|(file, _)| file.clone()).collect();
                (running.process.stop(patience).await, files)
            });
        for (well, files) in futures::future::join_all(ends).await {
            if !well {
                sent.files.retain(|file| !files.contains(file));
                sent.why.get_or_insert_with(|| "Litestream did not end well".to_owned());
            }
        }
        self.leave_to_the_last_backup(&sent).await;
    }

    /// Sends until nothing is left to send; begins what does not run.
    async fn send_all(&mut self, holder: &Holder, sent: &mut Sent) {
        loop {
            match self.send_once(holder, sent).await {
                Ok(true) => {
                    sent.why = None;
                    return;
                }
                Ok(false) => {}
                Err(Failure::Fenced(fenced)) => return self.let_go(&fenced).await,
                Err(failure) => sent.why = Some(with_sources(&failure)),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Whether everything was sent.
    async fn send_once(&mut self, holder: &Holder, sent: &mut Sent) -> Result<bool, Failure> {
        self.reap();
        self.look(holder).await;
        self.arrange(holder).await?;
        self.verify().await;
        if self.replication.permission() == Permission::Fenced {
            return Ok(true);
        }
        sent.files.clear();
        let databases = self.replication.databases();
        let syncs = databases.values().map(|database| async {
            let socket = self.socket(database).filter(|_| self.goes_on_without_a_gap(database))?;
            // An app that still writes is ahead again when the answer comes.
            let position = local::position(&database.file).map_or(Txid(0), |position| position.txid);
            let synced = control::sync(&socket, &database.file, true, LOOKING).await;
            Some((&database.file, position, synced))
        });
        for (file, position, synced) in futures::future::join_all(syncs).await.into_iter().flatten() {
            match synced {
                Ok(synced) if synced.replicated >= position.0 => {
                    sent.files.insert(file.clone());
                }
                Ok(_) => {}
                Err(error) => sent.why = Some(format!("{}: {error}", file.display())),
            }
        }
        Ok(databases
            .values()
            .all(|database| sent.files.contains(&database.file) || !database.file.exists()))
    }

    /// What was sent is left to its replica; the rest is saved as a file, beside what the replica has.
    async fn leave_to_the_last_backup(&self, sent: &Sent) {
        let databases = self.replication.databases();
        let mut unsent: Vec<(&Vec<u8>, &Database)> = Vec::new();
        for (path, database) in &databases {
            if sent.files.contains(&database.file) {
                self.replication.change(path, |database| database.complete = true);
            } else if database.file.exists() {
                tracing::error!(
                    "the database {} was not sent to the end ({}): the last backup saves it as a file",
                    database.file.display(),
                    sent.why.as_deref().unwrap_or("Litestream did not take it")
                );
                unsent.push((path, database));
            }
        }
        if unsent.is_empty() {
            if !databases.is_empty() {
                tracing::info!(
                    databases = databases.len(),
                    "databases: the last synchronisation is made"
                );
            }
            return;
        }
        // How new a file is beside its replica is told by where that stands.
        let list = async {
            for (path, database) in unsent {
                if let Ok(Some(listed)) = self.newest(database).await {
                    self.replication
                        .change(path, |database| database.sent = database.sent.max(listed));
                }
            }
        };
        // Where it can't be asked in time, what was seen of it before has to do.
        let _ = tokio::time::timeout(FOR_THE_END, list).await;
    }
}
