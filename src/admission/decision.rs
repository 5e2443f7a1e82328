//! A request → its answer, by the pure core. Nothing here can end the process: a panic becomes a refusal, because an
//! app that starts uninjected starts on an empty volume.

use super::review::{Answer, Because, Request};
use super::{Admit, Operation};
use crate::inject::{Outcome, Review};
use crate::policy::Installation;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The API's advice on the length of one warning. Longer ones may be cut once all of them together pass
/// [`ALL_WARNINGS`]: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response>.
const ONE_WARNING: usize = 256;
const ALL_WARNINGS: usize = 4096;

/// Answers `request` with what `admit` decides.
pub(super) fn decide(request: &Request<'_>, installation: &Installation, admit: Admit) -> Answer {
    if request.operation == Operation::Other || !request.sub_resource.is_empty() {
        return Answer::Allowed {
            patch: None,
            warnings: Vec::new(),
        };
    }
    let kind = &request.kind;
    if kind.group != "apps" || kind.version != "v1" || !matches!(&*kind.kind, "Deployment" | "StatefulSet") {
        return Answer::Denied {
            because: Because::Refused,
            message: format!(
                "vixens-backup protects apps/v1 Deployments and StatefulSets, and this is {kind}: remove its \
                 vixens.io/backup annotations, or this kind from the rules of the MutatingWebhookConfiguration"
            ),
        };
    }
    let review = Review {
        object: request.object.as_ref(),
        old_object: request.old_object.as_ref(),
        namespace: &request.namespace,
        dry_run: request.dry_run,
    };
    // The core gets shared references and gives a value: nothing of ours is left half-changed by a panic.
    let outcome = catch_unwind(AssertUnwindSafe(|| admit(&review, installation)));
    let (patch, warnings) = match outcome {
        Ok(Outcome::Allowed { patch, warnings }) => (patch, warnings),
        Ok(Outcome::Denied { problems }) => {
            return Answer::Denied {
                because: Because::Refused,
                message: problems.join("\n"),
            };
        }
        Err(_) => return internal_error(),
    };
    let patch = if patch.0.is_empty() {
        None
    } else {
        match serde_json::to_vec(&patch) {
            Ok(patch) => Some(patch),
            Err(error) => {
                tracing::error!(%error, "the patch could not be written as JSON");
                return internal_error();
            }
        }
    };
    Answer::Allowed {
        patch,
        warnings: within_limits(&warnings),
    }
}

/// The answer to a request on which we failed ourselves.
pub(super) fn internal_error() -> Answer {
    Answer::Denied {
        because: Because::Internal,
        message: "internal error in vixens-backup: the log of its pods tells where. Nothing was changed".to_owned(),
    }
}

/// Warnings as the API wants them: short, without control characters, and not too many. A long one goes on in the next.
fn within_limits(warnings: &[String]) -> Vec<String> {
    const REST: &str = "vixens-backup: there is more to warn about: `vixens-backup explain` shows all of it";
    let mut pieces: Vec<String> = warnings.iter().flat_map(|warning| split(warning)).collect();
    if pieces.iter().map(String::len).sum::<usize>() > ALL_WARNINGS {
        let mut left = ALL_WARNINGS - REST.len();
        let whole = pieces
            .iter()
            .take_while(|piece| {
                let fits = piece.len() <= left;
                left = left.saturating_sub(piece.len());
                fits
            })
            .count();
        pieces.truncate(whole);
        pieces.push(REST.to_owned());
    }
    pieces
}

fn split(warning: &str) -> Vec<String> {
    const CONTINUED: &str = "… ";
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for word in warning.split(|character: char| character.is_whitespace() || character.is_control()) {
        let mut word = word;
        while !word.is_empty() {
            let separator = usize::from(!piece.is_empty() && piece != CONTINUED);
            if piece.len() + separator + word.len() <= ONE_WARNING {
                if separator == 1 {
                    piece.push(' ');
                }
                piece.push_str(word);
                break;
            }
            if separator == 0 {
                // One word, longer than a whole warning.
                let fitting = word
                    .char_indices()
                    .map(|(at, _)| at)
                    .take_while(|at| *at <= ONE_WARNING - piece.len());
                let (head, tail) = word.split_at(fitting.last().unwrap_or(0));
                piece.push_str(head);
                word = tail;
            }
            pieces.push(std::mem::replace(&mut piece, CONTINUED.to_owned()));
        }
    }
    if !piece.is_empty() && piece != CONTINUED {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::review::Kind;
    use serde_json::{Value, json};

    fn request(kind: &'static str, object: Value) -> Request<'static> {
        Request {
            kind: Kind {
                group: "apps".into(),
                version: "v1".into(),
                kind: kind.into(),
            },
            operation: Operation::Update,
            object: Some(object),
            ..Request::default()
        }
    }

    fn refuse(_: &Review<'_>, _: &Installation) -> Outcome {
        Outcome::Denied {
            problems: vec!["first".into(), "second".into()],
        }
    }

    fn message(answer: Answer) -> String {
        match answer {
            Answer::Denied { message, .. } => message,
            Answer::Allowed { .. } => panic!("{answer:?} is no denial"),
        }
    }

    #[test]
    fn problems_are_lines() {
        let answer = decide(&request("Deployment", json!({})), &Installation::default(), refuse);
        assert_eq!(message(answer), "first\nsecond");
    }

    #[test]
    fn a_subresource_passes() {
        let mut scale = request("Deployment", json!({}));
        scale.sub_resource = "scale".into();
        let answer = decide(&scale, &Installation::default(), refuse);
        assert!(matches!(answer, Answer::Allowed { patch: None, .. }), "{answer:?}");
    }

    #[test]
    fn another_kind_is_refused_by_its_name() {
        let text = message(decide(
            &request("DaemonSet", json!({})),
            &Installation::default(),
            refuse,
        ));
        assert!(text.contains("apps/v1 DaemonSet"), "{text}");
    }

    #[test]
    fn a_long_warning_goes_on_in_the_next_and_loses_no_word() {
        let long = "one two three four ".repeat(40);
        let pieces = within_limits(std::slice::from_ref(&long));
        assert!(pieces.iter().all(|piece| piece.len() <= ONE_WARNING), "{pieces:?}");
        let words: Vec<&str> = pieces
            .iter()
            .flat_map(|piece| piece.split(' '))
            .filter(|word| *word != "…")
            .collect();
        assert_eq!(words, long.split_whitespace().collect::<Vec<_>>());
        let endless = within_limits(&["é".repeat(1000)]);
        assert!(endless.iter().all(|piece| piece.len() <= ONE_WARNING), "{endless:?}");
        assert_eq!(endless.join("").matches('é').count(), 1000);
    }

    #[test]
    fn a_warning_is_one_line() {
        assert_eq!(within_limits(&["a\nb\u{7}c".into()]), ["a b c"]);
    }

    #[test]
    fn too_many_warnings_end_in_where_to_read_the_rest() {
        let many: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(200))).collect();
        let pieces = within_limits(&many);
        assert!(pieces.iter().map(String::len).sum::<usize>() <= ALL_WARNINGS);
        assert!(pieces.last().expect("some").contains("explain"), "{pieces:?}");
    }
}
