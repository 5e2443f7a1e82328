//! Pods of one workload, without Kubernetes: `init` and sidecar of the program under test as processes, on one volume, and
//! what people run beside them. Says what came of each; judges nothing.

use super::store::Store;
use super::support::app::descendants;
use super::support::bed::in_memory;
use super::support::{BUCKET, Process, path_with_tools};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest that anything is waited for. Machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Where the copies lie.
pub fn destination() -> String {
    format!("minio:{BUCKET}/app")
}

/// What every pod of a workload has in common.
pub struct Workload {
    /// Its place.
    pub store: Store,
    /// The volume, the logs and everything else of it.
    pub root: TempDir,
    /// The program that people run beside the pods.
    pub program: PathBuf,
    /// tier2 or tier3.
    pub tier: &'static str,
    /// Flags of `init` and sidecar both.
    pub flags: Vec<String>,
    /// Flags of the sidecar alone.
    pub sidecar_flags: Vec<String>,
    started: u64,
}

/// A pod.
pub struct Pod {
    program: PathBuf,
    /// The former release has no such flag.
    pub knows_records: bool,
    name: String,
    generation: String,
    /// `/restore`.
    folder: PathBuf,
    port: u16,
    log: PathBuf,
    sidecar: Option<Process>,
}

/// What a command came to.
pub struct Said {
    /// Its exit code; none where it was ended.
    pub code: Option<i32>,
    /// Its result.
    pub out: String,
    /// All that it said.
    pub text: String,
}

impl Workload {
    /// A workload that never ran, with an empty volume in memory.
    pub fn new(store: Store, program: &Path, tier: &'static str) -> Self {
        let root = in_memory();
        for folder in ["volume", "defaults", "secrets", "pods", "desk", "record"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self {
            store,
            root,
            program: program.to_owned(),
            tier,
            flags: Vec::new(),
            sidecar_flags: ["--settle=1s", "--interval=10s", "--grace-period=120s"]
                .map(str::to_owned)
                .to_vec(),
            started: 0,
        }
    }

    /// The volume.
    pub fn volume(&self) -> PathBuf {
        self.root.path().join("volume")
    }

    /// Where the record of the place lies that is kept outside of it.
    pub fn record(&self) -> PathBuf {
        self.root.path().join("record")
    }

    /// Another pod, of a template that was changed.
    pub fn pod(&mut self) -> Pod {
        self.pod_of(self.program.clone())
    }

    /// The same, of another release.
    pub fn pod_of(&mut self, program: PathBuf) -> Pod {
        self.started += 1;
        let folder = self.root.path().join("pods").join(self.started.to_string());
        fs::create_dir(&folder).unwrap();
        Pod {
            name: format!("app-{}-{}", self.started, program.file_name().unwrap().display()),
            generation: format!("g{}", self.started),
            port: super::support::free_port(),
            log: folder.join("log"),
            folder,
            sidecar: None,
            knows_records: program.file_name().is_none_or(|name| name != super::settings::FORMER),
            program,
        }
    }

    /// The volume is lost: a new and empty one takes its place.
    pub fn lose_volume(&self) {
        fs::remove_dir_all(self.volume()).unwrap();
        fs::create_dir(self.volume()).unwrap();
    }

    fn command(pod: &Pod) -> Command {
        let mut command = Command::new(&pod.program);
        command
            .env("PATH", path_with_tools())
            .env("POD_NAMESPACE", "home")
            .env("POD_NAME", &pod.name)
            .env("VIXENS_BACKUP_GENERATION", &pod.generation)
            .env("VIXENS_BACKUP_CLUSTER_ID", "c1")
            .env_remove("VIXENS_BACKUP_DESTINATION")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            // Whatever kills it kills what it has started, as the end of a container does.
            .process_group(0);
        command
    }

    fn agent(&self, pod: &Pod, what: &str) -> Command {
        let mut command = Self::command(pod);
        command
            .args(["agent", what, "--workload=Deployment/app", "--allow-plain-folder"])
            .args(["--tier", self.tier])
            .arg(format!("--volume=data:config:{}", self.volume().display()))
            .arg(format!("--destination={}", destination()))
            .arg(format!("--restore-dir={}", pod.folder.display()))
            .arg(format!("--rclone-dir={}", self.store.secret().display()))
            .args(&self.flags);
        command
    }

    /// `agent init`, ready to run.
    pub fn init_command(&self, pod: &Pod, flags: &[String]) -> Command {
        let mut command = self.agent(pod, "init");
        command
            .arg(format!(
                "--defaults-dir={}",
                self.root.path().join("defaults").display()
            ))
            .arg(format!("--secrets-dir={}", self.root.path().join("secrets").display()))
            .args(
                pod.knows_records
                    .then(|| format!("--record-dir={}", self.record().display())),
            )
            .args(flags);
        command
    }

    /// `agent init`, to its end.
    pub fn init(&self, pod: &Pod, flags: &[String]) -> Said {
        let said = finished(&mut self.init_command(pod, flags), PATIENCE);
        let mut log = File::options().create(true).append(true).open(&pod.log).unwrap();
        let code = said.code.map_or_else(|| "killed".to_owned(), |code| code.to_string());
        writeln!(log, "--- init {flags:?} ended with {code}\n{}", said.text).unwrap();
        said
    }

    /// The sidecar begins.
    pub fn start(&self, pod: &mut Pod) {
        let log = File::options().create(true).append(true).open(&pod.log).unwrap();
        let child = self
            .agent(pod, "sidecar")
            .arg(format!("--port={}", pod.port))
            .args(&self.sidecar_flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        pod.sidecar = Some(Process(child));
    }

    /// `agent backup` of a pod without a sidecar: a run of the CronJob.
    pub fn run(&self, pod: &Pod) -> Said {
        finished(&mut self.job(pod, "backup"), PATIENCE)
    }

    /// `agent pre-sync`: whether what lies there can be restored, down to every byte.
    pub fn pre_sync(&self, pod: &Pod) -> Said {
        finished(self.job(pod, "pre-sync").arg("--verify=full"), PATIENCE)
    }

    fn job(&self, pod: &Pod, what: &str) -> Command {
        let mut command = Self::command(pod);
        command
            .args(["agent", what, "--workload=Deployment/app", "--allow-plain-folder"])
            .arg(format!("--volume=data:config:{}", self.volume().display()))
            .arg(format!("--destination={}", destination()))
            .arg(format!("--restore-dir={}", pod.folder.display()))
            .arg(format!("--rclone-dir={}", self.store.secret().display()));
        command
    }

    /// `vixens-backup backup`, in a pod's container.
    pub fn backup(&self, pod: &Pod, accepted: &[String], timeout: Duration) -> Said {
        let mut command = Self::command(pod);
        command
            .args(["backup", "--timeout", &format!("{}s", timeout.as_secs())])
            .arg("--restore-dir")
            .arg(&pod.folder)
            .arg("--rclone-dir")
            .arg(self.store.secret())
            .args(accepted.iter().map(|id| format!("--accept={id}")));
        finished(&mut command, timeout + Duration::from_secs(60))
    }

    /// A command of somebody at a desk with the store's credentials: `snapshots` or `restore`.
    pub fn desk(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(["--destination", &destination()])
            .arg("--rclone-config")
            .arg(self.store.secret())
            .env("PATH", path_with_tools())
            .env("TMPDIR", self.root.path().join("desk"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .process_group(0);
        finished(&mut command, PATIENCE)
    }
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file that `init` has left for it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether its sidecar runs.
    pub fn is_alive(&mut self) -> bool {
        self.sidecar
            .as_mut()
            .is_some_and(|process| process.0.try_wait().unwrap().is_none())
    }

    /// The end of what it has said.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// All that it has said.
    pub fn whole_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `/status`, where it answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        write!(
            stream,
            "GET /status HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Ends it as the kubelet does, and waits; killed where it does not end.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let process = self.sidecar.as_mut()?;
        kill_process(Pid::from_child(&process.0), Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = process.0.try_wait().unwrap() {
                self.sidecar = None;
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        None
    }

    /// The container dies: all its processes at once.
    pub fn kill(&mut self) {
        if let Some(process) = self.sidecar.take() {
            kill_all(process.0.id());
        }
    }

    /// One of the processes that it has started dies.
    pub fn kill_child(&self, which: u64) {
        let Some(process) = &self.sidecar else { return };
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            let children = descendants(process.0.id());
            if !children.is_empty() {
                let which = usize::try_from(which).unwrap_or(0) % children.len();
                kill(children[which]);
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, Signal::KILL);
}

/// A process and all that it has started.
pub fn kill_all(pid: u32) {
    let mut pids = descendants(pid);
    pids.push(pid);
    for pid in pids {
        kill(pid);
    }
}

/// Runs a command to its end, or to its death after so long.
pub fn finished(command: &mut Command, patience: Duration) -> Said {
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let copy = |file: &File| Stdio::from(file.try_clone().unwrap());
    let mut process = Process(command.stdout(copy(&out)).stderr(copy(&err)).spawn().unwrap());
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            kill_all(process.0.id());
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (out, err) = (read(out), read(err));
    Said {
        code: status.and_then(|status| status.code()),
        text: format!("{out}{err}"),
        out,
    }
}

fn read(mut file: File) -> String {
    use std::io::Seek;

    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
