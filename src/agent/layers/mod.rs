//! Layers 1 and 3 of a start: vanilla files where the volume lacks them, then secrets into `${VAR}`. Folders of the
//! injected container → files on the volume. Layer 2, the restore, comes before and is not done here.
//!
//! Each file is written beside its place, on the volume itself, and renamed into it: a kill leaves the old one or the
//! new one. Nothing that somebody edited is written over.

mod env_file;
mod place;
mod records;
mod template;

pub use env_file::{NotAVariable, parse as parse_env_file};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use place::Place;
use records::Records;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use template::{Variables, is_rendering_of, render};

/// Files above this are no configuration: they are not searched for `${VAR}`.
const LARGEST: u64 = 16 << 20;

/// Our own folder in a volume.
const OURS: &str = ".vixens-backup";

/// What is laid where.
#[derive(Clone, Debug)]
pub struct Layers<'a> {
    /// The first protected volume.
    pub volume: &'a Path,
    /// Layer 1, a mounted ConfigMap; it may be absent.
    pub defaults: &'a Path,
    /// Layer 3, mounted Secrets; it may be absent.
    pub secrets: &'a Path,
    /// Globs of the files in which `${VAR}` is replaced; none: the files of layer 1.
    pub secrets_files: &'a [String],
}

/// What became of a file of layer 1, or of one that takes secrets. Paths are relative to the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Laid {
    /// Placed from layer 1.
    pub vanilla: Vec<PathBuf>,
    /// Of layer 1, but there already: the file on the volume won.
    pub kept: Vec<PathBuf>,
    /// Filled with secrets now.
    pub rendered: Vec<PathBuf>,
    /// Filled with secrets before, and edited since: left.
    pub edited: Vec<PathBuf>,
    /// Names in `${…}` that no Secret has, by file: left as they are.
    pub unknown: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Not looked at, and why.
    pub skipped: BTreeMap<PathBuf, String>,
}

/// Why the layers could not be laid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder refused.
    #[error("{path} can't be {act}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// `read`, `written`, …
        act: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An env file that does not parse.
    #[error("{path}, an env file of layer 3, can't be read: mend the Secret's value", path = path.display())]
    EnvFile {
        /// Which.
        path: PathBuf,
        /// Where; the line's text is not shown, it may be a secret.
        #[source]
        source: NotAVariable,
    },
    /// A glob that does not parse.
    #[error("{pattern:?} of vixens.io/backup-secrets-files is no pattern")]
    Pattern {
        /// Which.
        pattern: String,
        /// Why.
        #[source]
        source: globset::Error,
    },
}

impl Error {
    fn io(path: &Path, act: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, act, source }
    }
}

/// Lays layers 1 and 3.
pub fn lay(layers: &Layers<'_>) -> Result<Laid, Error> {
    let mut laid = Laid::default();
    let place = Place::new(layers.volume)?;
    let vanilla = files_below(layers.defaults, None)?;
    let variables = variables(layers.secrets)?;
    let targets = targets(layers, &vanilla, &variables)?;
    for path in &vanilla {
        let target = layers.volume.join(path);
        if std::fs::symlink_metadata(&target).is_ok() {
            laid.kept.push(path.clone());
            continue;
        }
        // A file that takes secrets is written once, filled.
        if !targets.contains(path) {
            place.write(path, &read(&layers.defaults.join(path))?)?;
        }
        laid.vanilla.push(path.clone());
    }
    let mut records = Records::read(layers.volume);
    let mut files = Vec::new();
    for path in &targets {
        let source = vanilla.contains(path).then(|| layers.defaults.join(path));
        let filled = fill(
            layers.volume,
            path,
            source.as_deref(),
            &variables,
            &mut records,
            &mut laid,
        )?;
        files.extend(filled.map(|content| (path, content)));
    }
    // The records first: killed before the files are written, the next start knows them by what they were.
    records.write(&place)?;
    for (path, content) in files {
        place.write(path, &content)?;
    }
    Ok(laid)
}

/// The files in which `${VAR}` is replaced.
fn targets(
    layers: &Layers<'_>,
    vanilla: &BTreeSet<PathBuf>,
    variables: &Variables,
) -> Result<BTreeSet<PathBuf>, Error> {
    if variables.is_empty() {
        return Ok(BTreeSet::new());
    }
    if layers.secrets_files.is_empty() {
        return Ok(vanilla.clone());
    }
    let globs = globs(layers.secrets_files)?;
    let mut targets = files_below(layers.volume, Some(&globs))?;
    targets.extend(vanilla.iter().filter(|path| globs.is_match(path)).cloned());
    Ok(targets)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::io(path, "read"))
}

/// What a file is to hold, unless it is as it should be, or somebody edited it. `source` is its file of layer 1.
fn fill(
    volume: &Path,
    path: &Path,
    source: Option<&Path>,
    variables: &Variables,
    records: &mut Records,
    laid: &mut Laid,
) -> Result<Option<Vec<u8>>, Error> {
    let target = volume.join(path);
    let current = match std::fs::symlink_metadata(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(&target, "read")(error)),
        Ok(found) if !found.is_file() => {
            laid.skipped.insert(path.to_owned(), "it is no plain file".to_owned());
            return Ok(None);
        }
        Ok(found) if found.len() > LARGEST => {
            let why = format!("it is larger than {} MiB", LARGEST >> 20);
            laid.skipped.insert(path.to_owned(), why);
            return Ok(None);
        }
        Ok(_) => Some(read(&target)?),
    };
    let vanilla = source.map(read).transpose()?;
    let template = match (&current, records.of(path), vanilla) {
        // As we left it: its source is today's layer 1, or what the file was before.
        (Some(content), Some(record), vanilla) if record.knows(content) => match vanilla {
            Some(vanilla) => vanilla,
            None => record.template().to_vec(),
        },
        (Some(_), Some(_), _) => {
            laid.edited.push(path.to_owned());
            return Ok(None);
        }
        // Restored from a backup that was filled with other values, or from one that was never filled.
        (Some(content), None, Some(vanilla)) if is_rendering_of(&vanilla, variables, content) => vanilla,
        (Some(content), None, _) => content.clone(),
        (None, _, Some(vanilla)) => vanilla,
        (None, _, None) => return Ok(None),
    };
    let rendered = render(&template, variables);
    // A Secret that is gone must not bring its placeholder back over a file that works.
    let is_lost = |name: &String| {
        let placeholder = format!("${{{name}}}");
        current
            .as_ref()
            .is_some_and(|content| !holds(content, placeholder.as_bytes()))
    };
    let would_undo = records.of(path).is_some() && rendered.unknown.iter().any(is_lost);
    if !rendered.unknown.is_empty() {
        laid.unknown.insert(path.to_owned(), rendered.unknown);
    }
    if would_undo {
        return Ok(None);
    }
    if rendered.replaced > 0 {
        records.set(path, &template, &rendered.content, current.as_deref());
    }
    if current.as_ref() == Some(&rendered.content) {
        return Ok(None);
    }
    if rendered.replaced > 0 {
        laid.rendered.push(path.to_owned());
    }
    Ok(Some(rendered.content))
}

fn holds(content: &[u8], text: &[u8]) -> bool {
    content.windows(text.len()).any(|window| window == text)
}

fn globs(patterns: &[String]) -> Result<GlobSet, Error> {
    let refused = |pattern: &str| {
        let pattern = pattern.to_owned();
        move |source| Error::Pattern { pattern, source }
    };
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        // As rclone reads them: with a slash at its start a pattern begins at the volume's root, else anywhere.
        let anchored = match pattern.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None => format!("**/{pattern}"),
        };
        let glob = GlobBuilder::new(&anchored).literal_separator(true).build();
        globs.add(glob.map_err(refused(pattern))?);
    }
    globs.build().map_err(refused(&patterns.join(", ")))
}

/// The files below a folder, relative to it and sorted; an absent folder has none. Names that begin with `..` are the
/// kubelet's own, `.vixens-backup` is ours.
fn files_below(folder: &Path, globs: Option<&GlobSet>) -> Result<BTreeSet<PathBuf>, Error> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let absolute = folder.join(&relative);
        let entries = match std::fs::read_dir(&absolute) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io(&absolute, "read")(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(&absolute, "read"))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b"..") || name == OURS {
                continue;
            }
            let path = relative.join(&name);
            // A mounted ConfigMap is made of links; on the volume links are left alone.
            let kind = if globs.is_some() {
                entry.file_type().map_err(Error::io(&entry.path(), "read"))?
            } else {
                std::fs::metadata(entry.path())
                    .map_err(Error::io(&entry.path(), "read"))?
                    .file_type()
            };
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && globs.is_none_or(|globs| globs.is_match(&path)) {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// The variables of layer 3: keys that end with `.env` are env files, others are variables of their own name.
fn variables(secrets: &Path) -> Result<Variables, Error> {
    let mut variables = Variables::new();
    for path in files_below(secrets, None)? {
        let file = secrets.join(&path);
        let mut content = read(&file)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "env") || name == ".env" {
            let text = String::from_utf8_lossy(&content);
            let parsed = env_file::parse(&text).map_err(|source| Error::EnvFile {
                path: file.clone(),
                source,
            })?;
            variables.extend(parsed.into_iter().map(|(name, value)| (name, value.into_bytes())));
        } else {
            // The line's end that an editor or `echo` leaves is not part of a secret.
            if content.last() == Some(&b'\n') {
                content.pop();
            }
            variables.insert(name, content);
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests;
