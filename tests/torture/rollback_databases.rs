//! Databases under pods of both releases, at tiers 3 and 2, one after the other, each on a volume that is lost: no row is,
//! whichever copy of them is the newest, the replica or the file.

use super::former::Both;
use super::pod::Pod;
use super::support::app::{create, insert, rows};
use std::time::Duration;

/// So many rows are written in each life.
const ROWS: i64 = 40;

/// Lives of so many pods: of which release, at which tier, and whether it starts on an empty volume.
fn lives(lives: &[(&str, &'static str, bool)]) {
    let Some(mut both) = Both::new("tier3") else { return };
    let database = both.workload.volume().join("app.db");
    let mut done = Vec::new();
    for (number, life) in lives.iter().enumerate() {
        let (release, tier, is_lost) = *life;
        done.push(life);
        both.workload.tier = tier;
        if is_lost {
            both.workload.lose_volume();
        }
        let mut pod = match release {
            "ours" => both.ours(&[]),
            _ => both.former(&[]),
        };
        let from = i64::try_from(number).unwrap() * ROWS;
        if number > 0 {
            let expected: Vec<i64> = (0..from).collect();
            assert_eq!(rows(&database), expected, "{done:?}\n{}", pod.log());
        }
        let writer = create(&database, "wal");
        Both::ready(&mut pod);
        insert(&writer, from, ROWS);
        drop(writer);
        Both::stop(&mut pod);
    }
}

#[test]
fn a_replica_that_ours_has_left_is_older_than_the_file_to_the_former_release_too() {
    lives(&[
        ("ours", "tier3", true),
        ("ours", "tier2", true),
        ("former", "tier3", true),
        ("ours", "tier3", true),
        ("former", "tier3", true),
        ("ours", "tier3", false),
        ("ours", "tier3", true),
    ]);
}

#[test]
fn a_file_of_the_former_release_is_newer_than_the_replica_that_ours_has_followed() {
    lives(&[
        ("ours", "tier3", true),
        ("former", "tier2", true),
        ("ours", "tier3", true),
        ("ours", "tier2", false),
        ("former", "tier2", true),
        ("ours", "tier3", true),
    ]);
}

/// Waits until a pod at tier 3 knows as sent whatever was committed before.
fn until_sent(pod: &Pod) {
    // Whoever looks at the databases has looked since the last commit.
    std::thread::sleep(Duration::from_secs(4));
    Both::until(pod, "the database is sent", |pod| {
        let status = pod.status().unwrap_or_default();
        let database = &status["databases"]["config/app.db"];
        database["status"] == "replicated"
            && database["listed"].is_string()
            && database["listed"] == database["txid"]
            && database["lag_seconds"].as_f64() == Some(0.0)
    });
}

#[test]
fn what_the_former_release_has_sent_is_newer_than_the_file_of_tier_2_before_it() {
    let Some(mut both) = Both::new("tier3") else { return };
    let database = both.workload.volume().join("app.db");
    let ours = both.ours.clone();
    for (tier, from) in [("tier3", 0), ("tier2", ROWS)] {
        both.workload.tier = tier;
        let mut pod = both.start(&ours, &[]);
        Both::ready(&mut pod);
        let writer = create(&database, "wal");
        insert(&writer, from, ROWS);
        if tier == "tier3" {
            until_sent(&pod);
        }
        drop(writer);
        Both::stop(&mut pod);
    }
    // It is killed before a snapshot says that the database is replicated again.
    both.workload.tier = "tier3";
    both.workload.sidecar_flags = vec!["--settle=10m".to_owned(), "--interval=10m".to_owned()];
    let mut pod = both.former(&[]);
    Both::ready(&mut pod);
    let writer = create(&database, "wal");
    insert(&writer, 2 * ROWS, ROWS);
    until_sent(&pod);
    pod.kill();
    drop(writer);
    both.workload.lose_volume();
    // The file comes first, and is kept beside what is newer.
    let pod = both.workload.pod_of(ours);
    let said = both.workload.init(&pod, &[]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(rows(&database), (0..3 * ROWS).collect::<Vec<i64>>(), "{}", said.text);
}
