//! A listing of `history/` → where the content of a file lies as it was in a snapshot, and where else copies of it may lie.

use super::snapshot::SnapshotId;
use super::{Depth, Error, Store, keys};
use std::collections::{BTreeSet, HashMap};

/// What `history/` holds: for each stored file (folder and name), the backups that replaced it, ascending, each with the
/// size of what it kept.
#[derive(Clone, Debug, Default)]
pub struct History(HashMap<String, Vec<(SnapshotId, u64)>>);

impl History {
    /// Lists it.
    pub async fn list(store: &dyn Store) -> Result<Self, Error> {
        let mut files: HashMap<String, Vec<(SnapshotId, u64)>> = HashMap::new();
        store
            .list(keys::HISTORY, Depth::All, &mut |object| {
                if let Some((id, file)) = keys::of_history(&object.name) {
                    files.entry(file.to_owned()).or_default().push((id, object.size));
                }
            })
            .await?;
        for kept in files.values_mut() {
            kept.sort_unstable();
        }
        Ok(Self(files))
    }

    /// The key of a file's content as it was in a snapshot: the first later backup that replaced it has it, and the
    /// mirror where none did.
    #[must_use]
    pub fn key(&self, snapshot: &SnapshotId, folder: &str, name: &str) -> String {
        let file = format!("{folder}/{name}");
        let kept = self.0.get(&file).map_or(&[][..], Vec::as_slice);
        match kept.iter().find(|(id, _)| id.point() > snapshot.point()) {
            Some((id, _)) => format!("{}/{file}", keys::history_of(id)),
            None => file,
        }
    }

    /// Every key below which a content of this size may lie of the file (folder and name): the newest first.
    #[must_use]
    pub fn copies(&self, file: &str, size: u64) -> Vec<String> {
        let kept = self.0.get(file).map_or(&[][..], Vec::as_slice).iter().rev();
        let kept = kept
            .filter(|(_, found)| *found == size)
            .map(|(id, _)| format!("{}/{file}", keys::history_of(id)));
        std::iter::once(file.to_owned()).chain(kept).collect()
    }

    /// Whether another listing has the same of these files (folder and name).
    #[must_use]
    pub fn agrees(&self, other: &Self, files: &BTreeSet<String>) -> bool {
        files.iter().all(|file| self.0.get(file) == other.0.get(file))
    }

    /// The files that backups after this snapshot have replaced or deleted: what the mirror has under their names, if anything,
    /// is not the snapshot's.
    pub fn replaced_after(&self, snapshot: &SnapshotId) -> impl Iterator<Item = &str> {
        let is_later = |kept: &[(SnapshotId, u64)]| kept.last().is_some_and(|(id, _)| id.point() > snapshot.point());
        let point = self.0.iter().filter(move |(_, kept)| is_later(kept));
        point.map(|(file, _)| file.as_str())
    }
}

/// The stored file (folder and name) whose content lies below a key, in the mirror or in history.
#[must_use]
pub fn file_of(key: &str) -> &str {
    let of_history = key
        .strip_prefix(keys::HISTORY)
        .and_then(|below| below.strip_prefix('/'));
    of_history.and_then(keys::of_history).map_or(key, |(_, file)| file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn the_first_later_backup_has_what_a_snapshot_had_and_copies_are_looked_for_everywhere() {
        let store = Memory::default();
        for (key, content) in [
            ("history/20261122T130000Z-1.2-auto/config/a", "one"),
            ("history/20261122T140000Z-1.10-auto/config/a", "three"),
            ("history/20261122T150000Z-2.1-auto/config/a", "two"),
            ("history/.DS_Store", "x"),
        ] {
            store.write(key, content.as_bytes()).await.unwrap();
        }
        let history = History::list(&store).await.unwrap();
        for (snapshot, expected) in [
            (
                "20261122T120000Z-1.1-auto",
                "history/20261122T130000Z-1.2-auto/config/a",
            ),
            (
                "20261122T130000Z-1.2-auto",
                "history/20261122T140000Z-1.10-auto/config/a",
            ),
            ("20261122T150000Z-2.1-auto", "config/a"),
        ] {
            let key = history.key(&snapshot.parse().unwrap(), "config", "a");
            assert_eq!((key.as_str(), file_of(&key)), (expected, "config/a"));
        }
        assert_eq!(
            history.copies("config/a", 3),
            [
                "config/a",
                "history/20261122T150000Z-2.1-auto/config/a",
                "history/20261122T130000Z-1.2-auto/config/a"
            ]
        );
        let after = |snapshot: &str| history.replaced_after(&snapshot.parse().unwrap()).count();
        assert_eq!(after("20261122T140000Z-1.10-auto"), 1);
        assert_eq!(after("20261122T150000Z-2.1-auto"), 0);
    }
}
