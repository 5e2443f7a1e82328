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

mod standing;

pub use standing::{Carried, Hold, HoldId, Marked, NoHold, Standing};

use super::keys::hex;
use super::records::{Damage, VERSION, check_version};
use super::snapshot::{Point, SnapshotId};
use jiff::Timestamp;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple, Serializer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::iter::Peekable;

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

impl DatabasePosition {
    /// Nobody followed it: the file is all that there is of this moment.
    #[must_use]
    pub fn is_a_file_alone(&self) -> bool {
        self.file.is_some() && self.run.is_some_and(|run| run.sequence == 0)
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

/// Raw bytes in JSON: text where they are UTF-8.
struct Raw<'a>(Cow<'a, [u8]>);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("hex", &hex(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Raw<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or an object with hex")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
                match map.next_entry::<String, String>()? {
                    Some((key, digits)) if key == "hex" => {
                        unhex(&digits).ok_or_else(|| A::Error::custom("no hexadecimal digits"))
                    }
                    _ => Err(A::Error::custom("an object without hex")),
                }
            }
        }

        deserializer
            .deserialize_any(RawVisitor)
            .map(|bytes| Self(Cow::Owned(bytes)))
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    (digits.len().is_multiple_of(2)).then_some(())?;
    digits
        .chunks_exact(2)
        .map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?))
        .collect()
}

/// What few files need.
#[derive(Default, Serialize, Deserialize)]
struct Extras {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HoldId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    excluded: bool,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = Raw(Cow::Borrowed(&self.path));
        match &self.what {
            What::File(file) => {
                let extras = Extras {
                    name: file.name.clone(),
                    torn: file.torn,
                    held: match self.standing {
                        Standing::Held(id) => Some(id),
                        Standing::Live | Standing::Excluded => None,
                    },
                    excluded: self.standing == Standing::Excluded,
                };
                let has_extras = extras.name.is_some() || extras.torn || !self.standing.is_live();
                let mut line = serializer.serialize_tuple(9 + usize::from(has_extras))?;
                line.serialize_element("f")?;
                line.serialize_element(&path)?;
                line.serialize_element(&file.size)?;
                write_attributes::<S>(&mut line, &file.attributes)?;
                line.serialize_element(&format!("{:o}", file.attributes.mode))?;
                line.serialize_element(&hex(&file.sha256))?;
                line.serialize_element(&file.stored)?;
                if has_extras {
                    line.serialize_element(&extras)?;
                }
                line.end()
            }
            What::Folder(attributes) => {
                let mut line = serializer.serialize_tuple(6)?;
                line.serialize_element("d")?;
                line.serialize_element(&path)?;
                write_attributes::<S>(&mut line, attributes)?;
                line.serialize_element(&format!("{:o}", attributes.mode))?;
                line.end()
            }
            What::Link(target, attributes) => {
                let mut line = serializer.serialize_tuple(6)?;
                line.serialize_element("l")?;
                line.serialize_element(&path)?;
                line.serialize_element(&Raw(Cow::Borrowed(target)))?;
                write_attributes::<S>(&mut line, attributes)?;
                line.end()
            }
            What::Gone => ("x", path).serialize(serializer),
        }
    }
}

fn write_attributes<S: Serializer>(line: &mut S::SerializeTuple, attributes: &Attributes) -> Result<(), S::Error> {
    line.serialize_element(&attributes.modified)?;
    line.serialize_element(&attributes.uid)?;
    line.serialize_element(&attributes.gid)
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(line: &mut A) -> Result<T, A::Error> {
            line.next_element()?
                .ok_or_else(|| A::Error::custom("the entry is too short"))
        }

        fn attributes<'de, A: SeqAccess<'de>>(line: &mut A) -> Result<Attributes, A::Error> {
            Ok(Attributes {
                modified: next(line)?,
                uid: next(line)?,
                gid: next(line)?,
                mode: 0,
            })
        }

        fn mode<'de, A: SeqAccess<'de>>(line: &mut A) -> Result<u32, A::Error> {
            let digits: Cow<'de, str> = next(line)?;
            u32::from_str_radix(&digits, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| A::Error::custom("a mode is four octal digits"))
        }

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entry")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut line: A) -> Result<Entry, A::Error> {
                let line = &mut line;
                let kind: Cow<'de, str> = next(line)?;
                let Raw(path) = next(line)?;
                let path = path.into_owned();
                let mut standing = Standing::Live;
                let what = match kind.as_ref() {
                    "f" => {
                        let size = next(line)?;
                        let mut attributes = attributes(line)?;
                        attributes.mode = mode(line)?;
                        let digits: Cow<'de, str> = next(line)?;
                        let sha256 = unhex(&digits)
                            .and_then(|bytes| bytes.try_into().ok())
                            .ok_or_else(|| A::Error::custom("a SHA-256 is 64 hexadecimal digits"))?;
                        let stored = next(line)?;
                        let Extras {
                            name,
                            torn,
                            held,
                            excluded,
                        } = line.next_element()?.unwrap_or_default();
                        standing = match held {
                            Some(id) => Standing::Held(id),
                            None if excluded => Standing::Excluded,
                            None => Standing::Live,
                        };
                        What::File(File {
                            size,
                            sha256,
                            attributes,
                            stored,
                            name,
                            torn,
                        })
                    }
                    "d" => {
                        let mut attributes = attributes(line)?;
                        attributes.mode = mode(line)?;
                        What::Folder(attributes)
                    }
                    "l" => {
                        let Raw(target) = next(line)?;
                        What::Link(target.into_owned(), attributes(line)?)
                    }
                    "x" => What::Gone,
                    other => return Err(A::Error::custom(format!("an entry of the unknown kind {other:?}"))),
                };
                if line.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("the entry is too long"));
                }
                check_path(&path, matches!(what, What::Folder(_)), matches!(what, What::Gone))
                    .map_err(A::Error::custom)?;
                Ok(Entry { path, what, standing })
            }
        }

        deserializer.deserialize_seq(EntryVisitor)
    }
}

/// A path from the store must not lead out of its volume.
fn check_path(path: &[u8], is_folder: bool, is_gone: bool) -> Result<(), &'static str> {
    let (trimmed, slash) = match path.strip_suffix(b"/") {
        Some(trimmed) => (trimmed, true),
        None => (path, false),
    };
    if !is_gone && slash != is_folder {
        return Err("a folder's path ends with a slash, and no other");
    }
    if trimmed.contains(&0) {
        return Err("a path holds a NUL byte");
    }
    if trimmed
        .split(|byte| *byte == b'/')
        .any(|part| part.is_empty() || part == b"." || part == b"..")
    {
        return Err("a path leads out of its volume");
    }
    if !slash && !trimmed.contains(&b'/') {
        return Err("a path lies outside every volume");
    }
    Ok(())
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

/// The snapshot that an index and its base make: in order, the later one winning, nothing that is gone.
pub fn merged<E>(
    base: impl Iterator<Item = Result<Entry, E>>,
    changes: impl Iterator<Item = Result<Entry, E>>,
) -> impl Iterator<Item = Result<Entry, E>> {
    let (mut base, mut changes) = (base.peekable(), changes.peekable());
    std::iter::from_fn(move || {
        loop {
            let next = later_first(&mut base, &mut changes)?;
            match next {
                Ok(entry) if entry.what == What::Gone => {}
                other => return Some(other),
            }
        }
    })
}

fn later_first<E>(
    base: &mut Peekable<impl Iterator<Item = Result<Entry, E>>>,
    changes: &mut Peekable<impl Iterator<Item = Result<Entry, E>>>,
) -> Option<Result<Entry, E>> {
    let order = match (base.peek(), changes.peek()) {
        (Some(Ok(old)), Some(Ok(new))) => old.path.cmp(&new.path),
        (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
        (_, _) => Ordering::Greater,
    };
    match order {
        Ordering::Less => base.next(),
        Ordering::Equal => {
            base.next();
            changes.next()
        }
        Ordering::Greater => changes.next(),
    }
}

#[cfg(test)]
mod tests;
