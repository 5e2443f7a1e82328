//! What is deployed, run beside the cluster: as its Deployment says, and with the rights of its ServiceAccount.

use crate::control_plane::{control_plane, root};
use crate::webhook::Process;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What the applied Deployment runs, on a port of loopback. `mounts` says where the folders lie that it mounts.
pub(crate) fn serve(mounts: &[(&str, &Path)]) -> Process {
    serve_with(mounts, &[])
}

/// The same with more arguments.
pub(crate) fn serve_with(mounts: &[(&str, &Path)], more: &[&str]) -> Process {
    let deployment = control_plane().get(&["--namespace=vixens-backup", "deployment/vixens-backup"]);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"], json!(["vixens-backup", "serve"]));
    let configuration = root().join("deploy/base");
    let mut arguments = vec!["--listen=127.0.0.1:0".to_owned(), "--shutdown-delay=0s".to_owned()];
    for argument in texts(&container["args"]) {
        let mut argument = argument.replace("/etc/vixens-backup", &configuration.display().to_string());
        for (path, folder) in mounts {
            argument = argument.replace(&format!("={path}/"), &format!("={}/", folder.display()));
        }
        arguments.push(argument);
    }
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    let account = account();
    let account = account.to_str().expect("UTF-8");
    let mut variables = vec![
        ("KUBECONFIG", account),
        ("POD_NAMESPACE", "vixens-backup"),
        ("VIXENS_BACKUP_WATCH_LABEL_SELECTOR", ""),
    ];
    for variable in container["env"].as_array().expect("a list") {
        if let Some(value) = variable["value"].as_str() {
            variables.push((variable["name"].as_str().expect("a name"), value));
        }
    }
    let process = Process::start(&arguments, &variables);
    process.says("ready part=\"certificates\"");
    process.says("ready part=\"cluster\"");
    process
}

/// A kubeconfig of the deployed ServiceAccount's.
pub(crate) fn account() -> PathBuf {
    let plane = control_plane();
    let token = ["--namespace=vixens-backup", "create", "token", "vixens-backup"];
    let token = plane.kubectl(&token).succeeds();
    let mut kubeconfig: Value =
        serde_saphyr::from_str(&fs::read_to_string(&plane.kubeconfig).expect("a kubeconfig")).expect("YAML");
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    let file = plane.scratch().join("account.kubeconfig");
    fs::write(&file, kubeconfig.to_string()).expect("a kubeconfig");
    file
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
