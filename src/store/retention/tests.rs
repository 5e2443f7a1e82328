//! Tables and properties of what retention keeps: every kept snapshot can be restored after any plan.

use super::*;
use crate::store::snapshot::Kind;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(text: &str) -> SnapshotId {
    text.parse().unwrap()
}

fn span(text: &str) -> Duration {
    text.parse::<crate::agent::arguments::Span>().unwrap().duration()
}

fn week() -> Rules {
    Rules {
        within: Some(span("7d")),
        ..Rules::default()
    }
}

/// Snapshots 1, 2, … of one epoch, the first complete, made at these times.
fn made_at(times: &[&str]) -> Listing {
    let indexes: BTreeSet<SnapshotId> = (1..)
        .zip(times)
        .map(|(sequence, text)| {
            let (text, kind) = text.split_once(' ').unwrap_or((text, "auto"));
            let kind = id(&format!("20261122T130500Z-1.1-{kind}")).kind;
            SnapshotId::new(time(text), 1, sequence, kind)
        })
        .collect();
    Listing {
        bases: indexes.first().into_iter().copied().collect(),
        indexes,
        ..Listing::default()
    }
}

/// The sequence numbers of what stays.
fn kept(rules: &Rules, listing: &Listing, now: &str) -> Vec<u64> {
    let plan = plan(rules, listing, time(now));
    plan.kept.iter().map(|id| id.sequence).collect()
}

/// The same, for a listing in which every index is complete in itself: so the last but one stays in any case.
fn kept_of_complete(rules: &Rules, times: &[&str], now: &str) -> Vec<u64> {
    let mut listing = made_at(times);
    listing.bases = listing.indexes.clone();
    kept(rules, &listing, now)
}

#[test]
fn within_an_hour_all_stay_for_a_day_the_newest_of_each_hour_then_of_each_day() {
    let times = [
        "2026-11-19T10:00:00Z", // 1: not the newest of its day
        "2026-11-19T22:00:00Z", // 2
        "2026-11-20T09:00:00Z", // 3
        "2026-11-22T02:10:00Z", // 4: not the newest of its hour
        "2026-11-22T02:50:00Z", // 5
        "2026-11-22T11:30:00Z", // 6: not the newest of its hour
        "2026-11-22T11:59:00Z", // 7
        "2026-11-22T12:29:00Z", // 8: not the newest of its hour, and an hour old
        "2026-11-22T12:31:00Z", // 9
        "2026-11-22T12:32:00Z", // 10
        "2026-11-22T12:33:00Z", // 11
    ];
    assert_eq!(
        kept_of_complete(&week(), &times, "2026-11-22T13:30:00Z"),
        [2, 3, 5, 7, 9, 10, 11]
    );
}

#[test]
fn a_snapshot_grows_old_when_the_next_one_is_made() {
    // Off for a month, then on again: the state of the whole month stays for seven days more.
    let times = [
        "2026-10-10T10:00:00Z",
        "2026-10-19T10:00:00Z",
        "2026-10-20T10:00:00Z",
        "2026-11-22T12:00:00Z",
        "2026-11-22T12:00:01Z",
    ];
    assert_eq!(kept_of_complete(&week(), &times, "2026-11-22T12:00:05Z"), [3, 4, 5]);
    assert_eq!(kept_of_complete(&week(), &times, "2026-11-29T11:59:00Z"), [3, 4, 5]);
    assert_eq!(kept_of_complete(&week(), &times, "2026-11-29T12:01:00Z"), [4, 5]);
}

#[test]
fn the_last_good_one_stays_however_old_it_is() {
    assert_eq!(
        kept_of_complete(&week(), &["2020-01-01T00:00:00Z"], "2026-11-22T12:00:00Z"),
        [1]
    );
    let nothing = Rules::default();
    assert_eq!(
        kept_of_complete(
            &nothing,
            &["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z", "2020-01-03T00:00:00Z"],
            "2026-11-22T12:00:00Z"
        ),
        [2, 3]
    );
}

#[test]
fn what_somebody_asked_for_is_not_thinned_and_outlives_a_count_by_a_day() {
    let times = [
        "2026-11-20T09:00:00Z manual",
        "2026-11-20T09:01:00Z final",
        "2026-11-20T09:02:00Z presync",
        "2026-11-20T09:03:00Z restored",
        "2026-11-20T09:04:00Z scheduled",
        "2026-11-20T09:05:00Z",
        "2026-11-22T12:00:00Z manual",
        "2026-11-22T12:00:04Z",
        "2026-11-22T12:00:08Z",
    ];
    let now = "2026-11-22T13:30:00Z";
    assert_eq!(kept_of_complete(&week(), &times, now), [1, 2, 3, 4, 6, 7, 8, 9]);
    let last = Rules {
        last: Some(1),
        ..Rules::default()
    };
    assert_eq!(kept_of_complete(&last, &times, now), [7, 8, 9]);
}

#[test]
fn counts_keep_the_newest_of_so_many_periods_that_have_one() {
    let times = [
        "2026-09-30T10:00:00Z", // 1: September
        "2026-10-30T10:00:00Z", // 2: October
        "2026-11-08T23:00:00Z", // 3: a Sunday
        "2026-11-09T01:00:00Z", // 4: the Monday after
        "2026-11-15T10:00:00Z", // 5: the Sunday of that week
        "2026-11-21T10:00:00Z", // 6
        "2026-11-22T10:00:00Z", // 7
        "2026-11-22T10:30:00Z", // 8
    ];
    let now = "2026-11-30T00:00:00Z";
    let rules = Rules::default;
    for (rules, expected) in [
        (
            Rules {
                last: Some(3),
                ..rules()
            },
            vec![6, 7, 8],
        ),
        (
            Rules {
                hourly: Some(2),
                ..rules()
            },
            vec![6, 7, 8],
        ),
        (
            Rules {
                daily: Some(3),
                ..rules()
            },
            vec![5, 6, 7, 8],
        ),
        (
            Rules {
                weekly: Some(3),
                ..rules()
            },
            vec![3, 5, 7, 8],
        ),
        (
            Rules {
                monthly: Some(2),
                ..rules()
            },
            vec![2, 7, 8],
        ),
        (
            Rules {
                last: Some(2),
                monthly: Some(9),
                ..rules()
            },
            vec![1, 2, 7, 8],
        ),
    ] {
        assert_eq!(kept_of_complete(&rules, &times, now), expected, "{rules:?}");
    }
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_look_old() {
    // Sequence 3 and 4 were made by a board that woke up in 1970.
    let times = [
        "2026-11-21T10:00:00Z",
        "2026-11-22T11:50:00Z",
        "1970-01-01T00:00:10Z",
        "1970-01-01T00:00:20Z",
        "2026-11-22T12:00:00Z",
    ];
    assert_eq!(
        kept_of_complete(&week(), &times, "2026-11-22T12:10:00Z"),
        [1, 2, 3, 4, 5]
    );
    // And if it is 1970 now, everything else is still to come.
    let (before, _) = times.split_at(4);
    assert_eq!(kept_of_complete(&week(), before, "1970-01-01T00:00:21Z"), [1, 2, 3, 4]);
}

#[test]
fn a_time_still_to_come_keeps_nothing_from_growing_old() {
    let times = [
        "2026-11-01T10:00:00Z",
        "2099-01-01T00:00:00Z",
        "2026-11-02T10:00:00Z",
        "2026-11-22T12:00:00Z",
    ];
    assert_eq!(kept_of_complete(&week(), &times, "2026-11-30T12:10:00Z"), [3, 4]);
}

/// The store says that it wrote these indexes a second after their times, and its clock has reached this.
fn written(mut listing: Listing, clock: &str) -> Listing {
    listing.written = listing
        .indexes
        .iter()
        .map(|id| (*id, id.time + SignedDuration::from_secs(1)))
        .collect();
    listing.clock = Some(time(clock));
    listing
}

const SOME_DAYS: [&str; 7] = [
    "2026-11-10T10:00:00Z",
    "2026-11-21T10:10:00Z",
    "2026-11-21T10:20:00Z",
    "2026-11-22T11:10:00Z",
    "2026-11-22T11:20:00Z",
    "2026-11-22T12:00:00Z",
    "2026-11-22T12:01:00Z",
];

#[test]
fn a_clock_that_jumps_ahead_removes_nothing_where_the_store_says_when_it_wrote_and_neither_does_the_stores() {
    let (today, in_2036) = ("2026-11-22T12:30:00Z", "2036-11-22T12:30:00Z");
    let listing = || made_at(&SOME_DAYS);
    let expected = [1, 3, 5, 6, 7];
    assert_eq!(
        kept(&week(), &listing(), in_2036),
        [1, 7],
        "nobody says that it is not 2036"
    );
    assert_eq!(kept(&week(), &listing(), today), expected);
    assert_eq!(kept(&week(), &written(listing(), today), today), expected);
    assert_eq!(kept(&week(), &written(listing(), today), in_2036), expected);
    assert_eq!(kept(&week(), &written(listing(), in_2036), today), expected);
    // What it wrote meanwhile bears a time that the store does not confirm.
    let mut later = written(made_at(&[&SOME_DAYS[..], &[in_2036]].concat()), today);
    let newest = *later.indexes.last().unwrap();
    later.written.insert(newest, time(today));
    assert_eq!(kept(&week(), &later, in_2036), [1, 3, 5, 6, 7, 8]);
    assert_eq!(kept(&week(), &later, "2026-11-22T12:40:00Z"), [1, 3, 5, 6, 7, 8]);
}

#[test]
fn a_snapshot_of_a_wrong_clock_takes_the_place_of_no_hour_or_day() {
    let times = [
        "2026-11-20T10:00:00Z",
        "2026-11-21T10:00:00Z",
        "2026-11-22T10:00:00Z",
        "2036-11-22T10:00:05Z",
    ];
    let listing = made_at(&times);
    let mut told = written(listing.clone(), "2026-11-22T10:00:10Z");
    told.written
        .insert(*told.indexes.last().unwrap(), time("2026-11-22T10:00:10Z"));
    let daily = Rules {
        daily: Some(2),
        ..Rules::default()
    };
    // The first is a complete index, which the others build on.
    assert_eq!(kept(&daily, &told, "2036-11-22T10:00:20Z"), [1, 2, 4]);
    assert_eq!(kept(&daily, &listing, "2026-11-22T10:00:20Z"), [1, 2, 4]);
}

#[test]
fn most_of_what_is_there_is_not_removed_unasked_but_for_the_byte_budget() {
    let listing = made_at(&SOME_DAYS);
    let in_2036 = time("2036-11-22T12:30:00Z");
    assert!(is_sweeping(&week(), &listing, in_2036));
    assert!(!is_sweeping(&week(), &listing, time("2026-11-22T12:30:00Z")));
    assert!(!is_sweeping(&week().without_ages(), &listing, in_2036));
    assert_eq!(
        kept(&week().without_ages(), &listing, "2036-11-22T12:30:00Z"),
        [1, 2, 3, 4, 5, 6, 7]
    );
    let mut listing = with_history(listing, &[(6, "config/a", 10), (7, "config/a", 10)]);
    listing.bases = listing.indexes.clone();
    let tight = Rules {
        history: Some(10),
        ..week()
    };
    assert!(!is_sweeping(&tight, &listing, time("2026-11-22T12:30:00Z")));
    assert_eq!(kept(&tight.without_ages(), &listing, "2036-11-22T12:30:00Z"), [6, 7]);
}

#[test]
fn a_pinned_snapshot_and_the_index_that_it_builds_on_stay() {
    let mut listing = made_at(&[
        "2026-10-01T10:00:00Z",
        "2026-10-01T11:00:00Z",
        "2026-10-01T12:00:00Z",
        "2026-11-20T12:00:00Z",
        "2026-11-22T12:00:00Z",
    ]);
    let all: Vec<SnapshotId> = listing.indexes.iter().copied().collect();
    listing.bases = [all[0], all[3]].into_iter().collect();
    listing.pins = [all[2]].into_iter().collect();
    let none = Rules::default();
    assert_eq!(kept(&none, &listing, "2026-11-22T12:00:00Z"), [1, 3, 4, 5]);
}

#[test]
fn the_complete_index_before_the_newest_one_stays_of_whatever_epoch() {
    let made = |epoch, sequence| SnapshotId::new(time("2026-11-22T12:00:00Z"), epoch, sequence, Kind::Auto);
    let all = [made(1, 1), made(1, 2), made(1, 3), made(2, 1), made(2, 2), made(2, 3)];
    for (bases, expected) in [
        (&[all[0], all[3]][..], vec![all[0], all[3], all[5]]),
        (&[all[0], all[2], all[3]], vec![all[2], all[3], all[5]]),
        (&[all[0], all[3], all[5]], vec![all[3], all[5]]),
        (&[all[3]], vec![all[3], all[5]]),
        (&[all[0]], vec![all[3], all[4], all[5]]),
    ] {
        let listing = Listing {
            indexes: all.into_iter().collect(),
            bases: bases.iter().copied().collect(),
            ..Listing::default()
        };
        let plan = plan(&Rules::default(), &listing, time("2027-11-22T12:00:00Z"));
        assert_eq!(plan.kept, expected, "{bases:?}");
    }
}

#[test]
fn without_a_mark_everything_of_the_epoch_may_be_what_others_build_on() {
    let mut listing = made_at(&["2026-10-01T10:00:00Z", "2026-10-01T11:00:00Z", "2026-11-22T12:00:00Z"]);
    listing.bases.clear();
    assert_eq!(kept(&Rules::default(), &listing, "2026-11-22T12:00:00Z"), [1, 2, 3]);
}

#[test]
fn a_mark_goes_after_its_index_and_one_of_a_backup_under_way_stays() {
    let mut listing = made_at(&["2026-10-01T10:00:00Z", "2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z"]);
    listing.bases = listing.indexes.clone();
    let dangling = SnapshotId::new(time("2026-10-02T10:00:00Z"), 1, 1, Kind::Auto);
    let coming = SnapshotId::new(time("2026-11-22T12:00:05Z"), 1, 4, Kind::Auto);
    listing.bases.extend([dangling, coming]);
    let plan = plan(&Rules::default(), &listing, time("2026-11-22T12:00:10Z"));
    let expected: [(&str, &[String]); 2] = [
        ("snapshots", &["20261001T100000Z-1.1-auto.json".to_owned()]),
        (
            "snapshots",
            &[
                "20261001T100000Z-1.1-auto.base".to_owned(),
                "20261002T100000Z-1.1-auto.base".to_owned(),
            ],
        ),
    ];
    assert_eq!(plan.steps(), expected);
}

fn object(name: &str, size: u64) -> Object {
    Object {
        name: name.to_owned(),
        size,
        folder: false,
        written: None,
    }
}

fn with_history(mut listing: Listing, objects: &[(u64, &str, u64)]) -> Listing {
    let ids: Vec<SnapshotId> = listing.indexes.iter().copied().collect();
    for (sequence, file, size) in objects {
        let backup = ids
            .iter()
            .find(|id| id.sequence == *sequence)
            .copied()
            .unwrap_or_else(|| SnapshotId::new(ids[0].time, 1, *sequence, Kind::Auto));
        listing.history(&object(&format!("{backup}/{file}"), *size));
    }
    listing
}

#[test]
fn of_what_history_has_of_a_file_between_two_snapshots_the_first_remains() {
    let listing = made_at(&["2026-11-20T10:00:00Z", "2026-11-22T10:00:00Z"]);
    let mut listing = with_history(listing, &[(1, "config/a", 1), (3, "config/a", 1)]);
    // Snapshot 2 was thinned long ago; so were others between, and their histories are still there.
    let newest = SnapshotId::new(time("2026-11-22T12:00:00Z"), 1, 9, Kind::Auto);
    listing.indexes.insert(newest);
    let listing = with_history(listing, &[(5, "config/a", 1), (5, "config/b", 1), (9, "config/a", 1)]);
    let last = Rules {
        last: Some(2),
        ..Rules::default()
    };
    // Kept: 1 (a base), 2 and 9. Of a: 3 is what 2 needs. Of 1 nothing is older.
    let plan = plan(&last, &listing, time("2026-11-22T12:00:00Z"));
    assert_eq!(plan.kept.iter().map(|id| id.sequence).collect::<Vec<_>>(), [1, 2, 9]);
    let gone: Vec<&str> = plan
        .history
        .iter()
        .map(|name| &name[name.find("-1.").unwrap()..])
        .collect();
    assert_eq!(gone, ["-1.1-auto/config/a", "-1.5-auto/config/a", "-1.9-auto/config/a"]);
    assert_eq!(plan.history_bytes, 2);
}

#[test]
fn the_budget_of_history_costs_the_oldest_snapshots_and_never_the_last_good_or_a_pinned_one() {
    let mut listing = made_at(&[
        "2026-11-22T10:00:00Z",
        "2026-11-22T10:10:00Z",
        "2026-11-22T10:20:00Z",
        "2026-11-22T10:30:00Z",
        "2026-11-22T10:40:00Z",
    ]);
    listing.bases = listing.indexes.clone();
    let mut listing = with_history(
        listing,
        &[
            (2, "config/a", 10),
            (3, "config/a", 10),
            (4, "config/a", 10),
            (5, "config/a", 10),
        ],
    );
    let budget = |bytes| Rules {
        history: Some(bytes),
        ..week()
    };
    let now = "2026-11-22T10:41:00Z";
    assert_eq!(kept(&budget(40), &listing, now), [1, 2, 3, 4, 5]);
    assert_eq!(kept(&budget(39), &listing, now), [2, 3, 4, 5]);
    assert_eq!(kept(&budget(15), &listing, now), [4, 5]);
    assert_eq!(kept(&budget(0), &listing, now), [4, 5]);
    listing.pins = listing.indexes.iter().take(1).copied().collect();
    assert_eq!(kept(&budget(15), &listing, now), [1, 4, 5]);
    let plan = plan(&budget(0), &listing, time(now));
    assert_eq!((plan.history_bytes, plan.over_budget), (20, 20));
}

#[test]
fn what_a_restore_set_aside_goes_with_the_snapshots_of_its_time_and_not_within_a_month() {
    let listing = made_at(&["2026-11-01T10:00:00Z", "2026-11-22T10:00:00Z", "2026-11-22T10:10:00Z"]);
    let mut listing = with_history(
        listing,
        &[(2, ".vixens-aside/config/a", 1), (3, ".vixens-aside/config/a", 1)],
    );
    listing.bases = listing.indexes.clone();
    listing.pins = listing.indexes.iter().take(1).copied().collect();
    let last = Rules {
        last: Some(2),
        ..Rules::default()
    };
    let goes = |now| plan(&last, &listing, time(now)).history;
    assert_eq!(goes("2026-12-22T09:59:59Z"), [""; 0]);
    assert_eq!(
        goes("2026-12-22T10:00:00Z"),
        ["20261122T100000Z-1.2-auto/.vixens-aside/config/a"]
    );
    // However far ahead our clock is.
    let told = written(listing.clone(), "2026-12-22T10:00:00Z");
    assert_eq!(plan(&last, &told, time("2036-12-22T10:00:00Z")).history, [""; 0]);
}

#[test]
fn a_name_of_a_newer_release_stops_everything_and_what_is_somebodys_stays() {
    let mut listing = Listing::default();
    let error = listing
        .snapshots("minio:b/app", &[object("20261122T130500Z-3.42-auto.cbor", 1)])
        .unwrap_err();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    let somebodys = [".DS_Store", "20261122T130500Z-3.42-auto.json.1a2b3c4d.partial"];
    listing
        .snapshots("minio:b/app", &somebodys.map(|name| object(name, 1)))
        .unwrap();
    listing.history(&object("notes/readme.txt", 1));
    assert_eq!(listing, Listing::default());
}

/// A place as backups and deletions leave it, with the content of every file.
#[derive(Debug, Default)]
struct Place {
    mirror: BTreeMap<u8, u64>,
    history: BTreeMap<(SnapshotId, u8), u64>,
    /// What each snapshot was, and the one whose index it builds on.
    snapshots: BTreeMap<SnapshotId, (BTreeMap<u8, u64>, SnapshotId)>,
    marks: BTreeSet<SnapshotId>,
    /// All that were ever complete.
    made: BTreeSet<SnapshotId>,
    pins: BTreeSet<SnapshotId>,
    point: (u64, u64),
    base: Option<SnapshotId>,
    contents: u64,
}

impl Place {
    fn back_up(&mut self, now: Timestamp, kind: Kind, changes: &[(u8, bool)], complete: bool) {
        self.point.1 += 1;
        let id = SnapshotId::new(now, self.point.0, self.point.1, kind);
        let before = self.mirror.clone();
        for (file, is_written) in changes {
            self.contents += 1;
            if *is_written {
                self.mirror.insert(*file, self.contents);
            } else {
                self.mirror.remove(file);
            }
        }
        for (file, content) in before {
            if self.mirror.get(&file) != Some(&content) {
                self.history.insert((id, file), content);
            }
        }
        let base = self.base.filter(|base| base.epoch == id.epoch && !complete);
        let base = base.unwrap_or_else(|| {
            self.base = Some(id);
            self.marks.insert(id);
            self.made.insert(id);
            id
        });
        self.snapshots.insert(id, (self.mirror.clone(), base));
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing {
            pins: self.pins.clone(),
            ..Listing::default()
        };
        let indexes = self.snapshots.keys().map(|id| object(&format!("{id}.json"), 1));
        let marks = self.marks.iter().map(|id| object(&format!("{id}.base"), 1));
        listing
            .snapshots("", &indexes.chain(marks).collect::<Vec<_>>())
            .unwrap();
        for (id, file) in self.history.keys() {
            listing.history(&object(&format!("{id}/config/{file}"), 7));
        }
        listing
    }

    fn delete(&mut self, folder: &str, name: &str) {
        if folder == keys::SNAPSHOTS {
            match keys::of_snapshot(name) {
                SnapshotObject::Index(id) => drop(self.snapshots.remove(&id)),
                SnapshotObject::Base(id) => drop(self.marks.remove(&id)),
                other => panic!("{other:?} is not retention's"),
            }
        } else {
            let (id, file) = keys::of_history(name).unwrap();
            let file = file.strip_prefix("config/").unwrap().parse().unwrap();
            assert!(self.history.remove(&(id, file)).is_some(), "{name} was not there");
        }
    }

    /// What a restore of a snapshot brings: as the index's documentation says it.
    fn restored(&self, id: &SnapshotId) -> BTreeMap<u8, Option<u64>> {
        let (files, base) = &self.snapshots[id];
        assert!(
            self.snapshots.contains_key(base),
            "{id} builds on {base}, which is gone"
        );
        files
            .keys()
            .map(|file| {
                let replaced = self
                    .history
                    .iter()
                    .find(|((backup, of), _)| of == file && backup.point() > id.point());
                (
                    *file,
                    replaced
                        .map(|(_, content)| *content)
                        .or_else(|| self.mirror.get(file).copied()),
                )
            })
            .collect()
    }

    fn check(&self) {
        let complete = |id: &&SnapshotId| self.marks.contains(id);
        if let Some((newest, (_, base))) = self.snapshots.last_key_value() {
            // The complete index before the one that the newest builds on, where there ever was one.
            let before = self.snapshots.keys().filter(complete).any(|id| id < base);
            assert!(
                before || !self.made.range(..base).any(|id| id < base),
                "{newest} has one generation only"
            );
        }
        for (id, (files, _)) in &self.snapshots {
            let expected: BTreeMap<u8, Option<u64>> =
                files.iter().map(|(file, content)| (*file, Some(*content))).collect();
            assert_eq!(self.restored(id), expected, "{id}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Some time passes; negative: the clock is set back.
    Wait(i64),
    BackUp(Kind, Vec<(u8, bool)>, bool),
    /// Another pod takes over.
    Claim,
    Pin(prop::sample::Index),
    /// Deletions end after so many.
    Prune(Rules, usize),
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let count = || prop::option::of(1..4_u32);
    (
        prop::option::of(60..1_000_000_u64),
        (count(), count(), count(), count(), count()),
        prop::option::of(0..200_u64),
    )
        .prop_map(|(within, (last, hourly, daily, weekly, monthly), history)| Rules {
            within: within.map(Duration::from_secs),
            last,
            hourly,
            daily,
            weekly,
            monthly,
            history,
        })
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![Kind::Auto, Kind::Auto, Kind::Scheduled, Kind::Manual, Kind::Final]);
    let changes = prop::collection::vec((0..6_u8, prop::bool::weighted(0.8)), 0..4);
    prop_oneof![
        6 => (kind, changes, prop::bool::weighted(0.2)).prop_map(|(kind, changes, complete)| Step::BackUp(kind, changes, complete)),
        3 => prop_oneof![1..100_i64, 1_000..10_000_i64, 50_000..900_000_i64].prop_map(Step::Wait),
        1 => (-5_000_000..-1_i64).prop_map(Step::Wait),
        1 => Just(Step::Claim),
        1 => any::<prop::sample::Index>().prop_map(Step::Pin),
        2 => (any_rules(), prop_oneof![Just(usize::MAX), 0..20_usize]).prop_map(|(rules, until)| Step::Prune(rules, until)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn however_far_one_of_the_two_clocks_jumps_ahead_the_same_stays(
        gaps in prop::collection::vec(prop_oneof![1..100_i64, 1_000..10_000_i64, 50_000..900_000_i64], 1..40),
        rules in any_rules(),
        ahead in 1..1_000_000_000_i64,
        is_ours in any::<bool>(),
    ) {
        let mut now = time("2026-11-22T12:00:00Z");
        let mut listing = Listing::default();
        for (sequence, gap) in (1..).zip(gaps) {
            let id = SnapshotId::new(now, 1, sequence, Kind::Auto);
            listing.indexes.insert(id);
            // The store's clock is five minutes off.
            listing.written.insert(id, now - SignedDuration::from_mins(5));
            now += SignedDuration::from_secs(gap);
        }
        listing.bases = listing.indexes.clone();
        listing.clock = Some(now - SignedDuration::from_mins(5));
        let rules = Rules { history: None, ..rules };
        let right = plan(&rules, &listing, now);
        let ahead = SignedDuration::from_secs(ahead);
        if is_ours {
            now += ahead;
        } else {
            listing.clock = listing.clock.map(|clock| clock + ahead);
        }
        prop_assert_eq!(plan(&rules, &listing, now), right);
    }

    #[test]
    fn whatever_is_pruned_and_wherever_it_ends_every_listed_snapshot_can_be_restored(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let mut place = Place { point: (1, 0), ..Place::default() };
        let mut now = time("2026-11-22T12:00:00Z");
        let mut is_steady = true;
        for step in steps {
            match step {
                Step::Wait(seconds) => {
                    is_steady &= seconds > 0;
                    now += SignedDuration::from_secs(seconds);
                }
                Step::BackUp(kind, changes, complete) => place.back_up(now, kind, &changes, complete),
                Step::Claim => place.point = (place.point.0 + 1, 0),
                Step::Pin(index) => {
                    if !place.snapshots.is_empty() {
                        let ids: Vec<_> = place.snapshots.keys().copied().collect();
                        place.pins.insert(*index.get(&ids));
                    }
                }
                Step::Prune(rules, until) => {
                    let newest = place.snapshots.last_key_value().map(|(id, _)| *id);
                    let pinned: Vec<_> = place.pins.clone().into_iter().collect();
                    let plan = plan(&rules, &place.listing(), now);
                    let deletions: Vec<(&str, String)> = plan
                        .steps()
                        .into_iter()
                        .flat_map(|(folder, names)| names.iter().map(move |name| (folder, name.clone())))
                        .collect();
                    let is_whole = until >= deletions.len();
                    for (folder, name) in deletions.into_iter().take(until) {
                        place.delete(folder, &name);
                        place.check();
                    }
                    for id in newest.iter().chain(&pinned) {
                        prop_assert!(place.snapshots.contains_key(id), "{id} must never go");
                    }
                    if is_whole {
                        prop_assert_eq!(plan.kept, place.snapshots.keys().copied().collect::<Vec<_>>());
                        prop_assert_eq!(plan.history_bytes, 7 * place.history.len() as u64);
                        let again = super::plan(&rules, &place.listing(), now);
                        if is_steady {
                            prop_assert_eq!(again.dropped, vec![], "planning again drops nothing more");
                            prop_assert_eq!(again.history, Vec::<String>::new());
                        }
                    }
                }
            }
            place.check();
        }
    }
}
