//! The kinds of stores that a life is spent on, and what happens to them.

use super::support::host::Host;
use super::support::{BUCKET, Kind, S3};
use std::path::{Path, PathBuf};

/// Every kind, by its name in TORTURE_STORE.
pub const KINDS: [&str; 6] = ["s3", "minio", "sftp", "webdav", "smb", "local"];

/// A store, with the Secret's settings of it.
pub struct Store {
    /// It has the Secret. Where `host` is there, its own process is at rest.
    pub server: S3,
    host: Option<Host>,
    is_local: bool,
}

impl Store {
    /// A new and empty one.
    pub fn of(kind: &str) -> Self {
        let mut server = match kind {
            "minio" => S3::of(Kind::Minio),
            "local" => S3::of(Kind::Local),
            "s3" | "sftp" | "webdav" | "smb" => S3::of(Kind::Rclone),
            other => panic!("TORTURE_STORE is one of {KINDS:?}, not {other:?}"),
        };
        let host = match kind {
            "sftp" => Some(Host::openssh(&server).expect("sshd is there: .tools/need sshd")),
            "webdav" => Some(Host::webdav(&server)),
            "smb" => Some(Host::samba(&server).expect("smbd is there: .tools/need smbd")),
            _ => None,
        };
        if let Some(host) = &host {
            server.stop();
            std::fs::create_dir_all(host.folder().join(BUCKET)).unwrap();
        }
        Self {
            server,
            host,
            is_local: kind == "local",
        }
    }

    /// The folder of the Secret's keys.
    pub fn secret(&self) -> PathBuf {
        self.server.rclone_dir().to_owned()
    }

    /// What it stores lies there, in its own manner.
    pub fn folder(&self) -> &Path {
        match &self.host {
            Some(host) => host.folder(),
            None => self.server.folder(),
        }
    }

    /// Whether it has a process of its own that can be killed and frozen.
    pub fn is_served(&self) -> bool {
        !self.is_local
    }

    /// Its process is killed.
    pub fn kill(&mut self) {
        match &mut self.host {
            Some(host) => host.stop(),
            None => self.server.stop(),
        }
    }

    /// And started again.
    pub fn resume(&mut self) {
        match &mut self.host {
            Some(host) => host.resume(),
            None => self.server.resume(),
        }
    }

    /// It takes connections and says nothing, or goes on.
    pub fn freeze(&self, is_frozen: bool) {
        match &self.host {
            Some(host) => host.freeze(is_frozen),
            None => self.server.freeze(is_frozen),
        }
    }

    /// It answers, and has nothing: its disk is not mounted. With an empty folder where the bucket was, or with none.
    pub fn unmount(&mut self, with_bucket: bool) {
        match &mut self.host {
            Some(host) => host.unmount(with_bucket),
            None => self.server.unmount(with_bucket),
        }
    }

    /// Its disk is mounted again.
    pub fn mount(&mut self) {
        match &mut self.host {
            Some(host) => host.mount(),
            None => self.server.mount(),
        }
    }
}
