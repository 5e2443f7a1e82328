//! What a container of ours says last → its termination log, from where Kubernetes takes it into the pod's status: for
//! whoever reads no logs, such as the controller. Outside a pod there is no such file, and nothing is written.
//! <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>

use std::path::Path;

/// Where Kubernetes looks.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// The longest message that it keeps of one container, in bytes.
const LIMIT: usize = 4096;

/// Leaves last words, below those that were left before.
pub(super) fn leave(words: &str) {
    leave_in(Path::new(TERMINATION_LOG), words);
}

fn leave_in(log: &Path, words: &str) {
    // Where it can't be written, the container's log says the same.
    let Ok(before) = std::fs::read_to_string(log) else {
        return;
    };
    let mut all = before;
    if !all.is_empty() {
        all.push('\n');
    }
    all.push_str(words);
    let mut end = all.len().min(LIMIT);
    while !all.is_char_boundary(end) {
        end -= 1;
    }
    let _ = std::fs::write(log, &all[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_what_kubernetes_keeps_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("termination-log");
        leave_in(&log, "nobody hears");
        assert!(!log.exists(), "it is the kubelet's to make");
        std::fs::write(&log, "").unwrap();
        leave_in(&log, &"é".repeat(4096));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "é".repeat(2048));
        std::fs::write(&log, "").unwrap();
        leave_in(&log, "one place was saved");
        leave_in(&log, "the other could not be asked");
        let left = std::fs::read_to_string(&log).unwrap();
        assert_eq!(left, "one place was saved\nthe other could not be asked");
    }
}
