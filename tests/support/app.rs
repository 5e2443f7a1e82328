//! A pod at tier 3, without Kubernetes: `init` and the sidecar as processes on one volume, an app that writes to SQLite as a
//! process of its own, and what is known to be committed.

use super::bed::Bed;
use super::{BUCKET, Process, S3, free_port, path_with_tools};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Nothing in these tests takes longer, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A workload at tier 3.
pub struct App {
    /// Its volume and its place.
    pub bed: Bed,
    /// What the sidecar is told beside what every test tells it.
    pub sidecar_flags: Vec<String>,
    port: u16,
    sidecar: Option<Process>,
    log: Arc<Mutex<String>>,
}

impl App {
    /// With an empty volume in memory, on this server.
    pub fn on(server: S3) -> Self {
        Self::of(Bed::on(server))
    }

    /// On this bed.
    pub fn of(mut bed: Bed) -> Self {
        bed.tier = "tier3";
        Self {
            bed,
            sidecar_flags: Vec::new(),
            port: free_port(),
            sidecar: None,
            log: Arc::default(),
        }
    }

    /// With another destination, of the same path at this server.
    pub fn also(&mut self, second: &S3) {
        for key in ["TYPE", "PROVIDER", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT"] {
            let value = fs::read_to_string(second.rclone_dir().join(format!("RCLONE_CONFIG_MINIO_{key}"))).unwrap();
            self.bed
                .server
                .configure(&format!("RCLONE_CONFIG_SECOND_{key}"), &value);
        }
        let flag = format!("--destination=second:{BUCKET}/app");
        self.bed.flags.push(flag.clone());
        self.sidecar_flags.push(flag);
    }

    /// A path on the volume.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bed.volume().join(name)
    }

    /// The pod starts: what `init` said.
    pub fn start(&mut self) -> String {
        let (said, _) = self.bed.start();
        self.start_sidecar();
        said
    }

    /// The sidecar alone starts, again.
    pub fn start_sidecar(&mut self) {
        let bed = &self.bed;
        let mut command = Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
        command
            .args([
                "agent",
                "sidecar",
                "--workload=Deployment/app",
                "--allow-plain-folder",
                "--tier",
                bed.tier,
            ])
            .arg(format!("--volume=data:config:{}", bed.volume().display()))
            .arg(format!("--destination=minio:{BUCKET}/app"))
            .arg(format!("--restore-dir={}", bed.restore_dir().display()))
            .arg(format!("--rclone-dir={}", bed.server.rclone_dir().display()))
            .arg(format!("--port={}", self.port))
            .arg("--settle=1s")
            .args(&self.sidecar_flags)
            .env("PATH", path_with_tools())
            .env("POD_NAMESPACE", "home")
            .env("POD_NAME", &bed.pod)
            .env("VIXENS_BACKUP_GENERATION", &bed.generation)
            .env("VIXENS_BACKUP_CLUSTER_ID", &bed.cluster)
            .envs(bed.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (log, from) = (self.log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.sidecar = Some(Process(child));
    }

    /// What the sidecars have said.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.until_within(what, PATIENCE, holds);
    }

    /// The same, for what is meant to take its time.
    pub fn until_within(&self, what: &str, patience: Duration, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "never: {what}\n{}\n{}",
                self.log(),
                self.status()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the sidecar has said something.
    pub fn until_said(&self, what: &str) {
        self.until(what, |app| app.log().contains(what));
    }

    /// `/status`, where it answers.
    pub fn status(&self) -> serde_json::Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            write!(
                stream,
                "GET /status HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    /// Waits until a database's replica is in the store, with everything that was committed before the call.
    pub fn until_replicated(&self, name: &str) {
        let key = format!("config/{name}");
        self.until(&format!("{name} is replicated"), |app| {
            app.status()["databases"][&key]["status"] == "replicated"
        });
        // What was read and sent after now has what was there now.
        std::thread::sleep(Duration::from_secs(2));
    }

    /// The names of a replica's files at a level (four digits).
    pub fn replica(&self, name: &str, level: &str) -> Vec<PathBuf> {
        let folder = self
            .bed
            .server
            .bucket()
            .join(format!("app/database/config/{name}/{level}"));
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "ltx"))
            .collect();
        files.sort();
        files
    }

    /// The sidecar's process id.
    pub fn pid(&self) -> u32 {
        self.sidecar.as_ref().unwrap().0.id()
    }

    /// The container dies: all its processes at once.
    pub fn kill(&mut self) {
        let mut pids = descendants(self.pid());
        pids.push(self.pid());
        kill(&pids);
        self.sidecar = None;
    }

    /// The agent alone dies; Litestream does not notice.
    pub fn kill_agent(&mut self) {
        kill(&[self.pid()]);
        self.sidecar = None;
    }

    /// The pod is stopped, as by the kubelet.
    pub fn stop(&mut self) {
        self.terminate();
        self.ended();
    }

    /// It is told to stop.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) {
        let status = super::pod::waited(&mut self.sidecar.as_mut().unwrap().0);
        self.sidecar = None;
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// The volume is lost, and with it the pod.
    pub fn lose_volume(&self) {
        self.bed.lose_volume();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.sidecar.is_some() {
            self.kill();
        }
    }
}

/// What a process has started, and what that has started.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
        let children = task.unwrap().path().join("children");
        for child in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            let child = child.parse().unwrap();
            found.extend(descendants(child));
            found.push(child);
        }
    }
    found
}

fn kill(pids: &[u32]) {
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A database with one table, in this journal mode.
pub fn create(path: &Path, mode: &str) -> Connection {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let set: String = connection
        .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
        .unwrap();
    assert_eq!(set, mode);
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x TEXT)")
        .unwrap();
    connection
}

/// Adds rows, in one transaction.
pub fn insert(connection: &Connection, from: i64, rows: i64) {
    let transaction = connection.unchecked_transaction().unwrap();
    for n in from..from + rows {
        transaction
            .execute("INSERT INTO t VALUES (?1, hex(randomblob(50)))", [n])
            .unwrap();
    }
    transaction.commit().unwrap();
}

/// The rows of a database that SQLite finds whole.
pub fn rows(path: &Path) -> Vec<i64> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok", "{}", path.display());
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// What lies beside a database that SQLite or Litestream made.
pub fn strays(path: &Path) -> Vec<String> {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<String> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|other| other.contains(&name) && *other != name)
        .collect();
    found.sort();
    found
}

/// An app that commits so many transactions a second, until it is killed.
pub struct Writer {
    process: Process,
    committed: PathBuf,
}

/// Tells the test program that it is the app.
const WRITER: &str = "VIXENS_BACKUP_TEST_WRITER";

impl Writer {
    /// Starts one. The test file has a test of this name that calls [`Writer::be`].
    pub fn start(database: &Path, committed: &Path, test: &str) -> Self {
        let child: Child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(WRITER, format!("{}|{}", database.display(), committed.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process: Process(child),
            committed: committed.to_owned(),
        }
    }

    /// What the process does: 200 transactions a second; each is noted, with its time, once it is committed.
    pub fn be() {
        let Ok(told) = std::env::var(WRITER) else { return };
        let (database, committed) = told.split_once('|').unwrap();
        let connection = create(Path::new(database), "wal");
        connection.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
        let mut n: i64 = connection
            .query_row("SELECT coalesce(max(n), 0) FROM t", [], |row| row.get(0))
            .unwrap();
        let mut log = fs::File::options().create(true).append(true).open(committed).unwrap();
        let mut next = Instant::now();
        loop {
            n += 1;
            insert(&connection, n, 1);
            // One write a line: what is there is whole.
            log.write_all(format!("{n} {}\n", now()).as_bytes()).unwrap();
            next += Duration::from_millis(5);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// The app dies.
    pub fn kill(self) {
        drop(self.process);
    }

    /// The last transaction that was committed before this time, in milliseconds since 1970.
    pub fn committed_before(committed: &Path, time: u128) -> i64 {
        let text = fs::read_to_string(committed).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .filter_map(|(n, at)| Some((n.parse::<i64>().ok()?, at.parse::<u128>().ok()?)))
            .filter(|(_, at)| *at <= time)
            .map(|(n, _)| n)
            .max()
            .unwrap_or(0)
    }

    /// Where it notes what it has committed.
    pub fn committed(&self) -> &Path {
        &self.committed
    }
}

/// Milliseconds since 1970.
pub fn now() -> u128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis()
}
