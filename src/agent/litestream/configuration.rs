//! Databases and a target → `litestream.yml` for Litestream 0.5. JSON, which is YAML that needs no quoting rules: a path is
//! what it is. Pure. It holds no key, and lies in the pod's shared folder, which is never backed up.

use super::target::{PASSWORD, PASSWORD_VARIABLE, Target};
use crate::agent::arguments::Profile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the log is read, and how often what it gave is sent: together at most a second.
const EACH: &str = "500ms";

/// A database to replicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The file.
    pub path: PathBuf,
    /// Its replica below the place.
    pub key: String,
}

/// The configuration of one process. Litestream has one snapshot interval and retention a process, so there is one process
/// a profile.
#[must_use]
pub fn configuration(
    target: &Target,
    profile: Profile,
    databases: &[Configured],
    socket: &Path,
    last_sync: Duration,
) -> Value {
    let (interval, retention) = profile.hours().unwrap_or((24, 72));
    let each = |database: &Configured| {
        let mut replica = target.replica(&database.key);
        replica["sync-interval"] = json!(EACH);
        json!({
            "path": database.path.to_string_lossy(),
            "monitor-interval": EACH,
            "replica": replica,
        })
    };
    json!({
        "logging": {"level": "warn", "stderr": true},
        "socket": {"enabled": true, "path": socket.to_string_lossy(), "permissions": 0o600},
        "shutdown-sync-timeout": format!("{}ms", last_sync.as_millis()),
        "shutdown-timeout": format!("{}ms", last_sync.as_millis() + 1000),
        "snapshot": {"interval": format!("{interval}h"), "retention": format!("{retention}h")},
        "dbs": databases.iter().map(each).collect::<Vec<_>>(),
    })
}

/// The text of a configuration. Litestream puts variables of its environment into it before it reads it: of all that looks
/// like one, only the password is.
#[must_use]
pub fn text(configuration: &Value) -> String {
    let literal = format!("{configuration:#}").replace('$', "\\u0024");
    literal.replace(&json!(PASSWORD).to_string(), &format!("\"${{{PASSWORD_VARIABLE}}}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_litestreams_interval_and_retention_and_no_key_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for (key, value) in [
            ("TYPE", "s3"),
            ("ACCESS_KEY_ID", "my-key"),
            ("SECRET_ACCESS_KEY", "my-secret"),
            ("ENDPOINT", "http://minio:9000"),
        ] {
            std::fs::write(folder.path().join(format!("RCLONE_CONFIG_CONFIGTEST_{key}")), value).unwrap();
        }
        let target = Target::of(&"configtest:backups/app".parse().unwrap(), folder.path()).unwrap();
        let database = Configured {
            path: "/config/a $b: \"c\".db".into(),
            key: "database/config/a $b: \"c\".db".to_owned(),
        };
        let made = configuration(
            &target,
            Profile::Critical,
            &[database],
            Path::new("/restore/litestream/critical.sock"),
            Duration::from_secs(9),
        );
        let text = text(&made);
        assert!(!text.contains("my-key") && !text.contains("my-secret"));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn of_all_that_looks_like_a_variable_only_the_password_is_one() {
        let name = format!("${{{PASSWORD_VARIABLE}}} $HOME $$");
        let made = json!({"path": name, "password": PASSWORD});
        let text = text(&made);
        assert_eq!(text.matches('$').count(), 1, "{text}");
        let password = r#"a\"b$"#;
        let expanded = text.replace(&format!("${{{PASSWORD_VARIABLE}}}"), password);
        let read: Value = serde_json::from_str(&expanded).unwrap();
        assert_eq!(read, json!({"path": name, "password": "a\"b$"}));
    }
}
