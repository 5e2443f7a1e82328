//! What this release adds to the keeping of files, under a pod of the former release that takes over (a rollback) and one of
//! ours that takes over again: what is held, excluded, decided, told twice, emptied or missing is lost by neither.

use super::former::{Both, assert_same, fine};
use super::pod::{Pod, Said};
use super::support::pod::block_on;
use super::tree::Tree;
use std::fs;
use vixens_backup::contract::question::Question;
use vixens_backup::store::keys::{self, SnapshotObject};
use vixens_backup::store::rclone::Rclone;
use vixens_backup::store::snapshot::SnapshotId;
use vixens_backup::store::{Depth, Store, listed};

impl Both {
    /// The place, to look into and to reach into.
    pub fn place(&self) -> Rclone {
        self.workload.store.server.store("app")
    }

    /// What lies in a folder of the place.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let objects = block_on(listed(&self.place(), folder, Depth::All)).unwrap();
        objects.into_iter().map(|object| object.name).collect()
    }

    /// The newest snapshot.
    fn newest(&self) -> SnapshotId {
        let indexes = self.names(keys::SNAPSHOTS).into_iter();
        let indexes = indexes.filter_map(|name| match keys::of_snapshot(&name) {
            SnapshotObject::Index(id) => Some(id),
            _ => None,
        });
        indexes.max().unwrap()
    }

    /// So many files in a folder.
    fn documents(&self, count: usize) {
        for number in 0..count {
            self.write(&format!("documents/{number}"), format!("content {number}"));
        }
    }

    fn remove(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            fs::remove_file(self.workload.volume().join(format!("documents/{number}"))).unwrap();
        }
    }

    /// Waits until something holds of a pod.
    pub fn until(pod: &Pod, what: &str, holds: impl Fn(&Pod) -> bool) {
        let deadline = std::time::Instant::now() + super::pod::PATIENCE;
        while !holds(pod) {
            assert!(std::time::Instant::now() < deadline, "never: {what}\n{}", pod.log());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn questions(pod: &Pod) -> Vec<String> {
        let status = pod.status().unwrap_or_default();
        let questions = &status["destinations"][super::pod::destination()]["questions"];
        let questions = questions.as_array().cloned().unwrap_or_default();
        let ids = questions.iter().filter_map(|question| question["id"].as_str());
        ids.map(str::to_owned).collect()
    }

    fn saved_or_held(said: &Said) {
        assert!(matches!(said.code, Some(0 | 3)), "{}", said.text);
    }

    /// A backup of ours that holds what has vanished: the question's id.
    fn hold(&self, pod: &mut Pod) -> String {
        Self::saved_or_held(&self.ask(pod, &[]));
        Self::until(pod, "something is held", |pod| !Self::questions(pod).is_empty());
        Self::questions(pod).remove(0)
    }
}

/// What is at the paths of both; those of the second are the newer ones.
fn with(older: &Tree, newer: &Tree) -> Tree {
    let mut all = older.clone();
    all.extend(newer.clone());
    all
}

#[test]
fn what_ours_holds_stays_held_where_the_former_release_refuses_to_go_on() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.documents(20);
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    let before = both.volume();
    fs::remove_dir_all(both.workload.volume().join("documents")).unwrap();
    both.write("since", "a");
    let id = both.hold(&mut pod);
    Both::stop(&mut pod);
    let held = both.newest();
    // To it they are files that vanish now, and too many.
    let mut pod = both.former(&[]);
    both.write("written under the former release", "b");
    let said = both.ask(&mut pod, &[]);
    assert!(said.text.contains("would vanish"), "{}", said.text);
    Both::end(&mut pod);
    assert_eq!(both.newest(), held);
    // Ours asks what it has asked before, and has what was written meanwhile.
    let mut pod = both.ours(&[]);
    let newest = both.backup(&mut pod);
    assert_eq!(Both::questions(&pod), [id]);
    Both::stop(&mut pod);
    let whole = with(&before, &both.volume());
    let pod = both.workload.pod_of(both.former.clone());
    fine(&both.workload.pre_sync(&pod));
    both.assert_is(&newest, &whole);
    // To a volume that is lost each brings what is held too; then nothing is.
    both.workload.lose_volume();
    let mut pod = both.former(&[]);
    assert_same(&whole, &both.volume(), "the former release restores what is held");
    both.write("since", "c");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = both.volume();
    both.workload.lose_volume();
    let mut pod = both.ours(&[]);
    assert_same(&whole, &both.volume(), "and ours what that has made of it");
    both.backup(&mut pod);
    assert_eq!(Both::questions(&pod), [""; 0]);
    Both::stop(&mut pod);
}

#[test]
fn what_ours_holds_is_in_history_where_the_former_release_lets_it_go_and_a_decision_outlives_it() {
    let Some(mut both) = Both::new("tier2") else { return };
    let flags = both.workload.sidecar_flags.clone();
    let strict: Vec<String> = flags.iter().cloned().chain(["--max-shrink=10%".to_owned()]).collect();
    both.documents(20);
    both.workload.sidecar_flags.clone_from(&strict);
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    let before = both.volume();
    both.remove(0..5);
    both.hold(&mut pod);
    Both::stop(&mut pod);
    let held = both.newest().to_string();
    // Half of them may vanish unasked, and these are a quarter.
    both.workload.sidecar_flags.clone_from(&flags);
    let mut pod = both.former(&[]);
    both.write("since", "a");
    let gone = both.backup(&mut pod);
    Both::stop(&mut pod);
    let after = both.volume();
    both.assert_is(&held, &before);
    both.assert_is(&gone, &after);
    // Ours knows of nothing that is held, and holds what vanishes now.
    both.workload.sidecar_flags.clone_from(&strict);
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    assert_eq!(Both::questions(&pod), [""; 0]);
    both.remove(5..10);
    let id = both.hold(&mut pod);
    both.assert_is("newest", &after);
    fine(&both.ask(&mut pod, &[&id]));
    Both::stop(&mut pod);
    let decided = both.volume();
    both.assert_is("newest", &decided);
    let mut pod = both.former(&[]);
    both.write("since", "b");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    // The annotation was left where it is: it decides nothing twice.
    let accept = format!("--accept={id}");
    both.workload.sidecar_flags.push(accept.clone());
    let before = both.volume();
    let mut pod = both.ours(&[&accept]);
    both.backup(&mut pod);
    both.remove(10..15);
    let again = both.hold(&mut pod);
    assert_ne!(again, id);
    Both::stop(&mut pod);
    both.assert_is("newest", &before);
}

#[test]
fn what_ours_carries_excluded_is_restored_by_the_former_release_and_stays_in_history() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.documents(8);
    for name in ["a.cache", "folder/b.cache"] {
        both.write(name, "saved before it was excluded");
    }
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = both.volume();
    both.workload.flags.push("--exclude=*.cache".to_owned());
    let mut pod = both.ours(&[]);
    both.write("since", "a");
    let carried = both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = with(&whole, &both.volume());
    both.assert_is(&carried, &whole);
    both.workload.lose_volume();
    let mut pod = both.former(&[]);
    assert_same(&whole, &both.volume(), "the former release restores what is excluded");
    both.write("since", "b");
    let without = both.backup(&mut pod);
    Both::stop(&mut pod);
    // It carries nothing along; the snapshots before have what it took away.
    let mut visible = both.volume();
    visible.retain(|path, _| !path.ends_with(b".cache"));
    both.assert_is(&without, &visible);
    both.assert_is(&carried, &whole);
    // Ours takes it all again once nothing excludes it.
    both.workload.flags.pop();
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = both.volume();
    assert!(whole.contains_key(b"a.cache".as_slice()));
    both.assert_is("newest", &whole);
}

#[test]
fn a_volume_that_was_emptied_is_restored_though_a_pod_of_the_former_release_has_run_on_it() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.documents(20);
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = both.volume();
    // What begins with a dot is spared, and so is our folder.
    fs::remove_dir_all(both.workload.volume().join("documents")).unwrap();
    let mut pod = both.former(&[]);
    both.write("a default", "of an app that starts on nothing");
    let said = both.ask(&mut pod, &[]);
    assert!(said.text.contains("would vanish"), "{}", said.text);
    Both::end(&mut pod);
    let mut pod = both.ours(&[]);
    let whole = with(&whole, &both.volume());
    assert!(whole.contains_key(b"documents/19".as_slice()), "{}", pod.log());
    assert_same(&whole, &both.volume(), "what was emptied, and what was there");
    both.backup(&mut pod);
    assert_eq!(Both::questions(&pod), [""; 0]);
    Both::stop(&mut pod);
    let mut pod = both.former(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    both.assert_is("newest", &whole);
}

#[test]
fn complete_indexes_and_their_twins_outlive_turns_of_both_that_keep_one_snapshot_each() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.workload.sidecar_flags.push("--retention=last=1".to_owned());
    let [ours, former] = [both.ours.clone(), both.former.clone()];
    both.documents(12);
    for (round, program) in [&ours, &former, &ours, &former, &ours].into_iter().enumerate() {
        let mut pod = both.start(program, &[]);
        for change in 0..2 {
            both.write(&format!("documents/{}", round + change), format!("in round {round}"));
            both.backup(&mut pod);
        }
        both.remove(11 - round / 2..11 - round / 2 + usize::from(round.is_multiple_of(2)));
        both.backup(&mut pod);
        Both::stop(&mut pod);
        let now = both.volume();
        both.assert_is("newest", &now);
        if *program == ours {
            both.without_the_complete_index(&now);
        }
    }
}

impl Both {
    /// Ours reads the newest snapshot where the complete index that it builds on is lost.
    fn without_the_complete_index(&mut self, expected: &Tree) {
        let bases = self.names(keys::SNAPSHOTS).into_iter();
        let bases = bases.filter_map(|name| match keys::of_snapshot(&name) {
            SnapshotObject::Base(id) => Some(id),
            _ => None,
        });
        let key = keys::snapshot(&bases.max().unwrap());
        let (place, name) = (self.place(), key.rsplit_once('/').unwrap().1.to_owned());
        let content = block_on(place.read(&key)).unwrap();
        block_on(place.delete(keys::SNAPSHOTS, &[name])).unwrap();
        self.workload.program.clone_from(&self.ours);
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        let said = self
            .workload
            .desk(&["restore", "--to", to.to_str().unwrap(), "--at", "newest"]);
        block_on(place.write(&key, &content)).unwrap();
        assert_eq!(said.code, Some(0), "without {key}: {}", said.text);
        let found = super::tree::look(&to.join("config"), &super::tree::Connections::new());
        assert_same(expected, &found, &format!("without {key}: {}", said.text));
    }
}

#[test]
fn a_file_that_nobody_has_is_asked_for_once_and_the_former_release_goes_on_without_it() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.documents(10);
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let mut whole = both.volume();
    block_on(both.place().delete("config", &["documents/3".to_owned()])).unwrap();
    both.workload.lose_volume();
    // The former release starts on nothing of it, and changes nothing.
    let former = both.former.clone();
    let pod = both.workload.pod_of(former);
    let said = both.workload.init(&pod, &[]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let ours = both.ours.clone();
    let pod = both.workload.pod_of(ours);
    let said = both.workload.init(&pod, &[]);
    let question = Question::find(&said.text).unwrap_or_else(|| panic!("{}", said.text));
    assert!(question.id.as_str().starts_with("missing-"), "{question}");
    let mut pod = both.workload.pod_of(both.ours.clone());
    let accept = format!("--accept={}", question.id);
    let said = both.workload.init(&pod, std::slice::from_ref(&accept));
    assert_eq!(said.code, Some(0), "{}", said.text);
    both.workload.start(&mut pod);
    whole.remove(b"documents/3".as_slice());
    assert_same(&whole, &both.volume(), "all but what is missing");
    both.backup(&mut pod);
    Both::end(&mut pod);
    both.workload.lose_volume();
    let mut pod = both.former(&[]);
    assert_same(&whole, &both.volume(), "the former release restores what there is");
    both.write("since", "a");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let whole = both.volume();
    both.workload.lose_volume();
    let mut pod = both.ours(&[&accept]);
    assert_same(&whole, &both.volume(), "and nothing is missing any more");
    both.backup(&mut pod);
    Both::stop(&mut pod);
}

#[test]
fn a_storage_that_was_put_back_behind_the_former_release_is_told_and_what_that_saved_is_pinned() {
    let Some(mut both) = Both::new("tier2") else { return };
    both.workload.sidecar_flags.push("--retention=last=1".to_owned());
    both.documents(10);
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    let kept = tempfile::tempdir().unwrap();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp")
            .arg("-aT")
            .args([from, to])
            .status()
            .unwrap();
        assert!(status.success());
    };
    copy(&both.workload.volume(), kept.path());
    let mut pod = both.former(&[]);
    both.write("documents/1", "by the former release");
    let newer = both.backup(&mut pod);
    Both::stop(&mut pod);
    let lost = both.volume();
    both.workload.lose_volume();
    copy(kept.path(), &both.workload.volume());
    let mut pod = both.ours(&[]);
    both.write("documents/2", "on the older state");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    assert!(pod.whole_log().contains("put back to an older state"), "{}", pod.log());
    // Neither of them removes what is pinned, though each keeps one snapshot alone.
    let mut pod = both.former(&[]);
    both.write("documents/2", "and on");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    both.assert_is(&newer, &lost);
    // A volume that is what it was is no such storage.
    let mut pod = both.ours(&[]);
    Both::stop(&mut pod);
    assert!(!pod.whole_log().contains("put back to an older state"), "{}", pod.log());
}

#[test]
fn runs_of_both_take_turns_with_sidecars_of_both_on_volumes_that_are_lost() {
    let Some(mut both) = Both::new("tier2") else { return };
    let [ours, former] = [both.ours.clone(), both.former.clone()];
    both.documents(4);
    for (round, (program, has_sidecar)) in [
        (&ours, false),
        (&former, true),
        (&ours, false),
        (&former, false),
        (&ours, true),
    ]
    .into_iter()
    .enumerate()
    {
        let before = both.volume();
        if round > 0 {
            both.workload.lose_volume();
        }
        if has_sidecar {
            let mut pod = both.start(program, &[]);
            assert_same(&before, &both.volume(), &format!("in round {round}"));
            both.write("documents/1", format!("in round {round}"));
            Both::stop(&mut pod);
        } else {
            let pod = both.workload.pod_of(program.clone());
            fine(&both.workload.init(&pod, &[]));
            assert_same(&before, &both.volume(), &format!("in round {round}"));
            both.write("documents/1", format!("in round {round}"));
            fine(&both.workload.run(&pod));
        }
    }
    let last = both.volume();
    both.assert_is("newest", &last);
}

#[test]
fn a_volume_that_ours_carries_along_is_in_history_where_the_former_release_knows_nothing_of_it() {
    let Some(mut both) = Both::new("tier2") else { return };
    let second = tempfile::tempdir().unwrap();
    both.documents(10);
    for number in 0..4 {
        fs::write(
            second.path().join(number.to_string()),
            format!("of the second volume {number}"),
        )
        .unwrap();
    }
    let flag = format!("--volume=more:more:{}", second.path().display());
    both.workload.flags.push(flag.clone());
    let mut pod = both.ours(&[]);
    both.backup(&mut pod);
    Both::stop(&mut pod);
    both.workload.flags.pop();
    let mut pod = both.ours(&[]);
    both.write("since", "a");
    let carried = both.backup(&mut pod);
    Both::stop(&mut pod);
    let mut pod = both.former(&[]);
    both.write("since", "b");
    both.backup(&mut pod);
    Both::stop(&mut pod);
    for program in [both.ours.clone(), both.former.clone()] {
        let found = both.restored_volume(&program, &carried, "more");
        assert_eq!(found.len(), 4, "{found:?}");
    }
    // Put back, it is saved as it is.
    both.workload.flags.push(flag);
    let mut pod = both.ours(&[]);
    let id = both.backup(&mut pod);
    Both::stop(&mut pod);
    let ours = both.ours.clone();
    assert_eq!(both.restored_volume(&ours, &id, "more").len(), 4);
    let now = both.volume();
    both.assert_is(&id, &now);
}
