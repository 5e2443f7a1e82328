//! A volume → the files on it, in no order, without our own folder and `lost+found`. Reads names only, folder by folder,
//! and no further than it is asked.

use super::Error;
use crate::store::keys::OWN_FOLDER;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

/// Whatever is no folder on a volume, with what it is.
pub struct Files {
    root: PathBuf,
    folders: Vec<PathBuf>,
    open: Option<(PathBuf, fs::ReadDir)>,
}

impl Files {
    /// All on the volume at this root.
    #[must_use]
    pub fn on(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            folders: vec![root.to_owned()],
            open: None,
        }
    }

    /// What is next in the folder that is open, or the next folder opened. `None`: nothing of this folder is left.
    fn step(&mut self) -> Result<Option<(PathBuf, FileType)>, Error> {
        let Some((folder, entries)) = &mut self.open else {
            return Ok(None);
        };
        for entry in entries {
            let read = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            let (path, kind) = read.map_err(|source| Error::of("reading", folder, source))?;
            let is_ours = || path.ends_with(OWN_FOLDER) || path.ends_with("lost+found");
            if *folder == self.root && is_ours() {
                continue;
            }
            if !kind.is_dir() {
                return Ok(Some((path, kind)));
            }
            self.folders.push(path);
        }
        self.open = None;
        Ok(None)
    }
}

impl Iterator for Files {
    type Item = Result<(PathBuf, FileType), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some(found)) => return Some(Ok(found)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            let folder = self.folders.pop()?;
            match fs::read_dir(&folder) {
                Ok(entries) => self.open = Some((folder, entries)),
                Err(source) => return Some(Err(Error::of("reading", &folder, source))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_met_once_and_what_is_ours_is_not() {
        let volume = tempfile::tempdir().unwrap();
        for path in [
            "a",
            "b/c/d",
            ".e",
            "b/lost+found/f",
            ".vixens-backup/volume.json",
            "lost+found/g",
        ] {
            let path = volume.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("b", volume.path().join("link")).unwrap();
        let mut found: Vec<String> = Files::on(volume.path())
            .map(|file| {
                file.unwrap()
                    .0
                    .strip_prefix(volume.path())
                    .unwrap()
                    .display()
                    .to_string()
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [".e", "a", "b/c/d", "b/lost+found/f", "link"]);
        assert!(Files::on(&volume.path().join("nowhere")).next().unwrap().is_err());
    }
}
