//! Layers 1 and 3: vanilla files where the volume lacks them, and variables replaced in the files that ask for it.
//!
//! A rendered file is remembered by what it was made of and what came out, in our folder on the volume, so that a new
//! source or a rotated Secret renders it again, unless somebody has edited it since. No temporary file leaves the volume.

use super::secrets::Variables;
use crate::agent::restore::attributes;
use crate::agent::volume::Error;
use crate::agent::volume::own::OwnFolder;
use crate::store::index::Attributes;
use crate::store::keys::{OWN_FOLDER, sha256_hex};
use crate::store::records::VERSION;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was rendered, and of what.
const RENDERED: &str = "rendered.json";
/// The sources of rendered files that are in no ConfigMap.
const TEMPLATES: &str = "templates";
/// Larger files hold no `${VAR}` of ours.
const LARGEST: u64 = 16 << 20;

/// Which layer a file's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The vanilla ConfigMap.
    Vanilla,
    /// The backup.
    Restored,
    /// It was on the volume.
    Kept,
    /// Variables were replaced in it.
    Secrets,
}

/// What the layers came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layered {
    /// For each file that was looked at, the layer that won.
    pub files: BTreeMap<PathBuf, Layer>,
    /// Names that no Secret has, and one file that asks for each.
    pub unknown: BTreeMap<String, PathBuf>,
    /// Rendered files that somebody has edited since: left alone.
    pub edited: BTreeSet<PathBuf>,
}

impl Layered {
    /// How many files a layer won.
    #[must_use]
    pub fn count(&self, layer: Layer) -> usize {
        self.files.values().filter(|won| **won == layer).count()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    files: BTreeMap<String, Origin>,
}

/// What a rendered file was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    /// SHA-256 of the text with the variables in it.
    source: String,
    /// SHA-256 of what came out.
    output: String,
}

/// The files of layer 1: names below the folder, by path. A ConfigMap's mount has links to its content.
pub fn vanilla_files(defaults: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut folders = vec![defaults.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::of("reading", &folder, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| Error::of("reading", &folder, source))?;
            let path = entry.path();
            if entry.file_name().as_bytes().starts_with(b"..") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(below) = path.strip_prefix(defaults) {
                files.push(below.to_owned());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Copies the vanilla files that the volume lacks. Never over anything that is there.
pub fn lay_vanilla(defaults: &Path, files: &[PathBuf], own: &OwnFolder, layered: &mut Layered) -> Result<(), Error> {
    let root = own.volume();
    let owner = fs::metadata(root).map_err(|source| Error::of("looking at", root, source))?;
    for file in files {
        let target = root.join(file);
        if fs::symlink_metadata(&target).is_ok() {
            layered.files.entry(file.clone()).or_insert(Layer::Kept);
            continue;
        }
        let source = defaults.join(file);
        let content = fs::read(&source).map_err(|error| Error::of("reading", &source, error))?;
        let mode = fs::metadata(&source).map_or(0o644, |found| found.mode() & 0o777) | 0o600;
        make_folders(root, file, &owner)?;
        replace(own, &target, &content, owner.uid(), owner.gid(), mode)?;
        layered.files.insert(file.clone(), Layer::Vanilla);
    }
    Ok(())
}

fn make_folders(root: &Path, file: &Path, owner: &fs::Metadata) -> Result<(), Error> {
    let mut folder = root.to_owned();
    for part in file.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match fs::create_dir(&folder) {
            Ok(()) => {
                let _ = std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid()));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::of("writing", &folder, source)),
        }
    }
    Ok(())
}

/// Puts a file into place as a whole.
fn replace(own: &OwnFolder, target: &Path, content: &[u8], uid: u32, gid: u32, mode: u32) -> Result<(), Error> {
    own.create()?;
    let partial = own.join(".layer.partial");
    let write = || -> io::Result<()> {
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&partial, content)?;
        let now = attributes::of(&fs::metadata(&partial)?);
        attributes::give(&partial, &Attributes { uid, gid, mode, ..now })?;
        fs::rename(&partial, target)
    };
    write().map_err(|source| Error::of("writing", target, source))
}

/// Replaces variables in the files of one volume: those of layer 1 when `globs` is empty and it is the first volume.
pub fn lay_secrets(
    defaults: &Path,
    vanilla: &[PathBuf],
    globs: &[String],
    variables: &Variables,
    own: &OwnFolder,
    layered: &mut Layered,
) -> Result<(), Error> {
    let mut record: Record = own.read(RENDERED)?.unwrap_or_default();
    record.version = VERSION;
    let files: BTreeSet<PathBuf> = if globs.is_empty() {
        vanilla.iter().cloned().collect()
    } else {
        // What was rendered once is looked at again, whatever the globs are now.
        let known = record.files.keys().map(PathBuf::from);
        matching(own.volume(), globs)?.into_iter().chain(known).collect()
    };
    for file in files {
        let target = own.volume().join(&file);
        let found = match fs::symlink_metadata(&target) {
            Ok(found) if found.is_file() && found.len() <= LARGEST => found,
            _ => continue,
        };
        let name = file.to_string_lossy().into_owned();
        let content = fs::read(&target).map_err(|source| Error::of("reading", &target, source))?;
        let source = match record.files.get(&name) {
            Some(origin) if origin.output == sha256_hex(&content) => source_of(defaults, vanilla, &file, origin, own)?,
            Some(_) if variables.render(&content).replaced == 0 => {
                layered.edited.insert(file.clone());
                None
            }
            _ => Some(content.clone()),
        };
        let Some(source) = source else { continue };
        let rendered = variables.render(&source);
        for unknown in &rendered.unknown {
            layered.unknown.entry(unknown.clone()).or_insert_with(|| file.clone());
        }
        if rendered.replaced == 0 && !record.files.contains_key(&name) {
            continue;
        }
        // A Secret that is gone must not bring its placeholder back over a file that works.
        let lost = |name: &String| !holds(&content, &format!("${{{name}}}"));
        if record.files.contains_key(&name) && rendered.unknown.iter().any(lost) {
            layered.files.insert(file.clone(), Layer::Kept);
            continue;
        }
        layered.files.insert(file.clone(), Layer::Secrets);
        if rendered.text == content {
            continue;
        }
        // Remembered first: killed between, the file is still its source, and is rendered by the next start.
        let origin = Origin {
            source: sha256_hex(&source),
            output: sha256_hex(&rendered.text),
        };
        keep_template(own, &origin, &source)?;
        record.files.insert(name, origin);
        own.write(RENDERED, &record)?;
        replace(
            own,
            &target,
            &rendered.text,
            found.uid(),
            found.gid(),
            found.mode() & 0o7777,
        )?;
    }
    Ok(())
}

fn holds(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The text that a rendered file was, or is now, made of; `None` where it is lost.
fn source_of(
    defaults: &Path,
    vanilla: &[PathBuf],
    file: &Path,
    origin: &Origin,
    own: &OwnFolder,
) -> Result<Option<Vec<u8>>, Error> {
    let path = if vanilla.iter().any(|known| known == file) {
        defaults.join(file)
    } else {
        own.join(TEMPLATES).join(&origin.source)
    };
    match fs::read(&path) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::of("reading", &path, source)),
    }
}

/// Keeps the text with the variables in it, by its SHA-256.
fn keep_template(own: &OwnFolder, origin: &Origin, source: &[u8]) -> Result<(), Error> {
    own.create()?;
    let folder = own.join(TEMPLATES);
    let path = folder.join(&origin.source);
    let keep = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let partial = folder.join(".partial");
        fs::write(&partial, source)?;
        fs::rename(&partial, &path)
    };
    keep().map_err(|source| Error::of("writing", &path, source))
}

/// The files of a volume that match any of the globs.
fn matching(root: &Path, globs: &[String]) -> Result<Vec<PathBuf>, Error> {
    let set = glob_set(globs).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, error);
        Error::of(
            "understanding the globs of vixens.io/backup-secrets-files for",
            root,
            source,
        )
    })?;
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| Error::of("reading", &folder, source);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let below = path.strip_prefix(root).unwrap_or(&path);
            if below == Path::new(OWN_FOLDER) {
                continue;
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_file() && set.is_match(below) {
                files.push(below.to_owned());
            } else if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(files)
}

fn glob_set(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.strip_prefix('/').unwrap_or(glob);
        set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
    }
    set.build()
}

#[cfg(test)]
mod tests;
