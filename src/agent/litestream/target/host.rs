//! Settings of a remote with folders → the same folder as Litestream names it: this machine, SFTP, WebDAV. Reads a file of
//! known hosts, nothing else.

use super::{PASSWORD, PASSWORD_VARIABLE, Settings, Target, bucket, obscured};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The keys of a host, the one first that Litestream's client agrees on where a server has several.
const HOST_KEYS: [&str; 5] = [
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "ssh-ed25519",
];

fn target(settings: Value, root: String) -> Target {
    let settings = match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    Target {
        settings,
        root,
        is_s3: false,
        environment: BTreeMap::new(),
    }
}

pub(super) fn local(path: &str) -> Target {
    // As rclone does where no path begins with a slash: from the folder that we run in.
    let root = std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned());
    target(json!({"type": "file"}), root)
}

pub(super) fn sftp(settings: &Settings, path: &str) -> Result<Target, String> {
    settings.refuse(&[
        "ssh",
        "key_file_pass",
        "key_pem",
        "socks_proxy",
        "pubkey",
        "pubkey_file",
    ])?;
    let (Some(host), Some(user)) = (settings.get("host"), settings.get("user")) else {
        return Err("Litestream needs its host and user settings".to_owned());
    };
    let (key, pass) = (settings.get("key_file"), settings.get("pass"));
    if key.is_none() && pass.is_none() {
        return Err("Litestream needs its key_file or pass setting".to_owned());
    }
    let port = settings.get("port").unwrap_or("22");
    let mut target = target(
        json!({"type": "sftp", "host": format!("{host}:{port}"), "user": user}),
        path.to_owned(),
    );
    if let Some(key) = key {
        target.settings.insert("key-path".to_owned(), json!(key));
    }
    if let Some(key) = host_key(settings, host, port)? {
        target.settings.insert("host-key".to_owned(), json!(key));
    }
    password(&mut target, "password", pass)?;
    Ok(target)
}

pub(super) fn webdav(settings: &Settings, path: &str) -> Result<Target, String> {
    settings.refuse(&[
        "bearer_token",
        "bearer_token_command",
        "headers",
        "unix_socket",
        "auth_redirect",
    ])?;
    let Some(url) = settings.get("url") else {
        return Err("Litestream needs its url setting".to_owned());
    };
    if let Some(vendor @ ("sharepoint" | "sharepoint-ntlm")) = settings.get("vendor") {
        return Err(format!("Litestream can't sign in where vendor is {vendor}"));
    }
    let mut target = target(json!({"type": "webdav", "webdav-url": url}), path.to_owned());
    if let Some(user) = settings.get("user") {
        target.settings.insert("webdav-username".to_owned(), json!(user));
    }
    password(&mut target, "webdav-password", settings.get("pass"))?;
    bucket::certificates(&mut target);
    Ok(target)
}

/// The password, in the environment as the inside of a JSON string: Litestream puts it into the text of its configuration.
fn password(target: &mut Target, setting: &str, pass: Option<&str>) -> Result<(), String> {
    let Some(pass) = pass else { return Ok(()) };
    let password = obscured::reveal(pass).ok_or("its pass setting is not what `rclone obscure` makes of a password")?;
    let quoted = json!(password).to_string();
    target.settings.insert(setting.to_owned(), json!(PASSWORD));
    let inside = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    target.environment.insert(PASSWORD_VARIABLE, inside.to_owned());
    Ok(())
}

/// The key by which rclone knows the server again, where it was told to look; Litestream takes one.
fn host_key(settings: &Settings, host: &str, port: &str) -> Result<Option<String>, String> {
    let keys = match (settings.get("known_hosts_file"), settings.get("host_keys")) {
        (Some("none"), _) | (None, None) => return Ok(None),
        (Some(file), _) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("its known_hosts_file {file} can't be read ({error})"))?;
            known(&text, host, port)
        }
        (None, Some(pinned)) => pinned.split(',').filter_map(key).collect(),
    };
    HOST_KEYS
        .iter()
        .find_map(|kind| keys.iter().find(|(known, _)| known == kind))
        .map(|(kind, key)| Some(format!("{kind} {key}")))
        .ok_or_else(|| {
            format!(
                "no key of {host} stands where rclone looks for it (known_hosts_file or host_keys) in a way that Litestream \
                 can be told: hashed names and patterns can't be"
            )
        })
}

/// `kind key`.
fn key(text: &str) -> Option<(String, String)> {
    let mut words = text.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

/// The keys of a host in a file of OpenSSH's format.
fn known(text: &str, host: &str, port: &str) -> Vec<(String, String)> {
    let name = if port == "22" {
        host.to_owned()
    } else {
        format!("[{host}]:{port}")
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let revoked: Vec<_> = lines()
        .filter_map(|line| key(line.strip_prefix("@revoked")?.trim_start().split_once(' ')?.1))
        .collect();
    lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .filter(|(names, _)| names.split(',').any(|known| known == name))
        .filter_map(|(_, rest)| key(rest))
        .filter(|key| !revoked.contains(key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_key_is_the_one_that_litestreams_client_agrees_on_and_no_revoked_one() {
        let text = "# comment\nother ssh-ed25519 OTHER\nnas,10.0.0.2 ssh-ed25519 ED comment\nnas ssh-rsa RSA\n\
                    [nas]:2222 ssh-ed25519 HIGH\n@revoked * ssh-rsa GONE\nold ssh-rsa GONE\n|1|salt|hash ssh-rsa HASHED\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        std::fs::write(&file, text).unwrap();
        let of = |host: &str, port: &str| {
            let settings = BTreeMap::from([("known_hosts_file".to_owned(), file.display().to_string())]);
            host_key(&Settings(settings), host, port)
        };
        assert_eq!(of("nas", "22").unwrap().as_deref(), Some("ssh-rsa RSA"));
        assert_eq!(of("10.0.0.2", "22").unwrap().as_deref(), Some("ssh-ed25519 ED"));
        assert_eq!(of("nas", "2222").unwrap().as_deref(), Some("ssh-ed25519 HIGH"));
        for unknown in ["old", "elsewhere"] {
            assert!(of(unknown, "22").unwrap_err().contains(unknown));
        }
        let pinned = BTreeMap::from([("host_keys".to_owned(), "ssh-ed25519 A,ecdsa-sha2-nistp256 B".to_owned())]);
        assert_eq!(
            host_key(&Settings(pinned), "nas", "22").unwrap().as_deref(),
            Some("ecdsa-sha2-nistp256 B")
        );
        assert_eq!(host_key(&Settings(BTreeMap::new()), "nas", "22"), Ok(None));
    }
}
