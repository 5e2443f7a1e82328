//! One `litestream replicate`: started with a configuration, its complaints in our log, ended with a last sync or at once.
//! It stays in our process group and ends when it is dropped.

use super::configuration::text;
use super::control;
use super::target::Target;
use serde_json::Value;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Go's soft memory limit: with rclone and the agent it has to fit into 128 MiB.
const MEMORY: &str = "40MiB";
/// The collector runs before its heap has doubled: an idle process stays small.
const GARBAGE: &str = "50";

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    socket: PathBuf,
    last_words: Arc<Mutex<String>>,
}

/// Where a process's files lie in the pod's shared folder.
#[must_use]
pub fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

/// Writes a configuration for nobody's eyes but ours.
pub fn write(folder: &Path, name: &str, configuration: &Value) -> io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{name}.yml"));
    let _ = std::fs::remove_file(&path);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(text(configuration).as_bytes())?;
    Ok(path)
}

impl Process {
    /// Starts one. A process that an earlier sidecar has left behind is ended before.
    pub async fn start(target: &Target, folder: &Path, name: &str, configuration: &Value) -> io::Result<Self> {
        let socket = socket(folder, name);
        end_orphan(&socket).await;
        let path = write(folder, name, configuration)?;
        // What it stages before it sends it; the container's own root can't be written.
        let staging = folder.join(format!("{name}.staging"));
        let _ = std::fs::remove_dir_all(&staging);
        std::fs::DirBuilder::new().mode(0o700).create(&staging)?;
        let mut command = Command::new("litestream");
        command
            .args(["replicate", "-config"])
            .arg(path)
            .env("GOMEMLIMIT", MEMORY)
            .env("GOGC", GARBAGE)
            .env("TMPDIR", staging)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        target.introduce(&mut command);
        let mut child = command.spawn()?;
        let last_words = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let last = last_words.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let line = said(&line);
                    tracing::warn!("litestream: {line}");
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
                }
            });
        }
        Ok(Self {
            child,
            socket,
            last_words,
        })
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it said last.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{status}: {}", self.last_words())),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Has it send what is left and end, within this time; then it is killed. Whether it ended by itself, and well.
    pub async fn stop(mut self, patience: Duration) -> bool {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if let Ok(status) = tokio::time::timeout(patience, self.child.wait()).await {
            return status.is_ok_and(|status| status.success());
        }
        self.kill().await;
        false
    }

    /// Ends it at once: it sends nothing more.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// The part of a log line that is for people.
fn said(line: &str) -> String {
    let line = match line.split_once(" level=") {
        Some((_, rest)) => rest.split_once(' ').map_or(rest, |(_, rest)| rest),
        None => line,
    };
    line.chars().take(500).collect()
}

/// A sidecar that was killed leaves its Litestream behind where they share no pid namespace: two would write one replica.
async fn end_orphan(socket: &Path) {
    let Ok(pid) = control::process(socket).await else {
        return;
    };
    let is_litestream =
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "litestream");
    let Some(process) = rustix::process::Pid::from_raw(pid).filter(|_| is_litestream) else {
        return;
    };
    tracing::warn!("litestream: process {pid} was left behind by a sidecar that was killed; it is ended");
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    for _ in 0..50 {
        if control::process(socket).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_configuration_is_for_nobodys_eyes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("litestream");
        write(&folder, "standard", &serde_json::json!({"dbs": [1]})).unwrap();
        let path = write(&folder, "standard", &serde_json::json!({"dbs": []})).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&path).unwrap().contains("[]"));
    }

    #[test]
    fn a_log_line_is_told_without_its_time() {
        let line = r#"time=2026-11-23T00:46:41.270Z level=ERROR msg="sync error" db=a.db error="disk full""#;
        assert_eq!(said(line), r#"msg="sync error" db=a.db error="disk full""#);
        assert_eq!(said("Error: no"), "Error: no");
    }
}
