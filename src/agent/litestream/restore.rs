//! A database's replica → the database, staged beside its place on the volume, checked whole, then put there with the app's
//! owner and mode. The newest point, or one at or before another; where that can't be restored, the one before it. What was
//! there is kept under a name that says when; nothing is deleted before what replaces it is whole.

use super::begun;
use super::check::{self, Health};
use super::configuration::{Configured, configuration};
use super::local::{self, BESIDE, beside};
use super::ltx::{self, Txid};
use super::process;
use super::registry::Registered;
use super::replica::Replica;
use super::salvage;
use super::target::Target;
use crate::agent::arguments::Profile;
use crate::agent::volume::own::OwnFolder;
use crate::store::claims;
use crate::store::{Error as StoreError, Store};
use jiff::Timestamp;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Go's soft memory limit, within the 256 MiB of a restore.
const MEMORY: &str = "160MiB";
/// Where restored databases are staged, in our folder on the volume.
const STAGED: &str = "incoming/databases";

/// Which point of a replica is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest.
    Newest,
    /// The one of this transaction, or the newest before it.
    At(Txid),
    /// The newest before this time.
    Before(Timestamp),
}

/// What was put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// One line for people.
    pub told: String,
}

/// Why a database could not be restored. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to restore from.
    #[error("{0} has no replica of it")]
    NoReplica(String),
    /// No state of the replica is whole.
    #[error("no point of its replica in {destination} can be restored: {why}")]
    Unrestorable {
        /// Where.
        destination: String,
        /// What was wrong with the newest.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The volume, or a tool.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let what = format!("{what} {} failed", path.display());
    |source| Error::Local { what, source }
}

/// A restore of one database.
pub struct Restore<'a> {
    /// The primary destination.
    pub store: &'a dyn Store,
    /// How Litestream names it.
    pub target: &'a Target,
    /// The database.
    pub database: &'a Registered,
    /// Its volume.
    pub own: &'a OwnFolder,
    /// A folder for configurations, in the pod's shared folder.
    pub folder: &'a Path,
    /// There is a file of it that holds this transaction, and what came after it.
    pub saved: Option<Txid>,
}

/// Where a registered database lies on its volume. None for a path that leads out of it.
#[must_use]
pub fn on_volume(own: &OwnFolder, database: &Registered) -> Option<PathBuf> {
    let path = Path::new(&database.path);
    let is_plain = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if !is_plain || database.path.is_empty() {
        return None;
    }
    let file = own.volume().join(path);
    // Through no link of the app's either.
    let above = file.ancestors().skip(1).find_map(|above| above.canonicalize().ok())?;
    above.starts_with(own.volume().canonicalize().ok()?).then_some(file)
}

impl Restore<'_> {
    /// Brings the database to its place; nothing where the file that there is holds as much.
    pub async fn bring(&self, file: &Path, wanted: Wanted) -> Result<Option<Restored>, Error> {
        let staged = self.own.join(STAGED);
        let _ = fs::remove_dir_all(&staged);
        self.own.create().map_err(|error| Error::Local {
            what: "our folder on the volume can't be made".to_owned(),
            source: io::Error::other(error),
        })?;
        fs::create_dir_all(&staged).map_err(failed("making", &staged))?;
        let key = self.database.key();
        let replica = Replica {
            store: self.store,
            target: self.target,
            key: &key,
        };
        let configuration = self.configuration(file, &key)?;
        let limit = match wanted {
            Wanted::Newest => None,
            Wanted::At(txid) => Some(self.reachable(&replica, txid).await?),
            Wanted::Before(time) => Some(self.before(&replica, &configuration, file, time).await?),
        };
        let seam = self.before_the_seam(&replica, limit).await?;
        if let Some(seam) = seam {
            tracing::warn!(
                "the newest that was sent of {} was taken from another file, or after something that was not sent: transaction \
                 {seam} is the last before that",
                file.display()
            );
        }
        let limit = seam.or(limit);
        if let Some(saved) = self.saved
            && self.is_older(&replica, limit, saved).await?
        {
            return Ok(None);
        }
        let output = staged.join("database");
        let told = match self.fetch(&configuration, file, limit, &output).await {
            Ok(()) => match limit {
                None => "its newest point".to_owned(),
                Some(limit) => point(limit, wanted),
            },
            Err(why) => {
                // Whatever Litestream said: the store itself says whether it is there, and has anything.
                let files = replica.files().await?;
                if files.is_empty() {
                    return Err(self.no_replica());
                }
                tracing::warn!(
                    "the database {} can't be restored as a whole ({why}): what is damaged is looked for",
                    file.display()
                );
                salvage::salvage(self, &replica, files, limit, &staged, &output, &why).await?
            }
        };
        let aside = place(&output, file, self.database)?;
        let _ = fs::remove_dir_all(&staged);
        let told = match aside {
            None => format!("{}: {told}", file.display()),
            Some(aside) => format!(
                "{}: {told}; what was there is kept as {}",
                file.display(),
                aside.display()
            ),
        };
        Ok(Some(Restored { told }))
    }

    pub(super) fn no_replica(&self) -> Error {
        Error::NoReplica(self.store.destination())
    }

    fn configuration(&self, file: &Path, key: &str) -> Result<PathBuf, Error> {
        let configured = Configured {
            path: file.to_owned(),
            key: key.to_owned(),
        };
        let socket = process::socket(self.folder, "restore");
        let text = configuration(
            self.target,
            Profile::Standard,
            &[configured],
            &socket,
            Duration::from_secs(1),
        );
        process::write(self.folder, "restore", &text).map_err(failed("writing to", self.folder))
    }

    /// Whether the newest state at or before `limit` has nothing that a file of this transaction lacks.
    async fn is_older(&self, replica: &Replica<'_>, limit: Option<Txid>, saved: Txid) -> Result<bool, Error> {
        let files = replica.files().await?;
        let reached = ltx::newest(&files, limit).and_then(|chain| chain.last().map(|file| file.max));
        Ok(reached.is_none_or(|reached| reached <= saved))
    }

    /// The newest state at or before `limit` that nothing speaks against, where there is one and it is not the newest.
    async fn before_the_seam(&self, replica: &Replica<'_>, limit: Option<Txid>) -> Result<Option<Txid>, Error> {
        let beginnings = &self.database.beginnings;
        let mut seam = replica.seam(limit, beginnings).await?;
        if seam.is_some() && !beginnings.is_empty() {
            let holder = claims::list(self.store).await?.last().map_or(0, |holder| holder.epoch);
            if !begun::are_known(beginnings, holder) {
                // A former release writes none down.
                seam = replica.seam(limit, &[]).await?;
            }
        }
        let Some(seam) = seam else {
            return Ok(None);
        };
        let files = replica.files().await?;
        Ok(ltx::newest(&files, Some(seam)).and_then(|chain| chain.last().map(|file| file.max)))
    }

    /// The newest state at or before a transaction, or the oldest that is there.
    async fn reachable(&self, replica: &Replica<'_>, txid: Txid) -> Result<Txid, Error> {
        let files = replica.files().await?;
        let newest = ltx::newest(&files, Some(txid)).and_then(|chain| chain.last().map(|file| file.max));
        newest.or_else(|| ltx::oldest(&files)).ok_or_else(|| self.no_replica())
    }

    /// The same for a time, as Litestream knows the times of its files.
    async fn before(
        &self,
        replica: &Replica<'_>,
        configuration: &Path,
        file: &Path,
        time: Timestamp,
    ) -> Result<Txid, Error> {
        let seconds = Timestamp::from_second(time.as_second()).unwrap_or(time);
        let mut command = self.litestream(configuration);
        command
            .args(["-dry-run", "-json", "-timestamp", &seconds.to_string(), "-o"])
            .arg(self.own.join("incoming/none"))
            .arg(file);
        let planned = run(&mut command).await?;
        let txid = planned
            .ok()
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .and_then(|plan| Txid::parse(plan.get("max_txid")?.as_str()?));
        match txid {
            Some(txid) => Ok(txid),
            None => self.reachable(replica, Txid(0)).await,
        }
    }

    fn litestream(&self, configuration: &Path) -> Command {
        let mut command = litestream();
        command.args(["restore", "-config"]).arg(configuration);
        self.target.introduce(&mut command);
        command
    }

    /// Has Litestream restore to `output`, and checks what came. An error is in words: another point may be whole.
    async fn fetch(&self, configuration: &Path, file: &Path, limit: Option<Txid>, output: &Path) -> Result<(), String> {
        let mut command = self.litestream(configuration);
        if let Some(limit) = limit {
            command.arg("-txid").arg(limit.to_string());
        }
        command.arg("-o").arg(output).arg(file);
        restored(command, output).await
    }
}

/// The program, bounded.
pub(super) fn litestream() -> Command {
    let mut command = Command::new("litestream");
    command.env("GOMEMLIMIT", MEMORY);
    command
}

/// Runs a restore to `output`, and checks what came.
pub(super) async fn restored(mut command: Command, output: &Path) -> Result<(), String> {
    let _ = fs::remove_file(output);
    match run(&mut command).await {
        Ok(Ok(_)) => {}
        Ok(Err(why)) => return Err(why),
        Err(error) => return Err(crate::agent::sidecar::batch::with_sources(&error)),
    }
    let path = output.to_owned();
    match tokio::task::spawn_blocking(move || check::full(&path)).await {
        Ok(Health::Whole) => Ok(()),
        Ok(Health::Damaged(what)) => Err(format!("what was restored is damaged: {what}")),
        Ok(Health::Busy) => Err("what was restored is locked".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What it printed, or why it failed.
async fn run(command: &mut Command) -> Result<Result<String, String>, Error> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| Error::Local {
            what: "litestream can't be started".to_owned(),
            source,
        })?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().rev().find(|line| !line.trim().is_empty());
    Ok(Err(why.unwrap_or("it said nothing").chars().take(500).collect()))
}

/// How a point is told: how far it is from the one that was asked for.
fn point(got: Txid, wanted: Wanted) -> String {
    match wanted {
        Wanted::At(wanted) if wanted == got => format!("transaction {got}, the very one of the snapshot"),
        Wanted::At(wanted) if got < wanted => format!(
            "transaction {got}, the newest kept at or before {wanted}: level 0 is kept for five minutes, then 30 s are one \
             point"
        ),
        Wanted::At(wanted) => {
            format!("transaction {got}, the oldest that is kept; {wanted} is older than the profile keeps")
        }
        Wanted::Before(time) => format!("transaction {got}, the newest before {time}"),
        Wanted::Newest => format!("transaction {got}"),
    }
}

/// Moves a whole database into place. What was there, if it was anything, goes to a name that says when.
pub fn place(staged: &Path, file: &Path, database: &Registered) -> Result<Option<PathBuf>, Error> {
    let found = fs::metadata(file).ok().filter(|found| found.len() > 0);
    let (uid, gid, mode) = match &found {
        Some(found) => (found.uid(), found.gid(), found.mode() & 0o7777),
        None => (database.uid, database.gid, database.mode),
    };
    if let Some(above) = file.parent() {
        make_folders(above)?;
    }
    fs::set_permissions(staged, fs::Permissions::from_mode(mode)).map_err(failed("changing the mode of", staged))?;
    // Where we are not allowed to give it away, we run as the app.
    let _ = chown(staged, Some(uid), Some(gid));
    sync(staged)?;
    let aside = set_aside(file, found.is_some())?;
    local::forget(file).map_err(failed("clearing Litestream's state beside", file))?;
    fs::rename(staged, file).map_err(failed("putting into place", file))?;
    if let Some(above) = file.parent() {
        sync(above)?;
    }
    Ok(aside)
}

fn sync(path: &Path) -> Result<(), Error> {
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(failed("writing", path))
}

/// The name under which what lies at a database's path is kept.
#[must_use]
pub fn aside_name(file: &Path, now: Timestamp) -> PathBuf {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    beside(file, format!(".damaged-{stamp}").as_bytes())
}

/// The database first: a log alone is no database, and without it the next start restores again.
fn set_aside(file: &Path, exists: bool) -> Result<Option<PathBuf>, Error> {
    let aside = aside_name(file, Timestamp::now());
    let mut kept = false;
    let empty: &[u8] = b"";
    for suffix in std::iter::once(empty).chain(BESIDE) {
        let from = beside(file, suffix);
        let Ok(found) = fs::symlink_metadata(&from) else {
            continue;
        };
        let is_worth = found.len() > 0 && suffix != b"-shm" && (exists || suffix != empty);
        if is_worth {
            fs::rename(&from, beside(&aside, suffix)).map_err(failed("setting aside", &from))?;
            kept = true;
        } else {
            fs::remove_file(&from).map_err(failed("removing", &from))?;
        }
    }
    Ok(kept.then_some(aside))
}

/// Folders that are missing, with the owner of the one above.
fn make_folders(folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return Ok(()) };
    make_folders(above)?;
    fs::create_dir(folder).map_err(failed("making", folder))?;
    if let Ok(found) = fs::metadata(above) {
        let _ = chown(folder, Some(found.uid()), Some(found.gid()));
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(found.mode() & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(path: &str) -> Registered {
        Registered {
            folder: "config".to_owned(),
            path: path.to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o640,
            replicated: true,
            gone: None,
            needed_by: None,
            left_at: None,
            runs: Vec::new(),
            beginnings: Vec::new(),
        }
    }

    #[test]
    fn a_path_that_leads_out_of_the_volume_is_none() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        assert_eq!(
            on_volume(&own, &registered("a/b.db")),
            Some(volume.path().join("a/b.db"))
        );
        std::os::unix::fs::symlink("/etc", volume.path().join("link")).unwrap();
        for path in ["../b.db", "/b.db", "", "a/../../b.db", "link/b.db"] {
            assert_eq!(on_volume(&own, &registered(path)), None, "{path}");
        }
    }

    #[test]
    fn what_was_there_is_kept_under_a_name_that_says_when_and_no_log_is_left() {
        let volume = tempfile::tempdir().unwrap();
        let (file, staged) = (volume.path().join("sub/a.db"), volume.path().join("staged"));
        fs::write(&staged, "whole").unwrap();
        assert_eq!(place(&staged, &file, &registered("sub/a.db")).unwrap(), None);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        for (suffix, content) in [("-wal", "log"), ("-shm", "index"), ("-journal", "")] {
            fs::write(beside(&file, suffix.as_bytes()), content).unwrap();
        }
        fs::write(&staged, "newer").unwrap();
        let aside = place(&staged, &file, &registered("sub/a.db")).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&aside).unwrap(), "whole");
        assert_eq!(fs::read_to_string(beside(&aside, b"-wal")).unwrap(), "log");
        assert_eq!(fs::read_to_string(&file).unwrap(), "newer");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o604, "the app's own");
        let names = fs::read_dir(volume.path().join("sub")).unwrap().count();
        assert_eq!(names, 3, "the database, and the two that were kept");
        let name = aside.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("a.db.damaged-20") && name.ends_with('Z'), "{name}");
    }
}
