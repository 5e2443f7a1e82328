//! Layer 3: the folder of Secrets → variables, and a text with `${VAR}` → the text with their values. No shell; what
//! is not a known name stays as it is, and is reported.

use super::env_file;
use crate::agent::volume::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// Names and values. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, Vec<u8>>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A text after its variables were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The new text.
    pub text: Vec<u8>,
    /// How many were replaced.
    pub replaced: usize,
    /// Names in it that nobody knows.
    pub unknown: BTreeSet<String>,
}

impl Variables {
    /// Reads the Secrets below a folder, one folder each: keys that end in `.env` are env files, every other key is a
    /// variable. Of two Secrets with the same name in them, the later folder wins.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let mut variables = Self::default();
        for secret in sorted(folder)? {
            if secret.is_dir() {
                for key in sorted(&secret)? {
                    variables.add(&key)?;
                }
            } else {
                variables.add(&secret)?;
            }
        }
        Ok(variables)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(());
        };
        // A Secret's mount has its files in a folder `..data`, and links to them.
        if name.starts_with("..") || path.is_dir() {
            return Ok(());
        }
        let value = fs::read(path).map_err(|source| Error::of("reading", path, source))?;
        if Path::new(name).extension().is_some_and(|extension| extension == "env") {
            let invalid = |why: String| {
                let source = io::Error::new(io::ErrorKind::InvalidData, why);
                Error::of("understanding", path, source)
            };
            let text = std::str::from_utf8(&value).map_err(|_| invalid("it is no text".to_owned()))?;
            for (name, value) in env_file::parse(text).map_err(invalid)? {
                self.0.insert(name, value.into_bytes());
            }
        } else if env_file::is_name(name) {
            let value = value.strip_suffix(b"\n").unwrap_or(&value);
            self.0.insert(name.to_owned(), value.to_vec());
        }
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces `${NAME}` wherever the name is known.
    #[must_use]
    pub fn render(&self, source: &[u8]) -> Rendered {
        let mut rendered = Rendered {
            text: Vec::with_capacity(source.len()),
            replaced: 0,
            unknown: BTreeSet::new(),
        };
        let mut rest = source;
        while let Some(start) = rest.windows(2).position(|pair| pair == b"${") {
            rendered.text.extend_from_slice(&rest[..start]);
            let after = &rest[start + 2..];
            let name = after
                .iter()
                .position(|byte| *byte == b'}')
                .and_then(|end| std::str::from_utf8(&after[..end]).ok())
                .filter(|name| env_file::is_name(name));
            match name.map(|name| (name, self.0.get(name))) {
                Some((name, Some(value))) => {
                    rendered.text.extend_from_slice(value);
                    rendered.replaced += 1;
                    rest = &after[name.len() + 1..];
                }
                Some((name, None)) => {
                    rendered.unknown.insert(name.to_owned());
                    rendered.text.extend_from_slice(b"${");
                    rest = after;
                }
                None => {
                    rendered.text.extend_from_slice(b"${");
                    rest = after;
                }
            }
        }
        rendered.text.extend_from_slice(rest);
        rendered
    }
}

/// What is in a folder, by name; nothing where there is no folder.
fn sorted(folder: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::of("reading", folder, source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::of("reading", folder, source))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"..") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        Variables(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
        )
    }

    fn rendered(source: &str, pairs: &[(&str, &str)]) -> String {
        String::from_utf8(variables(pairs).render(source.as_bytes()).text).unwrap()
    }

    #[test]
    fn known_names_are_replaced_and_nothing_else() {
        let known = [("USER", "me"), ("PASS", "p$&\\1\"'\n${USER}=")];
        assert_eq!(rendered("a ${USER} b", &known), "a me b");
        assert_eq!(
            rendered("x: ${PASS}", &known),
            "x: p$&\\1\"'\n${USER}=",
            "a value is never looked into"
        );
        for untouched in [
            "$USER",
            "${USER",
            "${user}",
            "${USER:-x}",
            "${}",
            "$${",
            "{USER}",
            "${ USER }",
        ] {
            assert_eq!(rendered(untouched, &known), untouched);
        }
        assert_eq!(rendered("${${USER}}", &known), "${me}");
        assert_eq!(rendered("$${USER}", &known), "$me");
    }

    #[test]
    fn unknown_names_stay_and_are_reported() {
        let result = variables(&[("A", "1")]).render(b"${A} ${B} ${C:-x} ${B}");
        assert_eq!(result.text, b"1 ${B} ${C:-x} ${B}");
        assert_eq!(result.replaced, 1);
        assert_eq!(result.unknown, BTreeSet::from(["B".to_owned()]));
    }

    #[test]
    fn secrets_are_read_as_a_pod_mounts_them() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("app-secrets");
        fs::create_dir_all(secret.join("..2026_11_22")).unwrap();
        fs::write(secret.join("..2026_11_22/TOKEN"), "t0ken\n").unwrap();
        fs::write(secret.join("..2026_11_22/app.env"), "export USER='me'\nURL=a=b\n").unwrap();
        std::os::unix::fs::symlink("..2026_11_22", secret.join("..data")).unwrap();
        for key in ["TOKEN", "app.env"] {
            std::os::unix::fs::symlink(format!("..data/{key}"), secret.join(key)).unwrap();
        }
        let read = Variables::read(folder.path()).unwrap();
        assert_eq!(read, variables(&[("TOKEN", "t0ken"), ("USER", "me"), ("URL", "a=b")]));
        assert_eq!(
            format!("{read:?}"),
            "{\"TOKEN\", \"URL\", \"USER\"}",
            "values are never printed"
        );
    }

    #[test]
    fn no_secrets_are_no_variables() {
        assert!(Variables::read(Path::new("/nowhere/at/all")).unwrap().is_empty());
    }

    #[test]
    fn an_env_file_that_is_none_is_an_error_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.env"), "hunter2").unwrap();
        let error = Variables::read(folder.path()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!format!("{error} {source}").contains("hunter2"), "{error}: {source}");
    }
}
