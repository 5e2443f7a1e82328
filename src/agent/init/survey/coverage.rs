//! A snapshot's files and a volume → how much of the snapshot the volume has. By content, not by names or counts: a file
//! that was moved is there, and one that a fresh start wrote under an old name is not. Reads the volume, and hashes no more
//! of it than may be the same.

use crate::agent::arguments::Percent;
use crate::agent::database::is_database;
use crate::agent::restore::attributes;
use crate::agent::restore::moved::{Moved, known};
use crate::agent::restore::plan::{Content, Item, Plan, Planned};
use crate::agent::restore::verify::{is_as_planned, sha256_of};
use crate::agent::restore::way::is_way;
use crate::agent::volume::files::Files;
use crate::store::index::Totals;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::path::Path;

/// How much of a snapshot a volume has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// The snapshot's files that can be compared, and the bytes of all.
    of: Totals,
    /// Those whose content is on the volume. Bytes count as far as a file is in its place at all.
    there: Totals,
    /// Databases in their places: a saved copy is never the bytes of the file, so their contents say nothing.
    databases: u64,
    /// Bytes that the volume has less of one file than any other.
    largest: u64,
    /// Places of the snapshot's files, links and databases where there is something, whatever it is.
    occupied: u64,
    /// Contents that are on the volume under other names.
    pub(super) moved: Moved,
    /// The snapshot's files and databases, and those of them of which anything is left: the content under any name, or a file
    /// in its place that is not empty.
    files: u64,
    left: u64,
}

/// So many of a snapshot's files may be left on a volume that counts as emptied: dot-files that `rm -rf *` spares.
pub(super) const fn remnant(files: u64) -> u64 {
    match files {
        0..3 => 0,
        3..20 => 1,
        _ => files / 10,
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} files", self.there.files, self.of.files)
    }
}

impl Coverage {
    /// Whether the volume lacks at most so much of the snapshot, in files and in bytes.
    ///
    /// On a small volume one file can be most of the bytes, and deleting it is nothing unusual: the largest that is gone
    /// counts as a file and not in bytes. Where nothing but databases can be looked at, nothing speaks for the volume.
    pub(super) fn is_most(&self, most: Percent) -> bool {
        let exceeds = |part: u64, whole: u64| u128::from(part) * 100 > u128::from(whole) * u128::from(most.0);
        let files = self.of.files.saturating_sub(self.there.files);
        let bytes = self.of.bytes.saturating_sub(self.there.bytes);
        let is_told = self.of.files > 0 || self.databases == 0;
        is_told && !exceeds(files, self.of.files) && !exceeds(bytes.saturating_sub(self.largest), self.of.bytes)
    }

    /// Whether no more of the snapshot is left than a remnant.
    pub(super) fn is_remnant(&self) -> bool {
        self.files > 0 && self.left <= remnant(self.files)
    }

    /// How much is left, in words.
    pub(super) fn left(&self) -> String {
        format!("{} of {} files", self.left, self.files)
    }

    /// Whether everything of the snapshot can be brought without touching what is there.
    pub(super) fn is_apart(&self) -> bool {
        self.occupied == 0
    }

    fn lacks(&mut self, bytes: u64) {
        self.largest = self.largest.max(bytes);
    }
}

/// What is at the place of a file of the snapshot.
enum There {
    /// The same content.
    Same,
    /// A database, of this size.
    Database(u64),
    /// A file of other content, of this size.
    Changed(u64),
    /// No file.
    Nothing,
}

/// Compares a plan, and the paths of databases that it has elsewhere, with the volume at `root`. What can't be read is not
/// there.
pub(super) fn cover<'a>(plan: &'a Plan, databases: impl Iterator<Item = &'a Path>, root: &Path) -> Coverage {
    let mut coverage = Coverage::default();
    let mut elsewhere: Vec<(&Content, u64)> = Vec::new();
    let mut in_place: HashSet<&Path> = HashSet::new();
    let mut changed: HashSet<&str> = HashSet::new();
    for Item { path, what, .. } in &plan.items {
        let place = root.join(path);
        let is_folder = matches!(what, Planned::Folder(_));
        let is_barred = !is_way(root, path);
        let is_taken = fs::symlink_metadata(&place).is_ok_and(|found| !(is_folder && found.is_dir()));
        coverage.occupied += u64::from(is_barred || is_taken);
        let Planned::File(content, given) = what else { continue };
        coverage.files += 1;
        coverage.of.files += 1;
        coverage.of.bytes += content.size;
        let modified = given.as_ref().map(|given| given.modified);
        match if is_barred {
            There::Nothing
        } else {
            look(&place, content, modified)
        } {
            There::Same => {
                in_place.insert(path);
                coverage.left += 1;
                coverage.there.files += 1;
                coverage.there.bytes += content.size;
            }
            There::Database(size) => {
                coverage.of.files -= 1;
                coverage.databases += 1;
                coverage.left += 1;
                coverage.there.bytes += size.min(content.size);
                coverage.lacks(content.size.saturating_sub(size));
            }
            There::Changed(size) => {
                if size > 0 || content.size == 0 {
                    coverage.left += 1;
                    changed.insert(content.key.as_str());
                }
                elsewhere.push((content, size.min(content.size)));
            }
            There::Nothing => elsewhere.push((content, 0)),
        }
    }
    let wanted = elsewhere.iter().filter_map(|(content, _)| known(content)).collect();
    coverage.moved = moved(wanted, &in_place, root);
    for (content, left) in elsewhere {
        if known(content).is_some_and(|known| coverage.moved.contains(&known)) {
            coverage.left += u64::from(!changed.contains(content.key.as_str()));
            coverage.there.files += 1;
            coverage.there.bytes += content.size;
        } else {
            coverage.there.bytes += left;
            coverage.lacks(content.size - left);
        }
    }
    for path in databases {
        let place = root.join(path);
        coverage.occupied += u64::from(fs::symlink_metadata(&place).is_ok());
        coverage.files += 1;
        if is_database(&place).unwrap_or(false) {
            coverage.databases += 1;
            coverage.left += 1;
        } else {
            coverage.of.files += 1;
        }
    }
    coverage
}

fn look(path: &Path, content: &Content, modified: Option<i64>) -> There {
    let Ok(found) = fs::symlink_metadata(path) else {
        return There::Nothing;
    };
    if !found.is_file() {
        return There::Nothing;
    }
    if found.len() == content.size {
        // A time to the nanosecond is no accident, and large volumes need not be read for it.
        let same_time =
            modified.is_some_and(|time| time % 1_000_000_000 != 0 && time == attributes::of(&found).modified);
        if same_time || is_as_planned(path, content).unwrap_or(false) {
            return There::Same;
        }
    }
    match is_database(path) {
        Ok(true) => There::Database(found.len()),
        _ => There::Changed(found.len()),
    }
}

/// Which of these contents lie anywhere on the volume, but for the files that are where the snapshot has them.
fn moved(mut wanted: Moved, in_place: &HashSet<&Path>, root: &Path) -> Moved {
    let mut moved = Moved::new();
    let mut sizes: HashMap<u64, usize> = HashMap::new();
    for (size, _) in &wanted {
        *sizes.entry(*size).or_default() += 1;
    }
    for (path, kind) in Files::on(root).filter_map(Result::ok) {
        if sizes.is_empty() {
            break;
        }
        let size = fs::symlink_metadata(&path).map_or(0, |found| found.len());
        let is_in_place = || path.strip_prefix(root).is_ok_and(|below| in_place.contains(below));
        if !kind.is_file() || !sizes.contains_key(&size) || is_in_place() {
            continue;
        }
        let hash = File::open(&path).and_then(|mut file| sha256_of(&mut file));
        if let Some(content) = hash.ok().and_then(|hash| wanted.take(&(size, hash))) {
            moved.insert(content);
            if let Some(left) = sizes.get_mut(&size) {
                *left -= 1;
            }
            if sizes.get(&size) == Some(&0) {
                sizes.remove(&size);
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::Attributes;
    use crate::store::index::Standing;
    use tempfile::TempDir;

    const MOST: Percent = Percent(50);

    fn planned(path: &str, content: &str) -> Item {
        let volume = tempfile::tempdir().unwrap();
        let file = volume.path().join("file");
        fs::write(&file, content).unwrap();
        Item {
            standing: Standing::Live,
            path: path.into(),
            what: Planned::File(
                Content {
                    key: format!("config/{path}"),
                    size: content.len() as u64,
                    sha256: Some(sha256_of(&mut File::open(&file).unwrap()).unwrap()),
                },
                Some(Attributes::default()),
            ),
        }
    }

    fn plan(files: &[(&str, &str)]) -> Plan {
        Plan {
            snapshot: None,
            items: files.iter().map(|(path, content)| planned(path, content)).collect(),
        }
    }

    fn volume(files: &[(&str, &str)]) -> TempDir {
        let volume = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = volume.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        volume
    }

    fn covered(snapshot: &[(&str, &str)], there: &[(&str, &str)]) -> Coverage {
        cover(&plan(snapshot), std::iter::empty(), volume(there).path())
    }

    fn database(pages: usize) -> String {
        format!("SQLite format 3\0{}", "x".repeat(pages))
    }

    #[test]
    fn what_a_fresh_start_wrote_under_an_old_name_is_not_the_snapshots() {
        let snapshot = [("config.yaml", "mine: 1"), ("a", "aa"), ("b", "bb"), ("c", "cc")];
        let coverage = covered(&snapshot, &[("config.yaml", "default")]);
        assert_eq!((coverage.there.files, coverage.of.files), (0, 4));
        assert!(!coverage.is_most(MOST));
        // All its names, and none of its contents.
        let defaults = snapshot.map(|(path, content)| (path, if content.len() == 2 { "xx" } else { "default" }));
        assert!(!covered(&snapshot, &defaults).is_most(MOST));
        assert!(covered(&snapshot, &snapshot).is_most(Percent(0)));
    }

    #[test]
    fn what_was_moved_is_there_and_an_empty_file_elsewhere_is_no_sign() {
        let snapshot = [
            ("documents/a", "aa"),
            ("documents/b", "bb"),
            ("documents/copy of a", "aa"),
        ];
        let coverage = covered(&snapshot, &[("archive/a", "aa"), ("archive/b", "bb")]);
        assert_eq!(coverage.there, coverage.of);
        let empty = covered(&[("a", ""), ("b", "")], &[("a", ""), ("c", "")]);
        assert_eq!(empty.there.files, 1);
    }

    #[test]
    fn half_of_it_is_most_and_less_is_not() {
        let snapshot = [("a", "aa"), ("b", "bb"), ("c", "cc"), ("d", "dd")];
        assert!(covered(&snapshot, &snapshot[..2]).is_most(MOST));
        assert!(!covered(&snapshot, &snapshot[..1]).is_most(MOST));
        assert!(covered(&snapshot, &snapshot[..1]).is_most(Percent(75)));
        assert!(
            covered(&[], &[("a", "mine")]).is_most(Percent(0)),
            "there is nothing to lack"
        );
    }

    #[test]
    fn bytes_count_too_but_for_the_largest_file_that_is_gone() {
        let large = "x".repeat(1000);
        let small = [("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")];
        let one: Vec<_> = small.into_iter().chain([("film", large.as_str())]).collect();
        assert!(covered(&one, &small).is_most(MOST), "one film was deleted");
        let others = ["y", "z"].map(|letter| letter.repeat(1000));
        let series = others.iter().map(|content| (&content[..1], content.as_str()));
        let three: Vec<_> = one.iter().copied().chain(series).collect();
        assert!(!covered(&three, &small).is_most(MOST));
    }

    #[test]
    fn a_database_in_use_does_not_speak_against_its_volume_and_a_fresh_one_not_for_it() {
        let (saved, grown, fresh) = (database(900), database(1000), database(50));
        let snapshot = [("app.db", saved.as_str()), ("key", "of this installation")];
        let used = covered(&snapshot, &[("app.db", &grown), ("key", "of this installation")]);
        assert!(used.is_most(MOST), "{used:?}");
        let new = covered(&snapshot, &[("app.db", &fresh), ("key", "of another one")]);
        assert!(!new.is_most(MOST), "{new:?}");
        let alone = covered(&snapshot[..1], &[("app.db", &fresh)]);
        assert!(!alone.is_most(MOST), "nothing says that it is the same one: {alone:?}");
    }

    #[test]
    fn a_replicated_database_counts_though_no_snapshot_has_it_as_a_file() {
        let plan = plan(&[]);
        let replicated = || [Path::new("app.db")].into_iter();
        let without = volume(&[("notes", "mine")]);
        assert!(!cover(&plan, replicated(), without.path()).is_most(MOST));
        let fresh = volume(&[("app.db", &database(10))]);
        assert!(!cover(&plan, replicated(), fresh.path()).is_most(MOST));
    }

    #[test]
    fn a_tenth_of_the_files_is_a_remnant_and_what_is_in_its_place_or_was_moved_is_left() {
        for (files, expected) in [(0, 0), (2, 0), (3, 1), (19, 1), (20, 2), (200, 20)] {
            assert_eq!(remnant(files), expected, "{files}");
        }
        let snapshot = [("a", "aa"), ("b", "bb"), (".c", "cc"), ("app.db", "SQLite format 3\0")];
        assert!(covered(&snapshot, &[]).is_remnant());
        assert!(covered(&snapshot, &[(".c", "cc"), ("new", "x")]).is_remnant());
        for there in [
            [("a", "aa"), ("b", "bb")],
            // Changed, moved, and a database that was written.
            [("a", "changed"), ("sub/b", "bb")],
            [("app.db", "SQLite format 3\0 and more"), (".c", "x")],
        ] {
            assert!(!covered(&snapshot, &there).is_remnant(), "{there:?}");
        }
        let hollow = [("a", ""), ("b", ""), (".c", "")];
        assert!(
            covered(&snapshot, &hollow).is_remnant(),
            "what lost its content is not left"
        );
        assert!(!covered(&[], &[]).is_remnant(), "there was nothing");
        let replicated = || [Path::new("app.db")].into_iter();
        let emptied = volume(&[]);
        assert!(cover(&plan(&[]), replicated(), emptied.path()).is_remnant());
    }

    #[test]
    fn files_beside_the_snapshots_are_in_nobodys_way() {
        let snapshot = [("config.yaml", "mine"), ("d/a", "aa")];
        assert!(covered(&snapshot, &[("generated", "x"), ("d/b", "y")]).is_apart());
        for there in ["config.yaml", "d", "d/a", "config.yaml/x"] {
            assert!(!covered(&snapshot, &[(there, "x")]).is_apart(), "{there}");
        }
        let replicated = || [Path::new("app.db")].into_iter();
        let fresh = volume(&[("app.db", &database(10))]);
        assert!(!cover(&plan(&snapshot), replicated(), fresh.path()).is_apart());
    }

    #[test]
    fn files_of_a_place_made_by_hand_are_told_by_name_and_size() {
        let mut plan = plan(&[("a", "aa"), ("b", "bb"), ("c", "cc"), ("d", "dd")]);
        for item in &mut plan.items {
            if let Planned::File(content, given) = &mut item.what {
                content.sha256 = None;
                *given = None;
            }
        }
        let there = volume(&[("a", "xx"), ("b", "xx"), ("moved", "cc"), ("d", "longer")]);
        let coverage = cover(&plan, std::iter::empty(), there.path());
        assert_eq!((coverage.there.files, coverage.of.files), (2, 4));
    }
}
