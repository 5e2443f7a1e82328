//! What only who stands beside the kubelet can do to a pod. These tests run in the node's namespaces, where its
//! processes and cgroups are to be seen; on somebody's cluster they can't, and what needs this says so and is left out.

use crate::cluster;
use crate::space::Space;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whether this is the bed's own node.
pub(crate) fn is_here() -> bool {
    let here = std::env::var_os("VIXENS_BACKUP_NODE").is_some();
    if !here {
        println!("left out: it needs a node of the bed, and this is somebody's cluster");
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
    processes_of(&container_id(pod, container))
        .into_iter()
        .min()
        .expect("a running container")
}

/// The processes of a container, each with its memory cgroup's folder.
fn processes_of(id: &str) -> Vec<(u32, PathBuf)> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|process| {
            let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
            let line = cgroups
                .lines()
                .find(|line| line.contains(id) && (line.contains(":memory:") || line.starts_with("0::")))?;
            let (controllers, path) = line.split_once(":/")?;
            let root = if controllers.ends_with(":memory") {
                "/sys/fs/cgroup/memory"
            } else {
                "/sys/fs/cgroup"
            };
            Some((process, PathBuf::from(root).join(path)))
        })
        .collect()
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

/// A power cut, and the power back: containers, containerd and kubelet end at once, and are started again.
pub(crate) fn reboot() {
    bed(&["inside", "reboot"]);
}

/// Ends a pod's own containers without grace, and takes away all that lies on its volume, before the kubelet looks.
pub(crate) fn kill_with_volume(space: &Space, pod: &Value, claim: &str) -> Instant {
    let _kubelet = Stopped::kubelet();
    let processes: Vec<u32> = ["app", "backup-sidecar"]
        .iter()
        .flat_map(|container| processes_of(&container_id(pod, container)))
        .map(|(process, _)| process)
        .collect();
    signal("KILL", &processes);
    let killed = Instant::now();
    let volume = space
        .get(&format!("persistentvolumeclaims/{claim}"))
        .expect("the claim");
    let name = volume["spec"]["volumeName"].as_str().expect("a bound claim");
    let volume = cluster::get(&format!("/api/v1/persistentvolumes/{name}")).expect("the volume");
    let source = &volume["spec"];
    let folder = source["hostPath"]["path"].as_str().or(source["local"]["path"].as_str());
    let folder = PathBuf::from(folder.expect("a folder of the node"));
    for entry in fs::read_dir(&folder).expect("the volume") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
        .expect("root");
    }
    let pod = pod["metadata"]["name"].as_str().expect("a name");
    space.kubectl(&["delete", "pvc", claim, "--wait=false"], "");
    space.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"], "");
    killed
}

fn bed(arguments: &[&str]) {
    let (bed, node) = (
        std::env::var("VIXENS_BACKUP_BED").expect("the folder of the bed's scripts"),
        std::env::var("VIXENS_BACKUP_NODE").expect("the node's state"),
    );
    let output = Command::new(format!("{bed}/node"))
        .args(arguments)
        .args(["--state", &node])
        .output()
        .expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// While it lasts, the kubelet does nothing. One at a time.
struct Stopped(
    u32,
    #[expect(dead_code, reason = "let go of with it")] MutexGuard<'static, ()>,
);

static KUBELET: Mutex<()> = Mutex::new(());

impl Stopped {
    fn kubelet() -> Self {
        let one = KUBELET.lock().unwrap_or_else(PoisonError::into_inner);
        let node = std::env::var("VIXENS_BACKUP_NODE").expect("the node's state");
        let text = fs::read_to_string(format!("{node}/cluster/pids/kubelet")).expect("the kubelet runs");
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        let stopped = Self(pid.expect("a number"), one);
        signal("STOP", &[stopped.0]);
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", &[self.0]);
    }
}

/// Who has ended in the meantime needs none.
fn signal(name: &str, processes: &[u32]) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}"))
        .args(processes.iter().map(ToString::to_string));
    kill.output().expect("kill");
}
