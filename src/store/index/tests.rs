//! An index comes back as it was written, and anything less than the whole of it is damage.

use super::*;
use proptest::prelude::*;

fn header(base: Option<&str>) -> Header {
    Header {
        id: "20261122T130500Z-3.42-auto".parse().unwrap(),
        base: base.map(|id| id.parse().unwrap()),
        time: "2026-11-22T13:05:00.25Z".parse().unwrap(),
        volumes: vec![IndexedVolume {
            folder: "config".to_owned(),
            id: "ab12".to_owned(),
        }],
        databases: Vec::new(),
        skipped: BTreeMap::new(),
        carried: Carried::default(),
    }
}

fn attributes() -> Attributes {
    Attributes {
        modified: 1_732_280_700_123_456_789,
        uid: 1000,
        gid: 1001,
        mode: 0o4755,
    }
}

fn file(path: &[u8], size: u64) -> Entry {
    Entry {
        path: path.to_vec(),
        what: What::File(File {
            size,
            sha256: [7; 32],
            attributes: attributes(),
            stored: Point { epoch: 3, sequence: 42 },
            name: None,
            torn: false,
        }),
        standing: Standing::Live,
    }
}

fn gone(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        what: What::Gone,
        standing: Standing::Live,
    }
}

fn entries() -> Vec<Entry> {
    let mut named = file(b"config/\xff\n", 3);
    if let What::File(file) = &mut named.what {
        file.name = Some(".vixens-names/00".to_owned());
        file.torn = true;
    }
    vec![
        Entry {
            path: b"config/".to_vec(),
            what: What::Folder(attributes()),
            standing: Standing::Live,
        },
        file(b"config/a", 12),
        Entry {
            path: b"config/a/".to_vec(),
            what: What::Folder(Attributes::default()),
            standing: Standing::Live,
        },
        Entry {
            path: b"config/link".to_vec(),
            what: What::Link(
                b"../\xfe".to_vec(),
                Attributes {
                    mode: 0,
                    ..attributes()
                },
            ),
            standing: Standing::Live,
        },
        named,
    ]
}

fn written(header: &Header, entries: &[Entry]) -> Vec<u8> {
    let mut writer = IndexWriter::new(Vec::new(), header).unwrap();
    let mut totals = Totals::default();
    for entry in entries {
        writer.push(entry).unwrap();
        totals.add(entry);
    }
    writer.finish(totals).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Header, Vec<Entry>, Option<Totals>), Damage> {
    let mut reader = IndexReader::new(bytes)?;
    let entries = reader.by_ref().collect::<Result<_, _>>()?;
    Ok((reader.header().clone(), entries, reader.totals()))
}

#[test]
fn an_index_comes_back_as_it_was_written() {
    let bytes = written(&header(None), &entries());
    let totals = Totals { files: 2, bytes: 15 };
    assert_eq!(read(&bytes), Ok((header(None), entries(), Some(totals))));
    // People look at it: it is plain JSON.
    serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
}

/// What an index has when half of it is not on the volume any more.
fn carried() -> (Header, Vec<Entry>) {
    let (mut header, mut entries) = (header(None), entries());
    let hold = HoldId::new(0x1a2b_3c4d);
    let standings = [
        Standing::Live,
        Standing::Held(hold),
        Standing::Held(hold),
        Standing::Excluded,
        Standing::Excluded,
    ];
    for (entry, standing) in entries.iter_mut().zip(standings) {
        entry.standing = standing;
        header.carried.mark(entry);
    }
    header.carried.holds.push(Hold {
        id: hold,
        since: "2026-11-22T13:05:00Z".parse().unwrap(),
        totals: Totals { files: 1, bytes: 12 },
    });
    header.carried.excluded = Totals { files: 1, bytes: 3 };
    (header, entries)
}

#[test]
fn how_files_folders_and_links_stand_comes_back() {
    let (header, entries) = carried();
    let bytes = written(&header, &entries);
    let (found, read, _) = read(&bytes).unwrap();
    assert_eq!((found, read), (header, entries));
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(r#""holds":[{"id":"hold-1a2b3c4d","since":"2026-11-22T13:05:00Z","files":1,"bytes":12}]"#));
    assert!(text.contains(r#""marked":[["hold-1a2b3c4d","config/a/"],["excluded","config/link"]]"#));
}

#[test]
fn a_line_holds_no_more_than_the_releases_before_read() {
    let (header, entries) = carried();
    let text = String::from_utf8(written(&header, &entries)).unwrap();
    for line in text.lines().filter(|line| line.starts_with('[')) {
        let line: Vec<serde_json::Value> = serde_json::from_str(line.trim_end_matches(',')).unwrap();
        let longest = if line[0] == "f" { 10 } else { 6 };
        assert!(line.len() <= longest, "{line:?}");
    }
}

#[test]
fn a_folder_that_the_header_does_not_speak_of_is_not_written_as_held() {
    let (_, entries) = carried();
    let mut writer = IndexWriter::new(Vec::new(), &header(None)).unwrap();
    writer.push(&entries[0]).unwrap();
    writer.push(&entries[1]).unwrap();
    assert!(writer.push(&entries[2]).is_err());
}

#[test]
fn an_index_without_files_comes_back() {
    let bytes = written(&header(None), &[]);
    assert_eq!(read(&bytes).unwrap().1, Vec::new());
    serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
}

#[test]
fn an_index_that_is_cut_off_anywhere_is_damaged() {
    let bytes = written(&header(None), &entries());
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn an_index_with_a_flipped_bit_is_damaged() {
    let bytes = written(&header(None), &entries());
    for position in 0..bytes.len() - 1 {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1;
        assert!(read(&flipped).is_err(), "byte {position}");
    }
}

#[test]
fn an_index_of_a_newer_version_is_of_a_newer_release_and_never_damaged() {
    let text = String::from_utf8(written(&header(None), &[])).unwrap();
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    let damage = read(newer.as_bytes()).unwrap_err();
    assert!(matches!(damage, Damage::Newer(_)), "{damage}");
}

#[test]
fn a_path_that_leads_out_of_its_volume_is_damage() {
    for path in [
        b"config/../etc/passwd".as_slice(),
        b"/etc/passwd",
        b"config//x",
        b"config/a\0b",
        b"passwd",
        b"",
    ] {
        let bytes = written(&header(None), &[file(path, 1)]);
        assert!(read(&bytes).is_err(), "{}", String::from_utf8_lossy(path));
    }
}

#[test]
fn a_base_of_another_epoch_is_damage() {
    assert!(read(&written(&header(Some("20261122T130400Z-3.41-auto")), &[])).is_ok());
    assert!(read(&written(&header(Some("20261122T130400Z-2.41-auto")), &[])).is_err());
    assert!(read(&written(&header(Some("20261122T130400Z-3.42-auto")), &[])).is_err());
}

#[test]
fn entries_out_of_order_are_refused_by_the_writer() {
    let mut writer = IndexWriter::new(Vec::new(), &header(None)).unwrap();
    writer.push(&file(b"config/b", 1)).unwrap();
    assert!(writer.push(&file(b"config/a", 1)).is_err());
    assert!(writer.push(&file(b"config/b", 1)).is_err());
}

#[test]
fn changes_win_over_the_base_and_what_is_gone_is_gone() {
    let base = [file(b"config/a", 1), file(b"config/b", 1), file(b"config/c", 1)];
    let changes = [gone(b"config/a"), file(b"config/b", 2), file(b"config/d", 4)];
    let all: Result<Vec<Entry>, Damage> =
        merged(base.iter().cloned().map(Ok), changes.iter().cloned().map(Ok)).collect();
    assert_eq!(
        all,
        Ok(vec![file(b"config/b", 2), file(b"config/c", 1), file(b"config/d", 4)])
    );
}

proptest! {
    #[test]
    fn any_name_that_a_file_can_have_comes_back(
        names in prop::collection::btree_set(prop::collection::vec(any::<u8>().prop_filter("a name", |byte| ![0, b'/'].contains(byte)), 1..40), 0..20),
        size in any::<u64>(),
        modified in any::<i64>(),
    ) {
        let entries: Vec<Entry> = names
            .iter()
            .filter(|name| ![b".".to_vec(), b"..".to_vec()].contains(name))
            .map(|name| {
                let mut entry = file(&[b"config/", name.as_slice()].concat(), size % 1_000_000);
                if let What::File(file) = &mut entry.what {
                    file.attributes.modified = modified;
                }
                entry
            })
            .collect();
        let bytes = written(&header(None), &entries);
        prop_assert_eq!(read(&bytes).unwrap().1, entries);
    }
}
