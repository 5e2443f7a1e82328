//! One backup of all volumes to one destination, in an order that a kill at any moment can't hurt:
//!
//! 1. guards; 2. `snapshots/<id>.pending`; 3. what will be replaced or deleted is *copied*, mirror → `history/<id>/`;
//! 4. uploads; 5. guards again; 6. the index; 7. the mirror copies of deleted files go; 8. the pending mark goes.
//!
//! Each file is in history before it is replaced. Whatever ends the process, [`super::opening`] finishes (the index is
//! there) or undoes (it is not) what the pending mark tells of; until then restores read the pending history too.

use super::batch::{Batch, Outcomes, blocking, with_sources};
use super::guard::Refusal;
use super::judging::Answers;
use super::known::Known;
use super::stage::{Left, Piece, Stage, Staged};
use super::twin::{write_index, write_twin};
use super::volume::Scope;
use crate::agent::arguments::{Percent, QuestionId};
use crate::agent::filters::Skipped;
use crate::agent::lease::check::{Away, Fenced, Lease, NotHeld};
use crate::agent::scan::{Kind, Record, TableError};
use crate::agent::snapshot::changes::{Accepted, Look, Plan, PlanError, read_facts};
use crate::agent::snapshot::deletions::Deletions;
use crate::agent::snapshot::questions;
use crate::contract::question::Question;
use crate::store::index::{Carried, DatabasePosition, Header, Hold, HoldId, IndexedVolume, Totals};
use crate::store::records::{Pending, VERSION, encode};
use crate::store::snapshot::{self, SnapshotId};
use crate::store::state::{Pruning, State};
use crate::store::{self, Depth, Store, Undone, Upload, keys, listed};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many files whose content turned out to be the same are remembered without a snapshot.
const QUIET: usize = 256;
/// More than this is not remembered of an attempt that failed.
const MOST_LEFTOVERS: usize = 50_000;
/// Before what a store did not take is tried again.
const BREATH: Duration = Duration::from_secs(1);
/// A complete index at least so often.
const FULL_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// One destination at work.
pub struct Site {
    /// The destination.
    pub store: Arc<dyn Store>,
    /// Our claim there, and what the place is known by.
    pub lease: Lease,
    /// What is backed up.
    pub scope: Arc<Scope>,
    /// A folder of this destination's own.
    pub scratch: PathBuf,
    /// What it holds.
    pub known: Arc<Known>,
    /// The last sequence number that was used under this epoch.
    pub sequence: u64,
    /// When each database was last saved (paths of the index).
    pub databases: BTreeMap<Vec<u8>, Instant>,
    /// Where a backup was begun and not ended: it has to be finished or undone before the next.
    pub unfinished: bool,
    /// The listing has yet to be compared with what we know.
    pub unreconciled: bool,
    /// A writer before us had not let go when we came, and may have sent something since.
    pub beside: bool,
    /// Backups of its that were undone, and whose history was left as it is.
    pub undone: BTreeSet<SnapshotId>,
    /// What backups that failed had added to the mirror: name and SHA-256. Where it is still there, it need not be
    /// uploaded again.
    pub leftovers: BTreeMap<String, [u8; 32]>,
    /// What the mirror has that no snapshot knows (names below the destination).
    pub strangers: BTreeSet<String>,
    /// What the place does not delete.
    pub deletions: Deletions,
    /// The summary that the place had when it was opened.
    pub before: Option<State>,
    /// How the place was last pruned.
    pub pruning: Option<Pruning>,
    /// The newest snapshot, as that summary named it.
    pub named: Option<SnapshotId>,
    /// The snapshot that is known; an earlier one than the newest, where that one's index is lost.
    pub learned: Option<SnapshotId>,
    /// Of files that the volume may have it is not known what the store has: the next backup looks at all of them, lest a
    /// snapshot be published that does not know them either.
    pub gaps: bool,
    /// An index is lost: a complete one is made with the next backup, whether or not anything has changed.
    pub renew: bool,
}

/// What is asked of a backup.
#[derive(Clone, Debug)]
pub struct Order {
    /// Why it is made.
    pub kind: snapshot::Kind,
    /// What is looked at.
    pub look: Look,
    /// A snapshot is made even when nothing changed.
    pub always: bool,
    /// How much may vanish unasked.
    pub most: Percent,
    /// Questions that are answered by yes.
    pub accepted: Vec<QuestionId>,
    /// A restore to this snapshot is on the volumes, and in none yet: what it lacks was removed by us.
    pub restored: Option<SnapshotId>,
    /// A database is saved at most once in this time.
    pub rest: Duration,
    /// How long a database is waited for.
    pub patience: Duration,
}

/// What a backup came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The snapshot that was made; none: there was nothing to do.
    pub snapshot: Option<SnapshotId>,
    /// Files that were uploaded.
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// Files that were deleted from the mirror, and are in history.
    pub deleted: u64,
    /// What the newest snapshot holds.
    pub totals: Totals,
    /// What of it is held.
    pub holds: Vec<Hold>,
    /// What of it is excluded.
    pub excluded: Totals,
    /// The hold that this backup has placed.
    pub placed: Option<Question>,
    /// The questions that stand.
    pub questions: Vec<Question>,
    /// One sentence each, for whoever answered a question.
    pub remarks: Vec<String>,
    /// What was left out, by reason.
    pub skipped: BTreeMap<Skipped, u64>,
    /// Left for later.
    pub later: Vec<Vec<u8>>,
    /// One sentence each, for the log.
    pub warnings: Vec<String>,
}

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store.
    #[error("the backup failed")]
    Store(#[source] store::Error),
    /// The store did part of what it was asked.
    #[error("{what}: {} of {count} files were not, the first is {:?}: {}", undone.len(), undone.first().map_or("", |u| u.name.as_str()), undone.first().map_or("", |u| u.why.as_str()))]
    Undone {
        /// What was asked.
        what: &'static str,
        /// Of how many.
        count: usize,
        /// What was not done.
        undone: Vec<Undone>,
    },
    /// A guard.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Somebody else has the place.
    #[error("{0}")]
    Fenced(#[from] Fenced),
    /// What answers is not the store that was there.
    #[error(transparent)]
    Away(#[from] Away),
    /// The place is not ours yet.
    #[error("nothing is written yet: {0}")]
    Waiting(String),
    /// The volume, or the scratch folder.
    #[error("the backup failed")]
    Plan(#[from] PlanError),
    /// The scratch folder.
    #[error("what is known of the store can't be kept")]
    Known(#[from] TableError),
    /// The scratch folder.
    #[error("the scratch folder {path} can't be used")]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            // Whoever wrote that holds the place, whatever its claims say to this release.
            newer @ store::Error::Newer { .. } => Fenced::Newer { why: newer.to_string() }.into(),
            other => Self::Store(other),
        }
    }
}

impl From<NotHeld> for Failure {
    fn from(not_held: NotHeld) -> Self {
        match not_held {
            NotHeld::Store(error) => error.into(),
            NotHeld::Fenced(fenced) => Self::Fenced(fenced),
            NotHeld::Away(away) => Self::Away(away),
        }
    }
}

/// A backup that is under way.
struct Begun {
    id: SnapshotId,
    /// Where each replicated database stood.
    databases: Vec<DatabasePosition>,
    /// Which databases were saved as files since (paths of the index).
    saved: BTreeSet<Vec<u8>>,
    report: Report,
    outcomes: Outcomes,
    /// Something that a restore would notice.
    worth: bool,
    /// The pending mark is written.
    marked: bool,
    /// Uploaded, but gone from the volume since.
    withdrawn: Vec<(String, Vec<u8>)>,
    /// What of the mirror no snapshot knows, this one included: what is uploaded is none any more.
    strangers: BTreeSet<String>,
    /// They leave the mirror with this snapshot.
    parts: bool,
    /// What this batch replaces, and has kept in history: an undone backup puts that back.
    replaced: BTreeSet<String>,
    /// What this backup holds from now on.
    placed: Option<(HoldId, Timestamp)>,
}

impl Site {
    /// Makes a backup, if there is anything to back up.
    pub async fn backup(&mut self, mut order: Order) -> Result<Report, Failure> {
        order.look.changes.everything |= self.gaps;
        self.scope.trouble().map_err(Refusal::from)?;
        let answers = self.answers(&order).await?;
        let plan = self.plan(&order.look, &answers.accepted, order.rest).await?;
        let (mut plan, placed) = self.judge(&order, &answers.accepted, plan).await?;
        let lost = if placed.is_some() || plan.excluded > 0 {
            self.read_kept(&mut plan).await?
        } else {
            Vec::new()
        };
        let replication = self.scope.replication.clone();
        let news = replication.as_ref().is_some_and(|replication| replication.take_news());
        let order = Order {
            always: order.always || news || self.renew,
            ..order
        };
        if plan.facts > 0 {
            let (known, path) = (self.known.clone(), plan.facts_path());
            let facts = plan.facts;
            self.known = Arc::new(blocking(move || known.refreshed(read_facts(&path, facts)?)).await?);
        }
        let mut report = self.reported(&plan, &answers);
        report.warnings.extend(lost);
        // Only a full scan knows that a stranger is not about to be saved under its name; and where it can't be taken away, it
        // is not kept in history again and again.
        let parts = plan.full && !self.strangers.is_empty() && !self.deletions.are_refused();
        if plan.changes == 0 && !order.always && !parts {
            return Ok(report);
        }
        self.require_claim().await?;
        // Of the moment of the scan, as the files are.
        let databases = self
            .scope
            .copies
            .positions(replication.as_deref(), self.lease.holder.epoch)
            .await;
        let mut begun = Begun {
            databases,
            saved: BTreeSet::new(),
            id: SnapshotId::new(Timestamp::now(), self.lease.holder.epoch, self.sequence + 1, order.kind),
            report,
            outcomes: Outcomes::create(&self.scratch.join("outcomes"))?,
            worth: order.always || parts,
            marked: false,
            withdrawn: Vec::new(),
            strangers: self.strangers.clone(),
            parts,
            replaced: BTreeSet::new(),
            placed: placed.map(|id| (id, Timestamp::now())),
        };
        let result = self.make(&plan, &order, &mut begun).await;
        if result.is_ok() {
            self.leftovers.clear();
        }
        if begun.report.snapshot.is_some() {
            // Whatever came after: what this snapshot knows must never leave the mirror as a stranger.
            self.strangers = if parts { BTreeSet::new() } else { begun.strangers };
            self.gaps &= !plan.full;
        }
        self.unfinished |= begun.marked && result.is_err();
        if let (Some(replication), true) = (&replication, news && result.is_err()) {
            replication.tell();
        }
        result?;
        let mut report = begun.report;
        report.warnings.extend(self.decided(&answers).await);
        self.tell(&mut report);
        report.placed = placed.and_then(|id| {
            let holds = self.known.holds();
            questions::of_hold(holds.iter().find(|hold| hold.id == id)?)
        });
        Ok(report)
    }

    /// What the newest snapshot holds, and what there is to ask of it.
    fn tell(&self, report: &mut Report) {
        report.totals = self.known.totals();
        report.holds = self.known.holds();
        report.excluded = self.known.tally().excluded.totals;
        report.questions = questions::standing(&report.holds, self.known.tally());
    }

    async fn make(&mut self, plan: &Plan, order: &Order, begun: &mut Begun) -> Result<(), Failure> {
        self.batches(plan, order, begun).await?;
        if !begun.worth && begun.outcomes.count() <= QUIET {
            // Contents are what they were: only what is known of them changes.
            self.known = Arc::new(self.known.changed(begun.outcomes.read()?)?);
            return Ok(());
        }
        self.mark(begun).await?;
        if begun.parts {
            self.part(begun).await?;
        }
        self.scope.trouble().map_err(Refusal::from)?;
        self.require_claim().await?;
        self.publish(begun).await?;
        self.clean(plan, begun).await
    }

    /// `rest`: databases that were saved in this time wait.
    pub(super) async fn plan(&self, look: &Look, accepted: &Accepted, rest: Duration) -> Result<Plan, Failure> {
        let (mut look, accepted) = (look.clone(), accepted.clone());
        look.resting = self
            .databases
            .iter()
            .filter(|(_, saved)| saved.elapsed() < rest)
            .map(|(path, _)| path.clone())
            .collect();
        let (scope, known, spool) = (self.scope.clone(), self.known.clone(), self.scratch.join("plan"));
        Ok(blocking(move || {
            let _turn = scope.turn();
            Plan::make(&scope, &known, &look, &accepted, &spool)
        })
        .await?)
    }

    fn reported(&self, plan: &Plan, answers: &Answers) -> Report {
        let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let unreadable = plan
            .unreadable
            .iter()
            .map(|(path, why)| format!("{} can't be read ({why}): what was saved of it stays", name(path)));
        let servers = plan.servers.iter().map(|path| {
            format!(
                "{} belongs to a database server: a copy of its files can't be trusted while it runs, dump it instead",
                name(path)
            )
        });
        let mut report = Report {
            skipped: plan.skipped.clone(),
            later: plan.later.clone(),
            warnings: unreadable.chain(servers).collect(),
            remarks: answers.remarks.clone(),
            ..Report::default()
        };
        self.tell(&mut report);
        report
    }

    /// The place is still ours.
    pub async fn require_claim(&self) -> Result<(), Failure> {
        Ok(self.lease.check(self.store.as_ref()).await?)
    }

    /// What answered was not the store that was there: nothing that was done since the last backup is sure to be in ours.
    pub fn doubt(&mut self) {
        self.unfinished = true;
        self.unreconciled = true;
        self.leftovers.clear();
    }

    /// The pending mark, before anything else is written.
    async fn mark(&mut self, begun: &mut Begun) -> Result<(), Failure> {
        if begun.marked {
            return Ok(());
        }
        let pending = Pending {
            version: VERSION,
            id: begun.id,
            time: Timestamp::now(),
            undone: false,
        };
        begun.marked = true;
        self.sequence = begun.id.sequence;
        Ok(self.store.write(&keys::pending(&begun.id), &encode(&pending)).await?)
    }

    /// Stages, copies to history and uploads, batch by batch.
    async fn batches(&mut self, plan: &Plan, order: &Order, begun: &mut Begun) -> Result<(), Failure> {
        let mut changes = plan.changes().map_err(PlanError::from)?;
        let mut stage = Stage::new(self.scope.clone(), self.scratch.clone(), order.patience)
            .map_err(|source| self.unusable(source))?;
        loop {
            let mut batch;
            let scope = self.scope.clone();
            (changes, stage, batch) = blocking(move || {
                let _turn = scope.turn();
                let batch = Batch::take(&mut changes, &mut stage)?;
                Ok::<_, Failure>((changes, stage, batch))
            })
            .await?;
            begun.worth |= batch.worth || !batch.pieces.is_empty();
            for (path, left) in std::mem::take(&mut batch.left) {
                self.left(path, left, begun);
            }
            let there = batch.part(|piece| self.is_there(piece, begun));
            let mut replaced = batch.replaced();
            // A stranger under the name of what is uploaded now is replaced as well.
            for name in batch.pieces.iter().map(Piece::name) {
                // What lies there since it could not be deleted is in history, and is replaced.
                self.deletions.forget(&name);
                if begun.strangers.remove(&name) {
                    self.leftovers.remove(&name);
                    replaced.push(name);
                }
            }
            replaced.sort();
            replaced.dedup();
            begun.replaced = replaced.iter().cloned().collect();
            if !batch.pieces.is_empty() || !replaced.is_empty() {
                self.mark(begun).await?;
                self.keep(&replaced, begun).await?;
            }
            let (pieces, withdrawn) = (std::mem::take(&mut batch.pieces), begun.withdrawn.len());
            let uploaded;
            (stage, uploaded) = self.upload(stage, pieces, begun).await?;
            for (_, path) in begun.withdrawn.iter().skip(withdrawn) {
                batch.outcome(path.clone(), None);
            }
            for piece in &there {
                begun.strangers.remove(&piece.name());
            }
            for piece in uploaded.into_iter().chain(there) {
                begun.report.uploaded += 1;
                begun.report.uploaded_bytes += piece.record.stored_size;
                let path = &piece.record.entry.path;
                if piece.record.database {
                    self.databases.insert(path.clone(), Instant::now());
                }
                // A database of old is one that is saved like any other file, too.
                if piece.record.database || self.scope.copies.has_met(path) {
                    begun.saved.insert(path.clone());
                }
                let stored = begun.id.point();
                batch.outcome(piece.record.entry.path.clone(), Some(Record { stored, ..piece.record }));
            }
            begun.report.deleted += batch.deleted;
            let last = batch.last;
            begun.outcomes.append(batch)?;
            stage = stage.cleared().map_err(|source| self.unusable(source))?;
            if last {
                return Ok(());
            }
        }
    }

    /// Whether an attempt that failed has uploaded this very content, and the listing still shows it.
    fn is_there(&self, piece: &Piece, begun: &Begun) -> bool {
        let name = piece.name();
        let listed = match &piece.known {
            Some(known) => known.digest.is_none() && known.stored_size == piece.record.stored_size,
            None => begun.strangers.contains(&name),
        };
        listed && piece.record.digest.is_some() && self.leftovers.get(&name) == piece.record.digest.as_ref()
    }

    /// Remembers what this attempt has added, in case it fails. What it replaced is put back then, and not remembered.
    fn leave(&mut self, piece: &Piece, begun: &Begun) {
        let name = piece.name();
        if let Some(digest) = piece.record.digest
            && !begun.replaced.contains(&name)
            && self.leftovers.len() < MOST_LEFTOVERS
        {
            self.leftovers.insert(name, digest);
        }
    }

    fn left(&mut self, path: Vec<u8>, left: Left, begun: &mut Begun) {
        let name = String::from_utf8_lossy(&path);
        let warning = match left {
            Left::Vanished => return,
            Left::Unreadable(reason, error) => {
                *begun.report.skipped.entry(reason).or_default() += 1;
                format!(
                    "{name} can't be read ({error}): what was saved of it stays; the sidecar runs as the app's user, see vixens.io/backup-run-as"
                )
            }
            Left::Database(error) => {
                *begun.report.skipped.entry(Skipped::Database).or_default() += 1;
                let warning = with_sources(&error);
                // Not again in the next seconds.
                self.databases.insert(path, Instant::now());
                warning
            }
        };
        begun.report.warnings.push(warning);
    }

    /// Copies what is about to be replaced or deleted from the mirror into history.
    async fn keep(&self, names: &[String], begun: &mut Begun) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        let undone = self.store.copy("", &keys::history_of(&begun.id), names).await?;
        if undone.is_empty() {
            return Ok(());
        }
        // What the mirror has lost can't be kept; anything else must be.
        let there = self.there(&undone).await?;
        let (kept, lost): (Vec<Undone>, Vec<Undone>) = undone.into_iter().partition(|one| there.contains(&one.name));
        for one in lost {
            begun.report.warnings.push(format!(
                "{} has lost {}: earlier snapshots can't give it back",
                self.store.destination(),
                one.name
            ));
        }
        if kept.is_empty() {
            return Ok(());
        }
        Err(Failure::Undone {
            what: "what is replaced could not be kept in history",
            count: names.len(),
            undone: kept,
        })
    }

    /// What is in the mirror beside these, and these as far as they are.
    pub(super) async fn there(&self, undone: &[Undone]) -> Result<BTreeSet<String>, Failure> {
        let mut there = BTreeSet::new();
        let folders: BTreeSet<&str> = undone
            .iter()
            .filter_map(|one| one.name.rsplit_once('/'))
            .map(|(folder, _)| folder)
            .collect();
        for folder in folders {
            for object in listed(self.store.as_ref(), folder, Depth::One).await? {
                there.insert(format!("{folder}/{}", object.name));
            }
        }
        Ok(there)
    }

    /// Keeps the strangers that are left in history, before they leave the mirror: but for halves of uploads, which are of no use
    /// to anybody.
    async fn part(&self, begun: &mut Begun) -> Result<(), Failure> {
        let whole = begun.strangers.iter().filter(|name| !keys::is_partial(name));
        let names: Vec<String> = whole.cloned().collect();
        self.keep(&names, begun).await
    }

    /// Uploads, again as copies what changed meanwhile, and again what a store that stumbles did not take, as long as each
    /// attempt gets something done.
    async fn upload(
        &mut self,
        mut stage: Stage,
        mut pieces: Vec<Piece>,
        begun: &mut Begun,
    ) -> Result<(Stage, Vec<Piece>), Failure> {
        let mut uploaded = Vec::new();
        while !pieces.is_empty() {
            let files: Vec<Upload> = pieces
                .iter()
                .map(|piece| Upload {
                    local: piece.local.clone(),
                    name: piece.name(),
                })
                .collect();
            let done = Mutex::new(BTreeSet::new());
            let note = |name: &str| {
                done.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.to_owned());
            };
            let result = self.store.upload("", &files, &note).await;
            let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
            for piece in &pieces {
                if done.contains(&piece.name()) && stage.rested(piece) {
                    self.leave(piece, begun);
                }
            }
            let missing = missing(result, &files, &done)?;
            let (restless, taken) = pieces.into_iter().partition::<Vec<_>, _>(|piece| {
                let failed = missing.one_by_one && missing.names.contains(&piece.name());
                piece.direct && (failed || !stage.rested(piece))
            });
            let (mut taken, left) = taken
                .into_iter()
                .partition::<Vec<_>, _>(|piece| !missing.names.contains(&piece.name()));
            if !left.is_empty() {
                if done.is_empty() {
                    return Err(missing.failure);
                }
                tracing::warn!(
                    destination = %self.store.destination(),
                    "{}; {} of {} files were uploaded, going on with the rest",
                    with_sources(&missing.failure),
                    done.len(),
                    files.len()
                );
                tokio::time::sleep(BREATH).await;
                self.require_claim().await?;
            }
            uploaded.append(&mut taken);
            pieces = left;
            // Copies hold still: this ends after the second round.
            let again;
            let scope = self.scope.clone();
            (stage, again) = blocking(move || {
                let _turn = scope.turn();
                let mut again = Vec::new();
                for piece in restless {
                    let name = piece.name();
                    again.push((name, piece.record.entry.path.clone(), stage.again(&piece)));
                }
                Ok::<_, Failure>((stage, again))
            })
            .await?;
            for (name, path, staged) in again {
                match staged.map_err(|source| self.unusable(source))? {
                    Staged::Upload(piece) => pieces.push(piece),
                    Staged::Left(Left::Unreadable(_, error)) => return Err(self.unusable(error)),
                    Staged::Left(_) | Staged::Same(_) => begun.withdrawn.push((name, path)),
                }
            }
        }
        Ok((stage, uploaded))
    }

    /// Writes the index: a difference to the base, or all of it.
    async fn publish(&mut self, begun: &mut Begun) -> Result<(), Failure> {
        let now = Timestamp::now();
        let id = begun.id;
        let difference = (self.known.changed_since_base() + begun.outcomes.count()) as u64;
        let base = self.known.base().filter(|(base, made)| {
            base.epoch == id.epoch
                && now.duration_since(*made) < FULL_EVERY
                && u128::from(difference).pow(2) <= 2 * u128::from(self.known.base_entries().max(32))
        });
        let mut header = Header {
            id,
            base: base.map(|(id, _)| id),
            time: now,
            volumes: self
                .scope
                .volumes
                .iter()
                .map(|volume| IndexedVolume {
                    folder: volume.folder.clone(),
                    id: volume.id.clone(),
                })
                .collect(),
            databases: begun.databases.clone(),
            skipped: begun
                .report
                .skipped
                .iter()
                .map(|(reason, count)| (reason.as_str().to_owned(), *count))
                .collect(),
            carried: Carried::default(),
        };
        let (outcomes, again) = (begun.outcomes.read()?, [begun.outcomes.read()?, begun.outcomes.read()?]);
        let (known, placed, count) = (self.known.clone(), begun.placed, begun.outcomes.count());
        let (copies, saved) = (self.scope.copies.clone(), std::mem::take(&mut begun.saved));
        let [index, mark] = ["json", "base"].map(|extension| format!("{id}.{extension}"));
        let paths = [&index, &mark].map(|name| self.scratch.join(name));
        let (next, noted) = blocking(move || {
            let [index, mark] = paths;
            let next = if header.base.is_some() {
                known.changed(outcomes)?.published(id)
            } else {
                known.rebased(outcomes, id, now)?
            }
            .held_since(placed);
            let is_there = |path: &[u8]| matches!(next.get(path), Ok(Some(record)) if record.entry.kind == Kind::File);
            let noted = copies.note(&mut header.databases, &saved, id.epoch, is_there);
            if header.base.is_none() {
                write_twin(&known, again, count, &next, &header, &mark)?;
            }
            write_index(&next, &header, &index)?;
            Ok::<_, Failure>((next, noted))
        })
        .await?;
        if base.is_none() {
            // Before the index, never with it: retention takes a complete index without its mark for a difference, and
            // may remove what others build on.
            self.publish_document(mark).await?;
        }
        self.publish_document(index).await?;
        self.scope.copies.publish(noted);
        self.known = Arc::new(next);
        (self.learned, self.named, self.renew) = (Some(id), None, false);
        begun.report.snapshot = Some(id);
        Ok(())
    }

    /// Uploads a document of a snapshot from scratch.
    async fn publish_document(&self, name: String) -> Result<(), Failure> {
        let files = [Upload {
            local: self.scratch.join(&name),
            name,
        }];
        let undone = self.store.upload(keys::SNAPSHOTS, &files, &store::unwatched).await;
        for file in &files {
            let _ = std::fs::remove_file(&file.local);
        }
        match undone? {
            undone if undone.is_empty() => Ok(()),
            undone => Err(Failure::Undone {
                what: "the index could not be published",
                count: files.len(),
                undone,
            }),
        }
    }

    /// The mirror copies of deleted files go, and last the pending mark.
    async fn clean(&mut self, plan: &Plan, begun: &Begun) -> Result<(), Failure> {
        let mut names: Vec<String> = begun.withdrawn.iter().map(|(name, _)| name.clone()).collect();
        if begun.parts {
            names.extend(begun.strangers.iter().cloned());
        }
        if begun.report.deleted > 0 {
            for change in plan.changes().map_err(PlanError::from)? {
                names.extend(change.map_err(PlanError::from)?.leaves_the_mirror());
            }
        }
        // The snapshot is there: what can't be deleted costs it nothing.
        let store = self.store.clone();
        if !names.is_empty() {
            self.deletions.delete(store.as_ref(), "", &names).await?;
        }
        let pending = [format!("{}.pending", begun.id)];
        self.deletions.delete(store.as_ref(), keys::SNAPSHOTS, &pending).await?;
        Ok(())
    }

    pub(super) fn unusable(&self, source: io::Error) -> Failure {
        Failure::Scratch {
            path: self.scratch.clone(),
            source,
        }
    }
}

/// What an upload left out.
struct Missing {
    names: BTreeSet<String>,
    /// Each was tried, and something is wrong with it alone; else the store went away in the middle.
    one_by_one: bool,
    /// What there is to say of it.
    failure: Failure,
}

/// What of an upload may be tried again; an error where that is of no use.
fn missing(
    result: Result<Vec<Undone>, store::Error>,
    files: &[Upload],
    done: &BTreeSet<String>,
) -> Result<Missing, Failure> {
    match result {
        Ok(undone) => Ok(Missing {
            names: undone.iter().map(|one| one.name.clone()).collect(),
            one_by_one: true,
            failure: Failure::Undone {
                what: "not everything could be uploaded",
                count: files.len(),
                undone,
            },
        }),
        Err(error @ store::Error::Unreachable { .. }) if !done.is_empty() => {
            let names = files.iter().map(|file| &file.name);
            Ok(Missing {
                names: names.filter(|name| !done.contains(*name)).cloned().collect(),
                one_by_one: false,
                failure: error.into(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Nothing was left undone, or it is an error.
pub fn all_done(what: &'static str, names: &[String], undone: Vec<Undone>) -> Result<(), Failure> {
    if undone.is_empty() {
        return Ok(());
    }
    Err(Failure::Undone {
        what,
        count: names.len(),
        undone,
    })
}
