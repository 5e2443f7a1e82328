//! One rclone process: arguments, environment and standard input in; what it printed and complained about out.
//! It stays in our process group, ends when its future is dropped, and is never believed by its exit code alone.

use super::configuration::Configuration;
use super::telling::is_about_one_file;
use super::{Settings, missing};
use crate::store::{Done, Error, Object, Undone};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::Notify;

/// What is said of a file that rclone was given and did not mention.
pub(super) const NOTHING_SAID: &str = "rclone left it out without a word";

/// Complaints beyond so many are counted, not kept.
const KEPT_COMPLAINTS: usize = 10_000;

/// The log of a batch is read so often: rclone writes each line by itself, and to wake for each costs more than to read it.
/// A pipe holds what is written meanwhile.
pub(super) const BETWEEN_READS: Duration = Duration::from_millis(10);
/// What a pipe holds, in bytes.
const LOG_BUFFER: usize = 64 * 1024;
/// What is a batch.
const A_BATCH: usize = 100;

/// So many files may fail one after the other before the store is taken to be gone.
pub(super) const MOST_IN_A_ROW: usize = 3;

/// A process that is being put together.
#[derive(Clone)]
pub(super) struct Call<'a> {
    settings: &'a Settings,
    args: Vec<OsString>,
    /// Remotes of this call alone.
    remotes: Vec<(String, String)>,
    stdin: Vec<u8>,
}

/// What to do with what the process prints.
pub(super) enum Work<'a> {
    /// Keep it, up to a little more than the limit.
    Bytes { limit: u64 },
    /// One JSON object a line, between `[` and `]`.
    Listing { each: &'a mut (dyn FnMut(Object) + Send) },
    /// Names in, one a line; each success in its log.
    Files { names: &'a [&'a str], done: Done<'a> },
}

/// A line of rclone's log that tells of something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The file that it is about; empty when it is about the call.
    pub(super) object: String,
    /// rclone's words.
    pub(super) message: String,
}

/// A process that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// What it printed, for [`Work::Bytes`].
    pub(super) bytes: Vec<u8>,
    /// What went wrong, in its order.
    pub(super) complaints: Vec<Complaint>,
    done: HashSet<String>,
    /// It was ended by us, because the store was gone.
    pub(super) given_up: bool,
    /// A listing was printed to its closing bracket.
    whole: bool,
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    object: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListingLine<'a> {
    path: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    is_dir: bool,
    /// Empty where nobody asked.
    #[serde(default)]
    mod_time: &'a str,
}

impl Ended {
    /// A process that failed with these complaints: objects, and what was said.
    #[cfg(test)]
    pub(super) fn with(complaints: &[(&str, &str)]) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let complaint = |(object, message): &(&str, &str)| Complaint {
            object: (*object).to_owned(),
            message: (*message).to_owned(),
        };
        Self {
            status: ExitStatus::from_raw(1 << 8),
            bytes: Vec::new(),
            complaints: complaints.iter().map(complaint).collect(),
            done: HashSet::new(),
            given_up: false,
            whole: true,
        }
    }

    /// Exit code 0, and a listing printed to its end.
    pub(super) fn succeeded(&self) -> bool {
        self.status.success() && self.whole
    }

    /// Which of the names were not done, and what was said about each.
    pub(super) fn undone(&self, names: &[&str]) -> Vec<Undone> {
        let left = missing(names, &self.done);
        if left.is_empty() {
            return Vec::new();
        }
        let said: HashMap<&str, &str> = self
            .complaints
            .iter()
            .map(|complaint| (complaint.object.as_str(), complaint.message.as_str()))
            .collect();
        left.into_iter()
            .map(|name| Undone {
                name: name.to_owned(),
                why: said.get(name).copied().unwrap_or(NOTHING_SAID).to_owned(),
            })
            .collect()
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(settings: &'a Settings, command: &str) -> Self {
        let fixed = [
            command,
            "--retries=1",
            "--low-level-retries=1",
            "--contimeout=10s",
            "--timeout=60s",
            "--stats=0",
            "--use-json-log",
            "--log-level=INFO",
            "--buffer-size=0",
        ];
        let mut args: Vec<OsString> = fixed.into_iter().map(OsString::from).collect();
        args.push(format!("--transfers={}", settings.transfers).into());
        args.push(format!("--checkers={}", settings.transfers.max(8)).into());
        Self {
            settings,
            args,
            remotes: Vec::new(),
            stdin: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(super) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    /// A setting of a remote that only this call has: `RCLONE_CONFIG_<REMOTE>_<OPTION>`.
    pub(super) fn remote(mut self, setting: &str, value: String) -> Self {
        self.remotes.push((format!("RCLONE_CONFIG_{setting}"), value));
        self
    }

    pub(super) fn stdin(mut self, stdin: Vec<u8>) -> Self {
        self.stdin = stdin;
        self
    }

    fn command(&self, heap_growth: Option<u32>) -> Result<Command, Error> {
        let Configuration { environment, file } =
            Configuration::read(self.settings).map_err(|source| Error::Local {
                what: "the folder with the store's credentials can't be read".to_owned(),
                source,
            })?;
        let mut command = Command::new(&self.settings.program);
        command
            .args(&self.args)
            .env("GOMEMLIMIT", format!("{}MiB", self.settings.memory))
            .env(
                "GOGC",
                heap_growth.map_or_else(|| "off".to_owned(), |percent| percent.to_string()),
            )
            .env("GOMAXPROCS", self.settings.processors.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if !environment.is_empty() {
            // The Secret as it is now; what the environment got from it when the container started may be older.
            for (name, _) in std::env::vars_os() {
                if name.as_bytes().starts_with(b"RCLONE_CONFIG_") {
                    command.env_remove(name);
                }
            }
        }
        command.envs(environment);
        command.envs(self.remotes.iter().map(|(name, value)| (name, value)));
        if let Some(file) = file {
            command.env("RCLONE_CONFIG", file);
        }
        Ok(command)
    }

    /// Runs the process to its end. An error only where it could not be run at all.
    pub(super) async fn run(self, work: Work<'_>) -> Result<Ended, Error> {
        let program = self.settings.program.display().to_string();
        let heap_growth = match work {
            Work::Files { .. } => self.settings.heap_growth,
            Work::Bytes { .. } | Work::Listing { .. } => None,
        };
        let mut child = self.command(heap_growth)?.spawn().map_err(|source| Error::Local {
            what: format!("{program} can't be started"),
            source,
        })?;
        let local = |source| Error::Local {
            what: format!("{program} can't be talked to"),
            source,
        };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(local(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (names, done): (&[&str], Done<'_>) = match &work {
            Work::Files { names, done } => (names, *done),
            Work::Bytes { .. } | Work::Listing { .. } => (&[], &crate::store::unwatched),
        };
        let feeding = async move {
            // A process that ends early closes its end: what it says tells why.
            let _ = stdin.write_all(&self.stdin).await;
            for names in names.chunks(256) {
                let mut lines = names.join("\n");
                lines.push('\n');
                if stdin.write_all(lines.as_bytes()).await.is_err() {
                    break;
                }
            }
            drop(stdin);
        };
        let gone = Notify::new();
        let ending = async {
            tokio::select! {
                status = child.wait() => status,
                () = gone.notified() => {
                    child.start_kill()?;
                    child.wait().await
                }
            }
        };
        let between_reads = (names.len() >= A_BATCH).then_some(BETWEEN_READS);
        let log = log(stderr, done, &gone, between_reads);
        let (status, (), printed, log) = tokio::join!(ending, feeding, printed(stdout, work), log);
        let (status, (bytes, whole), log) = (status.map_err(local)?, printed.map_err(local)?, log.map_err(local)?);
        let Log {
            complaints,
            done,
            given_up,
        } = log;
        Ok(Ended {
            status,
            bytes,
            complaints,
            done,
            given_up,
            whole,
        })
    }
}

/// What the process prints: its bytes, and whether a listing came to its end.
async fn printed(stdout: impl AsyncRead + Unpin, work: Work<'_>) -> std::io::Result<(Vec<u8>, bool)> {
    match work {
        Work::Bytes { limit } => {
            let mut bytes = Vec::new();
            let mut stdout = stdout.take(limit + 1);
            stdout.read_to_end(&mut bytes).await?;
            tokio::io::copy(&mut stdout.into_inner(), &mut tokio::io::sink()).await?;
            Ok((bytes, true))
        }
        Work::Files { .. } => {
            let mut stdout = stdout;
            tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await?;
            Ok((Vec::new(), true))
        }
        Work::Listing { each } => {
            let mut lines = BufReader::new(stdout);
            let mut line = Vec::new();
            let mut whole = false;
            loop {
                line.clear();
                if lines.read_until(b'\n', &mut line).await? == 0 {
                    return Ok((Vec::new(), whole));
                }
                let text = line.trim_ascii();
                let text = text.strip_suffix(b",").unwrap_or(text);
                match text {
                    b"[" | b"" => {}
                    b"]" => whole = true,
                    _ => match serde_json::from_slice::<ListingLine<'_>>(text) {
                        Ok(ListingLine {
                            path,
                            size,
                            is_dir,
                            mod_time,
                        }) => each(Object {
                            name: path,
                            size: u64::try_from(size).unwrap_or(0),
                            folder: is_dir,
                            written: mod_time.parse().ok(),
                        }),
                        Err(_) => return Ok((Vec::new(), false)),
                    },
                }
            }
        }
    }
}

/// A recursive listing that fails says so in its closing notice alone.
fn is_complaint(level: &str, message: &str) -> bool {
    matches!(level, "error" | "critical" | "alert" | "emergency") || message.starts_with("Failed to ")
}

/// What a log told.
#[derive(Default)]
struct Log {
    complaints: Vec<Complaint>,
    done: HashSet<String>,
    given_up: bool,
}

/// Reads the log: what was done, and what went wrong. Calls `gone` once more than a few files in a row failed for a reason
/// that is not their own: rclone tries each of the others too, with pauses of seconds, and a batch has thousands.
async fn log(
    stderr: impl AsyncRead + Unpin,
    done: Done<'_>,
    gone: &Notify,
    between_reads: Option<Duration>,
) -> std::io::Result<Log> {
    let mut lines = match between_reads {
        Some(_) => BufReader::with_capacity(LOG_BUFFER, stderr),
        None => BufReader::new(stderr),
    };
    let mut line = Vec::new();
    let mut found = Log::default();
    let mut in_a_row = 0;
    loop {
        line.clear();
        if let Some(pause) = between_reads
            && lines.buffer().is_empty()
        {
            tokio::time::sleep(pause).await;
        }
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Ok(found);
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match serde_json::from_slice::<LogLine>(text) {
            Ok(LogLine { level, msg, object }) => {
                if level == "info" && (msg.contains("Copied (") || msg == "Deleted") {
                    done(&object);
                    found.done.insert(object);
                    in_a_row = 0;
                } else if is_complaint(&level, &msg) {
                    let complaint = Complaint { object, message: msg };
                    if !complaint.object.is_empty() && !is_about_one_file(&complaint) {
                        in_a_row += 1;
                    }
                    if in_a_row > MOST_IN_A_ROW && !found.given_up {
                        found.given_up = true;
                        gone.notify_one();
                    }
                    if found.complaints.len() < KEPT_COMPLAINTS {
                        found.complaints.push(complaint);
                    }
                }
            }
            // Usage errors and crashes are no JSON. Only their first words are of use.
            Err(_) if found.complaints.len() < 3 => found.complaints.push(Complaint {
                object: String::new(),
                message: String::from_utf8_lossy(text).chars().take(300).collect(),
            }),
            Err(_) => {}
        }
    }
}
