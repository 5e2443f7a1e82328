//! What is known, and changed by what backups have done.

use super::*;
use crate::store::snapshot::Point;

fn record(path: &str, size: u64) -> Record {
    let kind = if path.ends_with('/') { Kind::Folder } else { Kind::File };
    let size = if kind == Kind::File { size } else { 0 };
    Record {
        entry: Entry {
            path: path.as_bytes().to_vec(),
            kind,
            size,
            modified: 5,
            mode: 0o644,
            uid: 1,
            gid: 2,
            inode: 0,
            changed: 0,
            target: Vec::new(),
        },
        digest: (kind == Kind::File).then_some([1; 32]),
        stored_size: size,
        stored: if kind == Kind::File {
            Point { epoch: 1, sequence: 2 }
        } else {
            Point { epoch: 0, sequence: 0 }
        },
        database: false,
        torn: false,
        standing: Standing::Live,
    }
}

fn known(folder: &std::path::Path, records: &[Record]) -> Known {
    let path = folder.join("known.table");
    let mut writer = TableWriter::create(&path).unwrap();
    for record in records {
        writer.push(record).unwrap();
    }
    Known::new(path, writer.finish().unwrap(), None, None)
}

fn paths<'a>(records: impl Iterator<Item = Result<Record, TableError>> + 'a) -> Vec<String> {
    records
        .map(|r| String::from_utf8(r.unwrap().entry.path).unwrap())
        .collect()
}

#[test]
fn changes_lie_over_the_base_and_a_new_base_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let known = known(
        folder.path(),
        &[
            record("v/", 0),
            record("v/a", 10),
            record("v/d/", 0),
            record("v/d/b", 20),
            record("v/z", 5),
        ],
    );
    assert_eq!(known.totals(), Totals { files: 3, bytes: 35 });
    let outcomes = || {
        [
            ("v/a", Some(record("v/a", 11))),
            ("v/d/b", None),
            ("v/d/c", Some(record("v/d/c", 1))),
            ("v/zz", Some(record("v/zz", 2))),
        ]
        .map(|(path, record)| Ok((path.as_bytes().to_vec(), record)))
    };
    let id = "20261122T130500Z-3.42-auto".parse().unwrap();
    let rebased = known.rebased(outcomes(), id, Timestamp::UNIX_EPOCH).unwrap();
    let known = known.changed(outcomes()).unwrap();
    let expected = ["v/", "v/a", "v/d/", "v/d/c", "v/z", "v/zz"];
    assert_eq!(paths(known.records().unwrap()), expected);
    assert_eq!(paths(known.below(b"v/d/").unwrap()), ["v/d/", "v/d/c"]);
    assert_eq!(known.get(b"v/a").unwrap().unwrap().entry.size, 11);
    assert_eq!(known.get(b"v/d/b").unwrap(), None);
    assert_eq!(known.totals(), Totals { files: 4, bytes: 19 });
    assert_eq!(known.changed_since_base(), 4);

    assert_eq!(paths(rebased.records().unwrap()), expected);
    assert_eq!(rebased.totals(), Totals { files: 4, bytes: 19 });
    assert_eq!((rebased.changed_since_base(), rebased.last()), (0, Some(id)));
}

#[test]
fn a_record_comes_back_from_an_index() {
    for record in [record("v/a", 3), record("v/f/", 0)] {
        assert_eq!(from_index(to_index(&record)), Some(record));
    }
    let odd = to_index(&record("v/trailing ", 3));
    assert!(odd.stored_name().unwrap().starts_with(".vixens-names/"));
}
