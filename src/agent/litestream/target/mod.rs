//! An rclone remote's settings → where Litestream can put a replica, or why it can't: the same store, the same keys. Reads
//! the credentials' folder and the environment; the keys leave by the environment of a process, never by a file.

mod bucket;
mod host;
mod obscured;

use crate::agent::arguments::Destination;
use crate::agent::token::settings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Remotes may stand behind one another; nobody means more of them.
const MOST_ALIASES: usize = 8;
/// What stands in a setting for the password. No path and no setting has such a character.
pub(super) const PASSWORD: &str = "\0";
/// Where a process finds the password.
pub(super) const PASSWORD_VARIABLE: &str = "VIXENS_BACKUP_LITESTREAM_PASSWORD";
/// What must not reach Litestream where the remote has keys of its own.
const OTHER_KEYS: [&str; 5] = [
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "LITESTREAM_ACCESS_KEY_ID",
    "LITESTREAM_SECRET_ACCESS_KEY",
    "LITESTREAM_CONFIG",
];

/// Why a destination has no replica of a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tier3 can't be served: databases can't be replicated to {destination}, because {why}. Set vixens.io/backup: tier2, \
     which saves databases there by online backup, or name another destination first in vixens.io/backup-destination"
)]
pub struct Unsupported {
    destination: String,
    why: String,
}

/// What a target is made from, again and again: credentials change.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The primary destination.
    pub destination: Destination,
    /// The folder with its credentials.
    pub rclone_dir: PathBuf,
}

impl Origin {
    /// The target as of now.
    pub fn target(&self) -> Result<Target, Unsupported> {
        Target::of(&self.destination, &self.rclone_dir)
    }
}

/// A store as Litestream names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The settings of a replica, but its path.
    settings: Map<String, Value>,
    /// The path of the place, below the bucket where there are buckets.
    root: String,
    /// A level lies in `0000` on S3, and in `ltx/0` elsewhere.
    is_s3: bool,
    /// Credentials, for the process's environment.
    environment: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No credentials, whoever prints it.
        f.debug_struct("Target")
            .field("settings", &self.settings)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Where the databases of a place go.
    pub fn of(destination: &Destination, rclone_dir: &Path) -> Result<Self, Unsupported> {
        let refused = |why: String| Unsupported {
            destination: destination.to_string(),
            why,
        };
        let mut remote = destination.remote().to_owned();
        let mut path = destination.path().to_owned();
        for _ in 0..MOST_ALIASES {
            let settings = Settings(settings(&remote, rclone_dir));
            let kind = settings.get("type").unwrap_or_default().to_owned();
            match kind.as_str() {
                "alias" => {
                    let beneath = settings.get("remote").unwrap_or_default();
                    (remote, path) = match beneath.split_once(':') {
                        Some((remote, below)) if !remote.contains(['/', ',']) => {
                            (remote.to_owned(), joined(below, &path))
                        }
                        _ if beneath.starts_with('/') => {
                            return Ok(host::local(&joined(beneath, &path)));
                        }
                        _ => {
                            return Err(refused(format!(
                                "its alias stands for {beneath:?}, which is no plain remote"
                            )));
                        }
                    };
                }
                "s3" => return bucket::s3(&settings, &path).map_err(refused),
                "local" => return Ok(host::local(&path)),
                "azureblob" => return bucket::azure(&settings, &path).map_err(refused),
                "google cloud storage" => return bucket::google(&settings, &path).map_err(refused),
                "sftp" => return host::sftp(&settings, &path).map_err(refused),
                "webdav" => return host::webdav(&settings, &path).map_err(refused),
                "crypt" => {
                    return Err(refused(
                        "it is encrypted (crypt), and Litestream 0.5 has no encryption: a database would go out in the clear"
                            .to_owned(),
                    ));
                }
                "union" | "chunker" | "combine" | "compress" | "hasher" | "cache" => {
                    return Err(refused(format!(
                        "a remote of type {kind} changes what lies beneath it, and Litestream knows no such layer"
                    )));
                }
                "" => {
                    return Err(refused(format!(
                        "the rclone remote {remote:?} has no settings that can be read"
                    )));
                }
                other => return Err(refused(format!("Litestream does not know stores of type {other}"))),
            }
        }
        Err(refused("its aliases stand for one another".to_owned()))
    }

    /// The settings of one database's replica, for the configuration.
    #[must_use]
    pub fn replica(&self, key: &str) -> Value {
        let mut settings = self.settings.clone();
        settings.insert("path".to_owned(), json!(joined(&self.root, key)));
        Value::Object(settings)
    }

    /// Gives a process the credentials, and no others.
    pub fn introduce(&self, command: &mut tokio::process::Command) {
        // With it, Litestream ends at once; what it names is in SSL_CERT_FILE.
        command.env_remove("AWS_CA_BUNDLE");
        if self.environment.contains_key("AWS_ACCESS_KEY_ID") {
            for name in OTHER_KEYS {
                command.env_remove(name);
            }
        }
        command.envs(self.environment());
    }

    /// What the process's environment must have.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Where a level's files lie below a replica.
    #[must_use]
    pub fn level(&self, level: u8) -> String {
        if self.is_s3 {
            format!("{level:04x}")
        } else {
            format!("ltx/{level}")
        }
    }
}

/// The settings of a remote; empty ones are as good as none.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    /// What Litestream can't do for a store must not be left out without a word.
    fn refuse(&self, names: &[&str]) -> Result<(), String> {
        match names.iter().find(|name| self.get(name).is_some()) {
            Some(name) => Err(format!("its setting {name} has no equal in Litestream")),
            None => Ok(()),
        }
    }
}

fn is_true(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "true" | "1" | "t")
}

/// `a/b`, without empty parts in between.
fn joined(above: &str, below: &str) -> String {
    match (above.trim_end_matches('/'), below.trim_start_matches('/')) {
        ("", below) if above.starts_with('/') => format!("/{below}"),
        ("", below) => below.to_owned(),
        (above, "") => above.to_owned(),
        (above, below) => format!("{above}/{below}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(remotes: &[(&str, &str)], destination: &str) -> Result<Target, Unsupported> {
        let folder = tempfile::tempdir().unwrap();
        for (key, value) in remotes {
            std::fs::write(folder.path().join(format!("RCLONE_CONFIG_{key}")), value).unwrap();
        }
        Target::of(&destination.parse().unwrap(), folder.path())
    }

    const MINIO: [(&str, &str); 5] = [
        ("TESTMINIO_TYPE", "s3"),
        ("TESTMINIO_PROVIDER", "Minio"),
        ("TESTMINIO_ACCESS_KEY_ID", "key"),
        ("TESTMINIO_SECRET_ACCESS_KEY", "secret"),
        ("TESTMINIO_ENDPOINT", "http://minio:9000"),
    ];

    #[test]
    fn an_s3_remote_is_the_same_store_to_litestream_and_its_keys_are_in_the_environment_alone() {
        let target = target(&MINIO, "testminio:backups/app").unwrap();
        let replica = target.replica("database/config/app.db");
        assert_eq!(
            replica,
            json!({
                "type": "s3", "bucket": "backups", "endpoint": "http://minio:9000", "force-path-style": true,
                "region": "us-east-1", "concurrency": 2, "path": "app/database/config/app.db"
            })
        );
        let environment: Vec<_> = target
            .environment()
            .filter(|(name, _)| name.starts_with("AWS_"))
            .collect();
        assert_eq!(
            environment,
            [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")]
        );
        assert!(!format!("{replica}{target:?}").contains("secret"));
    }

    #[test]
    fn an_endpoint_without_a_protocol_and_a_provider_by_host_are_taken_as_rclone_takes_them() {
        let mut remotes = MINIO.to_vec();
        remotes[1] = ("TESTMINIO_PROVIDER", "Wasabi");
        remotes[4] = ("TESTMINIO_ENDPOINT", "s3.example");
        remotes.push(("TESTMINIO_REGION", "eu-1"));
        let replica = target(&remotes, "testminio:b").unwrap().replica("database/config/a");
        assert_eq!(replica["endpoint"], "https://s3.example");
        assert_eq!(replica["force-path-style"], false);
        assert_eq!(replica["region"], "eu-1");
        assert_eq!(replica["path"], "database/config/a");
    }

    #[test]
    fn behind_aliases_lies_the_store() {
        let mut remotes = MINIO.to_vec();
        remotes.extend([
            ("OUTER_TYPE", "alias"),
            ("OUTER_REMOTE", "inner:deep"),
            ("INNER_TYPE", "alias"),
            ("INNER_REMOTE", "testminio:bucket/team"),
        ]);
        let replica = target(&remotes, "outer:app").unwrap().replica("database/config/a");
        assert_eq!(replica["bucket"], "bucket");
        assert_eq!(replica["path"], "team/deep/app/database/config/a");
        let folder = [("OUTER_TYPE", "alias"), ("OUTER_REMOTE", "/mnt/nas")];
        let replica = target(&folder, "outer:app").unwrap().replica("database/config/a");
        assert_eq!(replica["path"], "/mnt/nas/app/database/config/a");
        assert_eq!(replica["type"], "file");
    }

    #[test]
    fn the_password_of_a_host_is_in_the_environment_alone_and_fits_into_a_configuration() {
        let pass = "WkwvlqnLiMLBCEU15PAGWiMFQmU76rwMQZ8";
        let webdav = [
            ("NAS_TYPE", "webdav"),
            ("NAS_URL", "https://nas/dav"),
            ("NAS_USER", "me"),
            ("NAS_PASS", pass),
        ];
        let sftp = [
            ("NAS_TYPE", "sftp"),
            ("NAS_HOST", "nas"),
            ("NAS_USER", "me"),
            ("NAS_PASS", pass),
        ];
        for (remotes, expected) in [
            (
                webdav,
                json!({"type": "webdav", "webdav-url": "https://nas/dav", "webdav-username": "me", "webdav-password": PASSWORD}),
            ),
            (
                sftp,
                json!({"type": "sftp", "host": "nas:22", "user": "me", "password": PASSWORD}),
            ),
        ] {
            let target = target(&remotes, "nas:backups/app").unwrap();
            let mut replica = target.replica("database/config/app.db");
            assert_eq!(replica["path"], "backups/app/database/config/app.db");
            replica.as_object_mut().unwrap().remove("path");
            assert_eq!(replica, expected);
            let environment: BTreeMap<_, _> = target.environment().collect();
            assert_eq!(environment[PASSWORD_VARIABLE], r#"$p\"a\\ss ü"#);
            assert!(!format!("{target:?}").contains("ss ü"));
        }
    }

    #[test]
    fn what_litestream_can_not_do_is_refused_and_tier_2_is_named() {
        let mut sse = MINIO.to_vec();
        sse.push(("TESTMINIO_SSE_CUSTOMER_KEY", "x"));
        let circle = [("TESTMINIO_TYPE", "alias"), ("TESTMINIO_REMOTE", "testminio:x")];
        let crypt = [
            ("TESTMINIO_TYPE", "alias"),
            ("TESTMINIO_REMOTE", "hidden:x"),
            ("HIDDEN_TYPE", "crypt"),
        ];
        for (remotes, expected) in [
            (&crypt[..], "encrypted (crypt)"),
            (&[("TESTMINIO_TYPE", "union")], "type union"),
            (&[("TESTMINIO_TYPE", "dropbox")], "type dropbox"),
            (&[("TESTMINIO_TYPE", "sftp")], "host and user"),
            (
                &[
                    ("TESTMINIO_TYPE", "sftp"),
                    ("TESTMINIO_HOST", "nas"),
                    ("TESTMINIO_USER", "me"),
                ],
                "key_file or pass",
            ),
            (
                &[
                    ("TESTMINIO_TYPE", "webdav"),
                    ("TESTMINIO_URL", "https://nas"),
                    ("TESTMINIO_PASS", "in the clear"),
                ],
                "rclone obscure",
            ),
            (&[("TESTMINIO_TYPE", "azureblob")], "account and key"),
            (&[], "no settings"),
            (&circle, "one another"),
            (&sse, "sse_customer_key"),
        ] {
            let refusal = target(remotes, "testminio:backups/app").unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
            assert!(refusal.contains("vixens.io/backup: tier2"), "{refusal}");
        }
    }
}
