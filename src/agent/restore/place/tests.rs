//! Plans on volumes where something is in the way.

use super::super::plan::Content;
use super::super::stage::{Fetch, Watch};
use super::*;
use crate::store::index::Standing;
use crate::store::keys::OWN_FOLDER;
use crate::store::memory::Memory;
use crate::store::{Depth, Store, listed};
use tempfile::TempDir;

/// A volume whose `sub` leads elsewhere, and a plan with `sub/deep/file`, with or without an entry for `sub`.
struct Bed {
    volume: TempDir,
    elsewhere: TempDir,
    plan: Plan,
}

impl Bed {
    fn new(named: bool) -> Self {
        let (volume, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(elsewhere.path(), volume.path().join("sub")).unwrap();
        let attributes = Attributes {
            mode: 0o700,
            ..attributes::of(&fs::metadata(volume.path()).unwrap())
        };
        let folders = ["sub", "sub/deep"].into_iter().filter(|_| named).map(|path| Item {
            standing: Standing::Live,
            path: path.into(),
            what: Planned::Folder(Attributes {
                mode: 0o751,
                ..attributes
            }),
        });
        let file = Item {
            standing: Standing::Live,
            path: "sub/deep/file".into(),
            what: Planned::File(
                Content {
                    key: "config/sub/deep/file".to_owned(),
                    size: 5,
                    sha256: None,
                },
                None,
            ),
        };
        let plan = Plan {
            snapshot: None,
            items: folders.chain([file]).collect(),
        };
        Self {
            volume,
            elsewhere,
            plan,
        }
    }

    async fn restore(&self, mode: Mode) -> Placed {
        let store = Memory::default();
        store.write("config/sub/deep/file", b"saved").await.unwrap();
        assert_eq!(listed(&store, "", Depth::All).await.unwrap().len(), 1);
        let incoming = self.volume.path().join(OWN_FOLDER).join("incoming");
        let volume = self.volume.path();
        staged(&store, &self.plan, volume, &incoming, mode).await;
        place(&self.plan, volume, &incoming, None, mode).unwrap()
    }
}

async fn staged(store: &Memory, plan: &Plan, volume: &Path, incoming: &Path, mode: Mode) {
    let fetch = Fetch {
        store,
        volume,
        incoming,
        mode,
        watch: Watch::nobody(),
        has_snapshots: false,
    };
    assert_eq!(fetch.stage(plan).await.unwrap(), []);
}

/// Restores these files onto a volume with those.
async fn missing(saved: &[(&str, &str)], there: &[(&str, &str)]) -> Vec<String> {
    let (store, volume) = (Memory::default(), tempfile::tempdir().unwrap());
    let mut plan = Plan::default();
    for (path, content) in saved {
        let key = format!("config/{path}");
        store.write(&key, content.as_bytes()).await.unwrap();
        let size = content.len() as u64;
        plan.items.push(Item {
            standing: Standing::Live,
            path: path.into(),
            what: Planned::File(
                Content {
                    key,
                    size,
                    sha256: None,
                },
                None,
            ),
        });
    }
    for (path, content) in there {
        fs::write(volume.path().join(path), content).unwrap();
    }
    let incoming = volume.path().join(OWN_FOLDER).join("incoming");
    staged(&store, &plan, volume.path(), &incoming, Mode::Missing).await;
    place(&plan, volume.path(), &incoming, None, Mode::Missing).unwrap();
    let names = fs::read_dir(volume.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name != OWN_FOLDER);
    names.sort_unstable();
    names
}

#[tokio::test]
async fn no_database_is_put_beside_the_log_of_another_state() {
    const DATABASE: &str = "SQLite format 3\0 and more";
    let saved = [("a.db", DATABASE), ("a.db-wal", "of the saved one"), ("b", "text")];
    let kept = missing(&saved, &[("a.db", DATABASE)]).await;
    assert_eq!(kept, ["a.db", "b"], "the log of one that stays is not brought");
    let left = missing(
        &saved[..1],
        &[("a.db-wal", "of what was deleted"), ("b-wal", "is only a name")],
    )
    .await;
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left[1].starts_with("a.db.damaged-20") && left[1].ends_with("Z-wal"),
        "{left:?}"
    );
    assert_eq!(missing(&saved[2..], &[("b-wal", "x")]).await, ["b", "b-wal"]);
}

#[tokio::test]
async fn what_is_missing_is_not_brought_through_a_link() {
    for named in [true, false] {
        let bed = Bed::new(named);
        // What happens to be behind the link looks like a folder that this restore has made.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(bed.elsewhere.path().join("deep"))
            .unwrap();
        let placed = bed.restore(Mode::Missing).await;
        assert_eq!(placed.files, 0, "{placed:?}");
        assert_eq!(
            fs::read_link(bed.volume.path().join("sub")).unwrap(),
            bed.elsewhere.path()
        );
        let deep = fs::metadata(bed.elsewhere.path().join("deep")).unwrap();
        assert_eq!(deep.mode() & 0o7777, 0o700, "its mode is none of ours");
        assert!(!bed.elsewhere.path().join("deep/file").exists());
    }
}

#[tokio::test]
async fn a_link_in_the_place_of_a_folder_goes_and_nothing_behind_it_is_touched() {
    for (named, mode) in [
        (true, Mode::Whole),
        (false, Mode::Whole),
        (true, Mode::Replace),
        (false, Mode::Replace),
    ] {
        let bed = Bed::new(named);
        // The very file, but not on the volume.
        let behind = bed.elsewhere.path().join("deep/file");
        fs::create_dir(behind.parent().unwrap()).unwrap();
        fs::write(&behind, "saved").unwrap();
        fs::set_permissions(&behind, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let placed = bed.restore(mode).await;
        assert_eq!(placed.files, 1, "{mode:?} {placed:?}");
        let target = bed.volume.path().join("sub/deep/file");
        assert!(fs::symlink_metadata(bed.volume.path().join("sub")).unwrap().is_dir());
        assert_eq!(fs::read(&target).unwrap(), b"saved");
        assert_eq!(fs::metadata(&behind).unwrap().mode() & 0o7777, 0o600);
    }
}
