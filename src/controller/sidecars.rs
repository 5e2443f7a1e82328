//! What a sidecar says of itself at `/status` → what its owner must know: backups that are late, refused by a guard, or
//! fenced off. Talks to pods, never to the API server.

use super::events::News;
use super::record::{Said, SaidOf};
use crate::contract::question::Question;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::de::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// A sidecar that does not answer within this is asked again in the next round.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const LIMIT: usize = 64 << 10;
/// Changes that are not saved after so many seconds are late: a change is saved within seconds.
const LATE: f64 = 900.0;

/// `/status`, as far as it matters here. Its fields stay across releases.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Status {
    idle: Option<String>,
    volumes: BTreeMap<String, Volume>,
    destinations: BTreeMap<String, Destination>,
    unsaved_change_age: f64,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Volume {
    path: String,
    status: String,
    why: String,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Destination {
    phase: String,
    why: Option<String>,
    last_success: Option<String>,
    store_id: Option<String>,
    snapshot: Option<String>,
    refusal: Option<String>,
    #[serde(deserialize_with = "understood")]
    questions: Vec<Question>,
}

/// The questions that this release understands: one of a release to come is no reason to hear nothing of the rest.
fn understood<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Question>, D::Error> {
    let questions = Vec::<Value>::deserialize(deserializer)?;
    let questions = questions.into_iter().map(serde_json::from_value);
    Ok(questions.filter_map(Result::ok).collect())
}

impl Status {
    /// What only a person decides.
    pub(super) fn questions(&self) -> impl Iterator<Item = &Question> {
        self.destinations
            .values()
            .flat_map(|destination| &destination.questions)
    }

    /// What its places hold. Who is fenced off speaks for none.
    pub(super) fn places(&self) -> SaidOf {
        let destinations = self.destinations.iter();
        let ours = destinations.filter(|(_, destination)| destination.phase != "fenced");
        let places = ours.filter_map(|(name, destination)| {
            let said = Said {
                store_id: destination.store_id.clone(),
                snapshot: destination.snapshot.clone()?,
            };
            Some((name.clone(), said))
        });
        places.collect()
    }

    /// Whether every destination has been looked at, so that what is not asked is no question.
    pub(super) fn is_settled(&self) -> bool {
        let mut destinations = self.destinations.values();
        let is_settled = |destination: &Destination| matches!(destination.phase.as_str(), "ready" | "refused");
        !self.destinations.is_empty() && destinations.all(is_settled)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks one sidecar.
pub(super) async fn ask(address: SocketAddr) -> Result<Status, Failure> {
    tokio::time::timeout(PATIENCE, answer(address)).await?
}

async fn answer(address: SocketAddr) -> Result<Status, Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/status")
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let answered = async {
        let body = sender.send_request(request).await?.into_body();
        let body = Limited::new(body, LIMIT).collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    };
    let answered = answered.await;
    connection.abort();
    answered
}

/// What of it is worth telling, and on which occasion it is told again.
pub(super) fn judge(status: &Status, pod: &str, uid: &str) -> Vec<News> {
    let mut news = Vec::new();
    let mut fenced = |what: &str, why: &str| {
        let note = format!("pod {pod} runs without backups: {what}: {why}");
        news.push(News::warning("BackupFenced", note).on(format!("{uid}|{what}|{why}")));
    };
    if let Some(why) = &status.idle {
        fenced("nothing is backed up", why);
    } else {
        for volume in status.volumes.values().filter(|volume| volume.status == "fenced") {
            fenced(&format!("the volume at {}", volume.path), &volume.why);
        }
        for (name, destination) in &status.destinations {
            if destination.phase == "fenced" {
                fenced(name, destination.why.as_deref().unwrap_or("somebody else writes there"));
            }
        }
    }
    for (name, destination) in &status.destinations {
        let why = destination.why.as_deref().unwrap_or_default();
        if destination.phase == "refused" {
            let accept = destination.refusal.as_ref().map(|id| {
                format!(
                    "; when that is meant: kubectl exec {pod} -c backup-sidecar -- vixens-backup backup --accept {id}"
                )
            });
            let note = format!(
                "pod {pod}: a guard refuses the backup to {name}: {why}{}",
                accept.unwrap_or_default()
            );
            let refusal = destination.refusal.as_deref().unwrap_or(why);
            news.push(News::warning("BackupRefused", note).on(format!("{uid}|{name}|{refusal}")));
        }
    }
    if status.unsaved_change_age > LATE {
        let reasons: Vec<String> = status
            .destinations
            .iter()
            .filter_map(|(name, destination)| Some(format!("{name}: {}", destination.why.as_ref()?)))
            .collect();
        let why = if reasons.is_empty() {
            format!("see kubectl logs {pod} -c backup-sidecar")
        } else {
            reasons.join("; ")
        };
        let last: Vec<&str> = status
            .destinations
            .values()
            .map(|destination| destination.last_success.as_deref().unwrap_or("never"))
            .collect();
        let note = format!(
            "pod {pod}: changes are not backed up for more than {} minutes (the last backup: {}): {why}",
            LATE / 60.0,
            last.first().unwrap_or(&"never")
        );
        news.push(News::warning("BackupStale", note).on(format!("{uid}|{}", last.join("|"))));
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn news(status: Value) -> Vec<News> {
        let status: Status = serde_json::from_value(status).unwrap();
        judge(&status, "app-1", "uid")
    }

    #[test]
    fn good_news_is_no_news() {
        let fine = json!({"version": 1, "release": "0.1.0", "volumes": {"config": {"path": "/config", "status": "settled", "why": ""}},
            "destinations": {"minio:b/app": {"phase": "ready", "last_success": "2026-11-22T13:05:00Z"}}, "unsaved_change_age": 3.0});
        assert_eq!(news(fine), []);
        assert_eq!(news(json!({})), [], "of a release to come");
    }

    #[test]
    fn what_is_asked_is_heard_beside_what_a_release_to_come_asks() {
        let status = json!({"destinations": {"minio:b/app": {"phase": "ready", "questions": [
            {"id": {"of": "another", "form": 1}}, {"id": "hold-1a2b3c4d", "text": "files vanished", "since": "now"}]}}});
        let status: Status = serde_json::from_value(status).unwrap();
        let ids: Vec<&str> = status.questions().map(|question| question.id.as_str()).collect();
        assert_eq!(ids, ["hold-1a2b3c4d"]);
    }

    #[test]
    fn a_refusal_is_told_with_what_accepts_it_and_again_for_the_next_one() {
        let refused = |id: &str| {
            let told = news(json!({"destinations": {"minio:b/app":
                {"phase": "refused", "why": "9 of 10 files would vanish", "refusal": id}}}));
            assert_eq!(told.len(), 1);
            told[0].clone()
        };
        assert_eq!(refused("r1"), refused("r1"));
        assert_ne!(refused("r1").occasion, refused("r2").occasion);
        assert!(
            refused("r1").note.ends_with("vixens-backup backup --accept r1"),
            "{:?}",
            refused("r1")
        );
    }

    #[test]
    fn what_is_fenced_or_late_is_told_with_its_reason() {
        let told = news(json!({"destinations": {"minio:b/app": {"phase": "fenced", "why": "app-2 took over"}}}));
        assert_eq!(told[0].reason, "BackupFenced");
        assert!(told[0].note.contains("app-2 took over"), "{told:?}");
        let told = news(
            json!({"destinations": {"minio:b/app": {"phase": "failing", "why": "connection refused",
            "last_success": "2026-11-22T13:05:00Z"}}, "unsaved_change_age": 1000.5}),
        );
        assert_eq!(told[0].reason, "BackupStale");
        assert!(
            told[0]
                .note
                .contains("15 minutes (the last backup: 2026-11-22T13:05:00Z): minio:b/app: connection refused"),
            "{told:?}"
        );
    }
}
