//! A pod of the former release and one of ours on one place: after each other, at the same time, in both orders, and back
//! again. Nothing is lost, and neither calls damaged what the other has written.

use super::pod::{PATIENCE, Pod, Said, Workload};
use super::settings::Settings;
use super::store::Store;
use super::support::pod::block_on;
use super::support::write;
use super::tree::{Connections, Tree, difference, look};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vixens_backup::store::store_id;

/// Steps that the former release is known not to hold through.
pub const NOT_WITH: [&str; 5] = ["EmptyStore", "EmptyStart", "Holds", "Policy", "Damage"];

/// One place, and both programs.
pub struct Both {
    /// Whose place it is.
    pub workload: Workload,
    /// This release's program.
    pub ours: PathBuf,
    /// The former one's.
    pub former: PathBuf,
}

impl Both {
    /// A new place; nothing where the former release can't be had.
    pub fn new(tier: &'static str) -> Option<Self> {
        let settings = Settings::read();
        let former = Settings::former()?;
        Some(Self {
            workload: Workload::new(Store::of(&settings.store), &settings.program, tier),
            ours: settings.program.clone(),
            former,
        })
    }

    /// A pod that has started.
    pub fn start(&mut self, program: &Path, flags: &[&str]) -> Pod {
        let mut pod = self.workload.pod_of(program.to_owned());
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        fine(&self.workload.init(&pod, &flags));
        self.workload.start(&mut pod);
        pod
    }

    /// One of ours.
    pub fn ours(&mut self, flags: &[&str]) -> Pod {
        self.start(&self.ours.clone(), flags)
    }

    /// One of the former release.
    pub fn former(&mut self, flags: &[&str]) -> Pod {
        self.start(&self.former.clone(), flags)
    }

    /// A file of the app.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write(&self.workload.volume().join(name), content);
    }

    /// What the app has.
    pub fn volume(&self) -> Tree {
        look(&self.workload.volume(), &Connections::new())
    }

    /// What a backup that is asked for now is told, once its sidecar is there to be asked.
    pub fn ask(&self, pod: &mut Pod, accepted: &[&str]) -> Said {
        until_ready(pod);
        let accepted: Vec<String> = accepted.iter().map(|id| (*id).to_owned()).collect();
        self.workload.backup(pod, &accepted, Duration::from_secs(120))
    }

    /// A backup that is made now: its id.
    pub fn backup(&self, pod: &mut Pod) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.ask(pod, &[]);
            // It may not have the place yet.
            if said.code == Some(0) || Instant::now() > deadline {
                return fine(&said).lines().last().unwrap().to_owned();
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Its sidecar is there to be asked.
    pub fn ready(pod: &mut Pod) {
        until_ready(pod);
        assert!(pod.is_alive(), "{}", pod.log());
    }

    /// It ends well, and has found nothing damaged.
    pub fn stop(pod: &mut Pod) {
        Self::end(pod);
        assert!(!pod.whole_log().contains("damaged"), "{}", pod.whole_log());
    }

    /// It ends well.
    pub fn end(pod: &mut Pod) {
        // So early it would die of the signal.
        until_ready(pod);
        assert!(pod.stop().is_some_and(|status| status.success()), "{}", pod.log());
    }

    /// What this program brings of a snapshot.
    pub fn restored(&mut self, program: &Path, id: &str) -> Tree {
        self.restored_volume(program, id, "config")
    }

    /// What it brings of the volume in this folder.
    pub fn restored_volume(&mut self, program: &Path, id: &str, folder: &str) -> Tree {
        program.clone_into(&mut self.workload.program);
        let scratch = tempfile::tempdir().unwrap();
        let to = scratch.path().join("to");
        let at = ["restore", "--to", to.to_str().unwrap(), "--at", id];
        fine(&self.workload.desk(&at));
        look(&to.join(folder), &Connections::new())
    }

    /// Both find in a snapshot what the volume was then.
    pub fn assert_is(&mut self, id: &str, expected: &Tree) {
        for program in [self.ours.clone(), self.former.clone()] {
            assert_same(expected, &self.restored(&program, id), id);
            self.assert_whole();
        }
    }

    /// The program of the moment finds every snapshot whole.
    fn assert_whole(&self) {
        let said = self.workload.desk(&["snapshots"]);
        let listed = fine(&said);
        assert!(!listed.contains("DAMAGED"), "{listed}");
    }

    /// The two programs, in the order that is asked for.
    fn ordered(&self, ours_first: bool) -> [PathBuf; 2] {
        let mut both = [self.ours.clone(), self.former.clone()];
        if !ours_first {
            both.reverse();
        }
        both
    }
}

fn until_ready(pod: &mut Pod) {
    while pod.is_alive() && pod.status().is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What was said of what went well.
pub fn fine(said: &Said) -> &str {
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(!said.text.contains("damaged"), "{}", said.text);
    &said.out
}

/// Two trees are the same.
pub fn assert_same(expected: &Tree, found: &Tree, what: &str) {
    let differences = difference(expected, found);
    assert!(differences.is_empty(), "{what}: {differences:#?}");
}

/// Each pod loses the volume and gets it back from what the other release has written; every snapshot stays what it was.
fn one_after_the_other(ours_first: bool) {
    let Some(mut both) = Both::new("tier2") else { return };
    let programs = both.ordered(ours_first);
    let (mut states, mut ids) = (Vec::new(), Vec::new());
    both.write("kept", "always the same");
    for (round, program) in programs.iter().chain(&programs).enumerate() {
        let mut pod = both.start(program, &[]);
        if let Some((_, last)) = states.last() {
            assert_same(last, &both.volume(), "what the other release had saved");
        }
        both.write("changed", format!("{round}"));
        both.write(&format!("folder {round}/new\nline"), vec![b'x'; 3000 + round]);
        let _ = std::fs::remove_dir_all(both.workload.volume().join(format!("folder {}", round.wrapping_sub(2))));
        states.push((both.backup(&mut pod), both.volume()));
        both.write("last", format!("{round}"));
        Both::stop(&mut pod);
        states.push(("newest".to_owned(), both.volume()));
        both.assert_is("newest", &both.volume());
        // A place of the former release gets an id from ours, and keeps it.
        let id = block_on(store_id::read(&both.place())).unwrap();
        assert_eq!(id.is_some(), round > 0 || ours_first, "round {round}");
        ids.extend(id);
        both.workload.lose_volume();
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    for (id, state) in states.iter().filter(|(id, _)| id != "newest") {
        both.assert_is(id, state);
    }
}

#[test]
fn ours_takes_up_what_the_former_release_has_left_and_the_other_way_round() {
    one_after_the_other(false);
}

#[test]
fn the_former_release_takes_up_what_ours_has_left_and_the_other_way_round() {
    one_after_the_other(true);
}

/// As in a rolling update, and one that is taken back: the new pod takes over while the old one runs.
fn at_the_same_time(ours_first: bool) {
    let Some(mut both) = Both::new("tier2") else { return };
    let [first, second] = both.ordered(ours_first);
    let mut states = Vec::new();
    let mut old = both.start(&first, &[]);
    for (round, program) in [&second, &first].into_iter().enumerate() {
        both.write("a", format!("before {round}"));
        states.push((both.backup(&mut old), both.volume()));
        let mut new = both.start(program, &[]);
        both.write("b", format!("beside {round}"));
        states.push((both.backup(&mut new), both.volume()));
        both.write("a", format!("after {round}"));
        // Fenced, it has nothing to save, and ends well.
        Both::stop(&mut old);
        states.push((both.backup(&mut new), both.volume()));
        old = new;
    }
    Both::stop(&mut old);
    states.push(("newest".to_owned(), both.volume()));
    for (id, state) in &states {
        both.assert_is(id, state);
    }
}

#[test]
fn ours_takes_over_from_a_former_release_that_runs_and_gives_back() {
    at_the_same_time(false);
}

#[test]
fn the_former_release_takes_over_from_ours_that_runs_and_gives_back() {
    at_the_same_time(true);
}

#[test]
fn a_restore_at_that_either_release_has_served_is_served_by_neither_again() {
    let Some(mut both) = Both::new("tier2") else { return };
    for ours_first in [true, false] {
        let [first, second] = both.ordered(ours_first);
        both.write("a", "then");
        let mut pod = both.start(&first, &[]);
        let id = both.backup(&mut pod);
        let then = both.volume();
        both.write("a", "now");
        Both::stop(&mut pod);
        let flag = format!("--restore-at={id}");
        let mut pod = both.start(&first, &[&flag]);
        assert_same(&then, &both.volume(), "what was asked for");
        both.backup(&mut pod);
        both.write("a", "later");
        Both::stop(&mut pod);
        let later = both.volume();
        both.workload.lose_volume();
        let mut pod = both.start(&second, &[&flag]);
        assert_same(&later, &both.volume(), "the annotation was left where it is");
        Both::stop(&mut pod);
        let log = pod.whole_log();
        // The headings name the arguments.
        let mut said = log.lines().filter(|line| !line.starts_with("--- "));
        assert!(!said.any(|line| line.contains("restore-at")), "{}", pod.log());
    }
}
