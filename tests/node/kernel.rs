//! What only who stands beside the kubelet can do to a pod. These tests run in the node's namespaces, where its
//! processes and cgroups are to be seen; on somebody's cluster they can't, and what needs this says so and is left out.

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Whether this is the bed's own node.
pub(crate) fn is_here() -> bool {
    let here = std::env::var_os("VIXENS_BACKUP_NODE").is_some();
    if !here {
        println!("left out: it needs the node's own kernel, and this is somebody's cluster");
    }
    here
}

/// Fills the memory of a container's cgroup until the kernel kills; its first process is the first to go.
pub(crate) fn exhaust_memory_of(pod: &Value, container: &str) {
    let (first, cgroup) = first_process_of(pod, container);
    fs::write(format!("/proc/{first}/oom_score_adj"), "1000").expect("root");
    let status = Command::new("sh")
        .args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec tail /dev/zero"])
        .arg(&cgroup)
        .status()
        .expect("sh");
    assert!(!status.success(), "killed, too");
}

/// The first process of a container, and its memory cgroup's folder.
fn first_process_of(pod: &Value, container: &str) -> (u32, PathBuf) {
    let id = container_id(pod, container);
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|process| {
            let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
            let line = cgroups
                .lines()
                .find(|line| line.contains(&id) && (line.contains(":memory:") || line.starts_with("0::")))?;
            let (controllers, path) = line.split_once(":/")?;
            let root = if controllers.ends_with(":memory") {
                "/sys/fs/cgroup/memory"
            } else {
                "/sys/fs/cgroup"
            };
            Some((process, PathBuf::from(root).join(path)))
        })
        .min()
        .expect("a running container")
}

fn container_id(pod: &Value, container: &str) -> String {
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let status = statuses
        .iter()
        .filter_map(|kind| pod["status"][kind].as_array())
        .flatten()
        .find(|status| status["name"] == container)
        .expect("the container's status");
    let id = status["containerID"].as_str().expect("a started container");
    id.rsplit('/').next().unwrap_or_default().to_owned()
}
