//! The app: random operations on the volume's tree, one after the other, and what each path was at any time. Nobody else
//! writes there while it is at work.

use super::dice::Dice;
use super::tree::{self, Connections, Seen, Tree, What, at, is_database, joined};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use vixens_backup::store::keys::hex;

/// Names that some file system, protocol or pattern takes for something else.
const ODD: [&[u8]; 22] = [
    b"a\nb",
    b" lead",
    b"trail ",
    b"\xff\xfe",
    "\u{e9}".as_bytes(),
    "e\u{301}".as_bytes(),
    &[b'x'; 200],
    b"A",
    b"a",
    b"-rf",
    b"#h",
    b"a;b",
    b"[c]*",
    b"~t",
    b"dot.",
    "\u{2400}".as_bytes(),
    "\u{ff0f}".as_bytes(),
    b"q?%20",
    b"CON",
    b"back\\slash",
    b"x.partial",
    b".hidden",
];

/// What an app does to a volume.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create,
    Overwrite,
    Append,
    Truncate,
    Replace,
    Delete,
    MakeFolder,
    RemoveFolder,
    Rename,
    RenameFolder,
    Link,
    HardLink,
    Chmod,
    Chown,
    Touch,
    KeepTime,
    Sparse,
    CreateDatabase,
    WriteRows,
    CloseDatabase,
}

/// Each, and how often.
const ACTS: [(Act, u64); 20] = [
    (Act::Create, 11),
    (Act::Overwrite, 7),
    (Act::Append, 6),
    (Act::Truncate, 2),
    (Act::Replace, 8),
    (Act::Delete, 6),
    (Act::MakeFolder, 4),
    (Act::RemoveFolder, 1),
    (Act::Rename, 5),
    (Act::RenameFolder, 2),
    (Act::Link, 2),
    (Act::HardLink, 1),
    (Act::Chmod, 2),
    (Act::Chown, 1),
    (Act::Touch, 2),
    (Act::KeepTime, 3),
    (Act::Sparse, 1),
    (Act::CreateDatabase, 2),
    (Act::WriteRows, 5),
    (Act::CloseDatabase, 1),
];

/// The app and its volume.
pub struct App {
    /// The volume.
    pub root: PathBuf,
    /// The databases that it has open.
    pub connections: Connections,
    /// What it has touched since somebody last looked.
    pub touched: BTreeSet<Vec<u8>>,
    /// What each path ever was.
    ever: BTreeMap<Vec<u8>, Vec<What>>,
}

impl App {
    /// An app that has not begun.
    pub fn on(root: PathBuf) -> Self {
        Self {
            root,
            connections: Connections::new(),
            touched: BTreeSet::new(),
            ever: BTreeMap::new(),
        }
    }

    /// Everything on the volume, now.
    pub fn look(&self) -> Tree {
        tree::look(&self.root, &self.connections)
    }

    /// Whether a path is, or lies below, what was touched.
    pub fn has_touched(&self, path: &[u8]) -> bool {
        let below = |folder: &Vec<u8>| {
            path.strip_prefix(folder.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"))
        };
        self.touched.contains(path) || self.touched.iter().any(below)
    }

    /// Whether a path ever was this.
    pub fn ever_was(&self, path: &[u8], what: &What) -> bool {
        self.ever.get(path).is_some_and(|all| all.contains(what))
    }

    /// The app ends: what it has open is closed.
    pub fn close(&mut self) {
        for (path, connection) in std::mem::take(&mut self.connections) {
            drop(connection);
            self.remember(&path);
        }
    }

    /// Some operations.
    pub fn burst(&mut self, dice: &mut Dice, from: usize, to: usize) {
        for _ in 0..dice.count(from, to) {
            let act = dice.weighted(&ACTS);
            if let Err(error) = self.act(dice, act) {
                // A name that is too long, a path that is another kind by now: the app has to live with it.
                let expected = [
                    rustix::io::Errno::NAMETOOLONG,
                    rustix::io::Errno::NOTDIR,
                    rustix::io::Errno::ISDIR,
                    rustix::io::Errno::EXIST,
                    rustix::io::Errno::NOENT,
                    rustix::io::Errno::LOOP,
                ];
                assert!(
                    rustix::io::Errno::from_io_error(&error).is_some_and(|errno| expected.contains(&errno)),
                    "{act:?}: {error}"
                );
            }
            if dice.in_hundred(5) {
                dice.wait(0, 2000);
            }
        }
    }

    /// Removes most of what is there: a slip, or an app that clears its cache.
    pub fn remove_most(&mut self, dice: &mut Dice) {
        for path in self.files() {
            if dice.in_hundred(85) {
                let _ = fs::remove_file(at(&self.root, &path));
                self.touch(&path);
            }
        }
    }

    fn touch(&mut self, path: &[u8]) {
        self.touched.insert(path.to_vec());
        self.remember(path);
    }

    /// What is at and below a path now was there once.
    fn remember(&mut self, path: &[u8]) {
        for path in tree::below(&self.root, path) {
            if let Some(seen) = tree::look_at(&self.root, &path, &self.connections) {
                self.remember_as(path, seen);
            }
        }
    }

    /// What a restore has brought was there once, too.
    pub fn remember_all(&mut self) {
        self.remember(b"");
    }

    fn remember_as(&mut self, path: Vec<u8>, seen: Seen) {
        let all = self.ever.entry(path).or_default();
        if !all.contains(&seen.what) {
            all.push(seen.what);
        }
    }

    fn all(&self) -> Vec<(Vec<u8>, fs::Metadata)> {
        tree::below(&self.root, b"")
            .into_iter()
            .filter(|path| !tree::is_beside_database(path))
            .filter_map(|path| {
                let metadata = fs::symlink_metadata(at(&self.root, &path)).ok()?;
                Some((path, metadata))
            })
            .collect()
    }

    /// Plain files, no databases.
    fn files(&self) -> Vec<Vec<u8>> {
        let all = self.all().into_iter();
        all.filter(|(path, metadata)| metadata.is_file() && !is_database(path))
            .map(|(path, _)| path)
            .collect()
    }

    /// Folders, the volume itself among them.
    fn folders(&self) -> Vec<Vec<u8>> {
        let below = self.all().into_iter().filter(|(_, metadata)| metadata.is_dir());
        std::iter::once(Vec::new()).chain(below.map(|(path, _)| path)).collect()
    }

    /// Folders below the volume without a database that is open.
    fn free_folders(&self) -> Vec<Vec<u8>> {
        let mut folders = self.folders();
        folders.retain(|folder| {
            let is_above = |path: &Vec<u8>| {
                path.strip_prefix(folder.as_slice())
                    .is_some_and(|rest| rest.starts_with(b"/"))
            };
            !folder.is_empty() && !self.connections.keys().any(is_above)
        });
        folders
    }

    /// A path for a file, or for a folder. No path is now one and now the other: stores with real folders can't follow.
    fn new_path(&self, dice: &mut Dice, is_folder: bool) -> Vec<u8> {
        let folders = self.folders();
        let folder = dice.pick(&folders).unwrap().clone();
        let name = if dice.in_hundred(80) {
            format!("f{}", dice.range(0, 30)).into_bytes()
        } else {
            dice.pick(&ODD).unwrap().to_vec()
        };
        let name = if is_folder {
            [b"d", name.as_slice()].concat()
        } else {
            name
        };
        joined(&folder, &name)
    }

    fn is_there(&self, path: &[u8]) -> bool {
        fs::symlink_metadata(at(&self.root, path)).is_ok()
    }

    fn act(&mut self, dice: &mut Dice, act: Act) -> io::Result<()> {
        match act {
            Act::Create | Act::Sparse | Act::Link | Act::MakeFolder => {
                let path = self.new_path(dice, matches!(act, Act::MakeFolder));
                let full = at(&self.root, &path);
                if self.is_there(&path) {
                    return Ok(());
                }
                match act {
                    Act::Create => fs::write(full, content(dice))?,
                    Act::Link => {
                        let targets = ["nowhere", "..", "f1", "/etc/hostname", "."];
                        symlink(dice.pick(&targets).unwrap(), full)?;
                    }
                    Act::Sparse => {
                        let file = File::create(full)?;
                        file.set_len(dice.range(1, 2 << 20))?;
                        file.write_all_at(b"x", 0)?;
                    }
                    _ if path.split(|byte| *byte == b'/').count() < 6 => {
                        fs::create_dir(&full)?;
                        if dice.in_hundred(30) {
                            fs::set_permissions(full, Permissions::from_mode(0o750))?;
                        }
                    }
                    _ => return Ok(()),
                }
                self.touch(&path);
            }
            Act::CreateDatabase | Act::WriteRows | Act::CloseDatabase => self.act_on_database(dice, act),
            Act::RemoveFolder | Act::RenameFolder => self.act_on_folder(dice, act)?,
            _ => {
                let files = self.files();
                if let Some(path) = dice.pick(&files) {
                    self.act_on_file(dice, act, path)?;
                }
            }
        }
        Ok(())
    }

    fn act_on_file(&mut self, dice: &mut Dice, act: Act, path: &[u8]) -> io::Result<()> {
        let full = at(&self.root, path);
        let open = || File::options().write(true).open(&full);
        match act {
            Act::Overwrite => open()?.write_all_at(&content(dice), 0)?,
            Act::Append => File::options().append(true).open(&full)?.write_all(&content(dice))?,
            Act::Truncate => {
                let size = fs::metadata(&full)?.size();
                open()?.set_len(dice.range(0, size + 1))?;
            }
            Act::Replace => {
                // As an app does that writes its settings; the name beside it is another file for a moment.
                let beside = joined(&parent(path), b"f0.new");
                fs::write(at(&self.root, &beside), content(dice))?;
                self.touch(&beside);
                fs::rename(at(&self.root, &beside), &full)?;
            }
            Act::Delete if self.files().len() > 2 => fs::remove_file(&full)?,
            Act::Chmod => {
                let modes = [0o644, 0o600, 0o755, 0o4755, 0o2640, 0o1777];
                fs::set_permissions(&full, Permissions::from_mode(*dice.pick(&modes).unwrap()))?;
            }
            Act::Chown if rustix::process::geteuid().is_root() => {
                let (user, group) = (dice.pick(&[0, 1000, 12345]).copied(), dice.pick(&[0, 1000, 7]).copied());
                chown(&full, user, group)?;
            }
            Act::Touch => open()?.set_modified(SystemTime::now())?,
            Act::KeepTime => {
                // Another content of the same size, with a time of its own: as rsync, tar and cp -p bring it.
                let size = usize::try_from(fs::metadata(&full)?.size()).unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::new(dice.range(1, 1_700_000_000), 123_456_789);
                let file = open()?;
                file.write_all_at(&dice.bytes(size), 0)?;
                file.set_modified(time)?;
            }
            Act::Rename => {
                let to = self.new_path(dice, false);
                let into = at(&self.root, &to);
                if into.is_dir() || is_database(&to) {
                    return Ok(());
                }
                fs::rename(&full, into)?;
                self.touch(&to);
            }
            Act::HardLink => {
                let to = self.new_path(dice, false);
                if !self.is_there(&to) {
                    fs::hard_link(&full, at(&self.root, &to))?;
                    self.touch(&to);
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.touch(path);
        // Its other names have changed with it.
        if let Ok(metadata) = fs::symlink_metadata(&full)
            && metadata.nlink() > 1
        {
            let others = self.all().into_iter();
            let others = others.filter(|(_, other)| other.ino() == metadata.ino());
            for (other, _) in others.collect::<Vec<_>>() {
                self.touch(&other);
            }
        }
        Ok(())
    }

    fn act_on_folder(&mut self, dice: &mut Dice, act: Act) -> io::Result<()> {
        let folders = self.free_folders();
        let Some(folder) = dice.pick(&folders).cloned() else {
            return Ok(());
        };
        let full = at(&self.root, &folder);
        let lies_in = |path: &[u8], folder: &[u8]| path.starts_with(&joined(folder, b""));
        match act {
            Act::RemoveFolder => fs::remove_dir_all(&full)?,
            Act::RenameFolder => {
                let to = self.new_path(dice, true);
                if self.is_there(&to) || lies_in(&to, &folder) {
                    return Ok(());
                }
                fs::rename(&full, at(&self.root, &to))?;
                self.touch(&to);
            }
            _ => {}
        }
        self.touch(&folder);
        Ok(())
    }

    fn act_on_database(&mut self, dice: &mut Dice, act: Act) {
        let open: Vec<Vec<u8>> = self.connections.keys().cloned().collect();
        let path = match act {
            Act::CreateDatabase => {
                let folders = self.folders();
                let name = format!("db{}.sqlite", dice.range(0, 6));
                joined(dice.pick(&folders).unwrap(), name.as_bytes())
            }
            _ => match dice.pick(&open) {
                Some(path) => path.clone(),
                None => return,
            },
        };
        match act {
            Act::CreateDatabase => {
                if self.is_there(&path) || open.len() >= 5 {
                    return;
                }
                let mode = *dice.pick(&["wal", "delete", "truncate", "persist"]).unwrap();
                let connection = super::support::app::create(&at(&self.root, &path), mode);
                self.connections.insert(path.clone(), connection);
            }
            Act::WriteRows => write_rows(&self.connections[&path], dice),
            _ => {
                drop(self.connections.remove(&path));
                if dice.in_hundred(50) {
                    for ending in [b"".as_slice(), b"-wal", b"-shm", b"-journal"] {
                        let _ = fs::remove_file(at(&self.root, &[&path, ending].concat()));
                    }
                }
            }
        }
        self.touch(&path);
    }
}

/// A transaction, and what a database goes through besides.
fn write_rows(connection: &Connection, dice: &mut Dice) {
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    let transaction = connection.unchecked_transaction().unwrap();
    for _ in 0..dice.range(1, 60) {
        let text = hex(&dice.bytes(25));
        transaction.execute("INSERT INTO t (x) VALUES (?1)", [text]).unwrap();
    }
    if dice.in_hundred(30) {
        transaction.execute("DELETE FROM t WHERE n % 3 = 0", []).unwrap();
    }
    transaction.commit().unwrap();
    if dice.in_hundred(20) {
        connection.execute_batch("VACUUM").unwrap();
    }
}

fn content(dice: &mut Dice) -> Vec<u8> {
    let length = match dice.range(0, 100) {
        0..5 => 0,
        5..85 => dice.count(1, 3000),
        85..98 => dice.count(10_000, 400_000),
        _ => 5 << 20,
    };
    dice.bytes(length)
}

fn parent(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path[..end].to_vec()
}
