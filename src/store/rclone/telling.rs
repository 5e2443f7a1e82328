//! rclone's exit code, messages and result → which of the store's errors it was. Pure.
//!
//! Found by trying the pinned version, and held by `tests/store_rclone.rs` on real servers: a refused key exits
//! with 1 like a name that does not resolve, so the words decide.

use super::process::{Complaint, Ended};
use crate::store::Error;
use std::io;
use std::os::unix::process::ExitStatusExt;

/// "Directory not found".
const MISSING_FOLDER: i32 = 3;
/// Wrong usage: a flag that this rclone does not know.
const USAGE: i32 = 2;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Refused,
    Full,
    NoBucket,
    Misconfigured,
    Network,
    Local,
    Unknown,
}

const REFUSED: [&str; 12] = [
    "StatusCode: 401",
    "StatusCode: 403",
    "AccessDenied",
    "Access Denied",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "RequestTimeTooSkewed",
    "undecryptable name",
    "401 Unauthorized",
    "403 Forbidden",
    "unable to authenticate",
];

const FULL: [&str; 7] = [
    "XMinioStorageFull",
    "InsufficientStorage",
    "Insufficient Storage",
    "StatusCode: 507",
    "QuotaExceeded",
    "quota exceeded",
    "storageQuotaExceeded",
];

const MISCONFIGURED: [&str; 7] = [
    "didn't find section in config file",
    "didn't find backend called",
    "unknown flag",
    "failed to load config file",
    "failed to make crypt",
    "couldn't decrypt password",
    "InvalidBucketName",
];

/// Said of a disk of this machine.
const NO_ROOM: [&str; 3] = [
    "no space left on device",
    "file too big for remaining disk space",
    "disk quota exceeded",
];

const NETWORK: [&str; 14] = [
    "StatusCode: 0",
    "StatusCode: 5",
    "StatusCode: 408",
    "StatusCode: 429",
    "dial tcp",
    "connection refused",
    "connection reset",
    "no such host",
    "i/o timeout",
    "timeout",
    "TLS",
    "x509",
    "HTTP response to HTTPS",
    "unexpected EOF",
];

fn class(message: &str) -> Class {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&FULL) {
        Class::Full
    } else if says(&REFUSED) {
        Class::Refused
    } else if says(&MISCONFIGURED) {
        Class::Misconfigured
    } else if message.contains("NoSuchBucket") {
        Class::NoBucket
    } else if says(&NO_ROOM) {
        Class::Local
    } else if says(&NETWORK) {
        Class::Network
    } else {
        Class::Unknown
    }
}

/// The closing lines of a failed run repeat the ones before them.
fn is_summary(complaint: &Complaint) -> bool {
    complaint.object.is_empty()
        && ["Attempt ", "Failed to copy", "Failed to delete", "Failed to cat"]
            .iter()
            .any(|start| complaint.message.starts_with(start))
}

/// Whether a complaint is about one file of a batch, and says nothing about the others.
pub(super) fn is_about_one_file(complaint: &Complaint) -> bool {
    is_summary(complaint) || (!complaint.object.is_empty() && class(&complaint.message) == Class::Unknown)
}

/// Whether a complaint is about one object, and may be that one's own trouble as well as the store's: of an object whose parts
/// are damaged on its disk, `MinIO` says with 503 that it had better be asked less often, or breaks off in the middle of it.
fn is_suspicious(complaint: &Complaint) -> bool {
    !complaint.object.is_empty() && matches!(class(&complaint.message), Class::Network | Class::Unknown)
}

/// Whether a message of an object may be about the store.
pub(super) fn is_of_network(message: &str) -> bool {
    class(message) == Class::Network
}

/// Whether all that a call complained of may be trouble of single objects.
pub(super) fn may_be_of_objects(ended: &Ended) -> bool {
    ended.complaints.iter().any(is_suspicious)
        && ended
            .complaints
            .iter()
            .all(|complaint| is_summary(complaint) || is_suspicious(complaint))
}

/// Whether the call failed only because the folder, or the bucket, is not there.
pub(super) fn is_missing_folder(ended: &Ended) -> bool {
    ended.status.code() == Some(MISSING_FOLDER)
        && ended
            .complaints
            .iter()
            .all(|complaint| class(&complaint.message) == Class::Unknown)
}

/// The error of a call that did not succeed.
pub(super) fn failure(destination: &str, ended: &Ended) -> Error {
    let destination = destination.to_owned();
    // The first complaint of the gravest class: the later ones follow from it.
    let gravest = ended
        .complaints
        .iter()
        .map(|complaint| (class(&complaint.message), complaint))
        .min_by_key(|(class, _)| match class {
            Class::Local => 0,
            Class::Full => 1,
            Class::Misconfigured => 2,
            Class::Refused => 3,
            Class::NoBucket => 4,
            Class::Network => 5,
            Class::Unknown => 6,
        });
    let why = gravest.map_or_else(
        || match (ended.status.code(), ended.status.signal()) {
            (Some(0), _) => "rclone ended in the middle of its answer".to_owned(),
            (Some(code), _) => format!("rclone exited with code {code} and said nothing"),
            (None, signal) => format!("rclone was ended by signal {}", signal.unwrap_or_default()),
        },
        |(_, complaint)| shortened(complaint),
    );
    if let (None, Some(signal), false) = (ended.status.code(), ended.status.signal(), ended.given_up) {
        return Error::Local {
            what: format!("rclone was ended by signal {signal}, as when memory runs out"),
            source: io::Error::other(why),
        };
    }
    match gravest.map_or(Class::Unknown, |(class, _)| class) {
        Class::Refused => Error::Refused { destination, why },
        Class::Full => Error::Full { destination, why },
        Class::NoBucket => Error::NoBucket { destination, why },
        Class::Misconfigured => Error::Misconfigured { destination, why },
        Class::Local => Error::Local {
            what: "there is no space left here".to_owned(),
            source: io::Error::new(io::ErrorKind::StorageFull, why),
        },
        Class::Unknown if ended.status.code() == Some(USAGE) => Error::Misconfigured { destination, why },
        Class::Network | Class::Unknown => Error::Unreachable { destination, why },
    }
}

/// The part of a message that a person needs, on one line, behind the object that it is about.
fn shortened(complaint: &Complaint) -> String {
    let words = words(&complaint.message);
    if complaint.object.is_empty() {
        words
    } else {
        format!("{}: {words}", complaint.object)
    }
}

/// The part of a message that a person needs, on one line.
pub(super) fn words(message: &str) -> String {
    let message = message.replace(['\n', '\r'], " ");
    let message = message
        .rsplit_once("api error ")
        .map_or(message.as_str(), |(_, words)| words);
    let message = message
        .split_once("request send failed, ")
        .map_or(message, |(_, words)| words);
    message.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_decide_what_an_exit_code_does_not() {
        let cases = [
            (
                "operation error S3: ListObjectsV2, https response error StatusCode: 403, RequestID: , HostID: , api error \
                 SignatureDoesNotMatch: The request signature we calculated does not match",
                Class::Refused,
            ),
            ("error listing: there were 1 undecryptable name errors", Class::Refused),
            (
                "operation error S3: PutObject, https response error StatusCode: 507, api error XMinioStorageFull: Storage \
                 backend has reached its minimum free drive threshold",
                Class::Full,
            ),
            (
                "Failed to create file system for \"nope:b\": didn't find section in config file (\"nope\")",
                Class::Misconfigured,
            ),
            ("dial tcp: lookup minio.nowhere.invalid: no such host", Class::Network),
            (
                "https response error StatusCode: 0, Get \"https://127.0.0.1:1\": http: server gave HTTP response to HTTPS client",
                Class::Network,
            ),
            ("https response error StatusCode: 503, SlowDown", Class::Network),
            ("write /config/x: no space left on device", Class::Local),
            (
                "Failed to copy: can't copy - source file is being updated",
                Class::Unknown,
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(class(message), expected, "{message}");
        }
    }

    #[test]
    fn what_names_an_object_may_be_its_own_trouble_unless_it_is_plainly_not() {
        let unreadable = "Failed to open: operation error S3: GetObject, exceeded maximum number of attempts, 1, https response \
                          error StatusCode: 503, api error SlowDownRead: Resource requested is unreadable, please reduce your \
                          request rate";
        let refused = "Failed to open: operation error S3: GetObject, https response error StatusCode: 403, api error AccessDenied";
        let ended = |complaints: &[(&str, &str)]| Ended::with(complaints);
        for (complaints, expected) in [
            (&[("a", unreadable), ("", "Failed to cat: StatusCode: 503")][..], true),
            (
                &[("a", "Failed to copy: unexpected EOF"), ("", "Attempt 1/1 failed")],
                true,
            ),
            (&[("a", "Failed to send to output: read a: input/output error")], true),
            (
                &[
                    ("a", unreadable),
                    ("b", "Failed to copy: can't copy - source file is being updated"),
                ],
                true,
            ),
            (&[("a", unreadable), ("b", refused)], false),
            (
                &[("a", unreadable), ("b", "write /config/x: no space left on device")],
                false,
            ),
            (&[("", "error listing: StatusCode: 503")], false),
            (&[("a", unreadable), ("", "error listing: StatusCode: 503")], false),
            (&[("", "Failed to copy: dial tcp: connection refused")], false),
            (&[], false),
        ] {
            assert_eq!(may_be_of_objects(&ended(complaints)), expected, "{complaints:?}");
        }
    }

    #[test]
    fn what_people_read_is_the_stores_own_words() {
        let complaint = Complaint {
            object: String::new(),
            message:
                "error listing: operation error S3: ListObjectsV2, https response error StatusCode: 403, RequestID: , \
                      HostID: , api error InvalidAccessKeyId: The Access Key Id you provided does not exist"
                    .to_owned(),
        };
        assert_eq!(
            shortened(&complaint),
            "InvalidAccessKeyId: The Access Key Id you provided does not exist"
        );
    }
}
