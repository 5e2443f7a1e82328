//! Keeps Litestream running for the databases that backups have found: one process a profile, while the place is ours.
//! Started anew when a database comes, goes or is another file under the same name, and with growing pauses when it ends by
//! itself; ended with a last synchronisation when the pod stops, and at once when somebody else has taken the place.

use super::configuration::{Configured, configuration};
use super::continuity::{self, Before, Continuity};
use super::followed::{self, Beside};
use super::lag::Lag;
use super::ltx::Txid;
use super::process::Process;
use super::registry::Registry;
use super::replication::{Database, Permission, Replication};
use super::target::{Origin, Target};
use super::whole::Wholeness;
use super::{check, control, local};
use crate::agent::arguments::Profile;
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::with_sources;
use crate::agent::sidecar::status::Shared;
use crate::agent::sidecar::volume::Scope;
use crate::store::claims::Holder;
use crate::store::{Error, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks, while there are databases.
const EACH: Duration = Duration::from_secs(1);
/// The longest pause before another start.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Credentials are looked at so often.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// So many starts in a row may be judged broken before there is a pause.
const MOST_BROKEN: u32 = 3;
/// A process that ran for so long had no bad start.
const SETTLED: Duration = Duration::from_secs(60);

/// Which files a process has: another one of the same name is another database.
type Files = Vec<(PathBuf, (u64, u64))>;

/// A process, and what it was started for.
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) files: Files,
    since: Instant,
    /// Databases of which it is not known yet whether they go on without a gap.
    pub(super) unsure: Vec<Unsure>,
    /// Databases that it was seen to go on with, or to have sent as a whole, and their newest transaction then.
    pub(super) begun: Vec<(PathBuf, Txid)>,
}

/// A database of which it is not known yet whether it goes on without a gap.
#[derive(Clone)]
pub(super) struct Unsure {
    file: PathBuf,
    /// Where the process before ended.
    before: Option<Before>,
    /// Nothing but the whole database is sure.
    anew: bool,
}

/// Whoever keeps Litestream running.
pub struct Supervisor {
    /// Which databases there are.
    pub(super) replication: Arc<Replication>,
    /// Where replicas go.
    pub(super) target: Target,
    /// The same place, for listings.
    pub(super) store: Arc<dyn Store>,
    /// What is said.
    pub(super) shared: Arc<Shared>,
    /// The volumes.
    pub(super) scope: Arc<Scope>,
    /// Where its settings come from.
    origin: Origin,
    /// How long a last synchronisation may take.
    last_sync: Duration,
    next_reading: Instant,
    /// When it was last asked whose the place is, whatever came of it.
    pub(super) asked: Instant,
    pub(super) running: BTreeMap<&'static str, Running>,
    pub(super) registry: Option<Registry>,
    failures: u32,
    rest_until: Instant,
    pub(super) lag: Lag,
    pub(super) wholeness: Wholeness,
    said: Option<String>,
}

impl Supervisor {
    /// One that runs nothing yet.
    #[must_use]
    pub fn new(
        replication: Arc<Replication>,
        target: Target,
        store: Arc<dyn Store>,
        shared: Arc<Shared>,
        scope: Arc<Scope>,
        origin: Origin,
        last_sync: Duration,
    ) -> Self {
        Self {
            replication,
            target,
            store,
            shared,
            scope,
            origin,
            last_sync,
            next_reading: Instant::now() + READ_AGAIN,
            asked: Instant::now(),
            running: BTreeMap::new(),
            registry: None,
            failures: 0,
            rest_until: Instant::now(),
            lag: Lag::default(),
            wholeness: Wholeness::default(),
            said: None,
        }
    }

    /// Works until the pod is stopped.
    pub async fn run(mut self) {
        loop {
            if let Some(deadline) = self.replication.stopping() {
                return self.end(deadline).await;
            }
            let turn = self.replication.turn();
            let rest = match self.replication.permission() {
                Permission::Held(_) if turn > Instant::now() => {
                    let replication = self.replication.clone();
                    tokio::select! {
                        () = tokio::time::sleep_until(turn) => {}
                        () = replication.stopped() => {}
                    }
                    continue;
                }
                Permission::Held(holder) => {
                    let replication = self.replication.clone();
                    let work = async {
                        if let Some(kept) = replication.take_kept() {
                            self.outlive(&holder, &kept).await;
                        }
                        self.tick(&holder).await;
                    };
                    tokio::select! {
                        () = work => {}
                        // A store that does not answer must not cost the last synchronisation.
                        () = replication.stopped() => continue,
                    }
                    !self.replication.databases().is_empty()
                }
                Permission::Fenced => {
                    self.halt().await;
                    false
                }
                Permission::NotYet => false,
            };
            let patience = if rest { EACH } else { Duration::MAX };
            if tokio::time::timeout(patience, self.replication.changed.notified())
                .await
                .is_ok()
                && self.replication.stopping().is_none()
            {
                // Where one database was found there may be others.
                tokio::time::sleep(EACH / 4).await;
            }
        }
    }

    async fn tick(&mut self, holder: &Holder) {
        // A volume that was detached has not lost its databases.
        if self.replication.databases().is_empty() || self.scope.trouble().is_err() {
            return;
        }
        self.reap();
        if self.replication.take_anew() {
            self.begin_anew().await;
        }
        self.look(holder).await;
        self.read_again().await;
        if self.rest_until <= Instant::now()
            && let Err(failure) = self.arrange(holder).await
        {
            if let Failure::Fenced(fenced) = &failure {
                return self.let_go(fenced).await;
            }
            self.rest(&format!("databases: {}", with_sources(&failure)));
        }
        if self.replication.permission() == Permission::Fenced {
            return self.halt().await;
        }
        self.verify().await;
        self.note_what_was_begun().await;
        self.measure(holder).await;
    }

    /// A Secret that has changed is used from now on.
    async fn read_again(&mut self) {
        if self.next_reading > Instant::now() {
            return;
        }
        self.next_reading = Instant::now() + READ_AGAIN;
        match self.origin.target() {
            Ok(target) if target != self.target => {
                tracing::info!("the store's settings have changed: Litestream is started again with them");
                self.target = target;
                for (_, running) in std::mem::take(&mut self.running) {
                    running.process.stop(EACH * 2).await;
                }
            }
            Ok(_) => {}
            // Half of a Secret, perhaps: what runs has the other settings still.
            Err(unsupported) => tracing::warn!("{unsupported}"),
        }
    }

    /// Says a thing once, and waits before the next attempt.
    fn rest(&mut self, why: &str) {
        self.failures += 1;
        let rest = EACH.saturating_mul(1 << (self.failures - 1).min(6)).min(LONGEST_REST);
        self.rest_until = Instant::now() + rest;
        if self.said.as_deref() != Some(why) {
            tracing::error!("{why}; trying again in {} s", rest.as_secs());
            self.said = Some(why.to_owned());
        }
    }

    /// Takes note of processes that have ended by themselves.
    pub(super) fn reap(&mut self) {
        let mut ended = None;
        self.running.retain(|_, running| match running.process.ended() {
            None => true,
            Some(why) => {
                ended = Some((why, running.since.elapsed()));
                false
            }
        });
        if let Some((why, lived)) = ended {
            if lived >= SETTLED {
                self.failures = 0;
            }
            self.said = None;
            self.rest(&format!("Litestream has ended ({why})"));
        } else if !self.running.is_empty() && self.running.values().all(|running| running.since.elapsed() >= SETTLED) {
            self.failures = 0;
        }
    }

    /// What stood in the way is gone: the next attempt is due.
    pub(super) fn rest_no_longer(&mut self) {
        self.failures = 0;
        self.rest_until = Instant::now();
    }

    /// Looks whether what was started goes on without a gap; where it may not, it is started again from the whole database.
    pub(super) async fn verify(&mut self) {
        let mut broken = None;
        for (name, running) in &mut self.running {
            let socket = running.process.socket().to_owned();
            // One by one: whoever gives up waiting for this leaves the rest to be looked at later.
            for Unsure { file, before, anew } in running.unsure.clone() {
                let synced = control::sync(&socket, &file, false, EACH * 2).await;
                let newest = local::position(&file).map_or(Txid(0), |position| position.txid);
                let judged = match synced {
                    Ok(_) => continuity::judge(&file, before, anew),
                    Err(_) => Continuity::Unknown,
                };
                match judged {
                    // Until that can be noted, it would be asked for again.
                    Continuity::Sure if note(&file, false) => {
                        running.unsure.retain(|other| other.file != file);
                        running.begun.push((file, newest));
                    }
                    Continuity::Sure | Continuity::Unknown => {}
                    Continuity::Broken => broken = Some((*name, file)),
                }
            }
        }
        if let Some((name, file)) = broken {
            tracing::warn!(
                "the database {} was written while Litestream did not run: it is sent as a whole again",
                file.display()
            );
            if let Some(running) = self.running.remove(name) {
                running.process.kill().await;
            }
            // Also where the log looks as it should: it is what this start can't be sure of. Where it can't be emptied now, the
            // next one is not to take what this one has sent for a beginning.
            note(&file, true);
            self.empty_log(&file).await;
            self.replication.changed.notify_one();
            if self.failures < MOST_BROKEN {
                self.failures += 1;
            } else {
                self.rest(&format!("the log of {} begins anew again and again", file.display()));
            }
        }
    }

    /// Writes a log into its database, so that Litestream finds nothing of it that it knows.
    pub(super) async fn empty_log(&self, file: &Path) {
        let (scope, file) = (self.scope.clone(), file.to_owned());
        let emptied = tokio::task::spawn_blocking(move || {
            let _turn = scope.turn();
            check::checkpoint(&file).map_err(|error| (file, error))
        });
        if let Ok(Err((file, error))) = emptied.await {
            // Whoever reads it keeps it: the start that follows is judged, and this is tried again.
            tracing::warn!("the log of {} can't be emptied now: {error}", file.display());
        }
    }

    /// Brings what runs in line with which databases there are.
    pub(super) async fn arrange(&mut self, holder: &Holder) -> Result<(), Failure> {
        if self.lag.is_overgrown() {
            return Ok(());
        }
        let databases = self.replication.databases();
        let mut wanted: BTreeMap<&'static str, (Profile, Vec<Configured>, Files)> = BTreeMap::new();
        for database in databases.values() {
            let name = database.profile.as_str();
            let (_, configured, files) = wanted
                .entry(name)
                .or_insert_with(|| (database.profile, Vec::new(), Vec::new()));
            if let Some(identity) = local::identity(&database.file) {
                configured.push(Configured {
                    path: database.file.clone(),
                    key: database.key(),
                });
                files.push((database.file.clone(), identity));
            }
        }
        wanted.retain(|name, (_, _, files)| match self.running.get(name) {
            Some(running) => running.files != *files,
            None => !files.is_empty(),
        });
        if wanted.is_empty() && self.registry.is_some() {
            return Ok(());
        }
        self.require_claim(holder).await?;
        for (name, (_, _, files)) in &wanted {
            // Before it is listed what the store has: it adds half of the one and half of the other at each moment.
            self.end_what_was_replaced(name, files).await;
        }
        let starting = wanted.keys().copied().collect();
        self.register(holder, &databases, &starting).await?;
        for (name, (profile, configured, files)) in wanted {
            if let Some(running) = self.running.remove(name) {
                // What it does not send now, the next one does.
                running.process.stop(EACH * 2).await;
            }
            if configured.is_empty() {
                continue;
            }
            let mut unsure = Vec::new();
            for (file, _) in &files {
                unsure.push(self.unsure(file).await);
            }
            let folder = self.replication.folder();
            let socket = super::process::socket(folder, name);
            let text = configuration(&self.target, profile, &configured, &socket, self.last_sync);
            let process = Process::start(&self.target, folder, name, &text)
                .await
                .map_err(|source| Error::Local {
                    what: "litestream can't be started".to_owned(),
                    source,
                })?;
            tracing::info!(
                profile = name,
                databases = configured.len(),
                "replicating: {}",
                files
                    .iter()
                    .map(|(file, _)| file.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            self.running.insert(
                name,
                Running {
                    process,
                    files,
                    since: Instant::now(),
                    unsure,
                    begun: Vec::new(),
                },
            );
            self.said = None;
        }
        Ok(())
    }

    /// Where a database stands before Litestream is started for it.
    async fn unsure(&self, file: &Path) -> Unsure {
        let beside = followed::beside(file);
        if beside == Beside::AnothersFile {
            replaced(file);
        }
        let anew = beside != Beside::Its;
        note(file, anew);
        let before = Before::of(file);
        if anew || before.is_some_and(|before| before.is_behind(file)) {
            self.empty_log(file).await;
        }
        Unsure {
            file: file.to_owned(),
            before,
            anew,
        }
    }

    /// Ends a process at once that has a file which is another now.
    async fn end_what_was_replaced(&mut self, name: &'static str, files: &[(PathBuf, (u64, u64))]) {
        let has_others = |running: &Running| running.files.iter().any(|known| !files.contains(known));
        if !self.running.get(name).is_some_and(has_others) {
            return;
        }
        let Some(running) = self.running.remove(name) else {
            return;
        };
        // It still holds the file that is gone: what it would send now is half of the one and half of the other.
        running.process.kill().await;
        for (file, _) in running.files.iter().filter(|known| !files.contains(known)) {
            replaced(file);
            // What was sent last may be a part of the new file's log: who is started now would go on from there.
            note(file, true);
        }
    }

    /// A database's control socket, where its process runs.
    pub(super) fn socket(&self, database: &Database) -> Option<PathBuf> {
        let running = self.running.get(database.profile.as_str())?;
        Some(running.process.socket().to_owned())
    }

    /// What the process of a profile said last.
    pub(super) fn last_words(&self, profile: Profile) -> String {
        self.running
            .get(profile.as_str())
            .map(|running| running.process.last_words())
            .unwrap_or_default()
    }

    /// Ends everything at once: nothing more is sent.
    pub(super) async fn halt(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            running.process.kill().await;
        }
    }

    /// Whether what was started for a database is known to go on where the one before ended.
    pub(super) fn goes_on_without_a_gap(&self, database: &Database) -> bool {
        let running = self.running.get(database.profile.as_str());
        running.is_some_and(|running| running.unsure.iter().all(|unsure| unsure.file != database.file))
    }
}

/// What Litestream has kept of a file that is not there any more goes.
fn replaced(file: &Path) {
    tracing::warn!(
        "the database {} was replaced or removed by its app: what is there now is replicated from a fresh snapshot",
        file.display()
    );
    if let Err(error) = local::forget(file) {
        tracing::error!("{} can't be removed: {error}", local::folder(file).display());
    }
}

/// Notes which file is followed; whether that is noted.
fn note(file: &Path, anew: bool) -> bool {
    let noted = followed::note(file, anew);
    if let Err(error) = &noted {
        tracing::warn!("{} can't be written to: {error}", local::folder(file).display());
    }
    noted.is_ok()
}
