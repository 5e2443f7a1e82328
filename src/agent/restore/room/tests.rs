//! Plans over a store in memory, and a volume that has room for so many bytes.

use super::super::plan::Content;
use super::super::stage::Watch;
use super::*;
use crate::agent::volume::marker::Mode;
use crate::store::faulty::{Fault, Faulty};
use crate::store::index::{Attributes, HoldId, Standing};
use crate::store::memory::Memory;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tempfile::TempDir;

const HELD: Standing = Standing::Held(HoldId::new(7));

struct Bed {
    memory: Arc<Memory>,
    volume: TempDir,
    plan: Plan,
}

impl Bed {
    /// Files, each of ten bytes.
    fn new(files: &[(&str, Standing)]) -> Self {
        let memory = Arc::new(Memory::default());
        let items = files.iter().map(|(path, standing)| {
            let (key, bytes) = (format!("config/{path}"), format!("{path:<10}").into_bytes());
            let content = Content {
                key: key.clone(),
                size: bytes.len() as u64,
                sha256: Some(Sha256::digest(&bytes).into()),
            };
            memory.objects().insert(key, bytes);
            Item {
                path: path.into(),
                what: Planned::File(content, None),
                standing: *standing,
            }
        });
        let plan = Plan {
            snapshot: None,
            items: items.collect(),
        };
        Self {
            memory,
            volume: tempfile::tempdir().unwrap(),
            plan,
        }
    }

    fn incoming(&self) -> PathBuf {
        self.volume.path().join(".vixens-backup/incoming")
    }

    /// Stages what there is room for: what is staged, and what was left out.
    async fn stage(&self, room: u64) -> Result<(Vec<String>, Vec<String>, Vec<Lacking>), Error> {
        let incoming = self.incoming();
        let fetch = Fetch {
            store: &Faulty::new(&self.memory, Fault::RoomFor(room)),
            volume: self.volume.path(),
            incoming: &incoming,
            mode: Mode::Whole,
            watch: Watch::nobody(),
            has_snapshots: false,
        };
        let mut plan = self.plan.clone();
        let Fitted { lacking, left_out } = fetch.stage_what_fits(&mut plan).await?;
        let paths = |what: &mut dyn Iterator<Item = &Item>| what.map(|item| item.path.display().to_string()).collect();
        let missing: Vec<String> = paths(&mut plan.items.iter().filter(|item| item.what == Planned::Missing));
        assert_eq!(missing.len(), left_out.paths.len());
        assert_eq!(left_out.bytes, 10 * missing.len() as u64);
        let staged = paths(&mut plan.items.iter().filter(|item| {
            key(item).is_some_and(|key| fs::metadata(incoming.join(key)).is_ok_and(|found| found.len() == 10))
        }));
        Ok((staged, missing, lacking))
    }
}

fn some() -> Bed {
    Bed::new(&[
        ("a", HELD),
        ("b", Standing::Live),
        ("c", Standing::Excluded),
        ("d", Standing::Live),
        ("e", HELD),
    ])
}

#[tokio::test]
async fn live_entries_come_first_and_of_the_others_as_many_as_there_is_room_for() {
    for (room, staged, left_out) in [
        (50, &["a", "b", "c", "d", "e"][..], &[][..]),
        (49, &["a", "b", "c", "d"], &["e"]),
        (30, &["a", "b", "d"], &["c", "e"]),
        (20, &["b", "d"], &["a", "c", "e"]),
    ] {
        let (found, missing, lacking) = some().stage(room).await.unwrap();
        assert_eq!(
            (found, missing, lacking),
            (owned(staged), owned(left_out), Vec::new()),
            "{room}"
        );
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn where_there_is_no_room_for_live_entries_nothing_is_left_out_in_silence() {
    let error = some().stage(19).await.unwrap_err();
    assert!(error.lacks_room(), "{error}");
}

#[tokio::test]
async fn what_an_earlier_attempt_has_staged_gives_way_to_live_entries() {
    let bed = some();
    let held = Bed {
        plan: part(&bed.plan, is_carried_file),
        memory: bed.memory.clone(),
        volume: bed.volume,
    };
    assert_eq!(held.stage(30).await.unwrap().0, owned(&["a", "c", "e"]));
    let bed = Bed { plan: bed.plan, ..held };
    let (staged, left_out, _) = bed.stage(30).await.unwrap();
    assert_eq!((staged, left_out), (owned(&["a", "b", "d"]), owned(&["c", "e"])));
    // Again, as the next start does after this one was killed.
    let (staged, left_out, _) = bed.stage(40).await.unwrap();
    assert_eq!((staged, left_out), (owned(&["a", "b", "c", "d"]), owned(&["e"])));
}

#[tokio::test]
async fn what_the_store_lacks_is_told_whether_there_is_room_or_not() {
    let none: &[&str] = &[];
    for (room, lacks, leaves) in [
        (1_000, &["config/a", "config/b"][..], none),
        (20, &["config/b"], &["a", "e"]),
    ] {
        let bed = some();
        for name in ["a", "b"] {
            bed.memory.objects().remove(&format!("config/{name}"));
        }
        let (_, left_out, lacking) = bed.stage(room).await.unwrap();
        let keys: Vec<String> = lacking.into_iter().map(|one| one.key).collect();
        assert_eq!((keys, left_out), (owned(lacks), owned(leaves)), "{room}");
    }
}

#[test]
fn a_folder_that_is_left_with_nothing_is_not_made() {
    let item = |path: &str, what: Planned, standing: Standing| Item {
        path: path.into(),
        what,
        standing,
    };
    let folder = || Planned::Folder(Attributes::default());
    let file = |key: &str| {
        let content = Content {
            key: key.to_owned(),
            size: 1,
            sha256: None,
        };
        Planned::File(content, None)
    };
    let mut plan = Plan {
        snapshot: None,
        items: vec![
            item("", folder(), Standing::Live),
            item("gone", folder(), HELD),
            item("gone/deep", folder(), HELD),
            item("gone/deep/a", file("a"), HELD),
            item("hollow", folder(), HELD),
            item("hollow/empty", folder(), HELD),
            item("hollow/b", file("b"), HELD),
            item("lived", folder(), Standing::Live),
            item("lived/c", file("c"), Standing::Excluded),
            item("partly", folder(), HELD),
            item("partly/d", file("d"), HELD),
            item("partly/e", file("e"), HELD),
            item("there", folder(), HELD),
            item("there/f", file("f"), HELD),
        ],
    };
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("there")).unwrap();
    let keys = ["a", "b", "c", "d", "f"].map(str::to_owned).into();
    let left_out = plan.leave_out(&keys, volume.path());
    let names: Vec<String> = left_out.paths.iter().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["gone/deep/a", "hollow/b", "lived/c", "partly/d", "there/f"]);
    let made = plan.items.iter().filter(|item| item.what != Planned::Missing);
    let made: Vec<String> = made.map(|item| item.path.display().to_string()).collect();
    let expected = ["", "hollow", "hollow/empty", "lived", "partly", "partly/e", "there"];
    assert_eq!(made, expected);
}

#[test]
fn a_file_takes_whole_blocks_and_an_entry_of_its_own() {
    let mut room = Room {
        free: 8192,
        block: 4096,
        files: Some(3),
        ..Room::default()
    };
    assert!(room.take(1) && room.take(0) && !room.take(4097));
    assert_eq!((room.free, room.files), (4096, Some(1)));
    assert!(room.take(4096) && !room.take(0), "no more files");
}
