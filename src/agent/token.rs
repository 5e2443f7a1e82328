//! Who may ask a sidecar for a backup: whoever has the credentials of its primary remote, as the CronJob's pod has. The
//! remote's settings → a key → an HMAC over the place. The settings themselves go nowhere.

use crate::agent::arguments::Destination;
use crate::store::keys::hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PREFIX: &str = "RCLONE_CONFIG_";

/// Makes and checks the token of a workload's place. The credentials are reread for each call.
#[derive(Clone, Debug)]
pub struct Token {
    remote: String,
    place: String,
    rclone_dir: PathBuf,
}

impl Token {
    /// For the primary destination.
    #[must_use]
    pub fn new(primary: &Destination, rclone_dir: &Path) -> Self {
        Self {
            remote: primary.remote().to_owned(),
            place: primary.to_string(),
            rclone_dir: rclone_dir.to_owned(),
        }
    }

    /// The token, 64 hexadecimal digits; none where the remote has no settings: then nobody can ask.
    #[must_use]
    pub fn make(&self) -> Option<String> {
        Some(hex(&self.mac()?.finalize().into_bytes()))
    }

    /// Whether a token is ours, in constant time.
    #[must_use]
    pub fn accepts(&self, token: &str) -> bool {
        let bytes: Option<Vec<u8>> = token
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        match (bytes, self.mac()) {
            (Some(bytes), Some(mac)) => mac.verify_slice(&bytes).is_ok(),
            _ => false,
        }
    }

    fn mac(&self) -> Option<Hmac<Sha256>> {
        let settings = settings(&self.remote, &self.rclone_dir);
        if settings.is_empty() {
            return None;
        }
        let lines: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut mac = Hmac::<Sha256>::new_from_slice(lines.join("\n").as_bytes()).ok()?;
        mac.update(format!("v1|{}", self.place).as_bytes());
        Some(mac)
    }
}

/// A remote's settings, sorted: the environment, below it the Secret's keys, below them its `rclone.conf`.
pub(crate) fn settings(remote: &str, rclone_dir: &Path) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    if let Ok(text) = std::fs::read_to_string(rclone_dir.join("rclone.conf")) {
        settings.extend(section(&text, remote));
    }
    let prefix = format!("{PREFIX}{}_", remote.to_uppercase().replace(['-', '.'], "_"));
    let environment =
        std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_lowercase(), value)));
    settings.extend(environment);
    if let Ok(entries) = std::fs::read_dir(rclone_dir) {
        settings.extend(entries.filter_map(Result::ok).filter_map(|entry| {
            let name = entry.file_name();
            let option = name.to_str()?.strip_prefix(&prefix)?.to_lowercase();
            let value = std::fs::read_to_string(entry.path()).ok()?;
            Some((option, value.strip_suffix('\n').unwrap_or(&value).to_owned()))
        }));
    }
    settings
}

/// The settings of one remote in an `rclone.conf`.
fn section(text: &str, remote: &str) -> BTreeMap<String, String> {
    let mut within = false;
    let mut settings = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            within = name == remote;
        } else if within
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            settings.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(folder: &Path, place: &str) -> Token {
        Token {
            remote: "store-of-tests".to_owned(),
            place: place.to_owned(),
            rclone_dir: folder.to_owned(),
        }
    }

    #[test]
    fn two_pods_with_the_same_credentials_agree_however_they_got_them() {
        let (keys, file) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (key, value) in [("TYPE", "s3"), ("SECRET_ACCESS_KEY", "x")] {
            std::fs::write(keys.path().join(format!("RCLONE_CONFIG_STORE_OF_TESTS_{key}")), value).unwrap();
        }
        std::fs::write(
            file.path().join("rclone.conf"),
            "[other]\ntype = sftp\n[store-of-tests]\n# mine\nsecret_access_key = x\ntype=s3\n",
        )
        .unwrap();
        let made = token(keys.path(), "a:b").make().unwrap();
        assert!(token(file.path(), "a:b").accepts(&made));
        assert!(!token(file.path(), "a:c").accepts(&made), "another place");
        std::fs::write(keys.path().join("RCLONE_CONFIG_STORE_OF_TESTS_SECRET_ACCESS_KEY"), "y").unwrap();
        assert!(!token(keys.path(), "a:b").accepts(&made), "other credentials");
    }

    #[test]
    fn without_credentials_nobody_can_ask() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(token(empty.path(), "a:b").make(), None);
        assert!(!token(empty.path(), "a:b").accepts(""));
        assert!(!token(empty.path(), "a:b").accepts("zz"));
    }
}
