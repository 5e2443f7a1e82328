//! Torture: random lives of an app, its pods and their store, seed by seed, the real program against a model that knows
//! what each acknowledged snapshot has to be. `init` and the sidecar are processes, the store is a real one; both are
//! killed, frozen and taken away at random moments.
//!
//! The laws for files:
//! 1. Every snapshot that is listed can be restored, and one that was acknowledged is what the volume was then.
//! 2. After a graceful stop, a volume that is lost comes back as it was.
//! 3. After a kill, what was acknowledged and not touched since comes back as it was; what was touched is something that
//!    it once was.
//! 4. `restore-at` of an acknowledged snapshot brings that snapshot, once.
//! 5. Nothing is ever said to be new beside a backup.
//! 6. No acknowledged snapshot goes while retention keeps it, and so no acknowledged file is nowhere in the store.
//! 7. Once the store is there and answers, backups are made again, whatever was before.
//! 8. Most of the files don't vanish unasked: what is held, or excluded since, is in each snapshot besides, as something
//!    that it once was, and as much of it as is said. It goes when that was accepted.
//!
//! The laws for databases at tier 3:
//! 1. After a graceful stop, every row that was committed is there, whatever tiers the pods were of.
//! 2. After a kill, no database is older than what was known as sent (`/status`: listed, no lag).
//! 3. A database is whole, and is one that it once was: never a mixture, never a gap.
//! 4. Once the store is there and answers, all that was committed is sent.
//! 5. Nothing is ever said to be new beside a backup.
//!
//! Compared are contents, modes, owners, times and links' targets; a database is its rows. Law 0 is that of every
//! program: nothing hangs, and nothing fails where nothing is wrong.
//!
//! `make torture MINUTES=60 STORE=sftp` runs seed after seed. What fails says how to run it again.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod app;
mod carried;
mod damage;
mod databases;
mod dice;
mod former;
mod kinds;
mod life;
mod pod;
mod rollback;
mod rollback_databases;
mod settings;
mod steps;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod tree;

use databases::Databases;
use life::{Life, Verdict};
use settings::Settings;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

#[test]
fn files_live_through_random_days() {
    files("files_live_through_random_days", None);
}

/// A roll-out, a rollback, a cluster that is half way: each pod is of either release, with the same laws.
#[test]
fn files_live_through_random_days_of_two_releases() {
    if let Some(former) = Settings::former() {
        files("files_live_through_random_days_of_two_releases", Some(&former));
    }
}

fn files(test: &str, beside: Option<&Path>) {
    let mut settings = Settings::read();
    if beside.is_some() {
        settings.without.extend(former::NOT_WITH.map(str::to_owned));
    }
    settings.each_seed(test, |seed, deadline| {
        let mut life = Life::new(seed, &settings);
        life.programs.extend(beside.map(Path::to_owned));
        let lived = catch_unwind(AssertUnwindSafe(|| live_files(&mut life, seed, &settings, deadline)));
        let told = settings::Told {
            steps: std::mem::take(&mut life.steps),
            checked: life.checked,
            log: life.pod.log(),
        };
        settings.keep(&life.workload, &lived);
        (lived, told)
    });
}

#[test]
fn databases_live_through_random_days() {
    let settings = Settings::read();
    if settings.store == "smb" {
        eprintln!("skipped: Litestream knows no stores of type smb");
        return;
    }
    settings.each_seed("databases_live_through_random_days", |seed, deadline| {
        let mut life = Databases::new(seed, &settings);
        let lived = catch_unwind(AssertUnwindSafe(|| {
            live_databases(&mut life, seed, &settings, deadline)
        }));
        let told = settings::Told {
            steps: std::mem::take(&mut life.steps),
            checked: life.checked,
            log: life.pod.log(),
        };
        settings.keep(&life.workload, &lived);
        (lived, told)
    });
}

fn live_databases(life: &mut Databases, seed: u64, settings: &Settings, deadline: Instant) -> Verdict {
    life.begin()?;
    for _ in 0..settings.steps(seed) {
        if settings.is_over(deadline) {
            break;
        }
        life.step()?;
    }
    life.end()
}

fn live_files(life: &mut Life, seed: u64, settings: &Settings, deadline: Instant) -> Verdict {
    life.begin()?;
    for _ in 0..settings.steps(seed) {
        if settings.is_over(deadline) {
            break;
        }
        life.step()?;
    }
    life.end(settings.most_at_the_end())
}
