//! Where copies go.

use super::Invalid;
use std::fmt;
use std::str::FromStr;

/// Where the store lies: `remote:bucket/path`, a plain remote name and a path below it (design, decision 16).
///
/// `{namespace}`, `{name}` and `{pod}` may stand in the path of an annotation; the agent is given them filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    remote: String,
    path: String,
}

impl Destination {
    /// The remote's name in the rclone configuration, without its colon.
    #[must_use]
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// The folder below the remote, without slashes at either end.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same destination with each placeholder replaced.
    #[must_use]
    pub fn filled(&self, placeholders: &[(&str, &str)]) -> Self {
        let path = placeholders
            .iter()
            .fold(self.path.clone(), |path, (name, value)| path.replace(name, value));
        Self {
            remote: self.remote.clone(),
            path,
        }
    }
}

impl FromStr for Destination {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = |why: &str| {
            Invalid::allowed(format!(
                "remote:bucket/path with a plain remote name, such as minio:vixens-backups/app ({why})"
            ))
        };
        let (remote, path) = text.split_once(':').ok_or_else(|| refusal("there is no colon"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if remote.is_empty() || remote.starts_with(['-', '.']) || !remote.chars().all(plain) {
            return Err(refusal("the remote's name may hold letters, digits, '_', '-' and '.'"));
        }
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(refusal("the path is missing"));
        }
        if path.chars().any(|c| c.is_control() || c == '\\' || c == ',') {
            return Err(refusal("the path holds a control character, a comma or a backslash"));
        }
        for part in path.split('/') {
            if part.is_empty() || part == "." || part == ".." || part.trim() != part {
                return Err(refusal(
                    "each part of the path must be a plain name: not empty, not '.' or '..'",
                ));
            }
        }
        let mut rest = path;
        while let Some(open) = rest.find(['{', '}']) {
            let known = ["{namespace}", "{name}", "{pod}"];
            let Some(found) = known.iter().find(|name| rest[open..].starts_with(**name)) else {
                return Err(refusal("the placeholders are {namespace}, {name} and {pod}"));
            };
            rest = &rest[open + found.len()..];
        }
        Ok(Self {
            remote: remote.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.remote, self.path)
    }
}
