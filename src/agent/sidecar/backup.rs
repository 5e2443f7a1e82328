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
use super::known::{Known, is_doubted};
use super::stage::{Left, Piece, Stage};
use super::volume::Scope;
use crate::agent::arguments::{Percent, QuestionId, Retention};
use crate::agent::filters::Skipped;
use crate::agent::lease::check::Lease;
use crate::agent::prune::{self, Pruned};
use crate::agent::scan::Record;
use crate::agent::snapshot::changes::{Accepted, Look, Plan, PlanError, read_facts};
use crate::agent::snapshot::deletions::Deletions;
use crate::agent::snapshot::questions;
use crate::contract::question::Question;
use crate::store::index::{DatabasePosition, Hold, HoldId, Totals};
use crate::store::records::{Pending, VERSION, encode};
use crate::store::snapshot::{self, SnapshotId};
use crate::store::state::{Pruning, State};
use crate::store::{Store, keys};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod failure;
mod publishing;
mod stuck;
mod uploading;

pub use failure::Failure;
pub use failure::all_done;
pub use stuck::Stuck;

/// So many files whose content turned out to be the same are remembered without a snapshot.
const QUIET: usize = 256;
/// More than this is not remembered of an attempt that failed.
const MOST_LEFTOVERS: usize = 50_000;

/// One destination at work.
pub struct Site {
    /// The destination.
    pub store: Arc<dyn Store>,
    /// The other destinations: what a restore has gone back to may be known there alone.
    pub elsewhere: Vec<Arc<dyn Store>>,
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
    /// The mirror was compared since the place was opened.
    pub reconciled: bool,
    /// A writer before us had not let go when we came, and may have sent something since.
    pub beside: bool,
    /// Since when, by our clock: under the same claim, as the summary has it.
    pub beside_since: Option<Timestamp>,
    /// It sends nothing any more, and what it had sent was found: once that is saved anew, nothing is left of it.
    pub looked_back: bool,
    /// Backups of its that were undone, and whose history was left as it is: the store has a record of each.
    pub undone: BTreeSet<SnapshotId>,
    /// What backups that failed had added to the mirror: name and SHA-256. Where it is still there, it need not be
    /// uploaded again.
    pub leftovers: BTreeMap<String, [u8; 32]>,
    /// What the mirror has that no snapshot knows (names below the destination).
    pub strangers: BTreeSet<String>,
    /// What the place does not delete.
    pub deletions: Deletions,
    /// What the place does not take, or can't keep.
    pub stuck: Stuck,
    /// What the mirror has of files that are gone, and could not be kept in history: for earlier snapshots it is all there is.
    pub unkept: BTreeSet<String>,
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
    /// Files that the place does not take as they are now.
    pub stuck: u64,
    /// One sentence each, for the log.
    pub warnings: Vec<String>,
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
    /// Names of what leaves no place in the mirror, whether or not a snapshot has it.
    unkept: BTreeSet<String>,
    /// Databases may be saved again after this time, and what is stuck be tried.
    rest: Duration,
}

impl Site {
    /// Makes a backup, if there is anything to back up.
    pub async fn backup(&mut self, mut order: Order) -> Result<Report, Failure> {
        order.look.changes.everything |= self.gaps;
        let is_full = order.look.changes.everything;
        let report = self.backed_up(order).await?;
        if is_full && self.looked_back {
            self.let_go().await?;
        }
        Ok(report)
    }

    async fn backed_up(&mut self, order: Order) -> Result<Report, Failure> {
        self.scope.trouble().map_err(Refusal::from)?;
        let answers = self.answers(&order).await?;
        let plan = self.plan(&order.look, &answers.accepted, order.rest).await?;
        let (mut plan, placed) = self.judge(&order, &answers.accepted, plan).await?;
        let (lost, unread) = if placed.is_some() || plan.excluded > 0 {
            self.read_kept(&mut plan).await?
        } else {
            Default::default()
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
            unkept: unread,
            rest: order.rest,
        };
        self.stuck.begin();
        let result = self.make(&plan, &order, &mut begun).await;
        if result.is_ok() {
            self.leftovers.clear();
        }
        if result.is_ok() && plan.full {
            self.stuck.end();
        }
        if begun.report.snapshot.is_some() {
            // Whatever came after: what this snapshot knows must never leave the mirror as a stranger.
            self.strangers = if parts { BTreeSet::new() } else { begun.strangers };
            self.unkept.append(&mut begun.unkept);
            self.gaps &= !plan.full;
        }
        self.unfinished |= begun.marked && result.is_err();
        if let (Some(replication), true) = (&replication, news && result.is_err()) {
            replication.tell();
        }
        result?;
        let mut report = begun.report;
        report.warnings.extend(self.stuck.told(&self.store.destination()));
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
        if !begun.worth && !begun.marked && begun.outcomes.count() <= QUIET {
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
            begun.worth |= batch.worth;
            for (path, left) in std::mem::take(&mut batch.left) {
                self.left(path, left, begun);
            }
            let there = batch.part(|piece| self.is_there(piece, begun));
            let rest = begun.rest;
            let resting = batch.part(|piece| self.stuck.rests(&piece.record.entry.path, rest));
            begun.count_stuck(resting.len());
            let mut replaced = batch.replaced();
            // A stranger under the name of what is uploaded now is replaced as well.
            for name in batch.pieces.iter().map(Piece::name) {
                // What lies there since it could not be deleted is in history, and is replaced.
                self.deletions.forget(&name);
                if begun.strangers.contains(&name) || self.unkept.contains(&name) {
                    self.leftovers.remove(&name);
                    replaced.push(name);
                }
            }
            replaced.sort();
            replaced.dedup();
            if !batch.pieces.is_empty() || !replaced.is_empty() {
                self.mark(begun).await?;
                let unkept = self.keep(&replaced, begun).await?;
                replaced.retain(|name| !unkept.contains_key(name));
                self.leave_unkept(&mut batch, unkept, begun);
            }
            begun.replaced = replaced.into_iter().collect();
            let (pieces, withdrawn) = (std::mem::take(&mut batch.pieces), begun.withdrawn.len());
            let (uploaded, refused);
            (stage, uploaded, refused) = self.upload(stage, pieces, begun).await?;
            self.leave_refused(&mut batch, refused, begun).await?;
            for (_, path) in begun.withdrawn.iter().skip(withdrawn) {
                batch.outcome(path.clone(), None);
            }
            for piece in uploaded.into_iter().chain(there) {
                let name = piece.name();
                begun.strangers.remove(&name);
                self.unkept.remove(&name);
                self.stuck.remove(&piece.record.entry.path);
                begun.worth = true;
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
            Some(known) => {
                (known.digest.is_none() || is_doubted(known)) && known.stored_size == piece.record.stored_size
            }
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

    /// Takes away what nobody wants kept, and notes what could not be deleted.
    pub async fn prune(&mut self, retention: &Retention, look: prune::Look) -> Result<Pruned, Failure> {
        let base = self.known.base().map(|(base, _)| base);
        let (store, before) = (self.store.as_ref(), self.pruning.as_ref());
        let pruned = prune::prune(store, retention, look, Timestamp::now(), before, base, &self.scratch).await?;
        self.deletions.note(&pruned.undone);
        self.pruning.clone_from(&pruned.pruning);
        Ok(pruned)
    }

    pub(super) fn unusable(&self, source: io::Error) -> Failure {
        Failure::Scratch {
            path: self.scratch.clone(),
            source,
        }
    }
}
