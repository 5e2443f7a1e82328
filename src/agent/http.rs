//! The sidecar's HTTP server: `/metrics`, `/livez`, `/status`, `POST /v1/backup`, and the pod's own `POST /v1/nudge`.
//! Requests in, what [`Shared`] says or an inbox's work out. It touches neither the store nor a volume.

use crate::agent::arguments::QuestionId;
use crate::agent::sidecar::inbox::{Ask, Progress};
use crate::agent::sidecar::status::Shared;
use crate::agent::token::Token;
use crate::store::snapshot::Kind;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Where the sidecar says how the other containers of its pod reach it.
pub const ANNOUNCEMENT: &str = "sidecar.json";
/// A question is short.
const BODY_LIMIT: usize = 4096;

/// `sidecar.json`: which port was taken, and what a nudge has to show.
#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The HTTP server's port.
    pub port: u16,
    /// Shown by the pod's own `preStop` hook.
    pub nudge: String,
}

/// The body of `POST /v1/backup`; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// Somebody asks by hand (else the schedule does).
    #[serde(default)]
    pub manual: bool,
    /// Questions that are answered by yes: their ids, comma-separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
}

#[derive(Clone)]
struct Server {
    shared: Arc<Shared>,
    /// None: there is no destination, and nothing to ask for.
    token: Option<Token>,
    nudge: String,
}

/// Writes down the port and returns what a nudge has to show.
pub fn announce(restore_dir: &Path, port: u16) -> String {
    // Only a process that can read our scratch folder is to start a backup: nothing worse comes of guessing it.
    let nudge = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let announcement = Announcement {
        port,
        nudge: nudge.clone(),
    };
    let written = serde_json::to_vec(&announcement)
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(restore_dir.join(ANNOUNCEMENT), bytes));
    if let Err(error) = written {
        tracing::warn!("{ANNOUNCEMENT} can't be written ({error}): the preStop hook will not find the sidecar");
    }
    nudge
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, token: Option<Token>, nudge: String) {
    let router = router(shared, token, nudge);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("the HTTP server ended ({error}): no metrics from here on; backups go on");
    }
}

/// What answers, as a value.
pub fn router(shared: Arc<Shared>, token: Option<Token>, nudge: String) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/v1/backup", post(backup))
        .route("/v1/nudge", post(nudged))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Server { shared, token, nudge })
}

async fn metrics(State(server): State<Server>) -> Response {
    if !server.shared.inboxes().is_empty() {
        server.shared.metrics.unsaved(server.shared.unsaved_age().as_secs_f64());
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], server.shared.metrics.text()).into_response()
}

async fn status(State(server): State<Server>) -> Response {
    let age = server.shared.unsaved_age().as_secs_f64();
    let mut status = server.shared.status().clone();
    status.unsaved_change_age = age;
    Json(status).into_response()
}

fn bearer(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
}

async fn backup(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response {
    if !server.token.is_some_and(|token| token.accepts(bearer(&headers))) {
        return (
            StatusCode::UNAUTHORIZED,
            "the token does not fit: it is made from the primary remote's settings, which both sides must share\n",
        )
            .into_response();
    }
    let question = if body.is_empty() {
        BackupRequest::default()
    } else {
        match serde_json::from_slice(&body) {
            Ok(question) => question,
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    };
    let inboxes = server.shared.inboxes().clone();
    if inboxes.is_empty() {
        let idle = server.shared.status().idle.clone();
        let why = idle.unwrap_or_else(|| "nothing may be backed up by this pod: see /status".to_owned());
        return (StatusCode::CONFLICT, format!("{why}\n")).into_response();
    }
    let (progress, lines) = mpsc::unbounded_channel();
    for inbox in inboxes {
        inbox.ask(Ask {
            kind: if question.manual { Kind::Manual } else { Kind::Scheduled },
            accepted: QuestionId::of_list(question.accept.as_deref()),
            progress: progress.clone(),
        });
    }
    drop(progress);
    let lines = futures::stream::unfold(lines, |mut lines| async {
        let progress: Progress = lines.recv().await?;
        let mut line = serde_json::to_vec(&progress).unwrap_or_default();
        line.push(b'\n');
        Some((Bytes::from(line), lines))
    });
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

async fn nudged(State(server): State<Server>, headers: HeaderMap) -> StatusCode {
    if server.nudge.is_empty() || bearer(&headers) != server.nudge {
        return StatusCode::UNAUTHORIZED;
    }
    for inbox in server.shared.inboxes().iter() {
        inbox.nudge();
    }
    StatusCode::ACCEPTED
}
