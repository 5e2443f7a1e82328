//! Tables that are written, read and searched.

use super::*;

fn record(path: &str, size: u64) -> Record {
    Record {
        entry: Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            size,
            modified: -5,
            mode: 0o640,
            uid: 1000,
            gid: 33,
            inode: 7,
            changed: 9,
            target: b"t".to_vec(),
        },
        digest: size.is_multiple_of(2).then_some([u8::try_from(size).unwrap(); 32]),
        stored_size: size + 1,
        stored: Point {
            epoch: 3,
            sequence: size,
        },
        database: size == 3,
        torn: size == 4,
        standing: match size {
            2 => Standing::Held(HoldId::new(0xfedc_ba98)),
            3 => Standing::Excluded,
            _ => Standing::Live,
        },
    }
}

fn table(folder: &Path, paths: &[&str]) -> Table {
    let mut writer = TableWriter::create(&folder.join("known.table")).unwrap();
    for (size, path) in paths.iter().enumerate() {
        writer.push(&record(path, size as u64)).unwrap();
    }
    writer.finish().unwrap()
}

const PATHS: [&str; 6] = ["c/", "c/a.b", "c/a/", "c/a/x", "c/b", "d/"];

#[test]
fn what_is_written_is_read_back_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(folder.path(), &PATHS);
    let read: Vec<Record> = table.records().unwrap().map(Result::unwrap).collect();
    let written: Vec<Record> = PATHS.iter().enumerate().map(|(i, p)| record(p, i as u64)).collect();
    assert_eq!(read, written);
    let totals = table.tally().totals();
    assert_eq!((totals.files, totals.bytes), (6, 21));
    assert_eq!(table.tally().live.totals.files, 4);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_path_is_found_and_so_is_what_lies_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(folder.path(), &PATHS);
    for (size, path) in PATHS.iter().enumerate() {
        assert_eq!(table.get(path.as_bytes()).unwrap(), Some(record(path, size as u64)));
    }
    for absent in ["", "a", "c/a", "c/a/w", "e"] {
        assert_eq!(table.get(absent.as_bytes()).unwrap(), None, "{absent}");
    }
    let below = |path: &str| -> Vec<String> {
        table
            .below(path.as_bytes())
            .unwrap()
            .map(|r| String::from_utf8(r.unwrap().entry.path).unwrap())
            .collect()
    };
    assert_eq!(below("c/"), ["c/", "c/a.b", "c/a/", "c/a/x", "c/b"]);
    assert_eq!(below("c/a/"), ["c/a/", "c/a/x"]);
    assert!(below("c/b/").is_empty() && below("zz/").is_empty());
}

#[test]
fn a_reader_keeps_its_table_when_a_newer_one_takes_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let old = table(folder.path(), &PATHS);
    let new = table(folder.path(), &["z/"]);
    assert_eq!(old.records().unwrap().count(), 6);
    assert_eq!(new.records().unwrap().count(), 1);
}

#[test]
fn a_truncated_table_is_damaged_never_short() {
    let folder = tempfile::tempdir().unwrap();
    table(folder.path(), &PATHS);
    let path = folder.path().join("known.table");
    let whole = fs::read(&path).unwrap();
    for length in [0, 10, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(
            matches!(Table::open(&path, Tally::default()), Err(TableError::Damaged { .. })),
            "{length}"
        );
    }
}

#[test]
fn records_out_of_order_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = TableWriter::create(&folder.path().join("t")).unwrap();
    writer.push(&record("a/b", 1)).unwrap();
    assert!(writer.push(&record("a.b", 1)).is_err());
}
