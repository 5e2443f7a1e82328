//! Has the sidecar of each pod make a backup: over HTTP; where that does not reach it, by a request in the store; and
//! where no pod runs, says what its last backup was. Talks to sidecars and to the store, mounts nothing.

use super::call::{self, Unanswered};
use super::{Error, say};
use crate::agent::arguments::{BackupArguments, Destination, QuestionId};
use crate::agent::http::BackupRequest;
use crate::agent::lease::beat::LONG_SILENCE;
use crate::agent::sidecar::inbox::{Event, Progress};
use crate::agent::token::Token;
use crate::store::rclone::{Rclone, Settings};
use crate::store::records::{self, Request, VERSION};
use crate::store::state::{self, State};
use crate::store::{Store, keys};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at a request that was left in the store.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Asks one sidecar after the other; each is asked, whatever came of the others.
pub(super) async fn all(arguments: &BackupArguments) -> Result<(), Error> {
    let mut errors = Vec::new();
    for address in &arguments.ask {
        if let Err(error) = one(arguments, address).await {
            errors.push(error);
        }
    }
    Error::all(&errors)
}

async fn one(arguments: &BackupArguments, address: &str) -> Result<(), Error> {
    // `app-0.app-backup:9476` is the sidecar of the pod app-0.
    let pod = address.split([':', '.']).next().unwrap_or_default();
    let destinations: Vec<Destination> = arguments
        .protection
        .destinations
        .iter()
        .map(|destination| destination.filled(&[("{pod}", pod)]))
        .collect();
    let Some(primary) = destinations.first() else {
        return Err(Error::Failed("there is no destination to back up to".to_owned()));
    };
    let question = BackupRequest {
        manual: arguments.is_manual(),
        accept: QuestionId::to_list(&arguments.accepted),
    };
    let Some(token) = Token::new(primary, &arguments.folders.rclone_dir).make() else {
        return Err(Error::Failed(format!(
            "the remote {} has no settings here: the Secret that vixens.io/backup-secret names holds none for it",
            primary.remote()
        )));
    };
    let look_in_store = async || {
        let store = Rclone::new(
            primary.remote(),
            primary.path(),
            Settings::lean(&arguments.folders.rclone_dir, &arguments.folders.restore_dir),
        );
        through_store(&store, &question).await
    };
    // On the node's network a port may be another pod's.
    if !address.contains(':') {
        say(&format!(
            "the sidecar of {address} has no port of its own: looking in the store"
        ));
        return look_in_store().await;
    }
    let mut results = Vec::new();
    let answer = call::backup(address, &token, &question, |progress| {
        say(&line(&progress));
        results.push(progress);
    })
    .await;
    match answer {
        Ok(()) => judged(&results),
        Err(Unanswered::Denied { status, why }) if status == hyper::StatusCode::CONFLICT => Err(Error::Refused(why)),
        Err(error @ Unanswered::Denied { .. }) => Err(Error::Failed(format!("{address}: {error}"))),
        Err(Unanswered::Unreachable(why)) => {
            say(&format!(
                "the sidecar at {address} is not reached ({why}): looking in the store"
            ));
            look_in_store().await
        }
    }
}

/// What a line of progress says to people. The id comes last, so that the log ends with it.
fn line(progress: &Progress) -> String {
    let Progress {
        version: _,
        destination,
        event,
    } = progress;
    match event {
        Event::Started => format!("{destination}: a backup has begun"),
        Event::Done {
            snapshot,
            made,
            uploaded,
            bytes,
            remarks,
        } => {
            let remarks = remarks.iter().fold(String::new(), |said, remark| {
                said + &format!("{destination}: {remark}\n")
            });
            let id = snapshot
                .as_deref()
                .unwrap_or("there is nothing to save, and no snapshot yet");
            if *made {
                format!("{remarks}{destination}: {uploaded} files, {bytes} bytes saved\n{id}")
            } else {
                format!("{remarks}{destination}: nothing has changed since\n{id}")
            }
        }
        Event::Failed { why, .. } => format!("{destination}: {why}"),
    }
}

/// Good only if every destination ended well.
fn judged(results: &[Progress]) -> Result<(), Error> {
    let mut errors = Vec::new();
    let mut done = 0;
    for Progress { destination, event, .. } in results {
        match event {
            Event::Started => {}
            Event::Done { .. } => done += 1,
            Event::Failed { refused: true, why } => errors.push(Error::Refused(format!("{destination}: {why}"))),
            Event::Failed { refused: false, why } => errors.push(Error::Failed(format!("{destination}: {why}"))),
        }
    }
    if done == 0 && errors.is_empty() {
        return Err(Error::Failed(
            "the sidecar went away before its backup had ended: see its log, and the next backup".to_owned(),
        ));
    }
    Error::all(&errors)
}

async fn through_store(store: &dyn Store, question: &BackupRequest) -> Result<(), Error> {
    let failed = |source| Error::Store {
        place: store.destination(),
        source,
    };
    let Some(mut state) = state::read(store).await.map_err(failed)? else {
        return Err(Error::Failed(format!(
            "no pod runs, and none has ever backed up to {}",
            store.destination()
        )));
    };
    if state.released {
        return absent(&state, &store.destination());
    }
    say(&format!(
        "{} was not released: leaving its pod a request, for as long as that shows that it is there",
        store.destination()
    ));
    let now = Timestamp::now();
    let id = format!("{}-{:08x}", now.strftime("%Y%m%dT%H%M%SZ"), now.subsec_nanosecond());
    let key = keys::request(&id);
    let request = Request {
        version: VERSION,
        time: now,
        manual: question.manual,
        accept: question.accept.clone(),
        damaged: Vec::new(),
        answer: None,
    };
    store.write(&key, &records::encode(&request)).await.map_err(failed)?;
    let mut changed = Instant::now();
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let answered: Request = match store.read(&key).await {
            Ok(bytes) => records::decode(&bytes).map_err(|damage| Error::Failed(format!("{key}: {damage}")))?,
            Err(error) if error.is_not_found() => {
                return Err(Error::Failed(format!("the request {key} was taken away unanswered")));
            }
            Err(error) => return Err(failed(error)),
        };
        let Some(event) = answered.answer.and_then(|answer| serde_json::from_value(answer).ok()) else {
            let now = state::read(store).await.map_err(failed)?.unwrap_or_default();
            if now != state {
                (state, changed) = (now, Instant::now());
            }
            if state.released || changed.elapsed() >= LONG_SILENCE {
                // Nobody will read it; if it stays, the next pod takes it away.
                let _ = store.delete(keys::REQUESTS, &[format!("{id}.json")]).await;
                return absent(&state, &store.destination());
            }
            continue;
        };
        let progress = Progress {
            version: VERSION,
            destination: store.destination(),
            event,
        };
        say(&line(&progress));
        // It is read; if it stays, the sidecar takes it away later.
        let _ = store.delete(keys::REQUESTS, &[format!("{id}.json")]).await;
        return judged(&[progress]);
    }
}

/// No pod runs: good only if nothing is owed.
fn absent(state: &State, place: &str) -> Result<(), Error> {
    let last = state
        .last
        .map_or_else(|| "there is none".to_owned(), |id| id.to_string());
    if !state.owed {
        say(&format!(
            "{place}: no pod runs, and nothing is owed; the last backup is\n{last}"
        ));
        return Ok(());
    }
    Err(Error::Failed(format!(
        "no pod runs, and the last one ended at about {} with changes that no snapshot has: they are on its volume; the newest snapshot is {last}",
        state.heartbeat
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn state(released: bool, owed: bool, kind: &str) -> State {
        State {
            version: VERSION,
            epoch: 3,
            volume_id: "aa".to_owned(),
            pod: "app-1".to_owned(),
            released,
            last: Some(format!("20261122T130500Z-3.42-{kind}").parse().unwrap()),
            owed,
            ..State::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_beats_is_left_a_request_whatever_its_clock_says_and_asked_no_more_once_it_is_silent() {
        let store = Memory::default();
        let beats = async {
            for beat in 0..5 {
                let heartbeat = Timestamp::from_second(beat).unwrap();
                let state = State {
                    heartbeat,
                    ..state(false, true, "auto")
                };
                store.write(keys::STATE, &records::encode(&state)).await.unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await;
                let requests = store
                    .objects()
                    .keys()
                    .filter(|key| key.starts_with("requests/"))
                    .count();
                assert_eq!(requests, 1, "minute {beat}");
            }
        };
        store
            .write(keys::STATE, &records::encode(&state(false, true, "auto")))
            .await
            .unwrap();
        let begun = Instant::now();
        let question = BackupRequest::default();
        let (result, ()) = tokio::join!(through_store(&store, &question), beats);
        assert!(result.is_err(), "what it owes is on its volume");
        assert_eq!(begun.elapsed().as_secs(), 4 * 60 + LONG_SILENCE.as_secs() + 5);
        assert!(!store.objects().keys().any(|key| key.starts_with("requests/")));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pod_it_succeeds_only_if_nothing_is_owed() {
        for (found, good) in [
            (Some(state(true, false, "final")), true),
            (Some(state(false, false, "auto")), true),
            (Some(state(false, true, "auto")), false),
            (Some(state(true, true, "auto")), false),
            (Some(state(true, true, "final")), false),
            (None, false),
        ] {
            let store = Memory::default();
            if let Some(state) = &found {
                store.write(keys::STATE, &records::encode(state)).await.unwrap();
            }
            let result = through_store(&store, &BackupRequest::default()).await;
            assert_eq!(result.is_ok(), good, "{found:?}: {result:?}");
        }
    }

    fn progress(event: Event) -> Progress {
        Progress {
            version: VERSION,
            destination: "minio:b/app".to_owned(),
            event,
        }
    }

    fn done() -> Progress {
        progress(Event::Done {
            snapshot: Some("20261122T130500Z-3.42-manual".to_owned()),
            made: true,
            uploaded: 2,
            bytes: 10,
            remarks: vec!["vixens-backup asks hold-1a2b3c4d: may they go?".to_owned()],
        })
    }

    #[test]
    fn the_exit_code_is_the_result() {
        let refused = progress(Event::Failed {
            refused: true,
            why: "too much would vanish".to_owned(),
        });
        let failed = progress(Event::Failed {
            refused: false,
            why: "the store is full".to_owned(),
        });
        let code = |results: &[Progress]| judged(results).map_or_else(|error| error.exit_code(), |()| 0);
        assert_eq!(code(&[progress(Event::Started), done()]), 0);
        assert_eq!(code(std::slice::from_ref(&refused)), 3);
        assert_eq!(
            code(&[done(), failed.clone()]),
            1,
            "one destination down is not a success"
        );
        assert_eq!(code(&[refused, failed]), 1);
        assert_eq!(code(&[progress(Event::Started)]), 1, "the pod went away");
    }

    #[test]
    fn the_log_ends_with_the_snapshots_id() {
        let said = line(&done());
        assert!(said.ends_with("\n20261122T130500Z-3.42-manual"), "{said}");
        assert!(said.contains("asks hold-1a2b3c4d"), "{said}");
    }
}
