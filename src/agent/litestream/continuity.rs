//! Whether a Litestream that was started anew goes on exactly where the one before ended. It looks for the last page that it
//! sent; where the app has begun its log anew meanwhile and not overwritten that page yet, 0.5 takes the new log for all that
//! there is, and what was written between is missing from the replica without a word (seen: 14 rows of 15,000 gone from the
//! middle, and `integrity_check` content). So each start is judged by what Litestream then writes: it continues in the same
//! log, or it is the whole database; else the log is emptied, which makes Litestream begin with the whole database.
//!
//! Reads the first bytes of the log, and the head and the index of Litestream's own files.

use super::local::{beside, folder, position};
use super::ltx::{File, Txid};
use crate::agent::database::WAL;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

/// The length of a file's head, and of its end.
const HEAD: usize = 100;
const TRAILER: i64 = 16;
/// SQLite locks the page at this byte, which holds nothing.
const LOCK_BYTE: u64 = 0x4000_0000;

/// What tells one log from the next: SQLite changes it with each beginning.
pub(super) type Salts = [u8; 8];

/// Where the Litestream before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    txid: Txid,
    salts: Salts,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// It goes on without a gap.
    Sure,
    /// It has written nothing yet.
    Unknown,
    /// Something may be missing.
    Broken,
}

/// What a file of Litestream's holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Of the log that it was taken from.
    pub(super) salts: Salts,
    /// It has every page of the database.
    pub(super) is_whole: bool,
}

struct Head {
    page_size: u64,
    pages: u64,
    /// Where the part of the log ends that it was taken from.
    end: u64,
    salts: Salts,
}

impl Before {
    /// As a database lies there now; none where Litestream has no file of it.
    #[must_use]
    pub fn of(database: &Path) -> Option<Self> {
        Self::at(database, files(database).last().copied()?)
    }

    fn at(database: &Path, txid: Txid) -> Option<Self> {
        let head = head(&mut open(database, txid)?).ok()?;
        Some(Self {
            txid,
            salts: head.salts,
        })
    }

    /// Its newest transaction.
    #[must_use]
    pub const fn txid(&self) -> Txid {
        self.txid
    }

    /// Whether the app has begun its log anew since.
    #[must_use]
    pub fn is_behind(&self, database: &Path) -> bool {
        log_salts(database).is_some_and(|salts| salts != self.salts)
    }
}

/// Whether a database may have been written to after Litestream took what it has: by the log, which SQLite begins anew or goes
/// on with, and where there is none, by the file's own time. What was written may be of a transaction that was taken back.
#[must_use]
pub fn has_more(database: &Path) -> bool {
    let Some(newest) = position(database) else {
        return true;
    };
    let Some(head) = open(database, newest.txid).and_then(|mut file| head(&mut file).ok()) else {
        return true;
    };
    match log_salts(database) {
        Some(salts) if salts == head.salts => frame_salts(database, head.end) == Some(salts),
        Some(_) => true,
        None => {
            let modified = fs::metadata(database).and_then(|found| found.modified());
            modified.is_ok_and(|modified| modified > SystemTime::from(newest.time))
        }
    }
}

/// Judges a start, once Litestream was asked to read the log to its end. `anew`: what was sent until now may be of another file
/// that lay there, with a part of the log of this one on top: going on in the same log says nothing then.
#[must_use]
pub fn judge(database: &Path, before: Option<Before>, anew: bool) -> Continuity {
    let files = files(database);
    let Some(before) = before.or_else(|| Before::at(database, *files.first()?)) else {
        return Continuity::Unknown;
    };
    let is_first = before.txid == Txid(1) && files.first() == Some(&before.txid) && files.len() == 1;
    let next = Txid(before.txid.0 + 1);
    let Some(mut file) = open(database, next) else {
        return match log_salts(database) {
            Some(_) if is_first => Continuity::Sure,
            Some(salts) if salts == before.salts && !anew => Continuity::Sure,
            Some(_) => Continuity::Broken,
            None => Continuity::Unknown,
        };
    };
    match part(&mut file) {
        Ok(part) if part.is_whole || (part.salts == before.salts && !anew) => Continuity::Sure,
        Ok(_) => Continuity::Broken,
        Err(_) => Continuity::Unknown,
    }
}

/// Reads the head and the index of a file.
pub(super) fn part(file: &mut (impl Read + Seek)) -> io::Result<Part> {
    let head = head(file)?;
    Ok(Part {
        salts: head.salts,
        is_whole: pages(file)? >= head.pages - lock_page(&head),
    })
}

fn lock_page(head: &Head) -> u64 {
    u64::from(head.pages.saturating_mul(head.page_size) > LOCK_BYTE)
}

/// The transactions of level 0 on the volume, in order.
fn files(database: &Path) -> Vec<Txid> {
    let entries = fs::read_dir(folder(database).join("ltx/0")).into_iter().flatten();
    let mut found: Vec<Txid> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some(File::parse(0, entry.file_name().to_str()?)?.max))
        .collect();
    found.sort_unstable();
    found
}

fn open(database: &Path, txid: Txid) -> Option<fs::File> {
    let name = format!("ltx/0/{txid}-{txid}.ltx");
    fs::File::open(folder(database).join(name)).ok()
}

/// <https://github.com/superfly/ltx>: magic, flags, page size, pages, two ids, time, checksum, the log's part, its salts.
fn head(file: &mut (impl Read + Seek)) -> io::Result<Head> {
    let mut bytes = [0; HEAD];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut bytes)?;
    let number = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|bytes| Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?))))
            .unwrap_or_default()
    };
    let mut salts = Salts::default();
    salts.copy_from_slice(&bytes[64..72]);
    Ok(Head {
        page_size: number(8),
        pages: number(12),
        end: (number(48) << 32 | number(52)).saturating_add(number(56) << 32 | number(60)),
        salts,
    })
}

/// How many pages a file has, by the index at its end: three numbers a page, a zero, and the index's size.
fn pages(file: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut size = [0; 8];
    file.seek(SeekFrom::End(-TRAILER - 8))?;
    file.read_exact(&mut size)?;
    let size = u64::from_be_bytes(size);
    let back = i64::try_from(size).map_err(io::Error::other)?;
    file.seek(SeekFrom::End(-TRAILER - 8 - back))?;
    let mut index = io::BufReader::new(Read::take(&mut *file, size));
    let mut pages = 0;
    while varint(&mut index)? != 0 {
        varint(&mut index)?;
        varint(&mut index)?;
        pages += 1;
    }
    Ok(pages)
}

fn varint(from: &mut impl Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// The salts of the log's header: <https://www.sqlite.org/fileformat.html#the_write_ahead_log>.
fn log_salts(database: &Path) -> Option<Salts> {
    let mut header = [0; 32];
    fs::File::open(beside(database, WAL))
        .ok()?
        .read_exact(&mut header)
        .ok()?;
    header[16..24].try_into().ok()
}

/// The salts of the frame that begins at this byte of the log; none where it ends before.
fn frame_salts(database: &Path, at: u64) -> Option<Salts> {
    let mut header = [0; 24];
    let mut log = fs::File::open(beside(database, WAL)).ok()?;
    log.seek(SeekFrom::Start(at)).ok()?;
    log.read_exact(&mut header).ok()?;
    header[8..16].try_into().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file of so many pages, of a database of so many.
    pub(in crate::agent::litestream) fn ltx(salts: Salts, pages: u64, of: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[8..12].copy_from_slice(&4096_u32.to_be_bytes());
        bytes[12..16].copy_from_slice(&of.to_be_bytes());
        bytes[64..72].copy_from_slice(&salts);
        let mut index = Vec::new();
        for page in 1..=pages {
            // Numbers of one byte and of two.
            index.extend([u8::try_from(page).unwrap(), 0x80 | 5, 1, 100]);
        }
        index.push(0);
        let size = (index.len() as u64).to_be_bytes();
        bytes.extend(index);
        bytes.extend(size);
        bytes.extend([0; 16]);
        bytes
    }

    struct Case(tempfile::TempDir);

    impl Case {
        fn new() -> Self {
            let case = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(folder(&case.database()).join("ltx/0")).unwrap();
            case
        }

        fn database(&self) -> std::path::PathBuf {
            self.0.path().join("a.db")
        }

        /// A file of so many pages, of a database of so many.
        fn file(&self, txid: u64, salt: u8, pages: u64, of: u32) -> &Self {
            let bytes = ltx([salt; 8], pages, of);
            let name = format!("ltx/0/{}-{}.ltx", Txid(txid), Txid(txid));
            fs::write(folder(&self.database()).join(name), bytes).unwrap();
            self
        }

        fn log(&self, salt: u8) -> &Self {
            let mut header = [0; 32];
            header[16..24].copy_from_slice(&[salt; 8]);
            fs::write(beside(&self.database(), WAL), header).unwrap();
            self
        }
    }

    #[test]
    fn what_the_log_has_beyond_what_was_taken_or_a_log_that_began_anew_is_more() {
        let case = Case::new();
        let database = case.database();
        assert!(has_more(&database), "nothing is taken yet");
        case.log(1).file(7, 1, 2, 50);
        let taken = folder(&database).join(format!("ltx/0/{}-{}.ltx", Txid(7), Txid(7)));
        let mut bytes = fs::read(&taken).unwrap();
        // From byte 32 on, one frame of a page.
        bytes[48..56].copy_from_slice(&32_u64.to_be_bytes());
        bytes[56..64].copy_from_slice(&4120_u64.to_be_bytes());
        fs::write(&taken, bytes).unwrap();
        let log = |frames: &[u8]| {
            let mut log = vec![0; 32];
            log[16..24].copy_from_slice(&[frames[0]; 8]);
            for salt in frames {
                let mut frame = vec![0; 4120];
                frame[8..16].copy_from_slice(&[*salt; 8]);
                log.extend(frame);
            }
            fs::write(beside(&database, WAL), log).unwrap();
        };
        log(&[1]);
        assert!(!has_more(&database));
        log(&[1, 1]);
        assert!(has_more(&database), "another frame");
        log(&[1, 2]);
        assert!(!has_more(&database), "one that the log before has left");
        log(&[3]);
        assert!(has_more(&database), "the log was begun anew");
        fs::remove_file(beside(&database, WAL)).unwrap();
        assert!(!has_more(&database), "no log, and no database");
        fs::write(&database, "").unwrap();
        let file = fs::File::options().write(true).open(&database).unwrap();
        let taken = fs::metadata(&taken).unwrap().modified().unwrap();
        file.set_modified(taken).unwrap();
        assert!(!has_more(&database));
        file.set_modified(taken + std::time::Duration::from_millis(1)).unwrap();
        assert!(has_more(&database), "its app has ended, or it has no log");
    }

    #[test]
    fn the_same_log_or_the_whole_database_is_sure_and_a_part_of_another_log_is_broken() {
        let case = Case::new();
        let database = case.database();
        assert_eq!(Before::of(&database), None);
        case.log(1).file(7, 1, 2, 50);
        let before = Before::of(&database);
        assert_eq!(before.map(|before| before.is_behind(&database)), Some(false));
        assert_eq!(judge(&database, before, false), Continuity::Sure, "nothing was written");
        case.file(8, 1, 3, 50);
        assert_eq!(
            judge(&database, before, false),
            Continuity::Sure,
            "the same log goes on"
        );
        case.log(2).file(8, 2, 50, 50);
        assert_eq!(judge(&database, before, false), Continuity::Sure, "the whole database");
        assert_eq!(before.map(|before| before.is_behind(&database)), Some(true));
        case.file(8, 2, 3, 50);
        assert_eq!(
            judge(&database, before, false),
            Continuity::Broken,
            "a part of another log"
        );
        fs::remove_file(folder(&database).join(format!("ltx/0/{}-{}.ltx", Txid(8), Txid(8)))).unwrap();
        assert_eq!(
            judge(&database, before, false),
            Continuity::Broken,
            "another log, and nothing taken from it"
        );
    }

    #[test]
    fn a_first_start_begins_with_all_and_one_on_a_fetched_file_has_to() {
        let case = Case::new();
        let database = case.database();
        assert_eq!(judge(&database, None, false), Continuity::Unknown);
        case.log(3).file(1, 3, 50, 50);
        assert_eq!(judge(&database, None, false), Continuity::Sure);
        let case = Case::new();
        let database = case.database();
        case.log(3).file(40, 9, 1, 50);
        assert_eq!(judge(&database, None, false), Continuity::Broken);
        case.file(41, 3, 50, 50);
        assert_eq!(judge(&database, None, false), Continuity::Sure);
    }

    #[test]
    fn on_a_file_that_was_put_in_the_place_of_another_nothing_but_the_whole_database_is_sure() {
        let case = Case::new();
        let database = case.database();
        // The Litestream before has sent a part of the new file's log, and this one has fetched that.
        case.log(4).file(20, 4, 1, 3);
        assert_eq!(
            judge(&database, None, true),
            Continuity::Broken,
            "it would go on from there"
        );
        case.file(21, 4, 2, 5);
        assert_eq!(
            judge(&database, None, true),
            Continuity::Broken,
            "it has gone on from there"
        );
        assert_eq!(
            judge(&database, None, false),
            Continuity::Sure,
            "as if it were the same file"
        );
        let case = Case::new();
        let database = case.database();
        case.log(5).file(20, 4, 1, 3).file(21, 5, 5, 5);
        assert_eq!(judge(&database, None, true), Continuity::Sure);
    }
}
