//! Paths that were typed → which of a snapshot's are meant. Pure.
//!
//! A path is one of the snapshot (`config/a.yaml`), with everything below it where it is a folder. A leading `/` is no
//! matter: a volume's folder is the end of its mount path. Where no path is so named, it is a pattern (`config/**/*.db`),
//! and where the place has one volume only, its folder may be left out.

use super::Error;
use crate::agent::amount::name;
use globset::{GlobBuilder, GlobMatcher};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Which of these paths (sorted, no `/` at the end) are meant: those that were typed, what is below them, and the folders
/// on the way to them. Everything, if nothing was typed.
pub(super) fn select(typed: &[String], paths: &[&[u8]]) -> Result<Vec<bool>, Error> {
    if typed.is_empty() {
        return Ok(vec![true; paths.len()]);
    }
    let mut chosen = vec![false; paths.len()];
    let mut unknown = Vec::new();
    for text in typed {
        let hits = hits(text, paths)?;
        if hits.is_empty() {
            unknown.push(text);
        }
        for hit in hits {
            chosen[hit] = true;
        }
    }
    if !unknown.is_empty() {
        let said: Vec<String> = unknown.iter().map(|text| said_of(text, paths)).collect();
        return Err(Error::Nothing(said.join("; ")));
    }
    let positions: HashMap<&[u8], usize> = paths.iter().copied().zip(0..).collect();
    for position in 0..paths.len() {
        if chosen[position] {
            for ancestor in ancestors(paths[position]) {
                if let Some(position) = positions.get(ancestor) {
                    chosen[*position] = true;
                }
            }
        }
    }
    Ok(chosen)
}

fn hits(text: &str, paths: &[&[u8]]) -> Result<Vec<usize>, Error> {
    let plain = text.trim_start_matches("./").trim_matches('/');
    let mut forms = vec![plain.to_owned()];
    let mut volumes: Vec<&[u8]> = paths.iter().map(|path| first(path)).collect();
    volumes.dedup();
    if let [only] = volumes.as_slice() {
        forms.push(format!("{}/{plain}", String::from_utf8_lossy(only)));
    }
    for form in &forms {
        let literal = form.as_bytes();
        let found: Vec<usize> = matching(paths, |path| path == literal);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    for form in &forms {
        let glob = glob(form)?;
        let found = matching(paths, |path| glob.is_match(Path::new(OsStr::from_bytes(path))));
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The positions of paths that match, or that lie below one that does.
fn matching(paths: &[&[u8]], matches: impl Fn(&[u8]) -> bool) -> Vec<usize> {
    let is_meant = |path: &[u8]| matches(path) || ancestors(path).any(&matches);
    (0..paths.len()).filter(|position| is_meant(paths[*position])).collect()
}

fn glob(text: &str) -> Result<GlobMatcher, Error> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| Error::Usage(format!("{text:?} is no path, and no pattern either: {}", error.kind())))
}

fn first(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'/').next().unwrap_or_default()
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The folders above a path.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(position, _)| &path[..position])
}

fn said_of(text: &str, paths: &[&[u8]]) -> String {
    let asked = last(text.trim_end_matches('/').as_bytes());
    let alike: Vec<String> = paths
        .iter()
        .filter(|path| last(path) == asked)
        .take(3)
        .map(|path| name(path))
        .collect();
    if alike.is_empty() {
        format!("the snapshot has no {text:?}; vixens-backup snapshots show lists what it has")
    } else {
        format!("the snapshot has no {text:?}, but {}", alike.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 8] = [
        "config",
        "config/.storage",
        "config/.storage/auth",
        "config/[odd].txt",
        "config/a.yaml",
        "config/sub",
        "config/sub/deep",
        "config/sub/deep/a.yaml",
    ];

    fn selected(typed: &[&str], paths: &[&str]) -> Result<Vec<String>, String> {
        let typed: Vec<String> = typed.iter().map(|text| (*text).to_owned()).collect();
        let bytes: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
        let chosen = select(&typed, &bytes).map_err(|error| error.to_string())?;
        let named = paths.iter().zip(chosen).filter(|(_, chosen)| *chosen);
        Ok(named.map(|(path, _)| (*path).to_owned()).collect())
    }

    fn of_one(typed: &[&str]) -> Vec<String> {
        selected(typed, &PATHS).unwrap()
    }

    #[test]
    fn nothing_typed_is_everything() {
        assert_eq!(of_one(&[]), PATHS);
    }

    #[test]
    fn a_path_brings_what_is_below_it_and_the_folders_above_it() {
        for typed in ["config/sub", "config/sub/", "./config/sub", "/config/sub", "sub"] {
            assert_eq!(
                of_one(&[typed]),
                ["config", "config/sub", "config/sub/deep", "config/sub/deep/a.yaml"],
                "{typed}"
            );
        }
        assert_eq!(of_one(&["config/a.yaml"]), ["config", "config/a.yaml"]);
        assert_eq!(of_one(&["config"]), PATHS);
    }

    #[test]
    fn a_name_with_the_signs_of_a_pattern_is_a_name_first() {
        assert_eq!(of_one(&["config/[odd].txt"]), ["config", "config/[odd].txt"]);
    }

    #[test]
    fn a_pattern_stays_within_a_folder_unless_it_says_otherwise() {
        assert_eq!(of_one(&["config/*.yaml"]), ["config", "config/a.yaml"]);
        assert_eq!(
            of_one(&["**/a.yaml"]),
            [
                "config",
                "config/a.yaml",
                "config/sub",
                "config/sub/deep",
                "config/sub/deep/a.yaml"
            ]
        );
        assert!(
            selected(&["config/{a"], &PATHS)
                .unwrap_err()
                .contains("no pattern either")
        );
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is_so_named() {
        assert_eq!(
            selected(&["config/a.yaml", "auth"], &PATHS).unwrap_err(),
            "the snapshot has no \"auth\", but config/.storage/auth"
        );
        assert!(
            selected(&["config/nope"], &PATHS)
                .unwrap_err()
                .contains("snapshots show")
        );
    }

    #[test]
    fn of_several_volumes_none_can_be_left_out() {
        let paths = ["config", "config/a", "data", "data/a"];
        assert!(selected(&["a"], &paths).is_err());
        assert_eq!(selected(&["data/a"], &paths).unwrap(), ["data", "data/a"]);
    }
}
