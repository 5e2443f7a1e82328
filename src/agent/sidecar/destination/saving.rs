//! Changes → a backup, and what of them is left for later; full scans, and what they are the occasion for. Part of
//! [`Worker`].

use super::{DAILY, Hold, Later, PATIENCE, RESTLESS, Worker, everything};
use crate::agent::prune;
use crate::agent::sidecar::backup::{Failure, Order, Report};
use crate::agent::snapshot::changes::Look;
use crate::agent::watch::Changes;
use crate::store::snapshot::Kind;
use crate::store::{claims, keys, served};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    pub(super) async fn save(&mut self, changes: Changes) -> Result<(), Failure> {
        // A large file that has kept us waiting for long enough is taken as it is.
        let waited = |later: &Later| later.is_large && later.since.elapsed() >= RESTLESS;
        let restless = (!self.later.values().any(waited)).then_some(self.destination.settle);
        let order = self.order(self.kind(), changes.clone(), restless);
        match self.backup(order).await {
            Ok(report) => {
                self.later
                    .retain(|path, _| report.later.contains(path) || !changes.paths.contains_key(path));
                self.defer(&report.later);
                Ok(())
            }
            Err(failure) => {
                self.give_back(changes, &failure);
                Err(failure)
            }
        }
    }

    /// What was not saved waits: for the store to recover, or, where a guard refused, for something to change.
    pub(super) fn give_back(&self, changes: Changes, failure: &Failure) {
        if matches!(failure, Failure::Refused(_)) {
            self.destination.inbox.hold(changes);
        } else {
            self.destination.inbox.put_back(changes);
        }
    }

    /// What was left for later comes back: a database when it may be saved again, a large file that never rests after
    /// another time of quiet. Until then it counts as unsaved.
    pub(super) fn defer(&mut self, later: &[Vec<u8>]) {
        let now = Instant::now();
        let databases = self.site.as_ref().map(|site| &site.databases);
        for path in later {
            let saved = databases.and_then(|databases| databases.get(path));
            let due = match saved {
                Some(saved) => Instant::from_std(*saved) + self.destination.interval,
                None => now + self.destination.settle,
            };
            let is_large = saved.is_none();
            self.later
                .entry(path.clone())
                .or_insert(Later {
                    due,
                    since: now,
                    is_large,
                })
                .due = due;
        }
        if self.later.is_empty() {
            self.destination.inbox.saved();
        }
    }

    /// What was left for later and is due now.
    pub(super) async fn due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let mut changes = Changes::default();
        for (path, later) in &self.later {
            if later.due <= now {
                changes.add(path.clone(), false);
            }
        }
        self.save(changes).await
    }

    pub(super) async fn scan(&mut self) -> Result<(), Failure> {
        self.next_scan = Instant::now() + self.destination.interval;
        // Without a snapshot there is nothing to compare with.
        let has_snapshot = self.site.as_ref().is_some_and(|site| site.known.last().is_some());
        if self.next_reconcile <= Instant::now()
            && has_snapshot
            && let Some(renewal) = self.site.as_ref().map(|site| self.renewal(&site.lease.holder))
            && let Some(site) = &mut self.site
        {
            self.next_reconcile = Instant::now() + DAILY;
            renewal.during(site.delete_again()).await?;
            for warning in renewal.during(site.reconcile()).await? {
                tracing::warn!(destination = %self.name, "{warning}");
            }
        }
        let taken = self.destination.inbox.take_changes();
        let order = self.order(self.kind(), everything(), Some(self.destination.settle));
        match self.backup(order).await {
            Ok(report) => {
                self.later.retain(|path, _| report.later.contains(path));
                self.defer(&report.later);
                self.prune().await
            }
            Err(failure) => {
                self.give_back(taken, &failure);
                if !matches!(failure, Failure::Refused(_)) {
                    // What it would have found is not lost: it is looked for again as soon as the store is back.
                    self.next_scan = Instant::now();
                }
                Err(failure)
            }
        }
    }

    /// What the owner does not want kept any more goes: thoroughly at first and once a day, else only where there is
    /// something new.
    pub(super) async fn prune(&mut self) -> Result<(), Failure> {
        let Some(renewal) = self.site.as_ref().map(|site| self.renewal(&site.lease.holder)) else {
            return Ok(());
        };
        let Some(site) = &mut self.site else { return Ok(()) };
        let last = site.known.last();
        let thoroughly = self.next_thorough <= Instant::now();
        if !thoroughly && (last == self.pruned || site.deletions.are_refused()) {
            return Ok(());
        }
        let look = if thoroughly {
            prune::Look::Thoroughly
        } else {
            prune::Look::Lightly
        };
        let store = self.destination.store.clone();
        if thoroughly {
            let claims = claims::list(store.as_ref()).await?;
            site.lease.check_in(store.as_ref(), &claims).await?;
            // Old by the bucket's rules is what is never written again.
            site.lease.write_again(store.as_ref()).await?;
            let outlived: Vec<String> = claims::outlived(&claims)
                .iter()
                .filter_map(|claim| claim.key().strip_prefix("claims/").map(str::to_owned))
                .collect();
            if !outlived.is_empty() {
                site.deletions.delete(store.as_ref(), keys::CLAIMS, &outlived).await?;
            }
        }
        let pruned = renewal.during(site.prune(&self.destination.retention, look)).await?;
        if let Some(replication) = &self.destination.scope.replication {
            replication.keep(pruned.kept());
        }
        if thoroughly {
            self.next_thorough = Instant::now() + DAILY;
        }
        self.pruned = last;
        Ok(())
    }

    pub(super) fn kind(&self) -> Kind {
        if self.serving.is_some() {
            Kind::Restored
        } else {
            Kind::Auto
        }
    }

    pub(super) fn order(&self, kind: Kind, changes: Changes, restless: Option<Duration>) -> Order {
        // Of the annotation: looked for with the first full scan.
        let accepted = if changes.everything {
            self.answers.clone()
        } else {
            Vec::new()
        };
        Order {
            kind,
            look: Look {
                changes,
                resting: Vec::new(),
                restless,
            },
            always: self.serving.is_some(),
            most: self.destination.max_shrink,
            accepted,
            restored: self.serving.as_ref().map(|serving| serving.snapshot),
            rest: self.destination.interval,
            patience: PATIENCE,
        }
    }

    pub(super) async fn backup(&mut self, order: Order) -> Result<Report, Failure> {
        let begun = Instant::now();
        let Some(renewal) = self.site.as_ref().map(|site| self.renewal(&site.lease.holder)) else {
            return Ok(Report::default());
        };
        let Some(site) = &mut self.site else {
            return Ok(Report::default());
        };
        let (kind, full) = (order.kind, order.look.changes.everything);
        let report = renewal.during(site.backup(order)).await?;
        let last = site.known.last();
        if full {
            self.answers.clear();
        }
        self.said = None;
        self.last_success = Some(Timestamp::now());
        let mut stuck = Changes::default();
        site.stuck.paths().for_each(|path| stuck.add(path.to_vec(), false));
        self.destination.inbox.stuck(stuck);
        self.destination.inbox.saved();
        self.destination
            .shared
            .succeeded(&self.name, &report, last, begun.elapsed());
        if full {
            self.destination.shared.skipped(&self.name, &report);
        }
        for warning in report.warnings.iter().chain(&report.remarks) {
            tracing::warn!(destination = %self.name, "{warning}");
        }
        self.remind(&report.questions);
        if let Some(id) = report.snapshot {
            tracing::info!(
                destination = %self.name,
                snapshot = %id,
                uploaded = report.uploaded,
                bytes = report.uploaded_bytes,
                deleted = report.deleted,
                files = report.totals.files,
                took = ?begun.elapsed(),
                "saved"
            );
            self.served().await?;
            if kind != Kind::Final {
                self.beat(Hold::Held).await?;
            }
        }
        Ok(report)
    }

    /// The state that a restore-at value asked for is a snapshot now: it is never served again.
    pub(super) async fn served(&mut self) -> Result<(), Failure> {
        if let Some(serving) = &self.serving {
            served::record(self.destination.store.as_ref(), &serving.value, serving.snapshot).await?;
            self.serving = None;
        }
        Ok(())
    }
}
