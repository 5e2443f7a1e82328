//! `agent pre-sync` (the restore Jobs): looks at every destination, says what a restore would bring, and fails where the
//! store can't be trusted. Where it is told to, it writes one pin, and a request that damaged files be saved anew; nothing else:
//! a Job holds no epoch.

mod check;
mod report;

use super::arguments::{Destination, Folders, PreSyncArguments};
use super::last_words;
use crate::store::rclone::{Rclone, Settings};
use crate::store::records::{Pin, Request, VERSION, encode};
use crate::store::{Store, keys};
use check::{Check, Verdict};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The pin's name: each sync moves it to the restore point of its own.
const PIN: &str = "presync";

/// Why the store can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No destination has a restore point that is whole, and not all are known to be empty.
    #[error("the store can't be trusted with a restore, so nothing should be synced over it: {0}")]
    Untrusted(String),
    /// The restore point could not be kept.
    #[error("{id} in {destination} could not be pinned, so retention may remove it after the sync")]
    NotPinned {
        /// The restore point.
        id: String,
        /// Where.
        destination: String,
        /// Why.
        source: Box<crate::store::Error>,
    },
    /// Something here.
    #[error("the folder {} can't be used for indexes", path.display())]
    Scratch {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Checks every destination. What came of it are the pod's last words, too.
pub async fn run(arguments: &PreSyncArguments) -> Result<(), Error> {
    let found = look(arguments).await?;
    last_words::leave(&found);
    Ok(())
}

async fn look(arguments: &PreSyncArguments) -> Result<String, Error> {
    if let Some(secret) = &arguments.secret
        && has_no_credentials(&arguments.folders)
    {
        say(&format!(
            "not checked: Secret {secret} does not exist yet. It comes with this sync, or the app's first start waits for it.\n"
        ));
        return Ok(format!("not checked: Secret {secret} does not exist yet"));
    }
    let scratch = Scratch::new(&arguments.folders)?;
    let mut untrusted = Vec::new();
    let mut found = Vec::new();
    for destinations in arguments.places() {
        untrusted.extend(check(arguments, &destinations, &scratch, &mut found).await?);
    }
    if untrusted.is_empty() {
        return Ok(found.join("; "));
    }
    Err(Error::Untrusted(untrusted.join("; ")))
}

/// Checks the destinations of one pod. One that can be trusted is enough; else the result says what is wrong with each.
async fn check(
    arguments: &PreSyncArguments,
    destinations: &[Destination],
    scratch: &Scratch,
    found: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let mut untrusted = Vec::new();
    let mut trusted = 0;
    let mut points = Vec::new();
    for (number, destination) in destinations.iter().enumerate() {
        let began = Instant::now();
        let settings = Settings::fast(&arguments.folders.rclone_dir, &scratch.0);
        let store = Rclone::new(destination.remote(), destination.path(), settings);
        let verdict = Check {
            store: &store,
            destination,
            arguments,
            scratch: &scratch.0,
        }
        .verdict()
        .await;
        if let Some(id) = verdict.restore_point() {
            points.push((id.lateness(), Reverse(number), id, store.destination()));
        }
        let pinned = match verdict.restore_point() {
            Some(id) if arguments.pin => {
                pin(&store, id).await?;
                true
            }
            _ => false,
        };
        say(&report::report(
            &store.destination(),
            &verdict,
            pinned,
            Timestamp::now(),
            began.elapsed(),
        ));
        if let (true, Verdict::Damaged { damaged, .. }) = (arguments.pin, &verdict) {
            ask_for(&store, damaged).await;
        }
        found.extend(report::summary(&store.destination(), &verdict, Timestamp::now()));
        match &verdict {
            Verdict::Ready(_) | Verdict::ByHand(_) => trusted += 1,
            // Whether it is to be taken over is asked by the start: a sync that can't begin brings no answer.
            Verdict::NoBackup { .. } | Verdict::Others(_) => {}
            Verdict::Damaged { .. } | Verdict::Failed(_) => {
                untrusted.push(report::reason(&store.destination(), &verdict));
            }
        }
    }
    if trusted > 0 && !untrusted.is_empty() {
        say(&points.into_iter().max().map_or_else(
            || "warning: a restore comes from the other destination\n".to_owned(),
            |(_, _, id, destination)| {
                format!(
                    "warning: a restore takes the newest snapshot that any destination can give: {id} of {destination} is whole\n"
                )
            },
        ));
        untrusted.clear();
    }
    Ok(untrusted)
}

/// Whether the Secret was not mounted, and not given by environment: it is optional, and not there.
fn has_no_credentials(folders: &Folders) -> bool {
    let is_key = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        name == "rclone.conf" || name.starts_with("RCLONE_CONFIG_")
    };
    let mounted = std::fs::read_dir(&folders.rclone_dir)
        .is_ok_and(|entries| entries.flatten().any(|entry| is_key(&entry.file_name())));
    !mounted && !std::env::vars_os().any(|(name, _)| is_key(&name))
}

/// Asks a sidecar that has the files to save them anew. It is a favour: whoever has not got it finds the same again.
async fn ask_for(store: &Rclone, damaged: &[String]) {
    const MOST: usize = 10_000;
    if damaged.is_empty() {
        return;
    }
    let request = Request {
        version: VERSION,
        time: Timestamp::now(),
        manual: false,
        accept: None,
        damaged: damaged.iter().take(MOST).cloned().collect(),
        answer: None,
    };
    match store.write(&keys::request(PIN), &encode(&request)).await {
        Ok(()) => say("  asked             the app's sidecar, if it runs: to save these files anew\n"),
        Err(error) => tracing::warn!("nobody could be asked to save the damaged files anew: {error}"),
    }
}

async fn pin(store: &Rclone, id: crate::store::snapshot::SnapshotId) -> Result<(), Error> {
    let pin = Pin {
        version: VERSION,
        snapshot: id,
        time: Timestamp::now(),
        reason: "the restore point of the last sync".to_owned(),
    };
    store
        .write(&keys::pin(PIN), &encode(&pin))
        .await
        .map_err(|source| Error::NotPinned {
            id: id.to_string(),
            destination: store.destination(),
            source: Box::new(source),
        })
}

/// The Job's log is its result. Nobody is left to be told that nobody can be told.
fn say(text: &str) {
    let _ = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
}

/// A folder for indexes: in the pod's shared one, or where there is none among the temporary files. It goes with this
/// value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folders: &Folders) -> Result<Self, Error> {
        let above = if folders.restore_dir.is_dir() {
            folders.restore_dir.clone()
        } else {
            std::env::temp_dir()
        };
        let path = above.join(format!("vixens-pre-sync-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(Error::Scratch { path, source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind goes with the pod.
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}
