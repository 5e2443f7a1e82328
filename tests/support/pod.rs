//! A pod with a sidecar, without Kubernetes: a volume, a scratch folder, the claim and `start.json` as `init` leaves
//! them, and the program under test as a process.

use super::{BUCKET, Process, S3, free_port, path_with_tools};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vixens_backup::agent::arguments::Destination;
use vixens_backup::agent::start::{Start, StartedDestination, StartedVolume, Status, Writing};
use vixens_backup::agent::token::Token;
use vixens_backup::agent::volume::marker::{MARKER, Marker, MarkerStatus};
use vixens_backup::agent::volume::own::OwnFolder;
use vixens_backup::store::claims::{self, Holder, Owner, Taken};
use vixens_backup::store::index::{Entry, IndexReader, What, merged};
use vixens_backup::store::keys::{self, SnapshotObject, of_snapshot};
use vixens_backup::store::snapshot::SnapshotId;
use vixens_backup::store::{Depth, Error, Store, listed};

/// Nothing in these tests takes longer, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Where a pod's place lies in the bucket.
pub const PLACE: &str = "app";

/// A pod whose volume is backed up to [`PLACE`].
pub struct Pod {
    /// `/config`.
    pub volume: TempDir,
    /// `/restore`.
    pub scratch: TempDir,
    /// What the sidecar is told beside what every test tells it.
    pub arguments: Vec<String>,
    /// The volume's id.
    pub id: String,
    /// Another destination: its remote, and the store to claim it in.
    others: Vec<(String, vixens_backup::store::rclone::Rclone)>,
    /// The Secret's folder.
    rclone_dir: PathBuf,
    port: u16,
    sidecar: Option<Sidecar>,
}

struct Sidecar {
    process: Process,
    log: Arc<(Mutex<String>, Condvar)>,
}

impl Pod {
    /// A pod with an empty volume of the id `id`, not started.
    pub fn new(server: &S3, id: &str) -> Self {
        let pod = Self {
            volume: tempfile::tempdir().unwrap(),
            scratch: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
            id: id.to_owned(),
            others: Vec::new(),
            rclone_dir: server.rclone_dir().to_owned(),
            port: free_port(),
            sidecar: None,
        };
        std::fs::create_dir(pod.path(".vixens-backup")).unwrap();
        pod
    }

    /// Adds a destination, of the same path on another remote.
    pub fn also(&mut self, remote: &str, server: &S3) {
        self.others.push((remote.to_owned(), server.store(PLACE)));
        self.arguments.push(format!("--destination={remote}:{BUCKET}/{PLACE}"));
    }

    /// Does what `init` does at its end: claims the place, and writes `start.json`.
    pub fn init(&self, server: &S3) -> Holder {
        self.init_with(server, |_| {})
    }

    /// The same, with a `start.json` that was changed.
    pub fn init_with(&self, server: &S3, change: impl FnOnce(&mut Start)) -> Holder {
        let owner = Owner {
            cluster: String::new(),
            namespace: "test".to_owned(),
            kind: "Deployment".to_owned(),
            name: "app".to_owned(),
            pod: String::new(),
        };
        let mut start = Start {
            version: 1,
            time: Timestamp::now(),
            owner,
            pod: format!("app-{}", self.id),
            generation: String::new(),
            epoch: 0,
            since: None,
            pins: std::collections::BTreeMap::new(),
            destinations: Vec::new(),
            volumes: vec![StartedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                path: self.volume.path().to_owned(),
                id: self.id.clone(),
                status: Status::Settled,
                why: "test".to_owned(),
                restored: None,
                adopted: false,
            }],
            serving: None,
        };
        let mut holders = Vec::new();
        let others = self.others.iter().map(|(remote, store)| (remote.as_str(), store));
        let primary = server.store(PLACE);
        for (remote, store) in [("minio", &primary)].into_iter().chain(others) {
            let holder = block_on(async {
                let seen = claims::list(store).await.unwrap();
                match claims::take(store, start.claim(Timestamp::now()), &seen, 0)
                    .await
                    .unwrap()
                {
                    Taken::Held(epoch) => Holder {
                        epoch,
                        volume_id: self.id.clone(),
                    },
                    Taken::Lost(holder) => panic!("{holder:?} holds the place"),
                }
            });
            start.destinations.push(StartedDestination {
                destination: format!("{remote}:{BUCKET}/{PLACE}"),
                writing: Writing::Claimed { holder: holder.clone() },
                why: "test".to_owned(),
                damaged: Vec::new(),
                takes_over: None,
            });
            holders.push(holder);
        }
        let holder = holders.swap_remove(0);
        start.epoch = holder.epoch;
        change(&mut start);
        start.write(self.scratch.path()).unwrap();
        self.mark(&holder);
        holder
    }

    /// Marks the volume as `init` does, with this claim.
    pub fn mark(&self, holder: &Holder) {
        let start = Start::read(self.scratch.path()).unwrap().unwrap();
        let marker = Marker {
            version: 1,
            id: self.id.clone(),
            owner: start.owner,
            folder: "config".to_owned(),
            status: MarkerStatus::Settled,
            epoch: holder.epoch,
            claim: Some(holder.clone()),
            time: Timestamp::now(),
            restored: None,
            served: Vec::new(),
            serving: None,
            bare: None,
            since: None,
        };
        OwnFolder::on(self.volume.path()).write(MARKER, &marker).unwrap();
    }

    /// Where its HTTP server listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A path on the volume.
    pub fn path(&self, name: &str) -> PathBuf {
        self.volume.path().join(name)
    }

    /// Writes a file on the volume.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        super::write(&self.path(name), content);
    }

    /// Starts the sidecar.
    pub fn start(&mut self) -> &mut Self {
        self.start_with(Command::new(env!("CARGO_BIN_EXE_vixens-backup")))
    }

    /// Starts the sidecar by `command`, the program's own arguments to be added.
    pub fn start_with(&mut self, mut command: Command) -> &mut Self {
        command
            .args(["agent", "sidecar", "--workload=Deployment/app", "--allow-plain-folder"])
            .arg(format!("--volume=data:config:{}", self.volume.path().display()))
            .arg(format!("--destination=minio:{BUCKET}/{PLACE}"))
            .arg(format!("--restore-dir={}", self.scratch.path().display()))
            .arg(format!("--rclone-dir={}", self.rclone_dir.display()))
            .arg(format!("--port={}", self.port))
            // As soon as it may be, where a test does not say otherwise.
            .args((!self.arguments.iter().any(|flag| flag.starts_with("--settle"))).then_some("--settle=1s"))
            .args(&self.arguments)
            .env("PATH", path_with_tools())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (to, from) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let (text, grown) = &*to;
                let mut text = text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                grown.notify_all();
            }
        });
        self.sidecar = Some(Sidecar {
            process: Process(child),
            log,
        });
        self
    }

    fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().unwrap()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.sidecar().log.0.lock().unwrap().clone()
    }

    /// Waits until it has said something `count` times.
    pub fn until_said(&self, what: &str, count: usize) {
        let (text, grown) = &*self.sidecar().log;
        let text = text.lock().unwrap();
        let (text, timeout) = grown
            .wait_timeout_while(text, PATIENCE, |text| text.matches(what).count() < count)
            .unwrap();
        assert!(!timeout.timed_out(), "it never said {what:?} {count} times:\n{text}");
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.sidecar().process.0.id()).unwrap()
    }

    /// The processes that it has started.
    pub fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children
            .split_whitespace()
            .map(|child| child.parse().unwrap())
            .collect()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it as the kubelet does, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let status = waited(&mut self.sidecar.as_mut().unwrap().process.0);
        self.sidecar = None;
        status
    }

    /// Kills it and forgets it.
    pub fn kill(&mut self) {
        self.sidecar = None;
    }

    /// Asks its HTTP server; the answer with its head.
    pub fn http(&self, request: &str, headers: &str, body: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// `/status`.
    pub fn status(&self) -> serde_json::Value {
        let answer = self.http("GET /status", "", "");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// Waits until `/status` is as wanted.
    pub fn until_status(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The program under test in a namespace of its own (`--user`, `--mount`), after `script` was run in it as root. Nothing
/// where this machine does not allow that.
pub fn in_namespace(kind: &str, script: &str) -> Option<Command> {
    namespace(kind, script, Path::new(env!("CARGO_BIN_EXE_vixens-backup")))
}

/// Any program, in the same way.
pub fn namespace(kind: &str, script: &str, program: &Path) -> Option<Command> {
    let map: &[&str] = match kind {
        "--user" => &["--map-root-user"],
        _ if !rustix::process::geteuid().is_root() => &["--user", "--map-root-user"],
        _ => &[],
    };
    let allowed = Command::new("unshare")
        .arg(kind)
        .args(map)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!(
            "skipped: this machine allows no {} namespace",
            kind.trim_start_matches('-')
        );
        return None;
    }
    let mut command = Command::new("unshare");
    command.arg(kind).args(map).args(["sh", "-c"]);
    command.arg(format!("{script}\nexec \"$@\"")).arg("sh").arg(program);
    Some(command)
}

/// Where nobody listens.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// The token of the place.
pub fn token(server: &S3) -> String {
    let destination: Destination = format!("minio:{BUCKET}/{PLACE}").parse().unwrap();
    Token::new(&destination, server.rclone_dir()).make().unwrap()
}

/// Waits for a process, for as long as [`PATIENCE`].
pub fn waited(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Every key below the place, in order.
async fn all_keys(store: &impl Store) -> Result<Vec<String>, Error> {
    let objects = listed(store, "", Depth::All).await?;
    let mut keys: Vec<String> = objects.into_iter().map(|object| object.name).collect();
    keys.sort();
    Ok(keys)
}

/// Everything below the place, if it was the same before and after.
async fn fetched(store: &impl Store) -> Result<Option<(Vec<String>, TempDir)>, Error> {
    let keys = all_keys(store).await?;
    let folder = tempfile::tempdir().unwrap();
    let undone = store
        .download("", &keys, folder.path(), &vixens_backup::store::unwatched)
        .await?;
    let is_same = undone.is_empty() && all_keys(store).await? == keys;
    Ok(is_same.then_some((keys, folder)))
}

/// What a place holds, as a reader of the bucket sees it.
pub struct Place {
    /// Every key below the destination.
    pub keys: Vec<String>,
    /// The snapshots, in order.
    pub snapshots: Vec<SnapshotId>,
    /// The pending marks.
    pub pending: Vec<SnapshotId>,
    folder: TempDir,
}

impl Place {
    /// Lists and fetches everything as of one moment: again, where something came or went away meanwhile. A sidecar at
    /// work replaces a file and lays the old one aside between our listing and our download, and `rclone serve s3`
    /// fails to read an object that is just being replaced.
    pub fn read(server: &S3) -> Self {
        let store = server.store(PLACE);
        let deadline = Instant::now() + PATIENCE;
        let (keys, folder) = loop {
            match block_on(fetched(&store)) {
                Ok(Some(found)) => break found,
                Ok(None) => {}
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        let mut place = Self {
            keys,
            snapshots: Vec::new(),
            pending: Vec::new(),
            folder,
        };
        for key in &place.keys {
            match key.strip_prefix("snapshots/").map(of_snapshot) {
                Some(SnapshotObject::Index(id)) => place.snapshots.push(id),
                Some(SnapshotObject::Pending(id)) => place.pending.push(id),
                _ => {}
            }
        }
        place.snapshots.sort();
        place
    }

    /// An object's content.
    pub fn content(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join(key)).ok()
    }

    /// The newest snapshot.
    pub fn newest(&self) -> SnapshotId {
        *self.snapshots.last().unwrap()
    }

    fn index(&self, id: &SnapshotId) -> IndexReader<BufReader<std::fs::File>> {
        let file = std::fs::File::open(self.folder.path().join(keys::snapshot(id))).unwrap();
        IndexReader::new(BufReader::new(file)).unwrap()
    }

    /// The entries of a snapshot.
    pub fn entries(&self, id: &SnapshotId) -> Vec<Entry> {
        let index = self.index(id);
        match index.header().base {
            None => index.map(Result::unwrap).collect(),
            Some(base) => merged(self.index(&base), index).map(Result::unwrap).collect(),
        }
    }

    /// The files of a snapshot as a restore would bring them, each verified: path → content.
    pub fn files(&self, id: &SnapshotId) -> BTreeMap<String, Vec<u8>> {
        let later: Vec<&SnapshotId> = {
            let mut later: Vec<_> = self.snapshots.iter().chain(&self.pending).filter(|b| *b > id).collect();
            later.sort();
            later.dedup();
            later
        };
        let mut files = BTreeMap::new();
        for entry in self.entries(id) {
            let What::File(file) = &entry.what else { continue };
            let (folder, path) = entry.place();
            let name = format!("{}/{}", String::from_utf8_lossy(folder), entry.stored_name().unwrap());
            let content = later
                .iter()
                .find_map(|b| self.content(&format!("{}/{name}", keys::history_of(b))))
                .or_else(|| self.content(&name))
                .unwrap_or_else(|| panic!("{name} of {id} is nowhere in {:?}", self.keys));
            assert_eq!(content.len() as u64, file.size, "{name} of {id}");
            assert_eq!(keys::sha256_hex(&content), keys::hex(&file.sha256), "{name} of {id}");
            files.insert(String::from_utf8_lossy(path).into_owned(), content);
        }
        files
    }
}

/// `agent backup` with these arguments beside what every test tells it.
pub fn agent_backup(server: &S3, scratch: &Path, arguments: &[String]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vixens-backup"))
        .args(["agent", "backup", "--workload=Deployment/app", "--allow-plain-folder"])
        .arg(format!("--destination=minio:{BUCKET}/{PLACE}"))
        .arg(format!("--rclone-dir={}", server.rclone_dir().display()))
        .arg(format!("--restore-dir={}", scratch.display()))
        .args(arguments)
        .env("PATH", path_with_tools())
        .output()
        .unwrap()
}

/// Waits until the place is as wanted.
pub fn until_place(server: &S3, wanted: impl Fn(&Place) -> bool) -> Place {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let place = Place::read(server);
        if wanted(&place) {
            return place;
        }
        assert!(Instant::now() < deadline, "{:?}", place.keys);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A folder's files, but our own: path → content.
pub fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if name == ".vixens-backup" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if entry.file_type().unwrap().is_file() {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}
