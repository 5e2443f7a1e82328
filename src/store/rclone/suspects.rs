//! Objects that the store did not give, or take, while a call was answered otherwise → whether that is their own trouble (bit
//! rot: `MinIO` answers with 503 then, as where it is away) or the store's. They are tried again, some seconds apart, and
//! between the tries an object that nobody complained of has to be readable. Whoever doubts says that it is the store's: no
//! object counts as damaged because its store was away, or stumbled.

use super::process::{Call, MOST_IN_A_ROW, NOTHING_SAID, Work};
use super::{Rclone, telling};
use crate::store::keys::{self, joined};
use crate::store::{Depth, Done, Error, SMALL, Store, Undone, listed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So often in a row nothing may have come of trying the suspects again before they are to blame.
const TRIES: usize = 3;
/// Where ever more of them come after all, the store stumbles: after so many rounds nobody knows.
const MOST_ROUNDS: usize = 12;
/// A verdict holds for so long: a restore asks for the same object in many ways.
const VERDICT_HOLDS: Duration = Duration::from_secs(60);
/// Of each folder, so many objects are tried before it is taken that none can be read.
const CONTROLS: usize = 2;

/// Names, and what was said of each.
pub(super) type Said = BTreeMap<String, String>;

/// How suspects are tried.
pub(super) trait Trial {
    /// Tries these once more: those that failed again. An error is of something else.
    fn again(&mut self, names: Vec<String>) -> impl Future<Output = Result<Said, Error>> + Send;

    /// Whether the store answers now.
    fn answers(&mut self) -> impl Future<Output = bool> + Send;

    /// Some seconds.
    fn pause(&self) -> impl Future<Output = ()> + Send;
}

/// The suspects that are to blame; nothing where it may be the store.
pub(super) async fn judged(trial: &mut (impl Trial + Send), suspects: Said) -> Result<Option<Said>, Error> {
    let mut left = suspects;
    let mut in_vain = 0;
    for _ in 0..MOST_ROUNDS {
        if !trial.answers().await {
            return Ok(None);
        }
        if left.is_empty() || in_vain == TRIES {
            return Ok(Some(left));
        }
        trial.pause().await;
        let before = left.len();
        left = trial.again(left.into_keys().collect()).await?;
        in_vain = if left.len() < before { 0 } else { in_vain + 1 };
    }
    Ok(None)
}

/// Keys of objects that were found to be to blame, and when.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<BTreeMap<String, Instant>>);

impl Verdicts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, key: &str) -> bool {
        let mut all = self.all();
        all.retain(|_, when| when.elapsed() < VERDICT_HOLDS);
        all.contains_key(key)
    }

    fn add(&self, keys: impl Iterator<Item = String>) {
        let now = Instant::now();
        self.all().extend(keys.map(|key| (key, now)));
    }
}

/// What a batch does to the objects that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It reads them: where a disk is damaged, many of them may be.
    Read,
    /// It writes or deletes them.
    Write,
}

/// An object that nobody complained of.
#[derive(Default)]
struct Control {
    /// None was found yet.
    key: Option<String>,
}

impl Control {
    /// Whether the store answers. `suspects` are keys.
    async fn answers(&mut self, store: &Rclone, suspects: &BTreeSet<String>) -> bool {
        if let Some(key) = &self.key {
            return store.can_read(key).await;
        }
        let beside = suspects.first().and_then(|key| key.rsplit_once('/'));
        let beside = beside.map_or("", |(folder, _)| folder);
        for folder in ["", keys::CLAIMS, keys::SNAPSHOTS, beside] {
            let Ok(mut objects) = listed(store, folder, Depth::One).await else {
                return false;
            };
            objects.retain(|object| !object.folder && (1..=SMALL).contains(&object.size));
            objects.sort_by_key(|object| object.size);
            let keys = objects.iter().map(|object| joined(folder, &object.name));
            for key in keys.filter(|key| !suspects.contains(key)).take(CONTROLS) {
                if store.can_read(&key).await {
                    self.key = Some(key);
                    return true;
                }
            }
        }
        false
    }
}

/// Suspects of a batch.
struct OfBatch<'a> {
    store: &'a Rclone,
    call: &'a Call<'a>,
    done: Done<'a>,
    keys: BTreeSet<String>,
    control: Control,
}

impl Trial for OfBatch<'_> {
    async fn again(&mut self, names: Vec<String>) -> Result<Said, Error> {
        let mut said = Said::new();
        // Fewer than would make rclone be ended.
        for names in names.chunks(MOST_IN_A_ROW) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let work = Work::Files {
                names: &names,
                done: self.done,
            };
            let ended = self.call.clone().run(work).await?;
            if !ended.succeeded() && !telling::may_be_of_objects(&ended) {
                return Err(self.store.failure(&ended));
            }
            let undone = ended.undone(&names);
            let is_vain = undone.len() == names.len();
            said.extend(undone.into_iter().map(|one| (one.name, one.why)));
            if is_vain && !self.control.answers(self.store, &self.keys).await {
                return Err(self.store.failure(&ended));
            }
        }
        Ok(said)
    }

    async fn answers(&mut self) -> bool {
        self.control.answers(self.store, &self.keys).await
    }

    async fn pause(&self) {
        self.store.pause().await;
    }
}

/// One object that is read, and what came of it in the end.
struct OfReading<'a> {
    store: &'a Rclone,
    key: &'a str,
    keys: BTreeSet<String>,
    control: Control,
    content: Option<Vec<u8>>,
}

impl Trial for OfReading<'_> {
    async fn again(&mut self, names: Vec<String>) -> Result<Said, Error> {
        let ended = self.store.cat(self.key).await?;
        if ended.succeeded() {
            self.content = Some(ended.bytes);
            return Ok(Said::new());
        }
        if !telling::may_be_of_objects(&ended) {
            return Err(self.store.failure(&ended));
        }
        let why = self.store.failure(&ended).to_string();
        Ok(names.into_iter().map(|name| (name, why.clone())).collect())
    }

    async fn answers(&mut self) -> bool {
        self.control.answers(self.store, &self.keys).await
    }

    async fn pause(&self) {
        self.store.pause().await;
    }
}

impl Rclone {
    async fn pause(&self) {
        tokio::time::sleep(self.settings.pause).await;
    }

    async fn can_read(&self, key: &str) -> bool {
        let ended = self.cat(key).await;
        ended.is_ok_and(|ended| ended.succeeded() && !ended.bytes.is_empty())
    }

    /// An object that could not be read: its content after all, or which of the two it is.
    pub(super) async fn read_again(&self, key: &str, failure: Error) -> Result<Vec<u8>, Error> {
        let mut trial = OfReading {
            store: self,
            key,
            keys: BTreeSet::from([key.to_owned()]),
            control: Control::default(),
            content: None,
        };
        let is_known = self.verdicts.holds(key) && trial.answers().await;
        if !is_known {
            let suspects = Said::from([(key.to_owned(), failure.to_string())]);
            if judged(&mut trial, suspects).await?.is_none() {
                return Err(failure);
            }
        }
        if let Some(content) = trial.content {
            return Ok(content);
        }
        if !is_known {
            self.verdicts.add(std::iter::once(key.to_owned()));
        }
        Err(Error::Damaged {
            destination: self.destination(),
            key: key.to_owned(),
            why: format!("others can be read, and it can't, time and again: {failure}"),
        })
    }

    /// Runs a batch of named files to its end, and says what of it was not done. `prefix`: where they lie, or are to lie.
    pub(super) async fn batch(
        &self,
        call: Call<'_>,
        prefix: &str,
        names: &[&str],
        done: Done<'_>,
        purpose: Purpose,
    ) -> Result<Vec<Undone>, Error> {
        let (mut left, mut undone, mut suspects) = (names.to_vec(), Vec::new(), Said::new());
        let mut control = Control::default();
        let mut keys = BTreeSet::new();
        let mut failed = None;
        loop {
            let work = Work::Files { names: &left, done };
            let ended = call.clone().run(work).await?;
            let not_done = ended.undone(&left);
            let about_single_files = ended.complaints.iter().any(|complaint| !complaint.object.is_empty())
                && ended.complaints.iter().all(telling::is_about_one_file);
            if ended.succeeded() || about_single_files {
                undone.extend(not_done);
                break;
            }
            let failure = self.failure(&ended);
            let is_cut_short = ended.given_up && purpose == Purpose::Write;
            if is_cut_short || !telling::may_be_of_objects(&ended) {
                return Err(failure);
            }
            let before = left.len();
            let mut silent = BTreeSet::new();
            for one in not_done {
                if one.why == NOTHING_SAID && ended.given_up {
                    silent.insert(one.name);
                } else if one.why == NOTHING_SAID || !telling::is_of_network(&one.why) {
                    undone.push(one);
                } else {
                    keys.insert(joined(prefix, &one.name));
                    suspects.insert(one.name, one.why);
                }
            }
            left.retain(|name| silent.contains(*name));
            // It was ended before it had come to these.
            if left.len() == before || !(left.is_empty() || control.answers(self, &keys).await) {
                return Err(failure);
            }
            failed = Some(failure);
            if left.is_empty() {
                break;
            }
        }
        let Some(failure) = failed else {
            return Ok(undone);
        };
        let mut trial = OfBatch {
            store: self,
            call: &call,
            done,
            keys,
            control,
        };
        let is_known = |name: &str| purpose == Purpose::Read && self.verdicts.holds(&joined(prefix, name));
        let (mut to_blame, suspects): (Said, Said) = suspects.into_iter().partition(|(name, _)| is_known(name));
        let Some(found) = judged(&mut trial, suspects).await? else {
            return Err(failure);
        };
        if purpose == Purpose::Read {
            self.verdicts.add(found.keys().map(|name| joined(prefix, name)));
        }
        to_blame.extend(found);
        undone.extend(to_blame.into_iter().map(|(name, why)| Undone {
            name,
            why: telling::words(&why),
        }));
        Ok(undone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What is answered, in turn: to whether the store answers, and by the suspects that fail again.
    struct Script {
        answers: VecDeque<bool>,
        again: VecDeque<&'static str>,
        pauses: std::sync::atomic::AtomicUsize,
    }

    impl Trial for Script {
        async fn again(&mut self, names: Vec<String>) -> Result<Said, Error> {
            let failing = self.again.pop_front().unwrap_or_default();
            let fails = |name: &String| failing.contains(name.as_str());
            Ok(names
                .into_iter()
                .filter(fails)
                .map(|name| (name, "503".to_owned()))
                .collect())
        }

        async fn answers(&mut self) -> bool {
            self.answers.pop_front().unwrap_or(true)
        }

        async fn pause(&self) {
            self.pauses.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    async fn verdict(answers: &[bool], again: &[&'static str]) -> (Option<String>, usize) {
        let mut script = Script {
            answers: answers.iter().copied().collect(),
            again: again.iter().copied().collect(),
            pauses: 0.into(),
        };
        let suspects = ["a", "b"].map(|name| (name.to_owned(), "503".to_owned()));
        let found = judged(&mut script, Said::from(suspects)).await.unwrap();
        let names = found.map(|said| said.into_keys().collect());
        (names, script.pauses.into_inner())
    }

    #[tokio::test]
    async fn an_object_is_to_blame_only_where_it_fails_again_and_again_and_the_store_answers_each_time() {
        let to_blame = |names: &str| Some(names.to_owned());
        for (what, answers, again, expected) in [
            (
                "both are damaged",
                &[][..],
                &["ab", "ab", "ab"][..],
                (to_blame("ab"), 3),
            ),
            (
                "one is, the store stumbled over the other",
                &[],
                &["a", "a", "a", "a"],
                (to_blame("a"), 4),
            ),
            ("it was the store, and it is back", &[], &["ab", ""], (to_blame(""), 2)),
            ("it is away", &[false], &[], (None, 0)),
            (
                "it goes away meanwhile",
                &[true, true, false],
                &["ab", "ab", "ab"],
                (None, 2),
            ),
            (
                "it goes away at the last moment",
                &[true, true, true, false],
                &["ab", "ab", "ab"],
                (None, 3),
            ),
            (
                "what comes after all shows that it stumbles",
                &[],
                &["ab", "ab", "b", "b", "b", "b"],
                (to_blame("b"), 6),
            ),
        ] {
            assert_eq!(verdict(answers, again).await, expected, "{what}");
        }
    }

    /// It gives half of what it is asked for, and never the last one.
    struct Stumbling;
    impl Trial for Stumbling {
        async fn again(&mut self, names: Vec<String>) -> Result<Said, Error> {
            let half = names.len() / 2;
            let failing = names.into_iter().take(half.max(1));
            Ok(failing.map(|name| (name, "503".to_owned())).collect())
        }

        async fn answers(&mut self) -> bool {
            true
        }

        async fn pause(&self) {}
    }

    #[tokio::test]
    async fn a_store_that_stumbles_all_the_time_puts_the_blame_on_nobody() {
        let many: Said = (0..4096)
            .map(|number| (format!("{number:04}"), "503".to_owned()))
            .collect();
        assert_eq!(judged(&mut Stumbling, many).await.unwrap(), None);
    }
}
