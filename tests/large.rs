//! What is large: 100,000 files, and one of 5 GiB, from a volume to the store and back. Minutes, and gigabytes on disk:
//! `LARGE=true make test` runs them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says what failed by failing"
)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use support::bed::Bed;
use support::pod::{PLACE, Pod, block_on};
use support::{S3, write};
use vixens_backup::agent::restore::verify::sha256_of;
use vixens_backup::store::{Depth, listed};

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(1200);
const DESTINATION: &str = "minio:backups/app";

/// Waits until the sidecar has saved `files` files in all, and its snapshot is there.
fn until_saved(pod: &Pod, files: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = pod.status();
        let destination = &status["destinations"][DESTINATION];
        if destination["files"] == files && destination["phase"] == "ready" {
            return;
        }
        assert!(Instant::now() < deadline, "{status:#}\n{}", pod.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The most memory that a process, with those that it has started and awaited, has had at once, in MiB.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Restores the place onto an empty volume.
fn restored(server: S3) -> Bed {
    let mut bed = Bed::on_disk(server);
    bed.cluster = String::new();
    let mut command = bed.init();
    let output = command
        .env("POD_NAMESPACE", "test")
        .args(["--restore-timeout=20m"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bed
}

fn tell(what: &str, begun: Instant) {
    eprintln!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_name() != ".vixens-backup")
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                count(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

#[test]
#[ignore = "100,000 files take minutes: LARGE=true make test"]
fn a_hundred_thousand_files_are_saved_and_come_back() {
    const FILES: usize = 100_000;
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for number in 0..FILES {
        let folder = pod.path(&format!("d{}", number % 250));
        if number < 250 {
            fs::create_dir(&folder).unwrap();
        }
        fs::write(folder.join(number.to_string()), format!("content of {number}")).unwrap();
    }
    pod.init(&server);
    let begun = Instant::now();
    pod.start();
    until_saved(&pod, FILES as u64);
    tell("the first backup", begun);
    eprintln!("the sidecar's peak: {} MiB", peak(pod.pid()));
    let begun = Instant::now();
    pod.write("d7/changed", "one of many");
    until_saved(&pod, FILES as u64 + 1);
    tell("one more file", begun);
    assert!(pod.stop().success());
    let stored = block_on(listed(&server.store(PLACE), "config", Depth::All)).unwrap();
    assert_eq!(stored.len(), FILES + 1);
    let begun = Instant::now();
    let bed = restored(server);
    tell("the restore", begun);
    assert_eq!(count(&bed.volume()), FILES + 1);
    for number in [0, 1, 4_711, FILES - 1] {
        let path = bed.volume().join(format!("d{}/{number}", number % 250));
        assert_eq!(fs::read_to_string(path).unwrap(), format!("content of {number}"));
    }
}

#[test]
#[ignore = "a file of 5 GiB takes minutes and 10 GiB of disk: LARGE=true make test"]
fn a_file_of_five_gibibytes_is_saved_and_comes_back() {
    const SIZE: u64 = 5 << 30;
    // The small server keeps the parts of an upload in memory.
    let server = S3::of(support::Kind::Minio);
    let mut pod = Pod::new(&server, "aa");
    write(&pod.path("beside"), "small");
    let file = fs::File::create(pod.path("large")).unwrap();
    file.set_len(SIZE).unwrap();
    for part in 0..5 {
        file.write_all_at(format!("part {part}").as_bytes(), part << 30)
            .unwrap();
    }
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .unwrap();
    let digest = sha256_of(&mut fs::File::open(pod.path("large")).unwrap()).unwrap();
    pod.init(&server);
    let begun = Instant::now();
    pod.start();
    until_saved(&pod, 2);
    tell("the backup", begun);
    eprintln!("the sidecar's peak: {} MiB", peak(pod.pid()));
    assert!(pod.stop().success());
    drop(pod);
    let begun = Instant::now();
    let bed = restored(server);
    tell("the restore", begun);
    let back = sha256_of(&mut fs::File::open(bed.volume().join("large")).unwrap()).unwrap();
    assert_eq!(back, digest);
}
