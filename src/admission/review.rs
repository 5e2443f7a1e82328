//! The bytes of an AdmissionReview → what is asked; an [`Answer`] → the bytes of the answer. Pure; nothing in here
//! decides. Only the fields that we need are read, so that what the API server adds later does no harm.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response>

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// The version of AdmissionReview that is spoken here.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// What the API server asks about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Request<'a> {
    /// Names this call; the answer repeats it.
    #[serde(borrow)]
    pub(super) uid: Cow<'a, str>,
    /// The object's kind, as the rules of the configuration name it.
    #[serde(borrow)]
    pub(super) kind: Kind<'a>,
    /// `scale`, `status` …; empty for the object itself.
    #[serde(borrow)]
    pub(super) sub_resource: Cow<'a, str>,
    /// The object's namespace.
    #[serde(borrow)]
    pub(super) namespace: Cow<'a, str>,
    /// The object's name; empty where the API server is yet to make one.
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    /// What is being done.
    pub(super) operation: Operation,
    /// Nothing will be stored.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) dry_run: bool,
    /// The object as it shall become; nothing on a deletion.
    #[serde(deserialize_with = "crate::workload::reading::object")]
    pub(super) object: Option<Value>,
    /// The object as it is; nothing on a creation.
    #[serde(deserialize_with = "crate::workload::reading::object")]
    pub(super) old_object: Option<Value>,
}

/// A group, version and kind.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "the API's own word")]
pub(super) struct Kind<'a> {
    /// Empty for the core group.
    #[serde(borrow)]
    pub(super) group: Cow<'a, str>,
    /// Such as `v1`.
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
    /// Such as `Deployment`.
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
}

impl std::fmt::Display for Kind<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, version, kind } = self;
        if group.is_empty() {
            write!(formatter, "{version} {kind}")
        } else {
            write!(formatter, "{group}/{version} {kind}")
        }
    }
}

/// What is being done to the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is created.
    Create,
    /// It is changed.
    Update,
    /// It is deleted, connected to, or what a later Kubernetes may invent.
    #[default]
    #[serde(other)]
    Other,
}

impl Operation {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Other => "other",
        }
    }
}

impl Request<'_> {
    /// The object's name, or what its name will begin with.
    pub(super) fn display_name(&self) -> Cow<'_, str> {
        if !self.name.is_empty() {
            return Cow::Borrowed(&self.name);
        }
        let metadata = |field| self.object.as_ref()?.get("metadata")?.get(field)?.as_str();
        match (metadata("name"), metadata("generateName")) {
            (Some(name), _) => Cow::Borrowed(name),
            (None, Some(prefix)) => Cow::Owned(format!("{prefix}…")),
            (None, None) => Cow::Borrowed("(unnamed)"),
        }
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A body that is no AdmissionReview of our version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable<'a> {
    /// The call's name, where one can be found: then the API server understands an answer.
    pub(super) uid: Option<Cow<'a, str>>,
    /// The version that the answer must repeat.
    pub(super) api_version: Cow<'a, str>,
    /// What is wrong with it.
    pub(super) problem: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

/// Reads a body.
pub(super) fn parse(body: &[u8]) -> Result<Request<'_>, Unreadable<'_>> {
    let Document {
        api_version,
        kind,
        request,
    } = serde_json::from_slice(body).map_err(|error| Unreadable {
        uid: uid_in(body).map(Cow::Borrowed),
        api_version: Cow::Borrowed(API_VERSION),
        problem: format!("the body is not an AdmissionReview in JSON: {error}"),
    })?;
    let uid = request
        .as_ref()
        .map(|request| request.uid.clone())
        .filter(|uid| !uid.is_empty());
    if kind != "AdmissionReview" || !api_version.starts_with("admission.k8s.io/") {
        return Err(Unreadable {
            uid,
            api_version: Cow::Borrowed(API_VERSION),
            problem: format!(
                "the body is {}, and only {API_VERSION} AdmissionReview is answered here",
                match (&*api_version, &*kind) {
                    ("", "") => "JSON without apiVersion and kind".to_owned(),
                    (version, kind) => format!("{version:?} {kind:?}"),
                }
            ),
        });
    }
    if api_version != API_VERSION {
        let problem = format!(
            "this webhook speaks {API_VERSION}, and was asked in {api_version}: set admissionReviewVersions to [v1] in \
             its MutatingWebhookConfiguration"
        );
        return Err(Unreadable {
            uid,
            api_version,
            problem,
        });
    }
    match request {
        Some(request) if !request.uid.is_empty() => Ok(request),
        _ => Err(Unreadable {
            uid: None,
            api_version,
            problem: "the AdmissionReview has no request.uid".to_owned(),
        }),
    }
}

/// The call's name in a body that can't be parsed, or of which only the beginning was read. The API server writes it
/// first; were it another one, the API server would refuse the answer, and the request with it.
pub(super) fn uid_in(body: &[u8]) -> Option<&str> {
    const BEGINNING: usize = 1024;
    const KEY: &[u8] = b"\"uid\":";
    let beginning = &body[..body.len().min(BEGINNING)];
    let after = beginning.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let value = beginning[after..].trim_ascii_start().strip_prefix(b"\"")?;
    let uid = std::str::from_utf8(&value[..value.iter().position(|byte| *byte == b'"')?]).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!uid.is_empty() && uid.bytes().all(plain)).then_some(uid)
}

/// What the API server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The object passes.
    Allowed {
        /// A JSON Patch, serialised; nothing where nothing changes.
        patch: Option<Vec<u8>>,
        /// Lines for the person who applies.
        warnings: Vec<String>,
    },
    /// The object is refused.
    Denied {
        /// What it is refused for.
        because: Because,
        /// What the person who applies reads.
        message: String,
    },
}

/// What an object is refused for: the `code` and the `reason` of the answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// The request can't be read.
    BadRequest,
    /// The request is larger than any that the API server makes.
    TooLarge,
    /// What the owner wrote can't be done.
    Refused,
    /// We are not ready to decide.
    Starting,
    /// We failed.
    Internal,
}

impl Because {
    const fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BadRequest"),
            Self::TooLarge => (413, "RequestEntityTooLarge"),
            Self::Refused => (422, "Invalid"),
            Self::Starting => (503, "ServiceUnavailable"),
            Self::Internal => (500, "InternalError"),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'a str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the API's own word")]
struct Status<'a> {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

impl Answer {
    /// The body of the answer to the call `uid`.
    pub(super) fn body(&self, uid: &str, api_version: &str) -> Result<Vec<u8>, serde_json::Error> {
        let response = match self {
            Self::Allowed { patch, warnings } => Response {
                uid,
                allowed: true,
                patch_type: patch.as_ref().map(|_| "JSONPatch"),
                patch: patch.as_ref().map(|patch| BASE64_STANDARD.encode(patch)),
                warnings,
                status: None,
            },
            Self::Denied { because, message } => {
                let (code, reason) = because.status();
                Response {
                    uid,
                    allowed: false,
                    patch_type: None,
                    patch: None,
                    warnings: &[],
                    status: Some(Status {
                        status: "Failure",
                        code,
                        reason,
                        message,
                    }),
                }
            }
        };
        serde_json::to_vec(&Reply {
            api_version,
            kind: "AdmissionReview",
            response,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

    fn unreadable(body: &Value) -> (Option<String>, String, String) {
        let body = body.to_string();
        let Unreadable {
            uid,
            api_version,
            problem,
        } = parse(body.as_bytes()).expect_err("this body is no review");
        (uid.map(Cow::into_owned), api_version.into_owned(), problem)
    }

    #[test]
    fn fields_that_we_do_not_know_are_passed_over() {
        let body = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "later": [1], "request": {
            "uid": UID, "operation": "UPDATE", "dryRun": null, "userInfo": {"username": "admin"}, "later": {"a": 1},
            "object": {"metadata": {"name": "app"}}, "oldObject": null,
        }})
        .to_string();
        let request = parse(body.as_bytes()).expect("a review");
        assert_eq!(
            (&*request.uid, request.operation, request.dry_run),
            (UID, Operation::Update, false)
        );
        assert_eq!(request.display_name(), "app");
        assert!(request.object.is_some() && request.old_object.is_none());
    }

    #[test]
    fn an_unknown_operation_is_another_one_and_no_error() {
        let body = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview",
            "request": {"uid": UID, "operation": "TRANSMOGRIFY"}})
        .to_string();
        assert_eq!(parse(body.as_bytes()).expect("a review").operation, Operation::Other);
    }

    #[test]
    fn a_generated_name_is_shown_by_its_beginning() {
        let request = Request {
            object: Some(json!({"metadata": {"generateName": "app-"}})),
            ..Request::default()
        };
        assert_eq!(request.display_name(), "app-…");
    }

    #[test]
    fn the_uid_of_a_bad_body_is_found_where_there_is_one() {
        let wrong_type = json!({"request": {"uid": UID, "operation": 5}});
        assert_eq!(unreadable(&wrong_type).0.as_deref(), Some(UID));
        let (uid, _, problem) = unreadable(&json!({"apiVersion": "v1", "kind": "Pod"}));
        assert_eq!(uid, None);
        assert!(problem.contains(r#""v1" "Pod""#), "{problem}");
        assert_eq!(parse(b"").expect_err("no review").uid, None);
        for (body, uid) in [
            (&br#"{"request":{"uid": "a-1","object":{"#[..], Some("a-1")),
            (br#"{"request":{"uid":"a"#, None),
            (br#"{"request":{"uid":"\u0041""#, None),
            (br#"{"request":{"uid":""}}"#, None),
            (b"\xff\xfe\"uid\":\"\xff\"", None),
        ] {
            assert_eq!(uid_in(body), uid, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_older_version_is_answered_in_kind_with_what_to_set() {
        let (uid, api_version, problem) = unreadable(
            &json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": UID}}),
        );
        assert_eq!((uid.as_deref(), &*api_version), (Some(UID), "admission.k8s.io/v1beta1"));
        assert!(problem.contains("admissionReviewVersions"), "{problem}");
    }

    #[test]
    fn nesting_that_would_overflow_the_stack_is_unreadable() {
        let body = format!(r#"{{"request":{{"uid":"{UID}","object":{{"x":{}"#, "[".repeat(100_000));
        let unreadable = parse(body.as_bytes()).expect_err("too deep");
        assert_eq!(unreadable.uid.as_deref(), Some(UID));
        assert!(unreadable.problem.contains("recursion limit"), "{}", unreadable.problem);
    }

    #[test]
    fn a_patch_is_left_out_when_nothing_changes() {
        let allowed = |patch: Option<&[u8]>| {
            let answer = Answer::Allowed {
                patch: patch.map(<[u8]>::to_vec),
                warnings: vec![],
            };
            serde_json::from_slice::<Value>(&answer.body(UID, API_VERSION).expect("JSON")).expect("JSON")
        };
        assert_eq!(
            allowed(None),
            json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": {"uid": UID, "allowed": true}})
        );
        assert_eq!(
            allowed(Some(b"[]"))["response"],
            json!({"uid": UID, "allowed": true, "patchType": "JSONPatch", "patch": "W10="})
        );
    }
}
