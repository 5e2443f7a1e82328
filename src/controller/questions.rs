//! The questions that pods ask (`contract::question`) → what their owner is told: each when it comes up, again while it
//! stands, and when it does not stand any more. No I/O; time is an argument.

use super::events::{News, shortened};
use super::key::Key;
use super::pods::{Init, Injected};
use super::runs::Run;
use super::sidecars::Status;
use crate::agent::arguments::{QuestionId, QuestionKind, WorkloadKind};
use crate::contract::question::Question;
use crate::policy::key;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// What stands is told again after so long: most clusters keep an Event for an hour.
const AGAIN: Duration = Duration::from_secs(6 * 3600);

/// After how long a question is told again. That excluded files are carried along can stay so for ever.
fn again(id: &QuestionId) -> Option<Duration> {
    (id.kind() != Some(QuestionKind::Excluded)).then_some(AGAIN)
}

/// What nobody has asked for so long, because there is no pod that could, is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// The longest text of a question in an Event, in bytes: the way to answer it comes after it, and has to be read.
const TEXT: usize = 500;

/// A pod of a workload, and the one that comes in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Seat {
    pub(super) workload: Key,
    /// The pod's name, where its successor has the same.
    pod: String,
}

impl Seat {
    pub(super) fn new(workload: &Key, pod: &str) -> Self {
        Self {
            workload: workload.clone(),
            pod: match workload.kind {
                WorkloadKind::Deployment => String::new(),
                WorkloadKind::StatefulSet => pod.to_owned(),
            },
        }
    }
}

/// A question, and the pod whose sidecar can be answered in person.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    question: Question,
    sidecar: Option<String>,
}

/// What one pod asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voice {
    seat: Seat,
    asked: Vec<Asked>,
    /// Whether it has said all that it has to ask.
    is_complete: bool,
}

impl Voice {
    /// What the CronJob of a workload without a sidecar asks.
    pub(super) fn of_run(workload: &Key, run: &Run) -> Self {
        let asked = run.questions.iter().map(|question| Asked {
            question: question.clone(),
            sidecar: None,
        });
        Self {
            seat: Seat {
                workload: workload.clone(),
                // No pod has such a name.
                pod: "CronJob".to_owned(),
            },
            asked: asked.collect(),
            is_complete: run.is_complete,
        }
    }
}

/// What a pod asks: in the last words of its init container, or at its sidecar's `/status`.
pub(super) fn voice(pod: &str, injected: &Injected, status: Option<&Status>) -> Voice {
    let of_sidecar = |question: &Question| Asked {
        question: question.clone(),
        sidecar: Some(pod.to_owned()),
    };
    let (asked, is_complete) = match (&injected.init, status) {
        (Init::Asks(question), _) => {
            let asked = Asked {
                question: question.clone(),
                sidecar: None,
            };
            (vec![asked], true)
        }
        (_, Some(status)) => {
            let asked = status.questions().map(of_sidecar).collect();
            (asked, status.is_settled())
        }
        // What a start asks of which the app does not wait for the answer, the sidecar asks too, and hears the answer to.
        (Init::Done(_), None) if injected.has_sidecar => (Vec::new(), false),
        (Init::Done(questions), None) => {
            let of_start = |question: &Question| Asked {
                question: question.clone(),
                sidecar: None,
            };
            (questions.iter().map(of_start).collect(), true)
        }
        (Init::Pending | Init::Failed, None) => (Vec::new(), false),
    };
    Voice {
        seat: Seat::new(&injected.workload, pod),
        asked,
        is_complete,
    }
}

/// What is to be told of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    pub(super) seat: Seat,
    pub(super) id: QuestionId,
    pub(super) news: News,
    /// So many times it was told, with this one.
    pub(super) times: u32,
}

/// A question that was asked.
#[derive(Debug)]
struct Standing {
    stands: bool,
    /// When it was asked last.
    asked: Instant,
    /// When its owner was told last.
    told: Option<Instant>,
    /// How many times; and how many times of its end.
    times: (u32, u32),
}

/// All questions, those that have ended lately too: such a one may come again.
#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: HashMap<Seat, BTreeMap<QuestionId, Standing>>,
}

impl Questions {
    /// Takes in what all pods have said; what is to be told of it.
    pub(super) fn hear(&mut self, voices: Vec<Voice>, now: Instant) -> Vec<Telling> {
        let mut seats: BTreeMap<Seat, (Vec<Asked>, bool)> = BTreeMap::new();
        for voice in voices {
            let (asked, is_complete) = seats.entry(voice.seat).or_insert_with(|| (Vec::new(), true));
            asked.extend(voice.asked);
            *is_complete &= voice.is_complete;
        }
        let mut tellings = Vec::new();
        for (seat, (asked, is_complete)) in seats {
            let known = self.asked.entry(seat.clone()).or_default();
            let mut named = HashSet::new();
            for asked in asked {
                let id = asked.question.id.clone();
                if !named.insert(id.clone()) {
                    continue;
                }
                let found = known.entry(id.clone()).or_insert(Standing {
                    stands: false,
                    asked: now,
                    told: None,
                    times: (0, 0),
                });
                let again = again(&id);
                let is_due = |told| again.is_some_and(|again| now.duration_since(told) >= again);
                if found.told.is_none_or(is_due) || !found.stands {
                    found.told = Some(now);
                    found.times.0 += 1;
                    tellings.push(Telling {
                        news: asked_news(&seat.workload, &asked),
                        seat: seat.clone(),
                        id,
                        times: found.times.0,
                    });
                }
                found.stands = true;
                found.asked = now;
            }
            for (id, found) in known.iter_mut() {
                if is_complete && found.stands && !named.contains(id) {
                    found.stands = false;
                    found.times.1 += 1;
                    tellings.push(Telling {
                        news: ended_news(id),
                        seat: seat.clone(),
                        id: id.clone(),
                        times: found.times.1,
                    });
                }
            }
        }
        for known in self.asked.values_mut() {
            known.retain(|_, found| now.duration_since(found.asked) < FORGOTTEN);
        }
        self.asked.retain(|_, known| !known.is_empty());
        tellings
    }

    /// It could not be told: the next round tries again.
    pub(super) fn untold(&mut self, seat: &Seat, id: &QuestionId) {
        if let Some(found) = self.asked.get_mut(seat).and_then(|known| known.get_mut(id)) {
            found.told = None;
        }
    }

    /// The workload is gone, and its questions with it.
    pub(super) fn forget(&mut self, workload: &Key) {
        self.asked.retain(|seat, _| seat.workload != *workload);
    }

    /// How many stand, by what they are about.
    pub(super) fn by_kind(&self) -> BTreeMap<&'static str, i64> {
        let mut kinds = BTreeMap::new();
        let known = self.asked.values().flatten();
        for (id, _) in known.filter(|(_, found)| found.stands) {
            let kind = id.kind().map_or("other", QuestionKind::as_str);
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }
}

fn asked_news(workload: &Key, asked: &Asked) -> News {
    let Asked { question, sidecar } = asked;
    let Question { id, text } = question;
    let Key { namespace, kind, name } = workload;
    let text = shortened(text.trim_end_matches('.'), TEXT);
    let kind = kind.to_string().to_lowercase();
    let in_person = sidecar.as_ref().map(|pod| {
        format!("; or: kubectl -n {namespace} exec {pod} -c backup-sidecar -- vixens-backup backup --accept {id}")
    });
    let note = format!(
        "{id}: {text}; to accept it, once: kubectl -n {namespace} annotate --overwrite {kind}/{name} {}={id} (or the same in \
         Git){}",
        key::ACCEPT,
        in_person.unwrap_or_default()
    );
    let news = match id.kind() {
        Some(QuestionKind::Hold) => News::warning("BackupHeld", note),
        Some(QuestionKind::Excluded) => News::normal("BackupQuestion", note),
        _ => News::warning("BackupQuestion", note),
    };
    news.on(id.as_str())
}

fn ended_news(id: &QuestionId) -> News {
    let note = format!("{id} does not stand any more: it was accepted, or what it asked about is as it was");
    News::normal("BackupQuestionEnded", note).on(id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::events::Severity;
    use serde_json::{Value, json};

    const MINUTE: Duration = Duration::from_secs(60);

    fn key(kind: WorkloadKind) -> Key {
        Key {
            namespace: "media".to_owned(),
            kind,
            name: "app".to_owned(),
        }
    }

    fn pod(init: Init) -> Injected {
        Injected {
            workload: key(WorkloadKind::Deployment),
            uid: "p".to_owned(),
            sidecar: None,
            has_sidecar: true,
            init,
            stuck: None,
        }
    }

    fn question(kind: QuestionKind, text: &str) -> Question {
        Question::new(kind, &[b"x"], text)
    }

    fn status(phase: &str, questions: &[Question]) -> Status {
        let words: Value = json!({"destinations": {"minio:b/app": {"phase": phase, "questions": questions}}});
        serde_json::from_value(words).unwrap()
    }

    /// What a sidecar's words lead to.
    fn say(questions: &mut Questions, phase: &str, asked: &[Question], now: Instant) -> Vec<(&'static str, u32)> {
        let heard = questions.hear(
            vec![voice(
                "app-1",
                &pod(Init::Done(Vec::new())),
                Some(&status(phase, asked)),
            )],
            now,
        );
        heard
            .iter()
            .map(|telling| (telling.news.reason, telling.times))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_told_again_while_it_stands_and_once_when_it_ended() {
        let hold = [question(QuestionKind::Hold, "40 files vanished")];
        let (mut questions, began) = (Questions::default(), Instant::now());
        assert_eq!(say(&mut questions, "ready", &hold, began), [("BackupHeld", 1)]);
        assert_eq!(questions.by_kind(), BTreeMap::from([("hold", 1)]));
        assert_eq!(say(&mut questions, "ready", &hold, began + MINUTE), []);
        assert_eq!(say(&mut questions, "ready", &hold, began + AGAIN), [("BackupHeld", 2)]);
        assert_eq!(say(&mut questions, "ready", &hold, began + AGAIN + MINUTE), []);
        let later = began + AGAIN + 2 * MINUTE;
        assert_eq!(say(&mut questions, "ready", &[], later), [("BackupQuestionEnded", 1)]);
        assert_eq!(questions.by_kind(), BTreeMap::new());
        assert_eq!(say(&mut questions, "ready", &[], later + MINUTE), []);
        // It comes again, and both go on counting.
        assert_eq!(
            say(&mut questions, "ready", &hold, later + 2 * MINUTE),
            [("BackupHeld", 3)]
        );
        assert_eq!(
            say(&mut questions, "ready", &[], later + 3 * MINUTE),
            [("BackupQuestionEnded", 2)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn that_excluded_files_are_carried_along_is_told_once_and_is_no_warning() {
        let excluded = [question(QuestionKind::Excluded, "3 files are not taken any more")];
        let (mut questions, now) = (Questions::default(), Instant::now());
        assert_eq!(say(&mut questions, "ready", &excluded, now), [("BackupQuestion", 1)]);
        assert_eq!(say(&mut questions, "ready", &excluded, now + AGAIN), []);
        let asked = Asked {
            question: excluded[0].clone(),
            sidecar: None,
        };
        let news = asked_news(&key(WorkloadKind::Deployment), &asked);
        assert_eq!(news.severity, Severity::Normal);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_said_everything_ends_no_question() {
        let hold = [question(QuestionKind::Hold, "40 files vanished")];
        let (mut questions, now) = (Questions::default(), Instant::now());
        say(&mut questions, "ready", &hold, now);
        for phase in ["opening", "failing", "fenced"] {
            assert_eq!(say(&mut questions, phase, &[], now), [], "{phase}");
        }
        assert_eq!(questions.hear(vec![voice("app-1", &pod(Init::Pending), None)], now), []);
        assert_eq!(
            questions.hear(vec![voice("app-1", &pod(Init::Done(Vec::new())), None)], now),
            []
        );
        assert_eq!(questions.hear(Vec::new(), now), []);
        // A second pod of a rollout, while the first one asks.
        let both = |first: Voice| {
            vec![
                first,
                voice("app-2", &pod(Init::Done(Vec::new())), Some(&status("ready", &[]))),
            ]
        };
        assert_eq!(questions.hear(both(voice("app-1", &pod(Init::Failed), None)), now), []);
        let asks = voice("app-1", &pod(Init::Done(Vec::new())), Some(&status("ready", &hold)));
        assert_eq!(questions.hear(both(asks), now), []);
        assert_eq!(questions.by_kind(), BTreeMap::from([("hold", 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_start_asks_while_the_app_runs_is_told_where_no_sidecar_would_ask_it() {
        let write = question(QuestionKind::Write, "written by the runs of a CronJob");
        let started = |has_sidecar: bool, asked: &[Question]| {
            let injected = Injected {
                has_sidecar,
                ..pod(Init::Done(asked.to_vec()))
            };
            voice("app-1", &injected, None)
        };
        let (mut questions, now) = (Questions::default(), Instant::now());
        let asked = std::slice::from_ref(&write);
        assert_eq!(questions.hear(vec![started(true, asked)], now), []);
        let told = questions.hear(vec![started(false, asked)], now);
        assert_eq!((told.len(), told[0].news.reason), (1, "BackupQuestion"));
        assert!(!told[0].news.note.contains("kubectl exec"), "{:?}", told[0].news);
        assert_eq!(questions.by_kind(), BTreeMap::from([("write", 1)]));
        // The pod that the annotation has brought.
        let told = questions.hear(vec![started(false, &[])], now);
        assert_eq!((told.len(), told[0].news.reason), (1, "BackupQuestionEnded"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_told_is_told_in_the_next_round_and_what_is_gone_is_forgotten() {
        let missing = question(QuestionKind::Missing, "nobody has a.jpg");
        let (mut questions, now) = (Questions::default(), Instant::now());
        let asks = || vec![voice("app-1", &pod(Init::Asks(missing.clone())), None)];
        let told = questions.hear(asks(), now);
        questions.untold(&told[0].seat, &told[0].id);
        assert_eq!(questions.hear(asks(), now).len(), 1);
        assert_eq!(questions.hear(asks(), now).len(), 0);
        questions.forget(&key(WorkloadKind::StatefulSet));
        assert_eq!(questions.by_kind().len(), 1);
        questions.hear(Vec::new(), now + FORGOTTEN);
        assert_eq!(questions.by_kind().len(), 0);
        questions.hear(asks(), now);
        questions.forget(&key(WorkloadKind::Deployment));
        assert_eq!(questions.by_kind().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_pod_of_a_stateful_set_asks_for_itself() {
        let hold = [question(QuestionKind::Hold, "40 files vanished")];
        let (mut questions, now) = (Questions::default(), Instant::now());
        let says = |name: &str, asked: &[Question]| {
            let injected = Injected {
                workload: key(WorkloadKind::StatefulSet),
                ..pod(Init::Done(Vec::new()))
            };
            voice(name, &injected, Some(&status("ready", asked)))
        };
        assert_eq!(
            questions
                .hear(vec![says("app-0", &hold), says("app-1", &[])], now)
                .len(),
            1
        );
        assert_eq!(questions.hear(vec![says("app-1", &[])], now).len(), 0, "app-0 is away");
        assert_eq!(
            questions.hear(vec![says("app-0", &[]), says("app-1", &[])], now).len(),
            1
        );
    }

    #[test]
    fn a_question_is_told_with_every_way_to_answer_it() {
        let asked = |question: Question, sidecar: Option<&str>| {
            let sidecar = sidecar.map(str::to_owned);
            asked_news(&key(WorkloadKind::StatefulSet), &Asked { question, sidecar })
        };
        let start = asked(
            question(QuestionKind::Missing, "nobody has a.jpg: start without it?"),
            None,
        );
        let id = QuestionId::new(QuestionKind::Missing, &[b"x"]);
        let expected = format!(
            "{id}: nobody has a.jpg: start without it?; to accept it, once: kubectl -n media annotate --overwrite \
             statefulset/app vixens.io/backup-accept={id} (or the same in Git)"
        );
        assert_eq!((start.reason, start.note), ("BackupQuestion", expected));
        let held = asked(question(QuestionKind::Hold, &"ä".repeat(2_000)), Some("app-0"));
        assert_eq!(held.reason, "BackupHeld");
        assert!(held.note.len() < 1024, "{}", held.note.len());
        let id = QuestionId::new(QuestionKind::Hold, &[b"x"]);
        let end = format!("; or: kubectl -n media exec app-0 -c backup-sidecar -- vixens-backup backup --accept {id}");
        assert!(held.note.ends_with(&end), "{}", held.note);
    }
}
