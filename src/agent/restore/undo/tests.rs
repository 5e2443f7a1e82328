//! Restores that are taken back: whatever was put in place, the volume is what it was.

use super::super::place::place;
use super::super::plan::{Content, Item};
use super::*;
use crate::agent::volume::marker::INCOMING;
use crate::store::index::Standing;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// Numbers that look random; the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

const MODES: [u32; 3] = [0o755, 0o555, 0o700];

/// What lies at a path.
#[derive(Clone, Debug, PartialEq)]
enum Lies {
    File(String),
    Link(String),
    Folder,
}

type Tree = BTreeMap<PathBuf, Lies>;

fn tree(dice: &mut Dice, below: &Path, depth: usize, tree: &mut Tree) {
    for name in ["a", "b", "c\nd", "e"] {
        let path = below.join(name);
        match dice.roll(if depth > 2 { 5 } else { 7 }) {
            0 | 1 => {}
            2 | 3 => {
                tree.insert(path, Lies::File("x".repeat(dice.roll(3) + 1)));
            }
            4 => {
                tree.insert(path, Lies::Link(["a", "/nowhere"][dice.roll(2)].to_owned()));
            }
            _ => {
                tree.insert(path.clone(), Lies::Folder);
                self::tree(dice, &path, depth + 1, tree);
            }
        }
    }
}

fn lay(dice: &mut Dice, tree: &Tree, root: &Path) {
    for (path, lies) in tree {
        let path = root.join(path);
        match lies {
            Lies::File(content) => fs::write(path, content).unwrap(),
            Lies::Link(to) => symlink(to, path).unwrap(),
            Lies::Folder => fs::create_dir(path).unwrap(),
        }
    }
    for (path, lies) in tree.iter().rev().filter(|(_, lies)| !matches!(lies, Lies::Link(_))) {
        let path = root.join(path);
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000 + dice.roll(1000) as u64, 5);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
        let mode = if *lies == Lies::Folder {
            MODES[dice.roll(3)]
        } else {
            0o644
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Everything that can be seen of a volume.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let found = fs::symlink_metadata(&folder).unwrap();
        let is_root = folder == root;
        let time = if is_root {
            (0, 0)
        } else {
            (found.mtime(), found.mtime_nsec())
        };
        seen.insert(folder.clone(), format!("folder {:o} {time:?}", found.mode()));
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let found = fs::symlink_metadata(&path).unwrap();
            if is_root && entry.file_name() == OWN_FOLDER {
            } else if found.is_dir() {
                folders.push(path);
            } else if found.is_symlink() {
                seen.insert(path.clone(), format!("link {}", fs::read_link(path).unwrap().display()));
            } else {
                let content = fs::read_to_string(&path).unwrap();
                let time = (found.mtime(), found.mtime_nsec());
                seen.insert(path, format!("file {:o} {time:?} {content}", found.mode()));
            }
        }
    }
    seen
}

/// A volume with something on it, and a plan of something else whose files are staged where they have to be.
struct Bed {
    volume: TempDir,
    own: OwnFolder,
    plan: Plan,
    wanted: Tree,
}

impl Bed {
    fn new(dice: &mut Dice) -> Self {
        let volume = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let own = OwnFolder::on(volume.path());
        own.create().unwrap();
        let (mut there, mut wanted) = (Tree::new(), Tree::new());
        tree(dice, Path::new(""), 0, &mut there);
        tree(dice, Path::new(""), 0, &mut wanted);
        lay(dice, &there, volume.path());
        let mut items = vec![Item {
            standing: Standing::Live,
            path: PathBuf::new(),
            what: Planned::Folder(attributes::of(&fs::metadata(volume.path()).unwrap())),
        }];
        for (path, lies) in &wanted {
            let given = Attributes {
                modified: 1_234_567_000_000_000_001,
                mode: MODES[dice.roll(3)],
                ..attributes::of(&fs::metadata(volume.path()).unwrap())
            };
            let what = match lies {
                Lies::File(content) => {
                    let key = format!("config/{}", path.display());
                    if there.get(path) != Some(lies) {
                        let staged = own.join(INCOMING).join(&key);
                        fs::create_dir_all(staged.parent().unwrap()).unwrap();
                        fs::write(staged, content).unwrap();
                    }
                    let (size, sha256) = (content.len() as u64, None);
                    Planned::File(Content { key, size, sha256 }, Some(given))
                }
                Lies::Link(to) => Planned::Link(to.into(), given),
                Lies::Folder => Planned::Folder(given),
            };
            items.push(Item {
                standing: Standing::Live,
                path: path.clone(),
                what,
            });
        }
        let plan = Plan { snapshot: None, items };
        Self {
            volume,
            own,
            plan,
            wanted,
        }
    }

    fn write(&self, anew: bool) {
        let undo = Undo::of(&self.plan, self.volume.path(), &self.own.join(INCOMING), Mode::Replace).unwrap();
        undo.check(self.volume.path()).unwrap();
        undo.write(&self.own, anew).unwrap();
    }

    fn place(&self, plan: &Plan) -> Result<(), Error> {
        let (incoming, outgoing) = (self.own.join(INCOMING), self.own.join(OUTGOING));
        place(plan, self.volume.path(), &incoming, Some(&outgoing), Mode::Replace).map(drop)
    }

    /// Goes as far as some path, and ends there.
    fn place_in_part(&self, dice: &mut Dice) {
        let mut plan = self.plan.clone();
        let content = Content {
            key: "nowhere".to_owned(),
            size: 1,
            sha256: None,
        };
        let missing = Item {
            standing: Standing::Live,
            path: "missing".into(),
            what: Planned::File(content, None),
        };
        plan.items.insert(dice.roll(plan.items.len() + 1), missing);
        assert!(self.place(&plan).is_err());
    }

    fn is_as_planned(&self) -> bool {
        let mut found = Tree::new();
        for path in seen(self.volume.path()).into_keys() {
            let below = path.strip_prefix(self.volume.path()).unwrap().to_owned();
            let kind = fs::symlink_metadata(&path).unwrap();
            let lies = if kind.is_dir() {
                Lies::Folder
            } else if kind.is_symlink() {
                Lies::Link(fs::read_link(&path).unwrap().display().to_string())
            } else {
                Lies::File(fs::read_to_string(&path).unwrap())
            };
            found.insert(below, lies);
        }
        found.remove(Path::new(""));
        found == self.wanted
    }
}

#[test]
fn what_was_put_in_place_wholly_or_in_part_is_taken_back_to_the_last_bit() {
    let mut dice = Dice(0x5eed);
    for round in 0..400 {
        let bed = Bed::new(&mut dice);
        let before = seen(bed.volume.path());
        bed.write(true);
        for _ in 0..dice.roll(3) {
            bed.place_in_part(&mut dice);
            // The next start goes on, with what is there.
            bed.write(false);
        }
        if dice.roll(2) == 0 {
            bed.place(&bed.plan).unwrap();
            assert!(bed.is_as_planned(), "round {round}");
        }
        let undo = Undo::read(&bed.own).unwrap().unwrap();
        if dice.roll(2) == 0 {
            // Killed in the middle of taking it back.
            for path in undo.new.iter().rev().filter(|_| dice.roll(2) == 0) {
                if is_way(bed.volume.path(), path) {
                    remove_if_bare(&bed.volume.path().join(path), &Gate::default()).unwrap();
                }
            }
            for path in undo.outgoing.iter().filter(|_| dice.roll(2) == 0) {
                let (from, to) = (bed.own.join(OUTGOING).join(path), bed.volume.path().join(path));
                if from.symlink_metadata().is_ok() {
                    remove_all(&to).unwrap();
                    fs::rename(from, to).unwrap();
                }
            }
        }
        for _ in 0..=dice.roll(2) {
            undo.take_back(&bed.own).unwrap();
            assert_eq!(seen(bed.volume.path()), before, "round {round}: {undo:?}");
        }
    }
}

#[test]
fn what_is_written_down_is_read_as_it_was_and_half_of_it_is_nothing() {
    let attributes = Attributes {
        modified: -5,
        uid: 1,
        gid: 2,
        mode: 0o4755,
    };
    let undo = Undo {
        outgoing: ["a b", "c\nd", ""].map(PathBuf::from).into(),
        new: [path(b"\xff\xfe"), "new 1 2".into()].into(),
        attributes: [(PathBuf::new(), attributes), ("x y".into(), Attributes::default())].into(),
    };
    let bytes = undo.encoded();
    assert_eq!(Undo::decoded(&bytes), Some(undo));
    for length in 0..bytes.len() {
        assert_eq!(Undo::decoded(&bytes[..length]), None, "{length}");
    }
}

#[test]
fn what_is_put_back_is_not_put_behind_a_link() {
    let (volume, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let own = OwnFolder::on(volume.path());
    own.create().unwrap();
    // The app's own link is there again, when what was made in its place is taken back once more.
    symlink(elsewhere.path(), volume.path().join("sub")).unwrap();
    fs::write(elsewhere.path().join("file"), "not on the volume").unwrap();
    let undo = Undo {
        outgoing: ["sub".into()].into(),
        new: ["sub/file".into()].into(),
        attributes: [("sub/file".into(), Attributes::default())].into(),
    };
    undo.take_back(&own).unwrap();
    assert_eq!(
        fs::read_to_string(elsewhere.path().join("file")).unwrap(),
        "not on the volume"
    );
}
