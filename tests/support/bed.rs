//! One workload with one volume and one place, as a pod would have them, on a real S3 server: starts it, backs it up
//! with the library's own index writer, and looks at what came of it.

use super::{BUCKET, S3, path_with_tools, write};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use vixens_backup::agent::restore::attributes;
use vixens_backup::agent::start::Start;
use vixens_backup::contract::question::Question;
use vixens_backup::store::claims::{Claim, ClaimedVolume, Owner};
use vixens_backup::store::index::{Carried, Entry, File, Header, IndexWriter, IndexedVolume, Standing, Totals, What};
use vixens_backup::store::keys::{self, StoredName, stored_name};
use vixens_backup::store::records::{VERSION, encode};
use vixens_backup::store::snapshot::SnapshotId;
use vixens_backup::store::state::State;
use vixens_backup::store::{Store, Upload, unwatched};

/// The volume's folder in the bucket.
pub const FOLDER: &str = "config";

/// A workload, its volume and the pod's shared folders.
pub struct Bed {
    /// Where its place is.
    pub server: S3,
    root: TempDir,
    /// Further flags of `agent init`.
    pub flags: Vec<String>,
    /// The pod's name.
    pub pod: String,
    /// The pod template's revision.
    pub generation: String,
    /// The cluster's id.
    pub cluster: String,
    /// tier2, or another.
    pub tier: &'static str,
    /// What every container's environment has besides.
    pub environment: Vec<(&'static str, String)>,
}

impl Bed {
    /// An empty volume and an empty place.
    pub fn new() -> Self {
        Self::on(S3::start())
    }

    /// An empty volume, and a place at this server.
    pub fn on(server: S3) -> Self {
        Self::at(in_memory(), server)
    }

    /// The same with a volume on the disk, for what is large.
    pub fn on_disk(server: S3) -> Self {
        Self::at(tempfile::tempdir().unwrap(), server)
    }

    /// The same with everything below this folder.
    pub fn in_folder(folder: &Path, server: S3) -> Self {
        Self::at(tempfile::tempdir_in(folder).unwrap(), server)
    }

    fn at(root: TempDir, server: S3) -> Self {
        for folder in ["volume", "restore", "defaults", "secrets"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self {
            server,
            root,
            flags: Vec::new(),
            pod: "app-1".to_owned(),
            generation: "g1".to_owned(),
            cluster: "c1".to_owned(),
            tier: "tier2",
            environment: Vec::new(),
        }
    }

    /// With a flag of `agent init`.
    pub fn with(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// The volume.
    pub fn volume(&self) -> PathBuf {
        self.root.path().join("volume")
    }

    /// The folder that the injected containers share.
    pub fn restore_dir(&self) -> PathBuf {
        self.root.path().join("restore")
    }

    /// Layer 1.
    pub fn defaults(&self) -> PathBuf {
        self.root.path().join("defaults")
    }

    /// Layer 3.
    pub fn secrets(&self) -> PathBuf {
        self.root.path().join("secrets")
    }

    /// The place.
    pub fn store(&self) -> vixens_backup::store::rclone::Rclone {
        self.server.store("app")
    }

    /// Who the workload is.
    pub fn owner(&self) -> Owner {
        Owner {
            cluster: self.cluster.clone(),
            namespace: "home".to_owned(),
            kind: "Deployment".to_owned(),
            name: "app".to_owned(),
            pod: String::new(),
        }
    }

    /// `vixens-backup agent init`, ready to run.
    pub fn init(&self) -> Command {
        self.init_by(Command::new(env!("CARGO_BIN_EXE_vixens-backup")))
    }

    /// The same by `command`, the program's own arguments to be added.
    pub fn init_by(&self, mut command: Command) -> Command {
        command
            .args([
                "agent",
                "init",
                "--tier",
                self.tier,
                "--workload=Deployment/app",
                "--allow-plain-folder",
            ])
            .arg(format!("--volume=data:{FOLDER}:{}", self.volume().display()))
            .arg(format!("--destination=minio:{BUCKET}/app"))
            .arg(format!("--restore-dir={}", self.restore_dir().display()))
            .arg(format!("--defaults-dir={}", self.defaults().display()))
            .arg(format!("--secrets-dir={}", self.secrets().display()))
            .arg(format!("--rclone-dir={}", self.server.rclone_dir().display()))
            .args(&self.flags)
            .env("PATH", path_with_tools())
            .env("POD_NAMESPACE", "home")
            .env("POD_NAME", &self.pod)
            .env("VIXENS_BACKUP_GENERATION", &self.generation)
            .env("VIXENS_BACKUP_CLUSTER_ID", &self.cluster)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// A start that must succeed: what it said, and what the sidecar would read.
    pub fn start(&self) -> (String, Start) {
        let output = self.init().output().unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{}\n{out}{err}", output.status);
        let start = Start::read(&self.restore_dir()).unwrap().unwrap();
        (format!("{out}{err}"), start)
    }

    /// A start that must fail: what it said. It leaves no word for the sidecar.
    pub fn refused(&self) -> String {
        self.refused_by(Command::new(env!("CARGO_BIN_EXE_vixens-backup")))
    }

    /// The same by `command`.
    pub fn refused_by(&self, command: Command) -> String {
        self.ended(command, 1)
    }

    /// A start that ends with a question: what it said.
    pub fn asks(&self) -> String {
        self.ended(Command::new(env!("CARGO_BIN_EXE_vixens-backup")), 3)
    }

    fn ended(&self, command: Command, code: i32) -> String {
        let output = self.init_by(command).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        assert_eq!(Start::read(&self.restore_dir()).unwrap(), None);
        err
    }

    /// A start that must end with a question.
    pub fn asked(&self) -> Question {
        let output = self.init().output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(3), "{out}{err}");
        assert_eq!(Start::read(&self.restore_dir()).unwrap(), None);
        Question::find(&err).unwrap_or_else(|| panic!("it asks nothing: {out}{err}"))
    }

    /// The volume is lost, and the pod with it: a new claim, empty folders.
    pub fn lose_volume(&self) {
        for folder in [self.volume(), self.restore_dir()] {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
        }
    }

    /// Backs a folder up as one snapshot, the way a sidecar would leave it: mirror and full index.
    pub async fn backup(&self, source: &Path, id: &str) -> SnapshotId {
        let id: SnapshotId = id.parse().unwrap();
        let store = self.store();
        let entries = entries(source, id);
        let uploads: Vec<Upload> = entries
            .iter()
            .filter_map(|entry| {
                let (_, path) = entry.place();
                Some(Upload {
                    local: source.join(std::ffi::OsStr::from_bytes(path)),
                    name: entry.stored_name()?.into_owned(),
                })
            })
            .collect();
        let undone = store.upload(&keys::mirror(FOLDER), &uploads, &unwatched).await.unwrap();
        assert_eq!(undone, []);
        self.publish(id, &entries).await;
        id
    }

    /// Publishes an index.
    pub async fn publish(&self, id: SnapshotId, entries: &[Entry]) {
        let header = Header {
            id,
            base: None,
            time: id.time,
            volumes: vec![IndexedVolume {
                folder: FOLDER.to_owned(),
                id: "gone".to_owned(),
            }],
            databases: Vec::new(),
            skipped: BTreeMap::new(),
            carried: Carried::default(),
        };
        let mut writer = IndexWriter::new(Vec::new(), &header).unwrap();
        let mut totals = Totals::default();
        for entry in entries {
            totals.add(entry);
            writer.push(entry).unwrap();
        }
        let bytes = writer.finish(totals).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let local = folder.path().join("index");
        fs::write(&local, bytes).unwrap();
        let upload = Upload {
            local,
            name: format!("{id}.json"),
        };
        let undone = self
            .store()
            .upload(keys::SNAPSHOTS, &[upload], &unwatched)
            .await
            .unwrap();
        assert_eq!(undone, []);
    }

    /// A claim by somebody who has let go since.
    pub async fn claim(&self, owner: Owner, epoch: u64, volume_id: &str, pod: &str, generation: &str) {
        let claim = Claim {
            version: VERSION,
            epoch,
            owner,
            pod: pod.to_owned(),
            generation: generation.to_owned(),
            volumes: vec![ClaimedVolume {
                name: "data".to_owned(),
                folder: FOLDER.to_owned(),
                id: volume_id.to_owned(),
            }],
            time: "2026-01-01T00:00:00Z".parse().unwrap(),
            start: None,
        };
        let key = keys::claim(epoch, volume_id);
        self.store().write(&key, &encode(&claim)).await.unwrap();
        self.heartbeat(epoch, volume_id, claim.time, true).await;
    }

    /// A heartbeat of a claim's holder.
    pub async fn heartbeat(&self, epoch: u64, volume_id: &str, time: Timestamp, released: bool) {
        let state = State {
            version: VERSION,
            epoch,
            volume_id: volume_id.to_owned(),
            pod: "app-0".to_owned(),
            owner: None,
            heartbeat: time,
            released,
            ..State::default()
        };
        self.store().write(keys::STATE, &encode(&state)).await.unwrap();
    }
}

/// A folder in memory where the machine has one: a start waits until its files lie on the disk, and on a disk that is
/// everybody's that takes as long as everybody's writes.
pub fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What an index says of a folder.
pub fn entries(source: &Path, id: SnapshotId) -> Vec<Entry> {
    let mut entries = Vec::new();
    walk(source, &mut |path, metadata| {
        let below = path.strip_prefix(source).unwrap().as_os_str().as_bytes();
        let mut key = [FOLDER.as_bytes(), b"/", below].concat();
        let attributes = attributes::of(metadata);
        let what = if metadata.is_dir() {
            if !below.is_empty() {
                key.push(b'/');
            }
            What::Folder(attributes)
        } else if metadata.is_symlink() {
            let target = fs::read_link(path).unwrap();
            What::Link(target.as_os_str().as_bytes().to_vec(), attributes_of_link(attributes))
        } else {
            What::File(File {
                size: metadata.len(),
                sha256: sha256(path),
                attributes,
                stored: id.point(),
                name: match stored_name(below) {
                    StoredName::Plain(_) => None,
                    StoredName::Named(name) => Some(name),
                },
                torn: false,
            })
        };
        entries.push(Entry {
            path: key,
            what,
            standing: Standing::Live,
        });
    });
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn attributes_of_link(attributes: vixens_backup::store::index::Attributes) -> vixens_backup::store::index::Attributes {
    vixens_backup::store::index::Attributes { mode: 0, ..attributes }
}

fn sha256(path: &Path) -> [u8; 32] {
    vixens_backup::agent::restore::verify::sha256_of(&mut fs::File::open(path).unwrap()).unwrap()
}

fn walk(path: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let metadata = fs::symlink_metadata(path).unwrap();
    each(path, &metadata);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap().path();
            if entry.file_name().is_none_or(|name| name != keys::OWN_FOLDER) {
                walk(&entry, each);
            }
        }
    }
}

/// Everything that can be seen of a folder: path, kind, owner, mode, time, and content or target. Without our own.
pub fn seen(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    walk(root, &mut |path, metadata| {
        let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        let mode = metadata.mode() & 0o7777;
        let text = if metadata.is_dir() {
            // The time of the volume's own root follows from what we do in it.
            let time = if below.is_empty() { String::new() } else { time };
            format!("folder {owner} {mode:o} {time}")
        } else if metadata.is_symlink() {
            format!("link {owner} {time} {}", fs::read_link(path).unwrap().display())
        } else {
            format!("file {owner} {mode:o} {time} {}", keys::hex(&sha256(path)))
        };
        all.insert(below, text);
    });
    all
}

/// A folder with everything that a volume can hold.
pub fn lived_in() -> TempDir {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (path, content) in [
        ("configuration.yaml", "title: home\n"),
        (".storage/core.config", "{\"a\": 1}\n"),
        (".storage/.hidden/deep", "x"),
        ("-rf", "dash"),
        ("a b/[c]*?{d}.txt", "glob"),
        ("empty.txt", ""),
        ("\u{e9}t\u{e9}.txt", "composed"),
        ("e\u{301}te\u{301}.txt", "decomposed"),
    ] {
        write(&root.join(path), content);
    }
    for name in [b" space ".as_slice(), b"new\nline", b"\xff\xfe", &[b'n'; 255]] {
        write(&root.join(std::ffi::OsStr::from_bytes(name)), name);
    }
    fs::create_dir_all(root.join("nothing/in/here")).unwrap();
    symlink("configuration.yaml", root.join("link")).unwrap();
    symlink("/nowhere/at all", root.join("nothing/broken")).unwrap();
    fs::set_permissions(root.join("-rf"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join(".storage"), fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(root.join("empty.txt"), Some(1234), Some(4321)).unwrap();
        chown(root.join("nothing"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(root.join("link"), Some(1234), Some(4321)).unwrap();
    }
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    for path in ["configuration.yaml", "empty.txt"] {
        fs::File::options()
            .write(true)
            .open(root.join(path))
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    fs::File::open(root.join("nothing/in"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    folder
}
