//! Records sorted by path ↔ one file in scratch: written once in order, read as a stream or searched by path. It holds
//! what the store is known to have, so that nothing of the size of the volume lies in memory.
//!
//! Layout: records one after the other, then the offset of each as `u64`, then a trailer. All numbers are little-endian.
//! The file is local to a pod: another version of it is discarded and made anew, never migrated.

use super::{Entry, Kind, Tally};
use crate::store::index::{HoldId, Standing};
use crate::store::snapshot::Point;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"vixenst2";
const TRAILER: usize = 24;
/// Bytes of a record before its path: two lengths, kind and flags, then the numbers.
const FIXED: usize = 2 + 2 + 2 + 8 + 8 + 4 + 4 + 4 + 8 + 8 + 8 + 16;

const DATABASE: u8 = 1;
const TORN: u8 = 2;
const DIGEST: u8 = 4;
const HELD: u8 = 8;
const EXCLUDED: u8 = 16;

/// Why a table can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Reading or writing failed.
    #[error("the table {path} can't be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not whole, or of another version.
    #[error("the table {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// An entry, and how it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the volume said when it was saved.
    pub entry: Entry,
    /// SHA-256 of what is stored; none for anything but files.
    pub digest: Option<[u8; 32]>,
    /// Bytes that are stored; for a database, those of its backup.
    pub stored_size: u64,
    /// The backup that uploaded them.
    pub stored: Point,
    /// Saved as a database.
    pub database: bool,
    /// It never rested while it was read.
    pub torn: bool,
    /// Whether the volume has it, or why it is kept.
    pub standing: Standing,
}

impl Record {
    /// An entry of which nothing is stored yet.
    #[must_use]
    pub const fn unsaved(entry: Entry) -> Self {
        Self {
            entry,
            digest: None,
            stored_size: 0,
            stored: Point { epoch: 0, sequence: 0 },
            database: false,
            torn: false,
            standing: Standing::Live,
        }
    }

    /// Whether this process has seen it on the volume: an index has no inode.
    #[must_use]
    pub const fn was_seen(&self) -> bool {
        self.entry.inode != 0
    }

    /// Appends the record; [`Record::read`] takes it back. Returns the bytes that it takes.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<u64> {
        let Self {
            entry,
            digest,
            stored_size,
            stored,
            database,
            torn,
            standing,
        } = self;
        let Entry {
            path,
            kind,
            size,
            modified,
            mode,
            uid,
            gid,
            inode,
            changed,
            target,
        } = entry;
        let short = |length: usize| u16::try_from(length).map_err(|_| io::Error::other("a path above 64 KiB"));
        let (stands, hold) = match standing {
            Standing::Live => (0, None),
            Standing::Held(id) => (HELD, Some(id.number())),
            Standing::Excluded => (EXCLUDED, None),
        };
        let flags =
            u8::from(*database) * DATABASE + u8::from(*torn) * TORN + u8::from(digest.is_some()) * DIGEST + stands;
        let mut fixed = Vec::with_capacity(FIXED + path.len() + target.len() + 32);
        fixed.extend(short(path.len())?.to_le_bytes());
        fixed.extend(short(target.len())?.to_le_bytes());
        fixed.push(match kind {
            Kind::File => 0,
            Kind::Folder => 1,
            Kind::Symlink => 2,
        });
        fixed.push(flags);
        fixed.extend(size.to_le_bytes());
        fixed.extend(modified.to_le_bytes());
        fixed.extend(mode.to_le_bytes());
        fixed.extend(uid.to_le_bytes());
        fixed.extend(gid.to_le_bytes());
        fixed.extend(inode.to_le_bytes());
        fixed.extend(changed.to_le_bytes());
        fixed.extend(stored_size.to_le_bytes());
        fixed.extend(stored.epoch.to_le_bytes());
        fixed.extend(stored.sequence.to_le_bytes());
        fixed.extend(path);
        fixed.extend(target);
        if let Some(digest) = digest {
            fixed.extend(digest);
        }
        fixed.extend(hold.map(u32::to_le_bytes).into_iter().flatten());
        to.write_all(&fixed)?;
        Ok(fixed.len() as u64)
    }

    /// Reads what [`Record::write`] wrote.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let path_length = usize::from(u16::from_le_bytes(bytes(from)?));
        let target_length = usize::from(u16::from_le_bytes(bytes(from)?));
        let [kind, flags] = bytes(from)?;
        let kind = match kind {
            0 => Kind::File,
            1 => Kind::Folder,
            2 => Kind::Symlink,
            _ => return Err(io::Error::other("an unknown kind of entry")),
        };
        let size = u64::from_le_bytes(bytes(from)?);
        let modified = i64::from_le_bytes(bytes(from)?);
        let mode = u32::from_le_bytes(bytes(from)?);
        let uid = u32::from_le_bytes(bytes(from)?);
        let gid = u32::from_le_bytes(bytes(from)?);
        let inode = u64::from_le_bytes(bytes(from)?);
        let changed = i64::from_le_bytes(bytes(from)?);
        let stored_size = u64::from_le_bytes(bytes(from)?);
        let stored = Point {
            epoch: u64::from_le_bytes(bytes(from)?),
            sequence: u64::from_le_bytes(bytes(from)?),
        };
        let mut path = vec![0; path_length];
        from.read_exact(&mut path)?;
        let mut target = vec![0; target_length];
        from.read_exact(&mut target)?;
        let digest = if flags & DIGEST == 0 { None } else { Some(bytes(from)?) };
        let standing = match flags & (HELD | EXCLUDED) {
            0 => Standing::Live,
            HELD => Standing::Held(HoldId::new(u32::from_le_bytes(bytes(from)?))),
            _ => Standing::Excluded,
        };
        Ok(Self {
            entry: Entry {
                path,
                kind,
                size,
                modified,
                mode,
                uid,
                gid,
                inode,
                changed,
                target,
            },
            digest,
            stored_size,
            stored,
            database: flags & DATABASE != 0,
            torn: flags & TORN != 0,
            standing,
        })
    }
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes a table, in order, beside its final name; [`TableWriter::finish`] puts it in place.
pub struct TableWriter {
    path: PathBuf,
    /// The table under construction, and the offsets, which go behind it.
    to: BufWriter<File>,
    offsets: BufWriter<File>,
    at: u64,
    count: u64,
    tally: Tally,
    last: Vec<u8>,
}

impl TableWriter {
    /// Begins a table that will lie at `path`.
    pub fn create(path: &Path) -> Result<Self, TableError> {
        let failed = |source| TableError::Io {
            path: path.to_owned(),
            source,
        };
        Ok(Self {
            path: path.to_owned(),
            to: BufWriter::new(File::create(new_name(path)).map_err(failed)?),
            offsets: BufWriter::new(
                File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(offsets_name(path))
                    .map_err(failed)?,
            ),
            at: 0,
            count: 0,
            tally: Tally::default(),
            last: Vec::new(),
        })
    }

    /// Adds the next record; its path must come after the last one's.
    pub fn push(&mut self, record: &Record) -> Result<(), TableError> {
        if self.count > 0 && self.last >= record.entry.path {
            return Err(TableError::Damaged {
                path: self.path.clone(),
                why: "its records are out of order",
            });
        }
        let failed = |source| TableError::Io {
            path: self.path.clone(),
            source,
        };
        self.offsets.write_all(&self.at.to_le_bytes()).map_err(failed)?;
        self.at += record.write(&mut self.to).map_err(failed)?;
        self.count += 1;
        self.tally.add(record);
        self.last.clone_from(&record.entry.path);
        Ok(())
    }

    /// Puts the table in place of what lay there, whole or not at all.
    pub fn finish(mut self) -> Result<Table, TableError> {
        let path = self.path.clone();
        let failed = |source| TableError::Io {
            path: path.clone(),
            source,
        };
        let offsets = offsets_name(&self.path);
        let finish = |writer: &mut Self| -> io::Result<()> {
            writer.offsets.flush()?;
            let file = writer.offsets.get_mut();
            file.seek(SeekFrom::Start(0))?;
            io::copy(file, &mut writer.to)?;
            for number in [writer.at, writer.count] {
                writer.to.write_all(&number.to_le_bytes())?;
            }
            writer.to.write_all(&MAGIC)?;
            writer.to.flush()?;
            fs::remove_file(&offsets)?;
            fs::rename(new_name(&writer.path), &writer.path)
        };
        finish(&mut self).map_err(failed)?;
        Table::open(&self.path, self.tally)
    }
}

fn new_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn offsets_name(path: &Path) -> PathBuf {
    path.with_extension("offsets")
}

/// A table that is whole.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    file: File,
    /// Where the offsets begin.
    offsets: u64,
    count: u64,
    tally: Tally,
}

impl Table {
    /// Opens what [`TableWriter::finish`] left.
    fn open(path: &Path, tally: Tally) -> Result<Self, TableError> {
        let failed = |source| TableError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |why| TableError::Damaged {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let trailer_at = length
            .checked_sub(TRAILER as u64)
            .ok_or_else(|| damaged("it is too short"))?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, trailer_at).map_err(failed)?;
        let mut rest = trailer.as_slice();
        let mut number = || bytes::<8>(&mut rest).map(u64::from_le_bytes);
        let (offsets, count) = (number().map_err(failed)?, number().map_err(failed)?);
        if rest != MAGIC || offsets.checked_add(count * 8) != Some(trailer_at) {
            return Err(damaged("its end is not a table's"));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            offsets,
            count,
            tally,
        })
    }

    /// Records in it.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.count
    }

    /// How they stand.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Every record, in order.
    pub fn records(&self) -> Result<Records, TableError> {
        self.iter_from(0)
    }

    /// The record of exactly this path.
    pub fn get(&self, path: &[u8]) -> Result<Option<Record>, TableError> {
        Ok(self.find(path)?.map(|(_, record)| record))
    }

    /// The record of exactly this path, and its number in the order of all.
    pub fn find(&self, path: &[u8]) -> Result<Option<(u64, Record)>, TableError> {
        let index = self.first_not_below(path)?;
        let record = self.iter_from(index)?.next().transpose()?;
        Ok(record
            .filter(|record| record.entry.path == path)
            .map(|record| (index, record)))
    }

    /// The record of the folder `path` (with its `/`), and every record below it, in order.
    pub fn below(&self, path: &[u8]) -> Result<impl Iterator<Item = Result<Record, TableError>> + use<>, TableError> {
        let prefix = path.to_vec();
        let records = self.from(&prefix)?;
        Ok(records.take_while(move |record| {
            record
                .as_ref()
                .map_or(true, |record| record.entry.path.starts_with(&prefix))
        }))
    }

    /// Every record from this path on, in order.
    pub fn from(&self, path: &[u8]) -> Result<Records, TableError> {
        self.iter_from(self.first_not_below(path)?)
    }

    fn iter_from(&self, index: u64) -> Result<Records, TableError> {
        let failed = |source| self.failed(source);
        let mut file = self.reopen().map_err(failed)?;
        if index < self.count {
            file.seek(SeekFrom::Start(self.offset(index).map_err(failed)?))
                .map_err(failed)?;
        }
        Ok(Records {
            from: BufReader::with_capacity(16 * 1024, file),
            left: self.count.saturating_sub(index),
            path: self.path.clone(),
        })
    }

    /// A descriptor with a position of its own, to the same file even when its name was taken by a newer one.
    fn reopen(&self) -> io::Result<File> {
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    fn failed(&self, source: io::Error) -> TableError {
        TableError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn offset(&self, index: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, self.offsets + index * 8)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn path_at(&self, index: u64) -> io::Result<Vec<u8>> {
        let offset = self.offset(index)?;
        let mut length = [0; 2];
        self.file.read_exact_at(&mut length, offset)?;
        let mut path = vec![0; usize::from(u16::from_le_bytes(length))];
        self.file.read_exact_at(&mut path, offset + FIXED as u64)?;
        Ok(path)
    }

    fn first_not_below(&self, path: &[u8]) -> Result<u64, TableError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.path_at(middle).map_err(|source| self.failed(source))?;
            if found.as_slice() < path {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// A stream of records.
pub struct Records {
    from: BufReader<File>,
    left: u64,
    path: PathBuf,
}

impl Iterator for Records {
    type Item = Result<Record, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(Record::read(&mut self.from).map_err(|source| {
            self.left = 0;
            TableError::Io {
                path: self.path.clone(),
                source,
            }
        }))
    }
}

#[cfg(test)]
mod tests;
