//! Our folder on a volume, `.vixens-backup`: files in it are written as a whole or not at all, and last through a power
//! cut once a call returns. Everything else on the volume belongs to the app.

use super::Error;
use crate::store::keys::OWN_FOLDER;
use crate::store::records::{Damage, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// What became of a file of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept<T> {
    /// It is there.
    Whole(T),
    /// It is there, and can't be understood.
    Damaged,
    /// It is not there.
    Nothing,
}

/// Our folder on one volume.
#[derive(Clone, Debug)]
pub struct OwnFolder {
    volume: PathBuf,
    path: PathBuf,
}

impl OwnFolder {
    /// The folder on the volume at this root; it need not exist.
    #[must_use]
    pub fn on(volume: &Path) -> Self {
        Self {
            volume: volume.to_owned(),
            path: volume.join(OWN_FOLDER),
        }
    }

    /// The volume's root.
    #[must_use]
    pub fn volume(&self) -> &Path {
        &self.volume
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes it, for nobody's eyes but ours and those of the volume's owner.
    pub fn create(&self) -> Result<(), Error> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => {
                let root =
                    fs::metadata(&self.volume).map_err(|source| Error::of("looking at", &self.volume, source))?;
                // Whoever may write the volume may look after this too, where we are allowed to give it away.
                let _ = chown(&self.path, Some(root.uid()), Some(root.gid()));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(Error::of("making", &self.path, source)),
        }
    }

    /// Reads a JSON object of ours that may be damaged, as by a power cut on a disk that lies. That is said, and a copy of it
    /// stays beside it, for whoever wants to know what it was.
    pub fn read_or_damaged<T: DeserializeOwned>(&self, name: &str) -> Result<Kept<T>, Error> {
        match self.read(name) {
            Ok(Some(object)) => Ok(Kept::Whole(object)),
            Ok(None) => Ok(Kept::Nothing),
            Err(Error::Damaged { path, why }) => {
                let copy = self.path.join(format!("{name}.damaged"));
                fs::copy(&path, &copy).map_err(|source| Error::of("writing", &copy, source))?;
                tracing::error!(
                    "{} can't be understood ({why}): a copy stays as {}",
                    path.display(),
                    copy.display()
                );
                Ok(Kept::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a JSON object of ours; `None` where there is none.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => decode(&bytes).map(Some).map_err(|damage| match damage {
                Damage::Broken(why) => Error::Damaged { path, why },
                Damage::Newer(why) => Error::Newer { path, why },
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::of("reading", &path, source)),
        }
    }

    /// Writes a JSON object.
    pub fn write<T: Serialize>(&self, name: &str, object: &T) -> Result<(), Error> {
        self.write_bytes(name, &encode(object))
    }

    /// Writes a file.
    pub fn write_bytes(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.create()?;
        let path = self.path.join(name);
        let partial = self.path.join(format!(".{name}.partial"));
        let replace = || -> io::Result<()> {
            let mut file = fs::File::create(&partial)?;
            file.write_all(content)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            fs::File::open(&self.path)?.sync_all()
        };
        replace().map_err(|source| Error::of("writing", &path, source))
    }

    /// Removes a file or a folder with all that is in it, for good. What is not there is as good as removed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        let remove = || -> io::Result<()> {
            if remove_all(&path)? {
                fs::File::open(&self.path)?.sync_all()?;
            }
            Ok(())
        };
        remove().map_err(|source| Error::of("removing", &path, source))
    }

    /// Waits until everything that was written to the volume lies on its disk.
    pub fn sync(&self) -> Result<(), Error> {
        let sync = || -> io::Result<()> {
            let root = fs::File::open(&self.volume)?;
            rustix::fs::syncfs(&root).map_err(io::Error::from)
        };
        sync().map_err(|source| Error::of("writing", &self.volume, source))
    }
}

/// Removes a file, or a folder with all that is in it; folders of ours that forbid it are made to allow it. `false`: there
/// was nothing.
pub fn remove_all(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let mut folders = vec![path.to_owned()];
                while let Some(folder) = folders.pop() {
                    // What can't be opened says so when it is removed.
                    let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
                    let entries = fs::read_dir(&folder)?.filter_map(Result::ok);
                    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                    folders.extend(below.map(|entry| entry.path()));
                }
                fs::remove_dir_all(path)
            }
            removed => removed,
        },
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    }
    .map(|()| true)
    .or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(false),
        _ => Err(error),
    })
}
