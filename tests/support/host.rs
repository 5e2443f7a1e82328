//! A server that is none of S3, on loopback: `rclone serve sftp` or `rclone serve webdav` of a folder, Samba, or
//! fake-gcs-server for Google's; and the Secret's settings of it.

use super::{BUCKET, Process, S3, free_port, tool};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user of every server here.
const USER: &str = "backup user";
/// A password with everything that somebody could take for something else.
pub const PASSWORD: &str = "$HOME ${PATH} \"quoted\\\" 'and' ünïcode: # yes";

/// A server, and what it serves.
pub struct Host {
    folder: TempDir,
    /// Where what it serves lies while that is not mounted.
    away: TempDir,
    keys: TempDir,
    port: u16,
    command: Command,
    process: Option<Process>,
}

impl Host {
    /// `rclone serve sftp`. The Secret of `server` has its settings from now on: a password, or with `by_key` a key.
    pub fn sftp(server: &S3, by_key: bool) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let host_key = key(&keys.path().join("host"));
        let user_key = key(&keys.path().join("user"));
        std::fs::write(keys.path().join("authorized"), &user_key).unwrap();
        let mut command = Command::new(tool("rclone"));
        command
            .args([
                "serve",
                "sftp",
                "--vfs-cache-mode=writes",
                "--vfs-write-back=0",
                "--key",
            ])
            .arg(keys.path().join("host"))
            .arg("--authorized-keys")
            .arg(if by_key {
                keys.path().join("authorized")
            } else {
                "".into()
            });
        let host = Self::serve(command, keys, by_key);
        host.settings_of_sftp(server, &host_key, by_key);
        host
    }

    fn settings_of_sftp(&self, server: &S3, host_key: &str, by_key: bool) {
        let port = self.port;
        server.configure("RCLONE_CONFIG_MINIO_TYPE", "sftp");
        server.configure("RCLONE_CONFIG_MINIO_HOST", "127.0.0.1");
        server.configure("RCLONE_CONFIG_MINIO_PORT", &port.to_string());
        server.configure("RCLONE_CONFIG_MINIO_SHELL_TYPE", "none");
        self.introduce(server, by_key);
        let known = self.keys.path().join("known");
        std::fs::write(&known, format!("[127.0.0.1]:{port} {host_key}\n")).unwrap();
        server.configure("RCLONE_CONFIG_MINIO_KNOWN_HOSTS_FILE", known.to_str().unwrap());
    }

    /// OpenSSH's server, by key, for whoever runs this. What it acknowledges is on the disk, and what the disk has is seen at
    /// once: it is for disks that come and go, and for kills, of which the cache of `rclone serve sftp` makes something else.
    /// Nothing where this machine has none (Debian's package openssh-server; `.tools/need sshd`).
    pub fn openssh(server: &S3) -> Option<Self> {
        let sshd = installed("sshd")?;
        let (folder, keys, port) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), free_port());
        if rustix::process::getuid().is_root() {
            // It insists on this folder, which only the package's service would make.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let host_key = key(&keys.path().join("host"));
        let user_key = key(&keys.path().join("user"));
        std::fs::write(keys.path().join("authorized"), &user_key).unwrap();
        let own = keys.path().display();
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {own}/host\nAuthorizedKeysFile {own}/authorized\nStrictModes no\n\
             PidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 1000\n\
             Subsystem sftp internal-sftp\nForceCommand internal-sftp -d {}\n",
            folder.path().display()
        );
        let file = keys.path().join("sshd_config");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(sshd);
        command.args(["-D", "-f"]).arg(&file);
        let host = Self::start(command, folder, keys, port);
        host.settings_of_sftp(server, &host_key, true);
        server.configure("RCLONE_CONFIG_MINIO_USER", &whoami());
        Some(host)
    }

    /// `rclone serve webdav`, with a password.
    pub fn webdav(server: &S3) -> Self {
        let mut command = Command::new(tool("rclone"));
        command.args(["serve", "webdav"]);
        let host = Self::serve(command, tempfile::tempdir().unwrap(), false);
        server.configure("RCLONE_CONFIG_MINIO_TYPE", "webdav");
        server.configure("RCLONE_CONFIG_MINIO_VENDOR", "rclone");
        server.configure("RCLONE_CONFIG_MINIO_URL", &format!("http://127.0.0.1:{}", host.port));
        host.introduce(server, false);
        host
    }

    /// Samba, whose one share is the bucket of every server here, for guests: it does not tell `a` from `A`. Nothing where this
    /// machine has none (Debian's package samba; `.tools/need smbd`).
    pub fn samba(server: &S3) -> Option<Self> {
        let smbd = installed("smbd")?;
        let (folder, keys, port) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), free_port());
        let own = keys.path().display();
        let settings = format!(
            "[global]\n interfaces = 127.0.0.1\n bind interfaces only = yes\n smb ports = {port}\n private dir = {own}\n \
             lock directory = {own}\n state directory = {own}\n cache directory = {own}\n pid directory = {own}\n \
             ncalrpc dir = {own}/rpc\n log file = {own}/log\n map to guest = Bad User\n guest account = {}\n \
             server role = standalone server\n disable netbios = yes\n load printers = no\n disable spoolss = yes\n \
             usershare max shares = 0\n\
             [{BUCKET}]\n path = {}\n guest ok = yes\n read only = no\n",
            whoami(),
            folder.path().join(BUCKET).display(),
        );
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let file = keys.path().join("smb.conf");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(smbd);
        command
            .args(["--foreground", "--no-process-group", "--configfile"])
            .arg(&file);
        let host = Self::start(command, folder, keys, port);
        server.configure("RCLONE_CONFIG_MINIO_TYPE", "smb");
        server.configure("RCLONE_CONFIG_MINIO_HOST", "127.0.0.1");
        server.configure("RCLONE_CONFIG_MINIO_PORT", &port.to_string());
        server.configure("RCLONE_CONFIG_MINIO_USER", "guest");
        Some(host)
    }

    /// fake-gcs-server, with the bucket of every server here. Litestream finds it by [`Self::environment`].
    pub fn google(server: &S3) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let (keys, port) = (tempfile::tempdir().unwrap(), free_port());
        let address = format!("http://127.0.0.1:{port}");
        let mut command = Command::new(tool("fake-gcs-server"));
        command
            .args(["-scheme=http", "-host=127.0.0.1", "-log-level=error"])
            .arg(format!("-port={port}"))
            .arg(format!("-public-host=127.0.0.1:{port}"))
            .arg(format!("-external-url={address}"))
            .arg("-filesystem-root")
            .arg(folder.path());
        let key = keys.path().join("account.json");
        std::fs::write(&key, r#"{"type": "service_account", "client_email": "app@example"}"#).unwrap();
        server.configure("RCLONE_CONFIG_MINIO_TYPE", "google cloud storage");
        server.configure("RCLONE_CONFIG_MINIO_ANONYMOUS", "true");
        server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &format!("{address}/storage/v1/"));
        server.configure("RCLONE_CONFIG_MINIO_SERVICE_ACCOUNT_FILE", key.to_str().unwrap());
        Self::start(command, folder, keys, port)
    }

    /// What a container's environment has for a server that stands in for Google's.
    pub fn environment(&self) -> (&'static str, String) {
        ("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{}", self.port))
    }

    fn serve(mut command: Command, keys: TempDir, by_key: bool) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        if !by_key {
            command.env("RCLONE_USER", USER).env("RCLONE_PASS", PASSWORD);
        }
        command
            .args(["--config", "/dev/null", "--addr"])
            .arg(format!("127.0.0.1:{port}"))
            .arg(folder.path())
            .env("XDG_CACHE_HOME", keys.path());
        Self::start(command, folder, keys, port)
    }

    fn start(mut command: Command, folder: TempDir, keys: TempDir, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // With those that it starts itself.
        command.process_group(0);
        let mut host = Self {
            folder,
            away: tempfile::tempdir().unwrap(),
            keys,
            port,
            command,
            process: None,
        };
        host.resume();
        host
    }

    /// Starts it again, on the same port.
    pub fn resume(&mut self) {
        self.process = Some(Process(self.command.spawn().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < deadline, "nobody answers on port {}", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it: connections are refused from now on.
    pub fn stop(&mut self) {
        self.signal(Signal::KILL);
        self.process = None;
    }

    /// Stops it where it is, or lets it go on.
    pub fn freeze(&self, is_frozen: bool) {
        self.signal(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, signal: Signal) {
        if let Some(Process(child)) = &self.process {
            let _ = kill_process_group(Pid::from_child(child), signal);
        }
    }

    /// Its disk is not mounted: nothing of what it serves is there, or an empty folder in its place.
    pub fn unmount(&mut self, with_folder: bool) {
        self.stop();
        super::move_all(self.folder.path(), self.away.path());
        if with_folder {
            std::fs::create_dir(self.folder.path().join(BUCKET)).unwrap();
        }
        self.resume();
    }

    /// Its disk is mounted again.
    pub fn mount(&mut self) {
        self.stop();
        super::empty(self.folder.path());
        super::move_all(self.away.path(), self.folder.path());
        self.resume();
    }

    fn introduce(&self, server: &S3, by_key: bool) {
        server.configure("RCLONE_CONFIG_MINIO_USER", USER);
        if by_key {
            let key = self.keys.path().join("user");
            server.configure("RCLONE_CONFIG_MINIO_KEY_FILE", key.to_str().unwrap());
        } else {
            let obscured = Command::new(tool("rclone"))
                .args(["obscure", PASSWORD])
                .output()
                .unwrap();
            let obscured = String::from_utf8(obscured.stdout).unwrap();
            server.configure("RCLONE_CONFIG_MINIO_PASS", obscured.trim());
        }
    }

    /// What it serves.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A server of the system's, which is in nobody's PATH but root's.
fn installed(program: &str) -> Option<PathBuf> {
    let sbin = || ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(program));
    super::found(program).or_else(|| sbin().into_iter().find(|path| path.is_file()))
}

/// The name of the user who runs this.
fn whoami() -> String {
    let user = rustix::process::getuid().as_raw();
    let user = Command::new("id").args(["-un", &user.to_string()]).output().unwrap();
    String::from_utf8(user.stdout).unwrap().trim().to_owned()
}

/// Writes a new private key; its public half, as OpenSSH writes it.
fn key(path: &Path) -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut blob = Vec::new();
    let point = rcgen::PublicKeyData::der_bytes(&key);
    for part in [b"ecdsa-sha2-nistp256".as_slice(), b"nistp256", point] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    format!("ecdsa-sha2-nistp256 {}", STANDARD.encode(blob))
}
