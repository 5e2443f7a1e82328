//! Bytes → a file on the volume, whole or not at all: written in our own folder there, then renamed into its place.

use super::{Error, OURS};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A volume to write to.
pub(super) struct Place {
    root: PathBuf,
    root_metadata: Metadata,
}

impl Place {
    pub(super) fn new(root: &Path) -> Result<Self, Error> {
        let root_metadata = std::fs::metadata(root).map_err(Error::io(root, "read"))?;
        Ok(Self {
            root: root.to_owned(),
            root_metadata,
        })
    }

    /// Writes a file; one that is there keeps its mode and owner, a new one takes the volume root's owner.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        let target = self.root.join(path);
        let existing = std::fs::symlink_metadata(&target).ok();
        if let Some(parent) = target.parent() {
            self.make_folder(parent)?;
        }
        let ours = self.root.join(OURS);
        self.make_folder(&ours)?;
        let beside = ours.join("layer.new");
        // What a kill left behind is of no use.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&beside, "removed")(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(Error::io(&beside, "written"))?;
        file.write_all(content).map_err(Error::io(&beside, "written"))?;
        let mode = match &existing {
            Some(existing) => existing.mode() & 0o7777,
            // Where the group may write to the volume, as with fsGroup, it may write to new files.
            None => 0o644 | (self.root_metadata.mode() & 0o060),
        };
        self.give(&file, &beside, existing.as_ref(), mode)?;
        file.sync_all().map_err(Error::io(&beside, "written"))?;
        std::fs::rename(&beside, &target).map_err(Error::io(&target, "written"))?;
        if let Some(parent) = target.parent() {
            File::open(parent)
                .and_then(|folder| folder.sync_all())
                .map_err(Error::io(parent, "written"))?;
        }
        Ok(())
    }

    fn give(&self, file: &File, path: &Path, existing: Option<&Metadata>, mode: u32) -> Result<(), Error> {
        let wanted = existing.unwrap_or(&self.root_metadata);
        let now = file.metadata().map_err(Error::io(path, "read"))?;
        if (now.uid(), now.gid()) != (wanted.uid(), wanted.gid()) {
            let given = std::os::unix::fs::fchown(file, Some(wanted.uid()), Some(wanted.gid()));
            // Only root may give files away; a new file of the app's own user is as good.
            if existing.is_some() && rustix::process::geteuid().is_root() {
                given.map_err(Error::io(path, "given to its owner"))?;
            }
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .map_err(Error::io(path, "given its mode"))
    }

    fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(parent)?;
        }
        DirBuilder::new()
            .mode(0o755 | (self.root_metadata.mode() & 0o070))
            .create(folder)
            .map_err(Error::io(folder, "made"))?;
        let made = std::fs::metadata(folder).map_err(Error::io(folder, "read"))?;
        let wanted = &self.root_metadata;
        if rustix::process::geteuid().is_root() && (made.uid(), made.gid()) != (wanted.uid(), wanted.gid()) {
            std::os::unix::fs::chown(folder, Some(wanted.uid()), Some(wanted.gid()))
                .map_err(Error::io(folder, "given to its owner"))?;
        }
        Ok(())
    }
}
