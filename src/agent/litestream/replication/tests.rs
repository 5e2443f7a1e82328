//! Databases that come and go, and what is said of each.

use super::*;
use crate::store::index::{Carried, Header};

fn run(run: &str, after: u64) -> Run {
    Run {
        run: run.parse().unwrap(),
        after: Some(Txid(after)),
    }
}

fn header(databases: Vec<DatabasePosition>) -> Header {
    Header {
        id: "20261122T130500Z-1.42-auto".parse().unwrap(),
        base: None,
        time: Timestamp::UNIX_EPOCH,
        volumes: Vec::new(),
        databases,
        skipped: BTreeMap::new(),
        carried: Carried::default(),
    }
}

fn replication(which: &str) -> Replication {
    Replication::new(which.parse().unwrap(), Profile::Standard, PathBuf::from("/nowhere"))
}

#[test]
fn what_is_replicated_and_how_is_what_the_annotations_say() {
    let auto = replication("auto");
    assert_eq!(auto.profile_of(b"sub/app.db"), Some(Profile::Standard));
    assert_eq!(auto.profile_of(b"\xff.db"), None, "no name for a store");
    for name in ["a#.db", "a?.db", "100%.db"] {
        assert_eq!(auto.profile_of(name.as_bytes()), None, "{name}");
    }
    let paths = replication("a.db=critical,sub/b.db,c.db=ephemeral");
    assert_eq!(paths.profile_of(b"a.db"), Some(Profile::Critical));
    assert_eq!(paths.profile_of(b"sub/b.db"), Some(Profile::Standard));
    assert_eq!(paths.profile_of(b"c.db"), None);
    assert_eq!(paths.profile_of(b"d.db"), None);
    assert_eq!(replication("none").profile_of(b"a.db"), None);
    let ephemeral = Replication::new(Databases::Auto, Profile::Ephemeral, PathBuf::new());
    assert_eq!(ephemeral.found(b"config/a.db", "/a.db".into(), false), Treatment::Saved);
}

#[test]
fn a_database_leaves_the_files_once_its_replica_was_seen_and_comes_back_when_that_fails() {
    let replication = replication("auto");
    let path = b"config/a.db";
    let meet = || replication.found(path, "/config/a.db".into(), false);
    assert_eq!(meet(), Treatment::Kept);
    assert!(replication.knows(path));
    replication.change(path, |database| database.replicated = true);
    assert_eq!(meet(), Treatment::Replicated);
    replication.change(path, |database| database.failing = true);
    assert_eq!(meet(), Treatment::Saved);
    replication.lost(path);
    assert!(!replication.knows(path));
}

#[test]
fn a_database_that_is_met_by_the_last_backup_alone_is_saved_as_a_file() {
    let replication = replication("auto");
    let (path, another) = (b"config/a.db", b"config/b.db");
    assert_eq!(replication.found(path, "/a.db".into(), false), Treatment::Kept);
    replication.stop(Instant::now());
    assert_eq!(replication.found(path, "/a.db".into(), false), Treatment::Saved);
    assert_eq!(replication.found(another, "/b.db".into(), false), Treatment::Saved);
}

#[tokio::test]
async fn once_nothing_is_sent_any_more_only_a_complete_database_is_left_out_of_the_files() {
    let replication = replication("auto");
    let (sent, unsent) = (b"config/a.db", b"config/b.db");
    let file = tempfile::NamedTempFile::new().unwrap();
    let treatments = || [sent, unsent].map(|path| replication.found(path, file.path().into(), false));
    treatments();
    for path in [sent, unsent] {
        replication.begin(path, &[run("1.1", 7)], Txid(7), true, true);
    }
    replication.stop(Instant::now());
    assert_eq!(treatments(), [Treatment::Replicated; 2], "it is still being sent");
    replication.change(sent, |database| database.complete = true);
    replication.end();
    // Asked before the files are looked at: the snapshot has to say of what transaction the file is.
    let mut positions = replication.positions(true, 1).await;
    assert_eq!(treatments(), [Treatment::Replicated, Treatment::Saved]);
    let is_there = |path: &[u8]| path == unsent;
    replication
        .copies
        .note(&mut positions, &[unsent.to_vec()].into(), 1, is_there);
    let files: Vec<_> = positions
        .iter()
        .map(|position| (&*position.path, position.file.as_deref()))
        .collect();
    assert_eq!(files, [("a.db", None), ("b.db", Some("0000000000000007"))]);
}

#[test]
fn a_file_that_is_newer_than_its_replica_stays_until_the_replica_is_newer() {
    let path = b"config/a.db";
    let position = |run: Option<&str>, file: Option<Txid>| DatabasePosition {
        folder: "config".to_owned(),
        path: "a.db".to_owned(),
        txid: Txid(7).to_string(),
        time: Timestamp::UNIX_EPOCH,
        run: run.map(|run| run.parse().unwrap()),
        file: file.map(|txid| txid.to_string()),
        file_run: None,
    };
    // What the snapshot before said, the run that begins, whether it goes on, and what is newer than the file then.
    for (said, begun, goes_on, newer) in [
        // Sent before this life, or not: the run before says up to where it was.
        (position(Some("1.1"), Some(Txid(7))), run("2.1", 9), true, 8),
        (position(Some("1.1"), Some(Txid(70))), run("2.1", 9), false, 10),
        (position(Some("2.0"), Some(Txid::MAX)), run("3.1", 9), false, 10),
        // The former release's.
        (position(None, Some(Txid(7))), run("2.1", 9), true, 8),
        (position(None, Some(Txid::MAX)), run("2.1", 9), false, 10),
    ] {
        let replication = replication("auto");
        replication.copies.inherit(&header(vec![said.clone()]));
        let meet = || replication.found(path, "/a.db".into(), true);
        assert_eq!(meet(), Treatment::Kept, "{said:?}");
        replication.begin(path, &[run("1.1", 0), begun], Txid(9), goes_on, true);
        let mut at = newer - 1;
        if goes_on {
            // It was sent before this life already.
            assert!(replication.listed(path, Txid(9)));
        } else {
            assert!(!replication.listed(path, Txid(at)), "{said:?}");
            assert_eq!(meet(), Treatment::Kept, "nobody has seen it whole");
            at += 1;
            assert!(replication.listed(path, Txid(at)));
            replication.change(path, |database| database.replicated = true);
        }
        assert_eq!(meet(), Treatment::Replicated, "{said:?}");
    }
}

#[tokio::test]
async fn a_snapshot_says_of_what_transaction_a_file_is_that_was_not_sent() {
    let replication = replication("auto");
    let path = b"config/a.db";
    replication.found(path, "/nowhere/a.db".into(), false);
    let note = async |saved: bool, is_there: bool| {
        let mut positions = replication.positions(true, 4).await;
        let saved = saved.then(|| path.to_vec()).into_iter().collect();
        let noted = replication.copies.note(&mut positions, &saved, 4, |_| is_there);
        replication.copies.publish(noted);
        let said = positions.first();
        said.map(|said| (said.txid.clone(), said.run.unwrap().to_string(), said.file.clone()))
    };
    assert_eq!(note(false, false).await, None, "nothing is known of it");
    let all = Txid::MAX.to_string();
    let alone = Some((all.clone(), "4.0".to_owned(), Some(all)));
    assert_eq!(
        note(true, true).await,
        alone,
        "newer than anything that was sent before this life"
    );
    replication.begin(path, &[run("4.1", 7)], Txid(7), false, false);
    let seven = Txid(7).to_string();
    let kept = Some((seven.clone(), "4.1".to_owned(), Some(seven.clone())));
    assert_eq!(note(false, true).await, kept);
    replication.listed(path, Txid(9));
    let nine = Txid(9).to_string();
    let behind = Some((nine.clone(), "4.1".to_owned(), Some(seven)));
    assert_eq!(note(false, true).await, behind, "it is there still");
    let again = Some((nine.clone(), "4.1".to_owned(), Some(nine.clone())));
    assert_eq!(note(true, true).await, again);
    assert_eq!(note(false, false).await, Some((nine, "4.1".to_owned(), None)));
}

#[test]
fn once_fenced_the_place_is_not_held_again() {
    let replication = replication("auto");
    let holder = Holder {
        epoch: 1,
        volume_id: "a".to_owned(),
    };
    replication.hold(&holder, Instant::now());
    assert_eq!(replication.permission(), Permission::Held(holder.clone()));
    replication.fence();
    replication.hold(&holder, Instant::now());
    assert_eq!(replication.permission(), Permission::Fenced);
}
