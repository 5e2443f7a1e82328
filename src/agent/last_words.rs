//! What a container of ours says last → its termination log, from where Kubernetes takes it into the pod's status: for
//! whoever reads no logs, such as the controller. Outside a pod there is no such file, and nothing is written.
//! <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>

use std::path::Path;

/// Where Kubernetes looks.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// The longest message that it keeps of one container, in bytes.
const LIMIT: usize = 4096;

/// Leaves the last words.
pub(super) fn leave(words: &str) {
    leave_in(Path::new(TERMINATION_LOG), words);
}

fn leave_in(log: &Path, words: &str) {
    if log.exists() {
        let mut end = words.len().min(LIMIT);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        // Where it can't be written, the container's log says the same.
        let _ = std::fs::write(log, &words[..end]);
    }
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
        leave_in(&log, "the store could not be asked");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "the store could not be asked");
    }
}
