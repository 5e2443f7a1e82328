//! One file, folder or symlink as `lstat` tells it. Pure.

/// What an entry is; everything else (sockets, pipes, devices) is never taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
}

/// What the volume says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `<folder in the bucket>/<path in the volume>`, raw bytes; a folder's ends with `/`, and so does the volume's root.
    pub path: Vec<u8>,
    /// File, folder or symlink.
    pub kind: Kind,
    /// Bytes; 0 for anything but a file.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub modified: i64,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub inode: u64,
    /// Change time of the inode, nanoseconds since 1970; 0 where it is not known (an index does not hold it).
    pub changed: i64,
    /// A symlink's target, raw bytes.
    pub target: Vec<u8>,
}

impl Entry {
    /// The entry that `stat` (of the path itself, not of what it links to) describes; none for sockets, pipes and
    /// devices.
    #[must_use]
    pub fn of(path: Vec<u8>, stat: &rustix::fs::Stat, target: Vec<u8>) -> Option<Self> {
        let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => Kind::File,
            rustix::fs::FileType::Directory => Kind::Folder,
            rustix::fs::FileType::Symlink => Kind::Symlink,
            _ => return None,
        };
        let mut path = path;
        if kind == Kind::Folder && !path.ends_with(b"/") {
            path.push(b'/');
        }
        Some(Self {
            path,
            kind,
            size: match kind {
                Kind::File => u64::try_from(stat.st_size).unwrap_or(0),
                Kind::Folder | Kind::Symlink => 0,
            },
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            inode: stat.st_ino,
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            target,
        })
    }

    /// Whether the content may be another than the one that `known` describes. Where `known` comes from an index, its
    /// inode and change time are not known, and size and modification time decide.
    #[must_use]
    pub fn may_differ(&self, known: &Self) -> bool {
        self.kind != known.kind
            || self.size != known.size
            || self.target != known.target
            || (self.kind != Kind::Folder && self.modified != known.modified)
            || (self.kind == Kind::File
                && known.changed != 0
                && (self.changed != known.changed || self.inode != known.inode))
    }

    /// The entry of an object that somebody else has put into a store, of which nothing is known but its name and size.
    #[must_use]
    pub const fn only_listed(path: Vec<u8>, size: u64) -> Self {
        Self {
            path,
            kind: Kind::File,
            size,
            modified: i64::MIN,
            mode: 0,
            uid: 0,
            gid: 0,
            inode: 0,
            changed: 0,
            target: Vec::new(),
        }
    }

    /// Whether nothing is known of it but its name and size.
    #[must_use]
    pub const fn is_only_listed(&self) -> bool {
        self.modified == i64::MIN
    }

    /// Whether owner or mode are others than `known` says.
    #[must_use]
    pub const fn ownership_differs(&self, known: &Self) -> bool {
        self.mode != known.mode || self.uid != known.uid || self.gid != known.gid
    }
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
