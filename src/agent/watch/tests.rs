//! What changes on a real folder, and what is seen of it.

use super::*;
use std::fs;

struct Volume {
    folder: tempfile::TempDir,
    watch: Watch,
}

impl Volume {
    fn new(folders: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in folders {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let filters = Filters::new(&[], &[], None).unwrap();
        let mut watch = Watch::start(&[(folder.path().to_owned(), "v".to_owned())], &filters).unwrap();
        assert!(watch.take_limited().is_none());
        Self { folder, watch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reads events until `path` is among the changes.
    async fn until(&mut self, path: &str) -> Changes {
        let mut changes = Changes::default();
        while !changes.paths.contains_key(path.as_bytes()) && !changes.everything {
            tokio::time::timeout(Duration::from_secs(10), self.watch.next(&mut changes))
                .await
                .unwrap_or_else(|_| panic!("no event for {path}, only {changes:?}"))
                .unwrap();
        }
        changes
    }
}

#[tokio::test]
async fn a_written_and_a_deleted_file_are_seen_by_their_names() {
    let mut volume = Volume::new(&["a/b"]);
    fs::write(volume.path("a/b/file"), "x").unwrap();
    volume.until("v/a/b/file").await;
    fs::remove_file(volume.path("a/b/file")).unwrap();
    let changes = volume.until("v/a/b/file").await;
    assert!(!changes.everything);
}

#[tokio::test]
async fn a_file_in_a_folder_that_was_just_made_is_not_missed() {
    let mut volume = Volume::new(&[]);
    fs::create_dir_all(volume.path("new/deep/er")).unwrap();
    let changes = volume.until("v/new").await;
    assert_eq!(
        changes.paths.get(b"v/new".as_slice()),
        Some(&true),
        "all of it is to be looked at"
    );
    fs::write(volume.path("new/deep/er/file"), "x").unwrap();
    volume.until("v/new/deep/er/file").await;
}

#[tokio::test]
async fn a_renamed_folder_is_two_changes_and_is_watched_under_its_new_name() {
    let mut volume = Volume::new(&["old/in", "other"]);
    fs::rename(volume.path("old"), volume.path("other/new")).unwrap();
    let changes = volume.until("v/other/new").await;
    assert_eq!(changes.paths.get(b"v/old".as_slice()), Some(&true));
    fs::write(volume.path("other/new/in/file"), "x").unwrap();
    let changes = volume.until("v/other/new/in/file").await;
    assert!(
        !changes.paths.keys().any(|path| path.starts_with(b"v/old")),
        "{changes:?}"
    );
    assert_eq!(volume.watch.watched(), 4);
}

#[tokio::test]
async fn what_is_left_out_wakes_nobody() {
    let mut volume = Volume::new(&[".vixens-backup", ".cache"]);
    fs::write(volume.path(".vixens-backup/volume.json"), "x").unwrap();
    fs::write(volume.path(".cache/x"), "x").unwrap();
    fs::write(volume.path("app.log"), "x").unwrap();
    fs::write(volume.path("last"), "x").unwrap();
    let changes = volume.until("v/last").await;
    assert_eq!(changes.paths.keys().collect::<Vec<_>>(), [b"v/last"]);
    assert_eq!(volume.watch.watched(), 1);
}

#[tokio::test]
async fn deleted_folders_leave_nothing_behind() {
    let mut volume = Volume::new(&["keep"]);
    for round in 0..3 {
        fs::create_dir_all(volume.path("a/b/c")).unwrap();
        volume.until("v/a").await;
        fs::remove_dir_all(volume.path("a")).unwrap();
        fs::write(volume.path("keep/mark"), format!("{round}")).unwrap();
        volume.until("v/keep/mark").await;
    }
    assert_eq!(volume.watch.watched(), 2);
    assert!(volume.watch.nodes.len() <= 5, "{}", volume.watch.nodes.len());
}

#[test]
fn too_many_paths_become_a_scan() {
    let mut changes = Changes::default();
    for index in 0..=MOST_PATHS {
        changes.add(index.to_string().into_bytes(), false);
    }
    assert!(changes.everything && changes.paths.is_empty());
    changes.add(b"more".to_vec(), true);
    assert!(changes.paths.is_empty());
}
