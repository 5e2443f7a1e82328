//! What a command is about: a workload, its volumes, its databases, a point in its past.

use super::{Invalid, Profile, WorkloadKind};
use std::fmt;
use std::str::FromStr;

/// A point in time to go back to: a snapshot's id, or an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RestoreAt {
    /// `20261122T130500Z-3.42-auto`, kept as it was written.
    Snapshot(String),
    /// The newest state at or before this time.
    Time(jiff::Timestamp),
}

impl FromStr for RestoreAt {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let parts: Vec<&str> = text.split('-').collect();
        let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        let is_id = match parts.as_slice() {
            [time, sequence, kind] => {
                time.len() == 16
                    && time.ends_with('Z')
                    && time.as_bytes().get(8) == Some(&b'T')
                    && sequence.split_once('.').is_some_and(|(a, b)| number(a) && number(b))
                    && !kind.is_empty()
                    && kind.chars().all(|c| c.is_ascii_lowercase())
            }
            _ => false,
        };
        if is_id {
            Ok(Self::Snapshot(text.to_owned()))
        } else {
            Err(Invalid::allowed(
                "a snapshot's id such as 20261122T130500Z-3.42-auto, or an RFC 3339 time such as 2026-11-22T13:05:00Z",
            ))
        }
    }
}

impl fmt::Display for RestoreAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => f.write_str(id),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// Which databases a volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Databases {
    /// Found by their header.
    Auto,
    /// Every file is a plain file.
    None,
    /// These, relative to the volume, each with the profile that was given to it.
    Paths(Vec<(String, Option<Profile>)>),
}

impl FromStr for Databases {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = |why: &str| {
            Invalid::allowed(format!(
                "auto, none, or paths relative to the volume, comma-separated, each with an optional =profile, such as app.db=critical ({why})"
            ))
        };
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let mut paths: Vec<(String, Option<Profile>)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (path, profile) = match part.rsplit_once('=') {
                Some((path, profile)) => (
                    path,
                    Some(
                        profile
                            .parse()
                            .map_err(|_| refusal("the profiles are critical, standard, relaxed and ephemeral"))?,
                    ),
                ),
                None => (part, None),
            };
            if path.is_empty()
                || path.starts_with('/')
                || path
                    .split('/')
                    .any(|name| name.is_empty() || name == "." || name == "..")
            {
                return Err(refusal("a path is relative, and without empty parts or '..'"));
            }
            if paths.iter().any(|(seen, _)| seen == path) {
                return Err(refusal("a path is named once"));
            }
            paths.push((path.to_owned(), profile));
        }
        Ok(Self::Paths(paths))
    }
}

impl fmt::Display for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Paths(paths) => {
                let parts: Vec<String> = paths
                    .iter()
                    .map(|(path, profile)| match profile {
                        Some(profile) => format!("{path}={profile}"),
                        None => path.clone(),
                    })
                    .collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

/// A workload: `Deployment/app`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadName {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its `metadata.name`.
    pub name: String,
}

impl FromStr for WorkloadName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, name) = text
            .split_once('/')
            .filter(|(_, name)| !name.is_empty() && !name.contains('/'))
            .ok_or_else(|| Invalid::allowed("Deployment/NAME or StatefulSet/NAME"))?;
        Ok(Self {
            kind: kind.parse()?,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A protected volume as the agent sees it: `NAME:FOLDER:/mount/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProtectedVolume {
    /// The pod volume's name.
    pub name: String,
    /// Its folder in the bucket.
    pub folder: String,
    /// Where it is mounted, in the app and in our containers alike.
    pub mount_path: String,
}

impl FromStr for ProtectedVolume {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(folder), Some(mount_path))
                if !name.is_empty() && !folder.is_empty() && !folder.contains('/') && mount_path.starts_with('/') =>
            {
                Ok(Self {
                    name: name.to_owned(),
                    folder: folder.to_owned(),
                    mount_path: mount_path.to_owned(),
                })
            }
            _ => Err(Invalid::allowed("NAME:FOLDER:/mount/path, such as data:config:/config")),
        }
    }
}

impl fmt::Display for ProtectedVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.folder, self.mount_path)
    }
}
