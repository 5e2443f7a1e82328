//! The image that is installed, as a container: whoever it runs as, with nothing to write to, and without a shell.

use crate::cluster::{self, eventually};
use crate::space::{Space, secret};
use serde_json::{Value, json};

/// The image of the webhook, and of the injected containers.
fn image() -> String {
    let deployment = cluster::get("/apis/apps/v1/namespaces/vixens-backup/deployments/vixens-backup");
    let deployment = deployment.expect("vixens-backup is installed");
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().expect("an image").to_owned()
}

/// A pod that runs each command in a container of its own, as a user whom no file knows, and writes nowhere.
fn pod(name: &str, commands: &[(&str, &[&str])]) -> Value {
    // Another one in each run.
    let user = 100_000 + std::process::id();
    let image = image();
    let containers: Vec<Value> = commands
        .iter()
        .map(|(name, command)| {
            json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": command,
                "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}}})
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": containers,
            "securityContext": {"runAsNonRoot": true, "runAsUser": user, "runAsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"}}}})
}

/// What the container's state says of its end, or of why it can't begin.
fn ended(space: &Space, pod: &str, container: &str) -> Value {
    eventually(&format!("{container} ends"), || {
        let pod = space.get(&format!("pods/{pod}")).unwrap_or_default();
        let statuses = pod["status"]["containerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let status = statuses
            .into_iter()
            .find(|status| status["name"] == container)
            .unwrap_or_default();
        match &status["state"]["terminated"] {
            Value::Null => Err(status.to_string()),
            terminated => Ok(terminated.clone()),
        }
    })
}

/// The version that `.tools` pins.
fn pinned(tool: &str, module: &str) -> String {
    let file = format!("{}/.tools/{tool}/go.mod", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).expect("a pin");
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("require {module} ")));
    version.expect("a version").trim_end().to_owned()
}

#[test]
fn every_program_of_the_image_runs_as_any_user_with_nothing_to_write_to() {
    let space = Space::with(
        "image",
        json!({"pod-security.kubernetes.io/enforce": "restricted"}),
        &secret(None),
    );
    let programs: [(&str, &[&str], String); 4] = [
        (
            "vixens-backup",
            &["vixens-backup", "--version"],
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        (
            "agent",
            &["vixens-backup-agent", "agent", "--help"],
            "sidecar".to_owned(),
        ),
        (
            "rclone",
            &["rclone", "version"],
            pinned("rclone", "github.com/rclone/rclone"),
        ),
        (
            "litestream",
            &["litestream", "version"],
            pinned("litestream", "github.com/benbjohnson/litestream"),
        ),
    ];
    let commands: Vec<(&str, &[&str])> = programs.iter().map(|(name, command, _)| (*name, *command)).collect();
    space.apply(&pod("programs", &commands));
    for (name, _, says) in &programs {
        let ended = ended(&space, "programs", name);
        assert_eq!(ended["exitCode"], 0, "{name}: {ended}");
        let log = space.logs(&["pod/programs", "-c", name]);
        assert!(log.contains(says.as_str()), "{name} says {says}: {log}");
    }
}

#[test]
fn there_is_no_shell_in_the_image() {
    let space = Space::new("shell");
    let shells: [(&str, &[&str]); 3] = [
        ("sh", &["sh", "-c", "true"]),
        ("bin-sh", &["/bin/sh", "-c", "true"]),
        ("busybox", &["busybox", "true"]),
    ];
    space.apply(&pod("shells", &shells));
    for (name, _) in shells {
        let ended = ended(&space, "shells", name);
        let message = ended["message"].as_str().unwrap_or_default();
        assert_eq!(ended["reason"], "StartError", "{name}: {ended}");
        assert!(
            message.contains("not found") || message.contains("no such file"),
            "{message}"
        );
    }
}
