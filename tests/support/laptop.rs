//! Somebody with a laptop, the program, and the store's credentials.

use super::{BUCKET, S3, path_with_tools};
use std::path::Path;
use std::process::Command;

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its result.
    pub out: String,
    /// What it said beside it.
    pub err: String,
}

impl Said {
    /// The result of a command that must succeed.
    #[track_caller]
    pub fn fine(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }

    /// The complaint of a command that must fail with this code: one line.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.err.trim_end().lines().count(), 1, "{self:#?}");
        self.err
    }

    /// The result as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.fine()).unwrap()
    }
}

/// Runs a command, without a destination.
pub fn bare(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
    command
        .args(arguments)
        .env_remove("VIXENS_BACKUP_DESTINATION")
        .env("RCLONE_CONFIG", "/dev/null");
    said(&mut command)
}

/// Runs the program to its end, with rclone in reach.
pub fn said(command: &mut Command) -> Said {
    let output = command.env("PATH", path_with_tools()).output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command on the place of the tests' app, with the keys of its Secret.
pub fn command(server: &S3, arguments: &[&str]) -> Said {
    of_place(server, &format!("minio:{BUCKET}/app"), arguments)
}

/// Runs a command on any destination, with the keys of the Secret.
pub fn of_place(server: &S3, destination: &str, arguments: &[&str]) -> Said {
    let folder = server.rclone_dir().to_str().unwrap();
    let mut all = arguments.to_vec();
    all.extend(["--destination", destination, "--rclone-config", folder]);
    bare(&all)
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
