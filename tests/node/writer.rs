//! Somebody who writes numbered files in the app's container, and knows which writes were acknowledged.

use crate::space::Space;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Prints the newest number of a file that is on the volume.
pub(crate) const NEWEST: &str = "ls /config/numbers | sort -n | tail -n 1";
/// Prints how many there are.
pub(crate) const COUNT: &str = "ls /config/numbers | wc -l";

/// All numbers up to the newest that was acknowledged are on the volume, and of those after it, which were written when nobody
/// could be told any more, none but the next ones.
pub(crate) fn assert_are_back(space: &Space, workload: &str, acknowledged: u64) {
    let newest: u64 = space.exec(workload, NEWEST).parse().expect("a number");
    assert!(newest >= acknowledged, "{newest} came back, of {acknowledged}");
    assert_eq!(space.exec(workload, COUNT), newest.to_string());
}

/// Ends with this value, or with the container.
pub(crate) struct Writer {
    child: Child,
    acknowledged: Arc<Mutex<Vec<(u64, Instant)>>>,
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

    /// The same into a database of its own, `/config/written.db`.
    pub(crate) fn database(space: &Space, workload: &str) -> Self {
        Self::run(space, workload, "app tick /config/written.db")
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
        let acknowledged = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&acknowledged);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(number) = line.parse() {
                    seen.lock().expect("no panic").push((number, Instant::now()));
                }
            }
        });
        Self { child, acknowledged }
    }

    /// The newest number that was acknowledged.
    pub(crate) fn last(&self) -> u64 {
        let acknowledged = self.acknowledged.lock().expect("no panic");
        acknowledged.last().map_or(0, |(number, _)| *number)
    }

    /// When the first number above this one was acknowledged; nothing where it is the newest.
    pub(crate) fn first_after(&self, number: u64) -> Option<Instant> {
        let acknowledged = self.acknowledged.lock().expect("no panic");
        let first = acknowledged.iter().find(|(later, _)| *later > number);
        first.map(|(_, when)| *when)
    }

    /// Waits until the container has ended; the newest number.
    pub(crate) fn ended(&mut self) -> u64 {
        let _ = self.child.wait();
        self.last()
    }
}
