//! What was typed about a destination → the store, and what lies there. Each failure is told with its way out.

use super::Error;
use crate::agent::arguments::{Destination, RCLONE_PATH, RESTORE_PATH, RestoreAt};
use crate::agent::lease::inspect::{self, Backup, Place};
use crate::agent::restore::at::{NoSuch, at};
use crate::agent::start::Start;
use crate::store::keys;
use crate::store::rclone::{Rclone, Settings};
use crate::store::snapshot::{Point, SnapshotId};
use crate::store::{Depth, Error as StoreError, Presence, Store, listed};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// How the store is reached.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// Where the copies lie, remote:bucket/path, as in the annotation vixens.io/backup-destination
    #[arg(
        short,
        long,
        global = true,
        env = "VIXENS_BACKUP_DESTINATION",
        value_name = "REMOTE:BUCKET/PATH"
    )]
    destination: Option<Destination>,
    /// An rclone.conf, or a folder with the Secret's keys as files; without it, RCLONE_CONFIG_* of the environment and
    /// rclone's usual file
    #[arg(long, global = true, value_name = "FILE|FOLDER")]
    rclone_config: Option<PathBuf>,
    /// The rclone program
    #[arg(
        long,
        global = true,
        value_name = "PROGRAM",
        default_value = "rclone",
        hide_short_help = true
    )]
    rclone: PathBuf,
    /// In a pod of ours, the folder that its injected containers share: the destination, if none is given, and room
    /// for temporary files
    #[arg(long, global = true, value_name = "FOLDER", default_value = RESTORE_PATH, hide_short_help = true)]
    restore_dir: PathBuf,
}

/// A destination that answered.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Rclone,
    /// What lies there; empty where there is no backup.
    pub(super) backup: Backup,
    /// The volumes' folders in the mirror.
    pub(super) folders: Vec<String>,
    /// There is no backup: this says so, and what is near.
    pub(super) nothing: Option<String>,
    pub(super) scratch: Scratch,
}

impl Access {
    /// Looks at the destination.
    pub(super) async fn open(&self) -> Result<Opened, Error> {
        let meant = self.meant().ok_or_else(|| {
            Error::Usage(
                "--destination is missing (or VIXENS_BACKUP_DESTINATION): where the copies lie, such as \
                 minio:vixens-backups/app; `vixens-backup explain` and the annotation vixens.io/backup-destination tell it"
                    .to_owned(),
            )
        })?;
        let destination = &meant;
        if let Some(open) = destination.path().find('{') {
            return Err(Error::Usage(format!(
                "{destination} still has {}: write the namespace, name or pod that it stands for",
                &destination.path()[open..]
            )));
        }
        let scratch = Scratch::new(&self.restore_dir)?;
        let store = Rclone::new(destination.remote(), destination.path(), self.settings(scratch.path())?);
        let hinted = |error| self.hinted(destination, error);
        let mut top = Vec::new();
        let presence = store
            .list("", Depth::One, &mut |object| top.push(object))
            .await
            .map_err(hinted)?;
        let folders: Vec<String> = top
            .into_iter()
            .filter(|object| object.folder && !keys::is_reserved(&object.name))
            .map(|object| object.name)
            .collect();
        let (backup, nothing) = match inspect::look(&store, &folders).await.map_err(hinted)? {
            Place::Backup(backup) => (*backup, None),
            Place::Nothing { bucket_missing, .. } if bucket_missing || presence == Presence::Missing => {
                return Err(missing_bucket(destination));
            }
            Place::Nothing { .. } => (Backup::default(), Some(self.nothing(destination, &store).await)),
        };
        Ok(Opened {
            store,
            backup,
            folders,
            nothing,
            scratch,
        })
    }

    /// The destination that was given, or in a pod of ours the one that it backs up to first.
    fn meant(&self) -> Option<Destination> {
        self.destination.clone().or_else(|| {
            let start = Start::read(&self.restore_dir).ok().flatten()?;
            start.destinations.first()?.destination.parse().ok()
        })
    }

    /// The configuration that was given, or in a pod of ours its Secret.
    fn configuration(&self) -> Option<PathBuf> {
        let in_pod = || Start::read(&self.restore_dir).is_ok_and(|start| start.is_some());
        let secret = || Some(PathBuf::from(RCLONE_PATH)).filter(|folder| folder.is_dir() && in_pod());
        self.rclone_config.clone().or_else(secret)
    }

    fn settings(&self, scratch: &Path) -> Result<Settings, Error> {
        let mut settings = Settings {
            program: self.rclone.clone(),
            config_dir: None,
            ..Settings::fast(Path::new(""), scratch)
        };
        if let Some(path) = &self.configuration() {
            let found = std::fs::metadata(path)
                .map_err(|source| Error::local(format!("--rclone-config {} can't be read", path.display()), source))?;
            if found.is_dir() {
                settings.config_dir = Some(path.clone());
            } else {
                settings.config_file = Some(path.clone());
            }
        }
        Ok(settings)
    }

    /// A store's error, with its way out.
    pub(super) fn hinted(&self, destination: &Destination, error: StoreError) -> Error {
        let remote = destination.remote();
        let variable = format!("RCLONE_CONFIG_{}", remote.to_uppercase().replace(['-', '.'], "_"));
        let from = match &self.rclone_config {
            Some(path) => format!("in {}", path.display()),
            None => format!("in rclone's configuration, or in {variable}_* of the environment"),
        };
        let hint = match &error {
            StoreError::Refused { .. } => format!(
                "; check the keys of the remote {remote} {from}, that they may list and read this bucket, and on a crypt \
                 remote its password"
            ),
            StoreError::Unreachable { .. } => format!(
                "; check the endpoint of the remote {remote} {from}: a Service of the cluster has no address outside of it, \
                 so forward its port (kubectl port-forward) and set {variable}_ENDPOINT"
            ),
            StoreError::Misconfigured { .. } => format!(
                "; give the file that has [{remote}] with --rclone-config, or set {variable}_TYPE and its other settings, as \
                 the Secret of the annotation vixens.io/backup-secret has them"
            ),
            StoreError::NoBucket { .. } => return missing_bucket(destination),
            StoreError::Damaged { .. } => {
                "; an older snapshot may be whole: vixens-backup snapshots lists them".to_owned()
            }
            StoreError::Local { .. }
            | StoreError::NotFound { .. }
            | StoreError::Full { .. }
            | StoreError::Newer { .. } => String::new(),
        };
        match error {
            StoreError::Local { what, source } => {
                let is_rclone = source.kind() == std::io::ErrorKind::NotFound && what.contains("can't be started");
                let way_out = if is_rclone {
                    ": install rclone 1.75 or newer, or name it with --rclone"
                } else {
                    ""
                };
                Error::local(format!("{what}{way_out}"), source)
            }
            error => Error::Store { error, hint },
        }
    }

    /// Says that there is no backup, and what is beside the place.
    async fn nothing(&self, destination: &Destination, store: &Rclone) -> String {
        let mut text = format!("{} holds no backup", store.destination());
        let Some((parent, name)) = destination.path().rsplit_once('/') else {
            return text;
        };
        let Ok(settings) = self.settings(Path::new("")) else {
            return text;
        };
        let above = Rclone::new(destination.remote(), parent, settings);
        // A key that may read this place alone is refused here: then there is nothing to add.
        let beside: Vec<String> = listed(&above, "", Depth::One)
            .await
            .unwrap_or_default()
            .into_iter()
            .filter(|object| object.folder && object.name != name)
            .map(|object| object.name)
            .collect();
        if !beside.is_empty() {
            let more = beside.len().saturating_sub(10);
            // Writing to a String does not fail.
            let mut names = beside.into_iter().take(10).collect::<Vec<_>>().join(", ");
            if more > 0 {
                let _ = write!(names, " and {more} more");
            }
            let _ = write!(text, "; {} has {names}", above.destination());
        }
        text
    }

    /// The destination as it was typed.
    pub(super) fn destination(&self) -> String {
        self.meant().map(|meant| meant.to_string()).unwrap_or_default()
    }

    /// A store's error, with its way out, once the destination is known.
    pub(super) fn failed(&self, error: StoreError) -> Error {
        match self.meant() {
            Some(destination) => self.hinted(&destination, error),
            None => Error::Store {
                error,
                hint: String::new(),
            },
        }
    }
}

fn missing_bucket(destination: &Destination) -> Error {
    let bucket = destination.path().split('/').next().unwrap_or_default();
    Error::Nothing(format!(
        "the remote {} has no bucket {bucket:?}, so nothing was ever backed up to {destination}: check the name; a \
         destination is remote:bucket/path",
        destination.remote()
    ))
}

impl Opened {
    /// The snapshot that is meant.
    pub(super) fn snapshot(&self, wanted: &Wanted) -> Result<SnapshotId, Error> {
        if let Some(nothing) = &self.nothing {
            return Err(Error::Nothing(nothing.clone()));
        }
        let snapshots = &self.backup.snapshots;
        let no_such = |why| Error::NoSuch {
            destination: self.store.destination(),
            why,
        };
        match wanted {
            Wanted::Newest => self.backup.newest().ok_or_else(|| {
                Error::Nothing(format!(
                    "{} has no snapshot yet; its newest copies lie in {}",
                    self.store.destination(),
                    self.folders.join(", ")
                ))
            }),
            Wanted::Point(point) => {
                let found = snapshots.iter().find(|id| id.point() == *point).copied();
                found.ok_or_else(|| {
                    no_such(NoSuch::Snapshot {
                        id: point.to_string(),
                        near: None,
                    })
                })
            }
            Wanted::At(wanted) => at(snapshots, wanted).map_err(no_such),
        }
    }
}

/// Which snapshot, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The newest.
    Newest,
    /// By epoch and sequence.
    Point(Point),
    /// By id or time.
    At(RestoreAt),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        if let Ok(point) = text.parse() {
            return Ok(Self::Point(point));
        }
        text.parse().map(Self::At).map_err(|_| {
            "allowed: newest, a snapshot's id such as 20261122T130500Z-3.42-auto or its 3.42, or a time such as \
             2026-11-22T13:05:00Z or 2026-11-22T14:05:00+01:00"
                .to_owned()
        })
    }
}

/// A folder of our own in the system's one for temporary files, for indexes. In a pod, whose own file system is
/// read-only, in the folder that our containers share. It goes with this value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    fn new(restore_dir: &Path) -> Result<Self, Error> {
        let made = Self::below(&std::env::temp_dir());
        made.or_else(|(path, source)| {
            // The first is where people look.
            Self::below(restore_dir)
                .map_err(|_| Error::local(format!("the folder {} can't be made", path.display()), source))
        })
    }

    fn below(above: &Path) -> Result<Self, (PathBuf, std::io::Error)> {
        use std::os::unix::fs::DirBuilderExt;

        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = jiff::Timestamp::now().subsec_nanosecond();
        let path = above.join(format!("vixens-backup-{}-{nanoseconds}-{number}", std::process::id()));
        // Made for this process and no other: somebody else's folder of that name is an error.
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err((path, source)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is a few indexes among the temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_by_its_id_its_number_a_time_or_as_the_newest() {
        assert_eq!("newest".parse(), Ok(Wanted::Newest));
        let point = Point { epoch: 3, sequence: 42 };
        assert_eq!("3.42".parse(), Ok(Wanted::Point(point)));
        for text in ["20261122T130500Z-3.42-auto", "2026-11-22T13:05:00Z"] {
            assert!(matches!(text.parse(), Ok(Wanted::At(_))), "{text}");
        }
        for text in ["", "yesterday", "2026-11-22", "3"] {
            assert!(
                text.parse::<Wanted>().unwrap_err().starts_with("allowed: newest"),
                "{text}"
            );
        }
    }
}
