//! The folder with the credentials → rclone's environment and configuration file, read afresh for each call.

use super::Settings;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where rclone finds its remotes.
pub(super) struct Configuration {
    /// `RCLONE_CONFIG_*`, from the folder's files.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The configuration file; none: rclone's usual one.
    pub(super) file: Option<PathBuf>,
}

impl Configuration {
    pub(super) fn read(settings: &Settings) -> std::io::Result<Self> {
        let mut read = Self {
            environment: Vec::new(),
            file: settings.config_file.clone(),
        };
        let Some(folder) = &settings.config_dir else {
            return Ok(read);
        };
        read.file.get_or_insert_with(|| "/dev/null".into());
        let listing = match std::fs::read_dir(folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(read),
            Err(error) => return Err(error),
        };
        for entry in listing {
            let entry = entry?;
            let name = entry.file_name();
            if name == "rclone.conf" {
                read.file = Some(entry.path());
            } else if name.as_bytes().starts_with(b"RCLONE_CONFIG_") {
                let value = std::fs::read(entry.path())?;
                let value = value.strip_suffix(b"\n").unwrap_or(&value);
                read.environment.push((name, OsStr::from_bytes(value).to_owned()));
            }
        }
        Ok(read)
    }
}
