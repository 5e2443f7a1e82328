//! Somebody who writes numbered files in the app's container, and knows which writes were acknowledged.

use crate::space::Space;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ends with this value, or with the container.
pub(crate) struct Writer {
    child: Child,
    last: Arc<AtomicU64>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Writer {
    /// Writes `/config/numbers/1`, `2`, … with a pause in seconds between them.
    pub(crate) fn start(space: &Space, workload: &str, pause: &str) -> Self {
        let script = format!(
            "mkdir -p /config/numbers; n=0; while n=$((n + 1)); echo $n >/config/numbers/$n && echo $n; do sleep {pause}; done"
        );
        Self::run(space, workload, &script)
    }

    /// The numbers that the app's database is given, as they are committed.
    pub(crate) fn database(space: &Space, workload: &str) -> Self {
        Self::run(space, workload, "app tick /config/app.db")
    }

    fn run(space: &Space, workload: &str, script: &str) -> Self {
        let mut child = Command::new("kubectl")
            .args([
                "--namespace",
                space.name(),
                "exec",
                workload,
                "-c",
                "app",
                "--",
                "sh",
                "-c",
                script,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl");
        let output = child.stdout.take().expect("a pipe");
        let last = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&last);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(number) = line.parse() {
                    seen.store(number, Ordering::Relaxed);
                }
            }
        });
        Self { child, last }
    }

    /// The newest number that was acknowledged.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Waits until the container has ended; the newest number.
    pub(crate) fn ended(mut self) -> u64 {
        let _ = self.child.wait();
        self.last()
    }
}
