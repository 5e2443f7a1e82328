//! The paths of the server, as a value: `POST /mutate`, `/readyz`, `/livez`, `/metrics`. What comes in is bounded in
//! size and in time; whatever comes in, an answer goes out.

use super::decision;
use super::review::{self, Answer, Because, Operation, Unreadable};
use super::{Admit, Ending, Metrics, Readiness};
use crate::policy::Installation;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The largest body that is read. etcd holds objects of up to 1.5 MiB, and a review of an update holds two of them;
/// the rest is for the JSON around them.
pub const BODY_LIMIT: usize = 7 * 1024 * 1024;
/// How much of a larger body is read and thrown away, so that whoever sends it comes to read the answer.
const DISCARD_LIMIT: usize = 4 * BODY_LIMIT;
/// Nearly every review is smaller than this. Larger ones share some room and wait for each other, and never keep a
/// small one waiting.
const SMALL: usize = 128 * 1024;
/// How much of larger bodies may arrive at once, in KiB.
const ROOM: u32 = 16 * 1024;
/// How many larger bodies are decided at once: parsed, one can take fifty times its size.
const LARGE_AT_ONCE: usize = 1;
/// How long a body may take to arrive. The API server itself gives up after 30 s at most.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers share.
#[derive(Debug)]
pub struct Admission {
    admit: Admit,
    installation: OnceLock<Installation>,
    metrics: Metrics,
    registry: Registry,
    readiness: Arc<Readiness>,
    room: Semaphore,
    turns: Semaphore,
}

impl Admission {
    /// Decides by `admit`, shows `registry`, and answers `/readyz` by `readiness`. Until [`Self::begin`] is called,
    /// everything is refused.
    pub fn new(admit: Admit, mut registry: Registry, readiness: Arc<Readiness>) -> Self {
        let metrics = Metrics::new(&mut registry);
        Self {
            admit,
            installation: OnceLock::new(),
            metrics,
            registry,
            readiness,
            room: Semaphore::new(ROOM as usize),
            turns: Semaphore::new(LARGE_AT_ONCE),
        }
    }

    /// The defaults are known: decide from now on. A second call changes nothing.
    pub fn begin(&self, installation: Installation) {
        let _ = self.installation.set(installation);
    }

    /// The metrics that the requests are counted in.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the API server should send requests here.
    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }
}

/// The server's paths.
pub fn router(admission: Arc<Admission>) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .route("/readyz", get(readyz))
        .route("/livez", get(async || "alive\n"))
        .route("/metrics", get(show_metrics))
        .layer(middleware::map_response_with_state(admission.clone(), say_goodbye))
        .with_state(admission)
}

async fn readyz(State(admission): State<Arc<Admission>>) -> Response {
    match admission.readiness.check() {
        Ok(()) => "ready\n".into_response(),
        Err(waits) => (StatusCode::SERVICE_UNAVAILABLE, waits).into_response(),
    }
}

async fn show_metrics(State(admission): State<Arc<Admission>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admission.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The API server keeps connections to us open, whatever the Service's endpoints say by now. Each is given up with the
/// last answer on it, so that none is cut while a request is on its way.
async fn say_goodbye(State(admission): State<Arc<Admission>>, mut response: Response) -> Response {
    if admission.readiness.is_draining() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn mutate(State(admission): State<Arc<Admission>>, request: Request) -> Response {
    let body = request.into_body();
    let announced = body.size_hint().exact().unwrap_or(u64::MAX).min(BODY_LIMIT as u64);
    let arrival = async {
        if announced <= SMALL as u64 {
            return (Arrival::of(body).await, None, None);
        }
        let kibibytes = u32::try_from(announced / 1024).unwrap_or(ROOM) + 1;
        let place = admission.room.acquire_many(kibibytes).await.ok();
        let arrival = Arrival::of(body).await;
        (arrival, place, admission.turns.acquire().await.ok())
    };
    let Ok((arrival, _place, _turn)) = tokio::time::timeout(BODY_TIMEOUT, arrival).await else {
        return (StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive\n").into_response();
    };
    let began = Instant::now();
    let answered = catch_unwind(AssertUnwindSafe(|| answer(&admission, &arrival)));
    let Answered {
        operation,
        ending,
        response,
    } = answered.unwrap_or_else(|_| Answered {
        operation: Operation::Other,
        ending: Ending::Failed,
        response: in_plain_words(StatusCode::INTERNAL_SERVER_ERROR, "internal error in vixens-backup"),
    });
    admission.metrics.answered(operation, ending, began.elapsed());
    response
}

/// A request's body, as far as it was read.
enum Arrival {
    Whole(Bytes),
    /// Larger than [`BODY_LIMIT`]; its beginning.
    TooLarge(Bytes),
    /// The connection broke.
    Broken,
}

impl Arrival {
    async fn of(mut body: Body) -> Self {
        let mut first = Bytes::new();
        let mut all = Vec::new();
        let mut length = 0;
        loop {
            let data = match body.frame().await {
                None | Some(Err(_)) if length > BODY_LIMIT => return Self::TooLarge(first),
                None if all.is_empty() => return Self::Whole(first),
                None => return Self::Whole(all.into()),
                Some(Err(_)) => return Self::Broken,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            length += data.len();
            if length > BODY_LIMIT {
                all = Vec::new();
                if first.is_empty() {
                    first = data;
                }
                if length > DISCARD_LIMIT {
                    return Self::TooLarge(first);
                }
            } else if first.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
        }
    }
}

struct Answered {
    operation: Operation,
    ending: Ending,
    response: Response,
}

fn answer(admission: &Admission, arrival: &Arrival) -> Answered {
    let (body, because, problem) = match arrival {
        Arrival::Whole(body) => match review::parse(body) {
            Ok(request) => return decided(admission, &request),
            Err(unreadable) => return refused(unreadable, Because::BadRequest),
        },
        Arrival::TooLarge(beginning) => (
            &beginning[..],
            Because::TooLarge,
            format!(
                "the request is larger than {} MiB, which is more than the API server can store",
                BODY_LIMIT / 1024 / 1024
            ),
        ),
        Arrival::Broken => {
            let problem = "the connection broke in the middle of the request".to_owned();
            (&[][..], Because::BadRequest, problem)
        }
    };
    let unreadable = Unreadable {
        uid: review::uid_in(body).map(Cow::Borrowed),
        api_version: Cow::Borrowed(review::API_VERSION),
        problem,
    };
    refused(unreadable, because)
}

fn decided(admission: &Admission, request: &review::Request<'_>) -> Answered {
    let began = Instant::now();
    let answer = match admission.installation.get() {
        Some(installation) => decision::decide(request, installation, admission.admit),
        None => Answer::Denied {
            because: Because::Starting,
            message: "vixens-backup is starting: try again in a moment".to_owned(),
        },
    };
    let ending = match &answer {
        Answer::Allowed { patch: Some(_), .. } => Ending::Patched,
        Answer::Allowed { patch: None, .. } => Ending::Unchanged,
        Answer::Denied {
            because: Because::Internal | Because::Starting,
            ..
        } => Ending::Failed,
        Answer::Denied { .. } => Ending::Denied,
    };
    let response = match answer.body(&request.uid, review::API_VERSION) {
        Ok(body) => in_json(body),
        Err(error) => in_plain_words(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    tracing::info!(
        kind = &*request.kind.kind,
        namespace = &*request.namespace,
        name = &*request.display_name(),
        operation = request.operation.as_str(),
        dry_run = request.dry_run,
        outcome = ending.as_str(),
        micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        "decided"
    );
    Answered {
        operation: request.operation,
        ending,
        response,
    }
}

fn refused(unreadable: Unreadable<'_>, because: Because) -> Answered {
    let Unreadable {
        uid,
        api_version,
        problem,
    } = unreadable;
    tracing::warn!(uid = uid.as_deref(), "a request could not be read: {problem}");
    let body = uid.and_then(|uid| {
        let message = problem.clone();
        Answer::Denied { because, message }.body(&uid, &api_version).ok()
    });
    Answered {
        operation: Operation::Other,
        ending: Ending::Unreadable,
        response: match body {
            Some(body) => in_json(body),
            None if because == Because::TooLarge => in_plain_words(StatusCode::PAYLOAD_TOO_LARGE, &problem),
            None => in_plain_words(StatusCode::BAD_REQUEST, &problem),
        },
    }
}

fn in_json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

fn in_plain_words(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}
