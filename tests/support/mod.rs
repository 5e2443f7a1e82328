//! What tests on real parts share: a real S3 server on loopback, rclone to reach it, and folders of their own.
//! Nothing here knows what is tested.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "each test file compiles this module for itself, and uses its own part of it"
)]

pub mod app;
pub mod bed;
pub mod disk;
pub mod host;
pub mod laptop;
pub mod pod;
mod port;
mod signed;
pub mod wire;

pub(crate) use port::free_port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vixens_backup::store::rclone::{Rclone, Settings};

/// The key pair of every server here.
pub const ACCESS_KEY: &str = "accesskey123";
/// Its other half.
pub const SECRET_KEY: &str = "secretkey123";
/// The bucket that a server starts with.
pub const BUCKET: &str = "backups";

/// A pinned tool: in a folder of VIXENS_BACKUP_TOOLS (joined by colons), or in PATH.
pub fn tool(name: &str) -> PathBuf {
    found(name).unwrap_or_else(|| {
        panic!("{name} is not there: build it with `.tools/install {name}`, and name its bin folder in VIXENS_BACKUP_TOOLS or PATH")
    })
}

/// A tool, where it is there.
pub fn found(name: &str) -> Option<PathBuf> {
    ["VIXENS_BACKUP_TOOLS", "PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .flat_map(|folders| std::env::split_paths(&folders).collect::<Vec<_>>())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// An rclone in this folder that does something in the shell first, each time.
pub fn rclone_after(folder: &Path, first: &str) -> PathBuf {
    let program = folder.join("rclone");
    let rclone = tool("rclone");
    write(
        &program,
        format!("#!/bin/sh\n{first}\nexec '{}' \"$@\"\n", rclone.display()),
    );
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// PATH with the folders of rclone and Litestream in front, for the programs under test.
pub fn path_with_tools() -> std::ffi::OsString {
    let mut folders = vec![tool("rclone").parent().unwrap().to_owned()];
    folders.extend(found("litestream").and_then(|program| Some(program.parent()?.to_owned())));
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).unwrap()
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Which program serves S3.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `rclone serve s3` of a folder.
    Rclone,
    /// MinIO.
    Minio,
    /// `rclone serve sftp` of a folder: no S3 at all.
    Sftp,
    /// None: a folder of this machine, by an alias remote.
    Local,
}

/// A real S3 server on loopback, with one bucket.
pub struct S3 {
    process: Option<Process>,
    kind: Kind,
    port: u16,
    data: TempDir,
    /// Where its data lies while it is not mounted.
    away: TempDir,
    config: TempDir,
    /// A certificate and its key: then it speaks TLS.
    certificate: Option<TempDir>,
    /// What it stores lies in memory, in so much of it until this folder has a file `more`.
    room: Option<(&'static str, TempDir)>,
}

impl S3 {
    /// `rclone serve s3`, or MinIO where VIXENS_BACKUP_TEST_STORE says so.
    pub fn start() -> Self {
        match std::env::var("VIXENS_BACKUP_TEST_STORE").as_deref() {
            Err(_) | Ok("rclone") => Self::of(Kind::Rclone),
            Ok("minio") => Self::of(Kind::Minio),
            Ok(other) => panic!("VIXENS_BACKUP_TEST_STORE is rclone or minio, not {other:?}"),
        }
    }

    /// A server of this kind.
    pub fn of(kind: Kind) -> Self {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join(BUCKET)).unwrap();
        let mut server = Self {
            process: None,
            kind,
            port: free_port(),
            data,
            away: tempfile::tempdir().unwrap(),
            config: tempfile::tempdir().unwrap(),
            certificate: None,
            room: None,
        };
        if matches!(kind, Kind::Local) {
            server.configure("RCLONE_CONFIG_MINIO_TYPE", "alias");
            server.configure("RCLONE_CONFIG_MINIO_REMOTE", server.data.path().to_str().unwrap());
            return server;
        }
        if matches!(kind, Kind::Sftp) {
            let port = server.port.to_string();
            for (key, value) in [
                ("TYPE", "sftp"),
                ("HOST", "127.0.0.1"),
                ("PORT", &port),
                ("USER", ACCESS_KEY),
                ("PASS", &obscured(SECRET_KEY)),
            ] {
                server.configure(&format!("RCLONE_CONFIG_MINIO_{key}"), value);
            }
            server.resume();
            return server;
        }
        server.configure("RCLONE_CONFIG_MINIO_TYPE", "s3");
        server.configure("RCLONE_CONFIG_MINIO_PROVIDER", "Minio");
        server.configure("RCLONE_CONFIG_MINIO_ACCESS_KEY_ID", ACCESS_KEY);
        server.configure("RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY", SECRET_KEY);
        let endpoint = server.endpoint();
        server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &endpoint);
        server.resume();
        server
    }

    /// `rclone serve s3` that has so much room, as for a mount of tmpfs. Nothing where this machine allows no namespace.
    pub fn small(size: &'static str) -> Option<Self> {
        pod::namespace("--mount", "", Path::new("true"))?;
        let mut server = Self::of(Kind::Rclone);
        server.room = Some((size, tempfile::tempdir().unwrap()));
        server.stop();
        server.resume();
        Some(server)
    }

    /// Gives it all the room that it needs.
    pub fn enlarge(&self) {
        let (_, folder) = self.room.as_ref().unwrap();
        std::fs::write(folder.path().join("more"), "").unwrap();
    }

    /// From now on it speaks TLS, with a certificate that nobody knows.
    pub fn certify(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("certificate"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key"), key.serialize_pem()).unwrap();
        self.certificate = Some(folder);
        let endpoint = self.endpoint();
        self.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &endpoint);
        self.stop();
        self.resume();
    }

    /// From now on what the Secret calls minio is a crypt remote before this server, with this password.
    pub fn encrypt(&self, password: &str) {
        for key in ["PROVIDER", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT"] {
            let value = std::fs::read_to_string(self.rclone_dir().join(format!("RCLONE_CONFIG_MINIO_{key}"))).unwrap();
            self.configure(&format!("RCLONE_CONFIG_PLAIN_{key}"), &value);
        }
        self.configure("RCLONE_CONFIG_PLAIN_TYPE", "s3");
        self.configure("RCLONE_CONFIG_MINIO_TYPE", "crypt");
        self.configure("RCLONE_CONFIG_MINIO_REMOTE", &format!("plain:{BUCKET}/encrypted"));
        self.configure("RCLONE_CONFIG_MINIO_PASSWORD", &obscured(password));
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        let protocol = if self.certificate.is_some() { "https" } else { "http" };
        format!("{protocol}://127.0.0.1:{}", self.port)
    }

    /// Starts it again, on the same port with the same content.
    pub fn resume(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = match self.kind {
            Kind::Rclone => {
                let mut command = match &self.room {
                    None => Command::new(tool("rclone")),
                    Some((size, folder)) => self.in_memory(size, folder.path()),
                };
                if let Some(folder) = &self.certificate {
                    command.env("RCLONE_CERT", folder.path().join("certificate"));
                    command.env("RCLONE_KEY", folder.path().join("key"));
                }
                command
                    .args(["serve", "s3", "--addr", &address, "--auth-key"])
                    .arg(format!("{ACCESS_KEY},{SECRET_KEY}"))
                    .args(["--no-unicode-normalization", "--config", "/dev/null"])
                    .arg(self.data.path());
                command
            }
            Kind::Minio => {
                let mut command = Command::new(tool("minio"));
                command
                    .args(["server", "--quiet", "--address", &address])
                    .arg(self.data.path())
                    .env("MINIO_ROOT_USER", ACCESS_KEY)
                    .env("MINIO_ROOT_PASSWORD", SECRET_KEY);
                command
            }
            Kind::Sftp => {
                let mut command = Command::new(tool("rclone"));
                command
                    .args(["serve", "sftp", "--addr", &address, "--user", ACCESS_KEY])
                    .args(["--pass", SECRET_KEY, "--config", "/dev/null"])
                    .arg(self.data.path());
                command
            }
            Kind::Local => return,
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(Process(child));
        let deadline = Instant::now() + Duration::from_secs(180);
        while !self.answers() {
            assert!(
                Instant::now() < deadline,
                "{:?} does not answer on {address}",
                self.kind
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn in_memory(&self, size: &str, folder: &Path) -> Command {
        let script = format!(
            r#"mount -t tmpfs -o size={size} none "{data}" && mkdir "{data}/{BUCKET}"
            (while [ ! -e "{more}" ] && kill -0 $$; do sleep 0.1; done; mount -o remount,size=1g "{data}") >/dev/null 2>&1 &"#,
            data = self.data.path().display(),
            more = folder.join("more").display(),
        );
        pod::namespace("--mount", &script, &tool("rclone")).unwrap()
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        if matches!(self.kind, Kind::Rclone | Kind::Sftp) {
            return true;
        }
        // MinIO listens before it serves.
        let asked = stream.write_all(b"GET /minio/health/cluster HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// Ends it: connections are refused from now on.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Stops its process where it is (SIGSTOP), or lets it go on (SIGCONT): connections are taken meanwhile, and nobody
    /// answers.
    pub fn freeze(&self, is_frozen: bool) {
        freeze(self.process.as_ref(), is_frozen);
    }

    /// Its disk is not mounted: it is started again without anything of what it stores, with an empty bucket or with none.
    pub fn unmount(&mut self, with_bucket: bool) {
        self.stop();
        move_all(self.data.path(), self.away.path());
        if with_bucket {
            std::fs::create_dir(self.data.path().join(BUCKET)).unwrap();
        }
        self.resume();
    }

    /// Its disk is mounted again: what was stored meanwhile lies below it and is not seen.
    pub fn mount(&mut self) {
        self.stop();
        empty(self.data.path());
        move_all(self.away.path(), self.data.path());
        self.resume();
    }

    /// Takes connections on its port and says nothing, while it is stopped.
    pub fn listen_silently(&self) -> TcpListener {
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).unwrap()
    }

    /// Writes an object as somebody else would: with `rclone serve s3`, whose objects are files, behind its back.
    pub fn place(&mut self, key: &str, content: impl AsRef<[u8]>) {
        match self.kind {
            Kind::Rclone | Kind::Sftp => {
                write(&self.data.path().join(BUCKET).join(key), content);
                // It does not see what changes there until it is started again.
                self.stop();
                self.resume();
            }
            Kind::Local => write(&self.data.path().join(BUCKET).join(key), content),
            Kind::Minio => {
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), content).unwrap();
                let local = file.path().to_str().unwrap().to_owned();
                self.rclone(&["copyto", &local, &format!("minio:{BUCKET}/{key}")]);
            }
        }
    }

    /// The bucket's folder. Only for `rclone serve s3`, where an object is a file below it.
    pub fn bucket(&self) -> PathBuf {
        assert!(
            matches!(self.kind, Kind::Rclone),
            "what MinIO stores are no plain files"
        );
        self.data.path().join(BUCKET)
    }

    /// Damages what `MinIO` has of an object on its disk, as bit rot does: it is listed as before, and can't be read.
    pub fn rot(&self, key: &str) {
        assert!(matches!(self.kind, Kind::Minio));
        let folder = self.data.path().join(BUCKET).join(key);
        let below = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let part = below.map(|path| path.join("part.1")).find(|part| part.exists());
        // A small object lies beside what is known of it.
        let file = part.unwrap_or_else(|| folder.join("xl.meta"));
        let mut bytes = std::fs::read(&file).unwrap();
        let end = bytes.len() - 4;
        bytes[end] ^= 0xff;
        std::fs::write(&file, bytes).unwrap();
    }

    /// What it stores lies there, in its own manner.
    pub fn folder(&self) -> &Path {
        self.data.path()
    }

    /// Removes the bucket with all that is in it.
    pub fn drop_bucket(&mut self) {
        self.rclone(&["purge", &format!("minio:{BUCKET}")]);
    }

    /// Runs rclone with the Secret's settings; what it prints.
    pub fn rclone(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(tool("rclone"));
        command.args(["--config", "/dev/null"]).args(arguments);
        for entry in std::fs::read_dir(self.rclone_dir()).unwrap() {
            let path = entry.unwrap().path();
            command.env(path.file_name().unwrap(), std::fs::read_to_string(&path).unwrap());
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "rclone {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The folder that a pod would have at `/rclone`: one file for each key of the Secret.
    pub fn rclone_dir(&self) -> &Path {
        self.config.path()
    }

    /// Sets a key of the Secret.
    pub fn configure(&self, key: &str, value: &str) {
        std::fs::write(self.config.path().join(key), value).unwrap();
    }

    /// The store at `minio:backups/<path>`.
    pub fn store(&self, path: &str) -> Rclone {
        self.store_of("minio", &format!("{BUCKET}/{path}"))
    }

    /// The store at any remote of the configuration.
    pub fn store_of(&self, remote: &str, path: &str) -> Rclone {
        let scratch = std::env::temp_dir();
        let settings = Settings {
            program: tool("rclone"),
            // `rclone serve s3` fails when two new folders are made at once.
            transfers: 1,
            pause: Duration::from_millis(20),
            ..Settings::lean(self.rclone_dir(), &scratch)
        };
        Rclone::new(remote, path, settings)
    }
}

/// A password as rclone's settings have it.
fn obscured(password: &str) -> String {
    let obscured = Command::new(tool("rclone")).args(["obscure", password]).output();
    String::from_utf8(obscured.unwrap().stdout).unwrap().trim().to_owned()
}

/// Stops a process where it is, or lets it go on.
fn freeze(process: Option<&Process>, is_frozen: bool) {
    use rustix::process::{Pid, Signal, kill_process};

    if let Some(Process(child)) = process {
        let signal = if is_frozen { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(child), signal).unwrap();
    }
}

/// Moves everything of a folder into another.
fn move_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Removes everything of a folder.
fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        } else {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Writes a file, and its folders.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
