//! A folder → everything that can be seen of it, and what differs between two. A database is its rows: how SQLite lays
//! them out is its own matter.

use rusqlite::Connection;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use vixens_backup::store::keys::{OWN_FOLDER, hex, sha256_hex};

/// What is at a path, without its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A folder.
    Folder,
    /// A link's target.
    Link(Vec<u8>),
    /// A file's size and hash.
    File(u64, String),
    /// A hash of a database's rows, or what SQLite says of it.
    Database(String),
}

/// What is at a path. The times of folders and databases are not looked at: who else reads them changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub what: What,
    /// Its mode; 0 for a link.
    pub mode: u32,
    /// Its user and group.
    pub owner: (u32, u32),
    /// Its modification time, in nanoseconds.
    pub time: Option<i128>,
}

/// Path → what is there.
pub type Tree = BTreeMap<Vec<u8>, Seen>;

/// The connections that hold a database open, by its path. Such a file is never opened by other means: closing it again
/// would take SQLite's locks away.
pub type Connections = BTreeMap<Vec<u8>, Connection>;

/// What SQLite keeps beside a database.
const BESIDE: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// Whether a path is one of the app's databases: it names them so, and nothing else.
pub fn is_database(path: &[u8]) -> bool {
    path.ends_with(b".sqlite")
}

/// Whether a path lies beside one.
pub fn is_beside_database(path: &[u8]) -> bool {
    BESIDE
        .iter()
        .any(|ending| path.strip_suffix(*ending).is_some_and(is_database))
}

/// A path below a folder.
pub fn at(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// Everything below a folder, but our own.
pub fn look(root: &Path, connections: &Connections) -> Tree {
    let mut tree = Tree::new();
    for path in below(root, b"") {
        if let Some(seen) = look_at(root, &path, connections) {
            tree.insert(path, seen);
        }
    }
    tree
}

/// The paths at and below one, in order; all, where it is empty.
pub fn below(root: &Path, path: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut open = vec![path.to_vec()];
    while let Some(path) = open.pop() {
        let full = at(root, &path);
        let Ok(metadata) = fs::symlink_metadata(&full) else {
            continue;
        };
        if !path.is_empty() {
            found.push(path.clone());
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&full).unwrap() {
                let name = entry.unwrap().file_name();
                if path.is_empty() && name == OWN_FOLDER {
                    continue;
                }
                open.push(joined(&path, name.as_bytes()));
            }
        }
    }
    found.sort();
    found
}

/// A name in a folder.
pub fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        name.to_vec()
    } else {
        [folder, b"/", name].concat()
    }
}

/// What is at a path, where something is.
pub fn look_at(root: &Path, path: &[u8], connections: &Connections) -> Option<Seen> {
    let full = at(root, path);
    let metadata = fs::symlink_metadata(&full).ok()?;
    if is_beside_database(path) {
        return None;
    }
    let time = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let (what, mode, time) = if metadata.is_dir() {
        (What::Folder, metadata.mode() & 0o7777, None)
    } else if metadata.is_symlink() {
        let target = fs::read_link(&full).unwrap();
        (What::Link(target.as_os_str().as_bytes().to_vec()), 0, Some(time))
    } else if is_database(path) {
        let rows = match connections.get(path) {
            Some(connection) => rows(connection),
            None => rows_of_copy(&full),
        };
        (What::Database(rows), metadata.mode() & 0o7777, None)
    } else {
        let hash = vixens_backup::agent::restore::verify::sha256_of(&mut fs::File::open(&full).unwrap()).unwrap();
        (
            What::File(metadata.len(), hex(&hash)),
            metadata.mode() & 0o7777,
            Some(time),
        )
    };
    Some(Seen {
        what,
        mode,
        owner: (metadata.uid(), metadata.gid()),
        time,
    })
}

/// The rows of a database, hashed: how many, and which.
pub fn rows(connection: &Connection) -> String {
    let read = || -> rusqlite::Result<String> {
        let mut statement = connection.prepare("SELECT n, x FROM t ORDER BY n")?;
        let mut rows = statement.query([])?;
        let (mut text, mut count) = (String::new(), 0);
        while let Some(row) = rows.next()? {
            let (n, x): (i64, String) = (row.get(0)?, row.get(1)?);
            // Writing to a String does not fail.
            let _ = writeln!(text, "{n} {x}");
            count += 1;
        }
        Ok(format!("{count} rows {}", &sha256_hex(text.as_bytes())[..12]))
    };
    read().unwrap_or_else(|error| format!("damaged: {error}"))
}

/// The same of a database that nobody has open, as a copy, so that nothing beside it changes.
fn rows_of_copy(database: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    for ending in [b"".as_slice(), b"-wal", b"-journal"] {
        let with = |path: &Path| PathBuf::from(OsStr::from_bytes(&[path.as_os_str().as_bytes(), ending].concat()));
        if with(database).exists() {
            fs::copy(with(database), with(&copy)).unwrap();
        }
    }
    let connection = Connection::open(&copy).unwrap();
    match connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)) {
        Ok(check) if check == "ok" => rows(&connection),
        Ok(check) => format!("damaged: {check}"),
        Err(error) => format!("damaged: {error}"),
    }
}

/// Where two trees differ, in words; empty where they don't.
pub fn difference(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut paths: Vec<&Vec<u8>> = expected.keys().chain(found.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| {
            format!(
                "{}: expected {}, found {}",
                path.escape_ascii(),
                told(expected.get(path)),
                told(found.get(path))
            )
        })
        .collect()
}

/// What is at a path, in words.
pub fn told(seen: Option<&Seen>) -> String {
    let Some(seen) = seen else { return "nothing".to_owned() };
    let what = match &seen.what {
        What::Folder => "a folder".to_owned(),
        What::Link(target) => format!("a link to {}", target.escape_ascii()),
        What::File(size, hash) => format!("{size} bytes {}", &hash[..12]),
        What::Database(rows) => format!("a database of {rows}"),
    };
    let time = seen.time.map_or_else(String::new, |time| format!(" {time}"));
    format!("{what} {:o} {}:{}{time}", seen.mode, seen.owner.0, seen.owner.1)
}
