//! The life of databases at tier 3, with real Litestream: an app that numbers its rows, so that any state can be told from
//! any other, and never takes one back. The laws are in `main`.

mod work;

use super::dice::Dice;
use super::life::{Fault, Verdict, fault, tail};
use super::pod::{Pod, Workload};
use super::settings::Settings;
use super::store::Store;
use super::support::write;
use jiff::Timestamp;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a database may take to be sent once nothing is in its way.
const PATIENCE: Duration = Duration::from_secs(240);

/// Names of databases: where and what.
const NAMES: [&str; 4] = ["app.db", "sub/app.db", "sub/a $HOME.db", "cache.sqlite"];

/// How far a database is: the file that it is (a replaced one is another), and its rows. A later state is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    file: i64,
    rows: i64,
}

/// A database of the app.
#[derive(Default)]
struct Database {
    connection: Option<Connection>,
    committed: Progress,
    /// What is known to be in the store.
    sent: Option<Progress>,
}

/// A step.
#[derive(Clone, Copy, Debug)]
enum Step {
    Work,
    Acknowledge,
    StopAndLose,
    KillAndLose,
    KillSidecar,
    KillChild,
    StopAndStart,
    WriteBetween,
    KillStore,
    FreezeStore,
    Unmount,
    OtherTier,
    ShortLives,
}

/// Each, and how often.
const STEPS: [(Step, u64); 13] = [
    (Step::Work, 6),
    (Step::Acknowledge, 5),
    (Step::StopAndLose, 4),
    (Step::KillAndLose, 5),
    (Step::KillSidecar, 4),
    (Step::KillChild, 3),
    (Step::StopAndStart, 3),
    (Step::WriteBetween, 2),
    (Step::KillStore, 3),
    (Step::FreezeStore, 2),
    (Step::Unmount, 2),
    (Step::OtherTier, 3),
    (Step::ShortLives, 2),
];

/// The life of one seed.
pub struct Databases {
    dice: Dice,
    /// Whose life it is.
    pub workload: Workload,
    /// The pod of the moment.
    pub pod: Pod,
    all: BTreeMap<&'static str, Database>,
    without: Vec<String>,
    /// What was done.
    pub steps: Vec<String>,
    /// How often the product was compared with what is known.
    pub checked: u64,
}

impl Databases {
    /// A life that begins.
    pub fn new(seed: u64, settings: &Settings) -> Self {
        let mut workload = Workload::new(Store::of(&settings.store), &settings.program, "tier3");
        let pod = workload.pod();
        Self {
            dice: Dice::new(seed, "databases"),
            workload,
            pod,
            all: BTreeMap::new(),
            without: settings.without.clone(),
            steps: vec![settings.store.clone()],
            checked: 0,
        }
    }

    /// The first pod of a workload.
    pub fn begin(&mut self) -> Verdict {
        write(&self.workload.volume().join("settings.yaml"), "a: 1\n");
        self.open(NAMES[0]);
        self.start()?;
        self.work(2000);
        self.acknowledge()
    }

    /// One more step.
    pub fn step(&mut self) -> Verdict {
        let mut step = self.dice.weighted(&STEPS);
        if self.without.contains(&format!("{step:?}")) {
            step = Step::Work;
        }
        self.note(format!("{step:?}"));
        match step {
            Step::Work => self.work(10_000),
            Step::Acknowledge => {
                self.work(3000);
                self.acknowledge()?;
            }
            Step::StopAndLose => {
                self.work(4000);
                self.stop()?;
                self.next_pod();
                self.workload.lose_volume();
                self.start_with("after a graceful stop and a lost volume", |database| database.committed)?;
            }
            Step::KillAndLose => {
                if self.dice.in_hundred(70) {
                    self.work(2000);
                    self.acknowledge()?;
                }
                self.work(5000);
                self.pod.kill();
                self.close();
                self.next_pod();
                self.workload.lose_volume();
                self.start_with("after a kill and a lost volume", |database| {
                    database.sent.unwrap_or_default()
                })?;
            }
            Step::KillSidecar => {
                self.work(3000);
                self.pod.kill();
                self.work(3000);
                self.workload.start(&mut self.pod);
            }
            Step::KillChild => {
                self.work(2000);
                self.pod.kill_child(self.dice.next());
                self.work(2000);
            }
            Step::StopAndStart => {
                self.work(2000);
                self.stop()?;
                self.next_pod();
                self.start_with("on a volume that was kept", |database| database.committed)?;
            }
            Step::WriteBetween => {
                self.stop()?;
                self.next_pod();
                self.init()?;
                self.reopen();
                self.work(3000);
                self.workload.start(&mut self.pod);
            }
            Step::KillStore => {
                self.work(2000);
                self.workload.store.kill();
                self.work(5000);
                self.workload.store.resume();
            }
            Step::FreezeStore => {
                self.workload.store.freeze(true);
                self.work(5000);
                self.workload.store.freeze(false);
            }
            Step::Unmount => {
                self.work(2000);
                let with_bucket = self.dice.in_hundred(50);
                self.workload.store.unmount(with_bucket);
                self.work(5000);
                self.workload.store.mount();
                self.acknowledge()?;
            }
            Step::OtherTier => self.other_tier()?,
            Step::ShortLives => self.short_lives()?,
        }
        Ok(())
    }

    /// The end of a life.
    pub fn end(&mut self) -> Verdict {
        self.note("the end");
        self.work(1000);
        self.stop()?;
        self.next_pod();
        self.workload.lose_volume();
        self.start_with("at the end", |database| database.committed)?;
        self.stop()
    }

    /// Tier 3 → 2 → 3: what was written meanwhile is only in the files' backup, and the replica is older.
    fn other_tier(&mut self) -> Verdict {
        for tier in ["tier2", "tier3"] {
            self.work(2000);
            self.stop()?;
            self.next_pod();
            if self.dice.in_hundred(40) {
                self.note("  the volume is lost");
                self.workload.lose_volume();
            }
            self.workload.tier = tier;
            self.note(format!("  {tier}"));
            self.start_with(&format!("at {tier}, after a graceful stop"), |database| {
                database.committed
            })?;
        }
        Ok(())
    }

    /// Pods that live for seconds only, one after the other.
    fn short_lives(&mut self) -> Verdict {
        for _ in 0..self.dice.range(2, 4) {
            self.stop()?;
            self.next_pod();
            self.workload.lose_volume();
            self.start_with("after a short life", |database| database.committed)?;
            self.work(2000);
        }
        Ok(())
    }

    fn note(&mut self, what: impl Into<String>) {
        self.steps.push(what.into());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.workload.volume().join(name)
    }

    fn next_pod(&mut self) {
        self.pod = self.workload.pod();
        self.note(format!("  {}", self.pod.name()));
    }

    fn init(&mut self) -> Verdict {
        let said = self.workload.init(&self.pod, &[]);
        match said.code {
            Some(0) => {}
            code => {
                return Err(fault(
                    0,
                    format!("init ended with {code:?}: {}", tail(&said.text, 1500)),
                ));
            }
        }
        if self.pod.file(".no-backup").exists() && self.all.values().any(|database| database.sent.is_some()) {
            return Err(fault(5, format!("init found no backup: {}", tail(&said.text, 1500))));
        }
        Ok(())
    }

    fn start(&mut self) -> Verdict {
        self.init()?;
        self.workload.start(&mut self.pod);
        self.reopen();
        Ok(())
    }

    /// A pod whose databases have to be at least where `least` says.
    fn start_with(&mut self, what: &str, least: impl Fn(&Database) -> Progress) -> Verdict {
        self.init()?;
        for name in self.all.keys().copied().collect::<Vec<_>>() {
            let least = least(&self.all[name]);
            let found = self.found(name, what)?;
            self.checked += 1;
            if found < least || found > self.all[name].committed {
                let Database { committed, sent, .. } = &self.all[name];
                return Err(fault(
                    if least == *committed { 1 } else { 2 },
                    format!(
                        "{what}, {name} is at {found:?}, and not at {least:?} at least (committed: {committed:?}, sent: {sent:?})"
                    ),
                ));
            }
            let database = self.all.get_mut(name).unwrap();
            database.committed = found;
            if found == Progress::default() {
                self.all.remove(name);
            }
        }
        self.workload.start(&mut self.pod);
        self.reopen();
        Ok(())
    }

    /// How far a database is that nobody writes to: nothing where it is not there.
    fn found(&self, name: &str, what: &str) -> Result<Progress, Fault> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(Progress::default());
        }
        progress(&path).map_err(|why| fault(3, format!("{what}, {name}: {why}")))
    }

    /// The pod is stopped, the app before it.
    fn stop(&mut self) -> Verdict {
        self.close();
        self.ready()?;
        match self.pod.stop() {
            Some(status) if status.success() => Ok(()),
            status => Err(fault(1, format!("the sidecar's stop ended with {status:?}"))),
        }
    }

    fn ready(&mut self) -> Verdict {
        let deadline = Instant::now() + PATIENCE;
        while self.pod.status().is_none() {
            if !self.pod.is_alive() || Instant::now() > deadline {
                return Err(fault(0, "the sidecar has ended by itself, or does not answer"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until the store is said to have all that was committed: it is known as sent.
    fn acknowledge(&mut self) -> Verdict {
        // A release before the one that says when it has looked has done so since the last commit by then.
        let committed = Timestamp::now();
        std::thread::sleep(Duration::from_secs(4));
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.ready()?;
            let status = self.pod.status().unwrap_or_default();
            let is_sent = |name: &&str| {
                let database = &status["databases"][format!("config/{name}")];
                database["status"] == "replicated"
                    && database["listed"].is_string()
                    && database["listed"] == database["txid"]
                    && database["lag_seconds"].as_f64() == Some(0.0)
                    && database["as_of"]
                        .as_str()
                        .is_none_or(|as_of| as_of.parse::<Timestamp>().unwrap() >= committed)
            };
            if self.all.keys().all(is_sent) {
                break;
            }
            if Instant::now() > deadline {
                return Err(fault(4, format!("not everything is ever sent: {status:#}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        for database in self.all.values_mut() {
            database.sent = Some(database.committed);
        }
        self.note("  all is known as sent");
        Ok(())
    }
}

/// How far a database is; why it is none that the app ever had.
fn progress(path: &Path) -> Result<Progress, String> {
    let read = || -> rusqlite::Result<Result<Progress, String>> {
        let connection = Connection::open(path)?;
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if check != "ok" {
            return Ok(Err(check));
        }
        let tables: i64 = connection.query_row(
            "SELECT count(*) FROM sqlite_master WHERE name IN ('t', 'which')",
            [],
            |row| row.get(0),
        )?;
        if tables < 2 {
            return Ok(Ok(Progress::default()));
        }
        let file: i64 = connection.query_row("SELECT file FROM which", [], |row| row.get(0))?;
        let (count, last, others): (i64, i64, i64) = connection.query_row(
            "SELECT count(*), coalesce(max(n), 0), count(CASE WHEN file != ?1 THEN 1 END) FROM t",
            [file],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        if count != last || others > 0 {
            return Ok(Err(format!(
                "a mixture: {count} rows, the last is {last}, {others} of another file"
            )));
        }
        Ok(Ok(Progress { file, rows: last }))
    };
    read().map_err(|error| error.to_string())?
}
