//! A snapshot's index: which files a point in time has, as a stream of lines in and out. Pure but for the reader and
//! writer that it is given.
//!
//! An index is one JSON document with an entry a line, sorted by path, and ends with its own SHA-256, so that half of
//! one, or one with a flipped byte, is told from a whole one:
//!
//! ```json
//! {"version":1,"snapshot":{…},"entries":[
//! ["d","config/",1732280700123456789,1000,1000,"755"],
//! ["f","config/a.yaml",12,1732280700123456789,1000,1000,"644","<sha256>","3.42"],
//! ["f","config/b.yaml",12,1732280700123456789,1000,1000,"644","<sha256>","3.41",{"held":"hold-1a2b3c4d"}],
//! ["l","config/link","a.yaml",1732280700123456789,1000,1000],
//! ["x","config/old"]
//! ],"files":2,"bytes":24,"sha256":"<of everything above>"}
//! ```
//!
//! A path begins with its volume's folder; that of a folder ends with `/`, so that an ordinary walk (siblings sorted by
//! name, folders as `name/`) meets paths in the order of their bytes. Bytes that are no UTF-8 are `{"hex":"…"}`.
//! `x` (gone) stands only in an index with a `base`: it and the base, merged, are the snapshot. A base lies in the same
//! epoch, so the first snapshot of an epoch has none, and a restore reads two indexes at most.
//!
//! A complete index has a twin, in the object that marks it as complete, so that no single object is the only way to what
//! it tells: the same snapshot as a difference to the complete index before it, of whatever epoch, or complete once more
//! where there is none. So of a damaged complete index nothing is lost. What a damaged difference costs is that one snapshot:
//! the one before it is read, and the next one has its changes again. Marks of former releases have no twin.
//!
//! Where the content of a file lies: `"3.42"` is the backup that uploaded it. For the snapshot S it is in
//! `history/<B>/<path>` with the smallest B > S that has the path there, a pending B too, and else in the mirror.
//!
//! What the volume does not have any more, or the policy does not take, and is kept, says so: [`Standing`].

mod line;
mod merge;
mod standing;

pub use merge::merged;
pub use standing::{Carried, Hold, HoldId, Marked, NoHold, Standing};

use super::keys::hex;
use super::records::{Damage, VERSION, check_version};
use super::snapshot::{Point, SnapshotId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// The first line of an index: what the snapshot is, without its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The snapshot.
    pub id: SnapshotId,
    /// The snapshot of the same epoch on whose index this one builds; none: the index is complete in itself.
    pub base: Option<SnapshotId>,
    /// When it was made, exactly.
    pub time: Timestamp,
    /// The volumes that it covers.
    pub volumes: Vec<IndexedVolume>,
    /// Where each replicated database stood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabasePosition>,
    /// What was left out, by reason (`max-size`, `unreadable`, `special`, …), in files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
    /// What the snapshot holds that the volumes don't have.
    #[serde(default, skip_serializing_if = "Carried::is_nothing")]
    pub carried: Carried,
}

/// A volume that a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedVolume {
    /// Its folder in the bucket.
    pub folder: String,
    /// The id in its marker.
    pub id: String,
}

/// Where a replicated database stood when the snapshot was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePosition {
    /// Its volume's folder.
    pub folder: String,
    /// Its path on the volume.
    pub path: String,
    /// Litestream's transaction id, 16 hexadecimal digits.
    pub txid: String,
    /// The time of that transaction.
    pub time: Timestamp,
    /// Under which run of Litestream that transaction was counted; the former release said nothing of it. One whose sequence
    /// is 0 counts nothing: in this epoch Litestream had not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Point>,
    /// The snapshot has the database as a file too: it is not replicated, or could not be sent. The file holds this
    /// transaction, and what came after it. A replica that ends here, or before, is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Under which run the file's transaction was counted, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_run: Option<Point>,
}

/// The transaction of what is newer than all that was sent.
const UNCOUNTED: &str = "ffffffffffffffff";

impl DatabasePosition {
    /// Nobody followed it, or counts it: the file is all that there is of this moment.
    #[must_use]
    pub fn is_a_file_alone(&self) -> bool {
        let is_uncounted = self.txid == UNCOUNTED || self.run.is_some_and(|run| run.sequence == 0);
        self.file.is_some() && is_uncounted
    }
}

/// What a snapshot holds in all, whether its index has a base or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Totals {
    /// Whether there is not one file.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.files == 0 && self.bytes == 0
    }

    /// Counts an entry, if it is a file.
    pub fn add(&mut self, entry: &Entry) {
        if let What::File(file) = &entry.what {
            self.files += 1;
            self.bytes += file.size;
        }
    }
}

/// One line: a path, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The volume's folder, `/`, and the path on the volume in raw bytes; a folder's ends with `/`.
    pub path: Vec<u8>,
    /// What is there.
    pub what: What,
    /// Whether the volume has it, or why it is kept.
    pub standing: Standing,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file.
    File(File),
    /// A folder, empty or not. The volume's own root is one.
    Folder(Attributes),
    /// A symbolic link, with its target in raw bytes. Its mode means nothing.
    Link(Vec<u8>, Attributes),
    /// Nothing any more, though the base has something.
    Gone,
}

/// A file's copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// In bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: [u8; 32],
    /// Owner, mode and time.
    pub attributes: Attributes,
    /// The backup that uploaded this content.
    pub stored: Point,
    /// Its name below the volume's folder in the store, where that is not its path: see `keys::stored_name`.
    pub name: Option<String>,
    /// It changed while it was read, each time: what is stored may never have been on the volume as a whole.
    pub torn: bool,
}

/// Owner, mode and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Modification time in nanoseconds since 1970.
    pub modified: i64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The twelve permission bits.
    pub mode: u32,
}

impl Entry {
    /// The volume's folder in the bucket, and the path on the volume (empty for its root, no `/` at the end).
    #[must_use]
    pub fn place(&self) -> (&[u8], &[u8]) {
        let path = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (path, b""),
        }
    }

    /// Where a file's copy lies: the name below its volume's folder, in the mirror and in history alike. `None` for
    /// what has no content of its own.
    #[must_use]
    pub fn stored_name(&self) -> Option<Cow<'_, str>> {
        match &self.what {
            What::File(File { name: Some(name), .. }) => Some(Cow::Borrowed(name)),
            What::File(_) => Some(String::from_utf8_lossy(self.place().1)),
            What::Folder(_) | What::Link(..) | What::Gone => None,
        }
    }
}

/// Hashes what it passes on.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes an index, entry by entry.
pub struct IndexWriter<W: Write> {
    out: Hashed<W>,
    last: Option<Vec<u8>>,
    /// What the header says of folders and links to come.
    marked: std::vec::IntoIter<Marked>,
}

impl<W: Write> IndexWriter<W> {
    /// Begins an index. Give it a buffered writer.
    pub fn new(writer: W, header: &Header) -> io::Result<Self> {
        let mut out = Hashed {
            inner: writer,
            hash: Sha256::new(),
        };
        write!(out, "{{\"version\":{VERSION},\"snapshot\":")?;
        serde_json::to_writer(&mut out, header)?;
        out.write_all(b",\"entries\":[")?;
        Ok(Self {
            out,
            last: None,
            marked: header.carried.marked.clone().into_iter(),
        })
    }

    /// The next entry. Paths ascend: an error otherwise, because a reader merges by it. The header has to have what is
    /// said of it: [`Carried::mark`].
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        let is_marked = || {
            let next = self.marked.as_slice().first();
            next.is_some_and(|mark| mark.path == entry.path && mark.standing == entry.standing)
        };
        if !entry.standing.is_live() && !matches!(entry.what, What::File(_)) {
            if !is_marked() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "the header does not say how {:?} stands",
                        String::from_utf8_lossy(&entry.path)
                    ),
                ));
            }
            self.marked.next();
        }
        let out_of_order = self.last.as_ref().is_some_and(|last| *last >= entry.path);
        if out_of_order {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{:?} is not in order", String::from_utf8_lossy(&entry.path)),
            ));
        }
        self.out.write_all(if self.last.is_some() { b",\n" } else { b"\n" })?;
        serde_json::to_writer(&mut self.out, entry)?;
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(&entry.path);
        Ok(())
    }

    /// Ends the index, with the totals of the whole snapshot, and gives the flushed writer back.
    pub fn finish(mut self, totals: Totals) -> io::Result<W> {
        let Totals { files, bytes } = totals;
        write!(self.out, "\n],\"files\":{files},\"bytes\":{bytes}")?;
        let digest = hex(&self.out.hash.finalize());
        let mut inner = self.out.inner;
        writeln!(inner, ",\"sha256\":\"{digest}\"}}")?;
        inner.flush()?;
        Ok(inner)
    }
}

#[derive(Deserialize)]
struct FirstLine {
    version: u32,
}

#[derive(Deserialize)]
struct HeaderLine {
    snapshot: Header,
}

#[derive(Deserialize)]
struct LastLine {
    #[serde(flatten)]
    totals: Totals,
    sha256: String,
}

/// Reads an index, entry by entry. Damage anywhere ends it with an error; without one, the last `None` means that the
/// whole index was there as it was written.
pub struct IndexReader<R: BufRead> {
    lines: R,
    hash: Sha256,
    header: Header,
    /// The next of the header's marks.
    next_mark: usize,
    last: Vec<u8>,
    line: Vec<u8>,
    totals: Option<Totals>,
    failed: bool,
}

impl<R: BufRead> IndexReader<R> {
    /// Reads the first line.
    pub fn new(lines: R) -> Result<Self, Damage> {
        let reader = Self::of_twin(lines)?;
        let header = &reader.header;
        let base_is_of_another_line = header
            .base
            .is_some_and(|base| base.epoch != header.id.epoch || base.point() >= header.id.point());
        if base_is_of_another_line {
            return Err(Damage::broken("its base is not an earlier snapshot of the same epoch"));
        }
        Ok(reader)
    }

    /// Reads the first line of a twin, whose base may be of an earlier epoch.
    pub fn of_twin(mut lines: R) -> Result<Self, Damage> {
        let mut line = Vec::new();
        lines
            .read_until(b'\n', &mut line)
            .map_err(|error| Damage::broken(error.to_string()))?;
        let mut hash = Sha256::new();
        hash.update(&line);
        let end = b",\"entries\":[\n";
        let Some(head) = line.strip_suffix(end) else {
            return Err(Damage::broken("it is cut off in its first line, or no index"));
        };
        let whole = [head, b"}"].concat();
        let FirstLine { version } =
            serde_json::from_slice(&whole).map_err(|error| Damage::broken(format!("its first line: {error}")))?;
        check_version(version)?;
        let HeaderLine { snapshot: header } =
            serde_json::from_slice(&whole).map_err(|error| Damage::broken(format!("its first line: {error}")))?;
        Ok(Self {
            lines,
            hash,
            header,
            next_mark: 0,
            last: Vec::new(),
            line,
            totals: None,
            failed: false,
        })
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the whole snapshot holds; known once every entry was read.
    pub fn totals(&self) -> Option<Totals> {
        self.totals
    }

    fn advance(&mut self) -> Result<Option<Entry>, Damage> {
        self.line.clear();
        self.lines
            .read_until(b'\n', &mut self.line)
            .map_err(|error| Damage::broken(error.to_string()))?;
        if self.line.starts_with(b"]") {
            return self.end().map(|()| None);
        }
        self.hash.update(&self.line);
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Err(Damage::broken("it is cut off"));
        };
        let line = line.strip_suffix(b",").unwrap_or(line);
        let mut entry: Entry = serde_json::from_slice(line).map_err(|error| {
            Damage::broken(format!(
                "the entry after {:?}: {error}",
                String::from_utf8_lossy(&self.last)
            ))
        })?;
        if entry.path <= self.last {
            return Err(Damage::broken(format!(
                "{:?} is out of order",
                String::from_utf8_lossy(&entry.path)
            )));
        }
        if self.header.base.is_none() && entry.what == What::Gone {
            return Err(Damage::broken("something is gone of a base that it does not have"));
        }
        while let Some(mark) = self.header.carried.marked.get(self.next_mark)
            && mark.path <= entry.path
        {
            if mark.path == entry.path && matches!(entry.what, What::Folder(_) | What::Link(..)) {
                entry.standing = mark.standing;
            }
            self.next_mark += 1;
        }
        self.last.clear();
        self.last.extend_from_slice(&entry.path);
        Ok(Some(entry))
    }

    fn end(&mut self) -> Result<(), Damage> {
        let cut = || Damage::broken("it is cut off in its last line");
        let text = self.line.strip_suffix(b"\n").ok_or_else(cut)?;
        let at = text
            .windows(10)
            .rposition(|window| window == b",\"sha256\":")
            .ok_or_else(cut)?;
        self.hash.update(&text[..at]);
        let whole = [b"{".as_slice(), text.strip_prefix(b"],").ok_or_else(cut)?].concat();
        let LastLine { totals, sha256 } = serde_json::from_slice(&whole).map_err(|_| cut())?;
        if hex(&self.hash.clone().finalize()) != sha256 {
            return Err(Damage::broken("its SHA-256 is not the one at its end"));
        }
        self.totals = Some(totals);
        Ok(())
    }
}

impl<R: BufRead> Iterator for IndexReader<R> {
    type Item = Result<Entry, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.totals.is_some() {
            return None;
        }
        let result = self.advance();
        self.failed = result.is_err();
        result.transpose()
    }
}

#[cfg(test)]
impl Header {
    /// Of a complete snapshot that has nothing.
    pub(crate) fn of_nothing(id: SnapshotId) -> Self {
        Self {
            id,
            base: None,
            time: id.time,
            volumes: Vec::new(),
            databases: Vec::new(),
            skipped: BTreeMap::new(),
            carried: Carried::default(),
        }
    }

    /// An index with this header and no entries.
    pub(crate) fn alone(&self) -> Vec<u8> {
        let index = IndexWriter::new(Vec::new(), self).unwrap();
        index.finish(Totals::default()).unwrap()
    }
}

#[cfg(test)]
mod tests;
