//! `vixens-backup restore`: a snapshot's files → a folder, each verified before it is put in its place. Writes to that
//! folder only, never to a store, and not to a volume that an app lives on.

use super::access::{Access, Opened, Wanted};
use super::order::Order;
use super::progress::Progress;
use super::snapshots::print;
use super::{Error, run};
use crate::agent::amount;
use crate::agent::restore::place::{Placed, place};
use crate::agent::restore::plan::{Plan, Planned};
use crate::agent::restore::salvage::{Salvage, Salvaged};
use crate::agent::restore::stage::{self, Fetch, Lacking, Watch};
use crate::agent::volume;
use crate::agent::volume::marker::Mode;
use crate::store::indexes::Indexes;
use crate::store::keys;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The files are looked for again, while somebody goes on writing, no more often than this.
const LOOKS: usize = 5;
/// Below the target: files that are not yet verified. It goes when all is in its place.
const STAGING: &str = ".vixens-restore";

/// Bring files back into a folder, as they were at a snapshot. Each is verified by its size and SHA-256.
#[derive(Debug, clap::Args)]
pub struct Restore {
    #[command(flatten)]
    access: Access,
    /// The folder that gets the files, one folder in it for each volume; it is made, or has to be empty
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// newest, a snapshot's id or its number (3.42), or a time: what was newest then
    #[arg(long, value_name = "ID|TIME", default_value = "newest")]
    at: Wanted,
    /// Take a folder that is not empty: files of the same names are replaced, others stay
    #[arg(long)]
    overwrite: bool,
    /// Say what would be brought, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Only these files and folders: config/a.yaml, config/sub, 'config/**/*.db'
    paths: Vec<String>,
}

impl Restore {
    /// Restores.
    pub fn run(self) -> Result<(), Error> {
        run(self.restore())
    }

    async fn restore(self) -> Result<(), Error> {
        let opened = self.access.open().await?;
        let order = Order::of(&self.access, &opened, &self.at, &self.paths).await?;
        if self.dry_run {
            let notes = order.notes(&self.access.destination());
            return print(&format!("would bring {}\n{notes}", self.what(&order)));
        }
        check_target(&self.to, self.overwrite, &order.plan)?;
        let began = Instant::now();
        let (files, _) = order.plan.totals();
        let (order, salvaged) = self.stage(&opened, order).await?;
        let placed = place(&order.plan, &self.to, &self.staging(), None, Mode::Whole)?;
        remove(&self.staging())?;
        print(&self.summary(&order, &placed, &salvaged, began))?;
        let Salvaged {
            from_older, missing, ..
        } = salvaged;
        if !missing.is_empty() {
            return Err(Error::Partly(format!(
                "{} of {files} could not be restored from {}, nor any older version of them; the rest is in its place: another \
                 destination of the workload may have them (--destination)",
                amount::count(missing.len() as u64, "file"),
                order.name()
            )));
        }
        if !from_older.is_empty() {
            return Err(Error::Partly(format!(
                "{} of {files} could not be restored as of {}, and are older versions; the rest is in its place: another \
                 destination of the workload may have the newer ones (--destination)",
                amount::count(from_older.len() as u64, "file"),
                order.name()
            )));
        }
        match order.lost.first() {
            None => Ok(()),
            Some((id, _)) => Err(Error::Partly(format!(
                "{id} can't be restored as it was: what is in its place is {}, and what others tell of it",
                order.name()
            ))),
        }
    }

    fn staging(&self) -> PathBuf {
        self.to.join(STAGING)
    }

    /// Fetches everything beside its place, and looks elsewhere for what can't be had.
    async fn stage(&self, opened: &Opened, mut order: Order) -> Result<(Order, Salvaged), Error> {
        let mut lacking = self.fetched(opened, &order).await?;
        for _ in 0..LOOKS {
            if lacking.is_empty() || opened.backup.snapshots.is_empty() {
                break;
            }
            // A backup may have been made meanwhile: what it replaced has moved to history. What two looks say is believed.
            order = Order::of(&self.access, opened, &self.at, &self.paths).await?;
            let again = self.fetched(opened, &order).await?;
            let is_same = again == lacking;
            lacking = again;
            if is_same {
                break;
            }
        }
        let staging = self.staging();
        let salvage = Salvage {
            fetch: self.fetch(opened, &staging, Watch::nobody()),
            indexes: &Indexes::new(&opened.store, opened.scratch.path()),
            snapshots: &opened.backup.snapshots,
            newest: order.newest,
            history: &order.history,
            folder: None,
            others: &[],
        };
        let salvaged = salvage.salvage(&mut order.plan, lacking).await;
        let salvaged = salvaged.map_err(|error| self.failed(error))?;
        Ok((order, salvaged))
    }

    async fn fetched(&self, opened: &Opened, order: &Order) -> Result<Vec<Lacking>, Error> {
        let (files, bytes) = order.plan.totals();
        let progress = Progress::towards(files, bytes);
        let watch = Watch {
            every: progress.every(),
            tell: &|files, bytes| progress.tell(files, bytes),
        };
        let staging = self.staging();
        private(&staging)?;
        let staged = self.fetch(opened, &staging, watch).stage(&order.plan).await;
        progress.end();
        staged.map_err(|error| self.failed(error))
    }

    fn fetch<'a>(&'a self, opened: &'a Opened, staging: &'a Path, watch: Watch<'a>) -> Fetch<'a> {
        Fetch {
            store: &opened.store,
            volume: &self.to,
            incoming: staging,
            mode: Mode::Whole,
            watch,
            has_snapshots: !opened.backup.snapshots.is_empty(),
        }
    }

    fn failed(&self, error: stage::Error) -> Error {
        match error {
            stage::Error::Store(error) => Error::Broken {
                error: Box::new(self.access.failed(error)),
                staging: self.staging(),
            },
            stage::Error::Volume(error) => Error::Target(error),
        }
    }

    fn what(&self, order: &Order) -> String {
        let (files, bytes) = order.plan.totals();
        let age = order
            .snapshot
            .as_ref()
            .map(|(_, header)| format!(", made {}", amount::ago(header.time, Timestamp::now())))
            .unwrap_or_default();
        format!(
            "{}, {}, of {}{age}, to {}",
            amount::count(files, "file"),
            amount::bytes(bytes),
            order.name(),
            self.to.display()
        )
    }

    fn summary(&self, order: &Order, placed: &Placed, salvaged: &Salvaged, began: Instant) -> String {
        let took = SignedDuration::try_from(began.elapsed()).unwrap_or_default();
        let verified = match order.snapshot {
            Some(_) => ", each verified by its SHA-256",
            None => "",
        };
        let mut text = format!(
            "restored {}, {}, of {}{verified}, to {} in {}\n",
            amount::count(placed.files, "file"),
            amount::bytes(placed.bytes),
            order.name(),
            self.to.display(),
            amount::span(took)
        );
        text.push_str(&order.notes(&self.access.destination()));
        // Writing to a String does not fail.
        if placed.owners_not_given > 0 {
            let _ = writeln!(
                text,
                "note: {} belong to this user: only root can give files to others",
                amount::count(placed.owners_not_given, "path")
            );
        }
        for (path, id) in &salvaged.from_older {
            let _ = writeln!(
                text,
                "OLDER: {} is of {id}: the newer version can't be had",
                amount::name(path.as_os_str().as_bytes())
            );
        }
        for missing in &salvaged.missing {
            let _ = writeln!(
                text,
                "NOT RESTORED: {}: {}",
                amount::name(missing.path.as_os_str().as_bytes()),
                missing.why
            );
        }
        text
    }
}

/// The target is a folder that may be written to, and has room.
fn check_target(target: &Path, overwrite: bool, plan: &Plan) -> Result<(), Error> {
    let unusable = |source| Error::local(format!("the folder {} can't be used", target.display()), source);
    std::fs::create_dir_all(target).map_err(unusable)?;
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(target).map_err(unusable)? {
        names.insert(entry.map_err(unusable)?.file_name());
    }
    // Ours, from a restore that was interrupted: this one goes on with it.
    names.remove(OsStr::new(STAGING));
    if !overwrite && names.contains(OsStr::new(keys::OWN_FOLDER)) {
        return Err(Error::Refused(format!(
            "{} is a protected volume, and its app may be running: to go back in place, write the annotation \
             vixens.io/backup-restore-at; to get single files, restore them to a folder of their own",
            target.display()
        )));
    }
    if let Some(name) = names.first().filter(|_| !overwrite) {
        return Err(Error::Refused(format!(
            "{} is not empty (it has {}): name an empty folder, or let files of the same names be replaced with --overwrite",
            target.display(),
            amount::name(name.as_bytes())
        )));
    }
    for item in &plan.items {
        let path = target.join(&item.path);
        let is_folder = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        if is_folder && !matches!(item.what, Planned::Folder(_)) {
            return Err(Error::Refused(format!(
                "{} is a folder here and none in the snapshot: it would be lost with all that is in it; move it away first",
                path.display()
            )));
        }
    }
    let found = rustix::fs::statvfs(target).map_err(|errno| unusable(errno.into()))?;
    let room = found.f_bavail.saturating_mul(found.f_frsize);
    let (_, bytes) = plan.totals();
    if bytes > room {
        return Err(Error::Partly(format!(
            "{} has room for {}, and the files need {}: nothing was written",
            target.display(),
            amount::bytes(room),
            amount::bytes(bytes)
        )));
    }
    Ok(())
}

/// Makes a folder that nobody else looks into: its files have not got their modes yet.
fn private(folder: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;

    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| volume::Error::of("writing", folder, source).into())
}

fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(volume::Error::of("removing", folder, error).into())
        }
        _ => Ok(()),
    }
}
