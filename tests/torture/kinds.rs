//! One object of every kind that this release can write, with everything in it that it can say → the former release, which
//! stops at names that it does not know and passes over fields: it reads the place, ends what was begun, and goes on.

use super::former::{Both, assert_same};
use super::support::pod::block_on;
use jiff::Timestamp;
use vixens_backup::agent::arguments::{QuestionId, QuestionKind};
use vixens_backup::agent::lease::reverted;
use vixens_backup::agent::litestream::lineage::Run;
use vixens_backup::agent::litestream::ltx::Txid;
use vixens_backup::agent::litestream::registry::{Registered, Registry};
use vixens_backup::store::claims::{self, Claim};
use vixens_backup::store::records::{Pending, Pin, Request, VERSION, encode};
use vixens_backup::store::snapshot::{Kind, SnapshotId};
use vixens_backup::store::state::{self, Mode, Pruning, State};
use vixens_backup::store::{Store, decisions, keys, served};

/// How the name of each kind begins and ends, as `keys` makes them.
const KINDS: [(&str, &str); 17] = [
    ("config/", "documents"),
    ("config/.vixens-names/", ""),
    ("history/", "/config/a"),
    ("history/", "/.vixens-aside/config/unsaved"),
    ("history/", "/.vixens-aside/index.json"),
    ("snapshots/", ".json"),
    ("snapshots/", ".base"),
    ("snapshots/", ".pending"),
    ("claims/", ".json"),
    ("served/", ""),
    ("pins/before-sync", ".json"),
    ("pins/reverted-", ".json"),
    ("requests/", ".json"),
    ("database/.vixens-databases", ".json"),
    ("state", ".json"),
    ("store-id", ""),
    ("database/", ".ltx"),
];

#[test]
fn every_kind_of_object_that_ours_writes_is_understood_or_passed_over_by_the_former_release() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.write("a", "first");
    both.write("documents", "kept");
    both.write("line\nbreak", "named by its hash");
    let mut pod = both.ours(&[]);
    let first = both.backup(&mut pod);
    both.write("a", "second");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    // What is in no snapshot is set aside by a restore-at.
    both.write("unsaved", "in no snapshot");
    let at = format!("--restore-at={first}");
    let mut pod = both.ours(&[&at]);
    both.write("a", "third");
    let last = both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = both.volume();
    let replaced = block_on(fill(&both.place(), last.parse().unwrap()));
    let names = both.names("");
    for (begins, ends) in KINDS {
        let is_it = |name: &String| name.starts_with(begins) && name.ends_with(ends);
        assert!(names.iter().any(is_it), "nothing is called {begins}…{ends}: {names:#?}");
    }
    let store_id = block_on(both.place().read(keys::STORE_ID)).unwrap();
    both.workload.lose_volume();
    let mut pod = both.former(&[&at]);
    assert_same(&whole, &both.volume(), "the former release restores");
    both.write("a", "fourth");
    let id = both.backup(&mut pod);
    Both::stop(&mut pod);
    let log = pod.whole_log();
    assert!(log.contains(&format!("{replaced} was undone")), "{log}");
    let now = both.volume();
    both.assert_is(&id, &now);
    both.assert_is(&last, &whole);
    assert_eq!(block_on(both.place().read(keys::STORE_ID)).unwrap(), store_id);
    // And ours finds again what it has written.
    both.workload.lose_volume();
    let mut pod = both.ours(&[&at]);
    assert_same(&now, &both.volume(), "ours restores");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    both.assert_is("newest", &now);
}

/// Writes what a short life does not leave: the id of a backup that was begun and replaced a file.
async fn fill(place: &impl Store, last: SnapshotId) -> SnapshotId {
    let now = Timestamp::now();
    let write = async |key: String, content: Vec<u8>| place.write(&key, &content).await.unwrap();
    let known = state::read(place).await.unwrap().unwrap();
    let holder = claims::list(place).await.unwrap().pop().unwrap();
    // Each is written out, so that a field that is added has to be added here.
    let claim = claims::read(place, &holder).await.unwrap();
    let Claim { owner, start, .. } = claim;
    assert!(start.is_some());
    let state = State {
        version: VERSION,
        epoch: known.epoch,
        volume_id: known.volume_id,
        pod: known.pod,
        owner: Some(owner),
        heartbeat: known.heartbeat,
        released: true,
        stopping: false,
        last: known.last,
        last_success: known.last_success,
        owed: false,
        files: known.files,
        bytes: known.bytes,
        mode: Some(Mode::Cronjob),
        beside: true,
        beside_since: Some(now),
        pruning: Some(Pruning {
            rules: "7d".to_owned(),
            put_off: Some(now),
        }),
    };
    write(keys::STATE.to_owned(), encode(&state)).await;
    let begun = SnapshotId::new(now, last.epoch, last.sequence + 1, Kind::Auto);
    let pending = Pending {
        version: VERSION,
        id: begun,
        time: now,
        undone: false,
    };
    write(keys::pending(&begun), encode(&pending)).await;
    write(keys::base(&begun), b"half of a twin".to_vec()).await;
    let before = place.read("config/a").await.unwrap();
    write(format!("{}/a", keys::history(&begun, "config")), before).await;
    write("config/a".to_owned(), b"of a backup that never ended".to_vec()).await;
    // A backup that has ended, but for its mark.
    let ended = Pending { id: last, ..pending };
    write(keys::pending(&last), encode(&ended)).await;
    served::record(place, "2026-11-22T14:00:00Z", last).await.unwrap();
    let question = QuestionId::new(QuestionKind::Hold, &[b"what vanished"]);
    decisions::record(place, &question, "may it go?").await.unwrap();
    let pin = Pin {
        version: VERSION,
        snapshot: last,
        time: now,
        reason: "before a sync".to_owned(),
    };
    write(keys::pin("before-sync"), encode(&pin)).await;
    reverted::pin(place, last, "data").await.unwrap();
    let request = Request {
        version: VERSION,
        time: now,
        manual: true,
        accept: Some(question.to_string()),
        damaged: vec!["config/a".to_owned()],
        answer: None,
    };
    write(keys::request("0123456789abcdef"), encode(&request)).await;
    let database = Registered {
        folder: "elsewhere".to_owned(),
        path: "app.db".to_owned(),
        uid: 0,
        gid: 0,
        mode: 0o644,
        replicated: true,
        gone: None,
        needed_by: Some(last),
        left_at: Some(Txid(7)),
        runs: vec![Run::begun(&[], 1, Txid(0), None), Run::none(2)],
        beginnings: Vec::new(),
    };
    let registry = Registry {
        version: VERSION,
        databases: vec![database],
    };
    registry.write(place).await.unwrap();
    let replica = keys::database("elsewhere", "app.db/ltx/0/0000000000000001-0000000000000001.ltx");
    write(replica, b"x".to_vec()).await;
    begun
}
