//! The store that the apps use, seen with rclone, as a person would look into it.

use crate::cluster::run;
use std::process::Command;

/// The bucket on the remote `minio`.
pub(crate) const BUCKET: &str = "minio:vixens-backups";

/// rclone, with what `make e2e` says of the store; where only pods reach it, in the pod that looks into it.
#[track_caller]
pub(crate) fn rclone(arguments: &[&str], input: &str) -> String {
    let mut command = match std::env::var("VIXENS_BACKUP_STORE_WINDOW") {
        Ok(namespace) => {
            let mut command = Command::new("kubectl");
            command.args(["--namespace", &namespace, "exec", "-i", "store-window", "--", "rclone"]);
            command
        }
        Err(_) => Command::new("rclone"),
    };
    let output = run(
        command
            .args([
                "--config",
                "/dev/null",
                "--retries",
                "1",
                // On a busy machine an answer is late, and is asked for again: half a minute long.
                "--low-level-retries",
                "20",
            ])
            .args(arguments),
        input,
    );
    assert!(
        output.status.success(),
        "rclone {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The content of an object; empty where there is none.
pub(crate) fn content(path: &str) -> String {
    rclone(&["cat", &format!("{BUCKET}/{path}")], "")
}

/// Every object below a folder.
pub(crate) fn listing(path: &str) -> Vec<String> {
    rclone(&["lsf", "-R", "--files-only", &format!("{BUCKET}/{path}")], "")
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}
