//! The router, called as a value with reviews as a real API server sent them (`tests/data/reviews`), and with what no
//! API server would send. Whatever comes in, an answer goes out that the API server understands, and the process lives.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONNECTION;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;
use vixens_backup::admission::{Admission, Admit, BODY_LIMIT, Readiness, router};
use vixens_backup::inject;
use vixens_backup::policy::Installation;

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

struct Server {
    router: Router,
    readiness: Arc<Readiness>,
}

fn server() -> Server {
    server_with(inject::admit)
}

fn server_with(admit: Admit) -> Server {
    let readiness = Arc::new(Readiness::default());
    let admission = Arc::new(Admission::new(admit, Registry::default(), readiness.clone()));
    admission.begin(Installation {
        cluster_id: Some("5f1c8f6e-0000-4000-8000-000000000000".into()),
        ..Installation::default()
    });
    Server {
        router: router(admission),
        readiness,
    }
}

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/reviews")
        .join(name);
    serde_json::from_slice(&std::fs::read(&path).expect("a recorded review")).expect("JSON")
}

/// A review of the least that is one.
fn review(object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": UID, "kind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "namespace": "media",
        "operation": "CREATE", "object": object}})
}

impl Server {
    async fn call(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.call(Request::get(path).body(Body::empty()).expect("a request"))
            .await
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, String) {
        self.call(
            Request::post("/mutate?timeout=10s")
                .body(body.into())
                .expect("a request"),
        )
        .await
    }

    /// The response of the AdmissionReview that is answered.
    async fn response(&self, body: impl Into<Body>, uid: &str) -> Value {
        let (status, body) = self.post(body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let review: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["response"]["uid"], uid, "the API server accepts no other uid");
        review["response"].clone()
    }

    /// The object of `review` after what the answer changes in it.
    async fn accepts(&self, review: &Value) -> Value {
        let uid = review["request"]["uid"].as_str().expect("a uid");
        let response = self.response(review.to_string(), uid).await;
        assert_eq!(response["allowed"], true, "{response:#}");
        let mut object = review["request"]["object"].clone();
        if let Some(patch) = response.get("patch") {
            assert_eq!(response["patchType"], "JSONPatch");
            let patch = BASE64_STANDARD.decode(patch.as_str().expect("text")).expect("base64");
            let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON Patch");
            assert!(!patch.0.is_empty(), "an empty patch is left out");
            json_patch::patch(&mut object, &patch).expect("the patch applies");
        }
        object
    }

    /// The message by which `review` is denied.
    async fn rejects(&self, review: &Value) -> String {
        let uid = review["request"]["uid"].as_str().expect("a uid");
        let response = self.response(review.to_string(), uid).await;
        denial(&response)
    }
}

fn denial(response: &Value) -> String {
    assert_eq!(response["allowed"], false, "{response:#}");
    assert_eq!(response["status"]["status"], "Failure");
    assert!(response["status"]["code"].as_u64().is_some_and(|code| code >= 400));
    response["status"]["message"].as_str().expect("a message").to_owned()
}

fn init_containers(object: &Value) -> Vec<&str> {
    let containers = object
        .pointer("/spec/template/spec/initContainers")
        .and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect()
}

#[tokio::test]
async fn what_real_api_servers_send_is_injected() {
    let server = server();
    for name in [
        "deployment-create.json",
        "deployment-create-server-side.json",
        "deployment-update.json",
        "deployment-update-dry-run.json",
        "statefulset-create.json",
    ] {
        let object = server.accepts(&recorded(name)).await;
        assert_eq!(init_containers(&object), ["init-config", "backup-sidecar"], "{name}");
    }
}

#[tokio::test]
async fn what_was_injected_is_not_changed_again() {
    let server = server();
    let mut review = recorded("deployment-create.json");
    let injected = server.accepts(&review).await;
    review["request"]["operation"] = json!("UPDATE");
    review["request"]["object"] = injected.clone();
    review["request"]["oldObject"] = injected;
    let response = server
        .response(review.to_string(), review["request"]["uid"].as_str().expect("a uid"))
        .await;
    assert_eq!(response.get("patch"), None);
}

#[tokio::test]
async fn what_is_deleted_scaled_or_going_passes_untouched() {
    let server = server();
    for name in [
        "deployment-delete.json",
        "scale-update.json",
        "statefulset-being-deleted.json",
    ] {
        let review = recorded(name);
        assert_eq!(server.accepts(&review).await, review["request"]["object"], "{name}");
    }
}

#[tokio::test]
async fn a_denial_names_the_annotation_and_the_way_out() {
    let server = server();
    let mut review = recorded("deployment-create.json");
    review["request"]["object"]["metadata"]["annotations"]["vixens.io/backup-setle"] = json!("2s");
    let message = server.rejects(&review).await;
    assert!(
        message.contains("vixens.io/backup-setle") && message.contains("vixens.io/backup-settle"),
        "{message}"
    );
}

#[tokio::test]
async fn a_kind_that_nobody_can_protect_is_denied_by_its_name() {
    let message = server().rejects(&recorded("daemonset-create.json")).await;
    assert!(message.contains("apps/v1 DaemonSet"), "{message}");
}

#[tokio::test]
async fn a_body_that_is_no_review_is_answered_as_one_where_its_uid_is_found() {
    let server = server();
    let whole = review(&json!({"metadata": {"name": "app"}})).to_string();
    let truncated = whole[..whole.len() - 5].to_owned();
    let mistyped = whole.replace(r#""operation":"CREATE""#, r#""operation":["CREATE"]"#);
    let nested = format!(r#"{{"request":{{"uid":"{UID}","object":{}"#, "[".repeat(200_000));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "request": {"uid": UID}}).to_string();
    for body in [truncated, mistyped, nested, pod] {
        let message = denial(&server.response(body.clone(), UID).await);
        assert!(
            message.contains("AdmissionReview"),
            "{message} for {}",
            &body[..100.min(body.len())]
        );
    }
}

#[tokio::test]
async fn a_body_without_a_uid_is_a_bad_request_in_plain_words() {
    let server = server();
    for body in [
        &b""[..],
        b"null",
        b"[]",
        b"\xff\x00\xff",
        b"{}",
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#,
    ] {
        let (status, text) = server.post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(body));
        assert!(text.contains("AdmissionReview"), "{text}");
    }
}

#[tokio::test]
async fn the_older_version_is_denied_with_what_to_set() {
    let mut old = review(&json!({"metadata": {"name": "app"}}));
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let (status, body) = server().post(old.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        answer["apiVersion"], "admission.k8s.io/v1beta1",
        "the API server accepts no other version"
    );
    assert!(denial(&answer["response"]).contains("admissionReviewVersions"));
}

#[tokio::test]
async fn three_mebibytes_are_real() {
    // Two objects of 1.5 MiB, as an update of the largest object that etcd holds.
    let mut review = recorded("deployment-update.json");
    for object in ["object", "oldObject"] {
        review["request"][object]["metadata"]["annotations"]["example.org/large"] = json!("x".repeat(1536 * 1024));
    }
    let object = server().accepts(&review).await;
    assert_eq!(init_containers(&object), ["init-config", "backup-sidecar"]);
}

#[tokio::test]
async fn eight_mebibytes_are_not() {
    let server = server();
    let large = |size: usize| {
        let object = json!({"metadata": {"annotations": {"example.org/large": "x".repeat(size)}}});
        let mut beginning = review(&Value::Null).to_string();
        beginning.truncate(beginning.len() - "}}".len());
        format!(r#"{beginning},"later":{object}}}}}"#)
    };
    let message = denial(&server.response(large(8 * 1024 * 1024), UID).await);
    assert!(message.contains("7 MiB"), "{message}");
    // In pieces, as it comes over a connection; and far too large.
    let pieces = |body: String| {
        let body = Bytes::from(body);
        let pieces: Vec<_> = (0..body.len())
            .step_by(64 * 1024)
            .map(|start| Ok::<_, std::io::Error>(body.slice(start..body.len().min(start + 64 * 1024))))
            .collect();
        Body::from_stream(futures::stream::iter(pieces))
    };
    for size in [BODY_LIMIT, 8 * 1024 * 1024, 40 * 1024 * 1024] {
        let message = denial(&server.response(pieces(large(size)), UID).await);
        assert!(message.contains("7 MiB"), "{message}");
    }
    let response = server.response(pieces(large(3 * 1024 * 1024)), UID).await;
    assert_eq!(response["allowed"], true);
    let (status, text) = server.post(" ".repeat(8 * 1024 * 1024)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{text}");
}

#[tokio::test]
async fn a_large_body_that_never_ends_keeps_no_small_one_waiting() {
    let server = server();
    let endless = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let waiting: Vec<_> = (0..100).map(|_| Box::pin(server.post(endless()))).collect();
    let review = recorded("deployment-create.json").to_string();
    let answered = Box::pin(server.post(review));
    match futures::future::select(futures::future::select_all(waiting), answered).await {
        futures::future::Either::Left(_) => panic!("an endless body is answered"),
        futures::future::Either::Right(((status, _), _)) => assert_eq!(status, StatusCode::OK),
    }
}

#[tokio::test]
async fn a_broken_connection_is_a_bad_request() {
    let pieces = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
    let (status, text) = server().post(Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
}

#[tokio::test]
async fn a_panic_is_a_denial_and_the_next_request_is_answered() {
    fn panics_for_one(review: &inject::Review<'_>, installation: &Installation) -> inject::Outcome {
        assert_ne!(review.namespace, "cursed", "this one panics");
        inject::admit(review, installation)
    }
    let server = server_with(panics_for_one);
    let mut cursed = review(&json!({"metadata": {"name": "app"}}));
    cursed["request"]["namespace"] = json!("cursed");
    let message = server.rejects(&cursed).await;
    assert!(message.contains("internal error"), "{message}");
    assert!(
        !message.contains("this one panics"),
        "what panicked may have held a secret: {message}"
    );

    server.accepts(&recorded("deployment-create.json")).await;
    let (_, metrics) = server.get("/metrics").await;
    for line in [
        r#"vixens_backup_admission_requests_total{operation="create",result="failed"} 1"#,
        r#"vixens_backup_admission_requests_total{operation="create",result="patched"} 1"#,
        "vixens_backup_admission_duration_seconds_count 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing from\n{metrics}");
    }
}

#[tokio::test]
async fn metrics_are_set_by_what_happened() {
    let (_, metrics) = server().get("/metrics").await;
    assert!(!metrics.contains("vixens_backup_admission_requests_total"), "{metrics}");
    assert!(
        !metrics.contains("vixens_backup_certificate_expiry_timestamp_seconds "),
        "{metrics}"
    );
}

#[tokio::test]
async fn before_the_defaults_are_known_everything_is_refused() {
    let admission = Admission::new(inject::admit, Registry::default(), Arc::default());
    let server = Server {
        router: router(Arc::new(admission)),
        readiness: Arc::default(),
    };
    let message = server.rejects(&recorded("deployment-create.json")).await;
    assert!(message.contains("try again"), "{message}");
}

#[tokio::test]
async fn probes_tell_alive_from_ready() {
    let server = server();
    assert_eq!(server.get("/readyz").await, (StatusCode::OK, "ready\n".into()));
    server.readiness.wait("certificates", "there is no certificate yet");
    let (status, text) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "certificates: there is no certificate yet\n");
    assert_eq!(server.get("/livez").await, (StatusCode::OK, "alive\n".into()));
}

#[tokio::test]
async fn once_told_to_end_each_answer_closes_its_connection() {
    let server = server();
    let call = async || {
        let request = Request::get("/livez").body(Body::empty()).expect("a request");
        server.router.clone().oneshot(request).await.expect("an answer")
    };
    assert!(!call().await.headers().contains_key(CONNECTION));
    server.readiness.drain();
    assert_eq!(call().await.headers()[CONNECTION], "close");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_apart() {
    let server = server();
    assert_eq!(server.get("/mutate").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(server.get("/").await.0, StatusCode::NOT_FOUND);
}
