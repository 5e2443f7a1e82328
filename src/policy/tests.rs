//! Tables of annotations: one file a rule under `tests/data/annotations`, valid ones and invalid ones, and what is
//! said of the invalid ones.

use super::*;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::PathBuf;

fn folder(name: &str) -> Vec<(String, Map<String, Value>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/annotations")
        .join(name);
    let mut cases: Vec<(String, Map<String, Value>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_saphyr::from_str(&text).unwrap())
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

fn read(annotations: &Map<String, Value>, stateful: bool) -> Result<(Intent, Vec<String>), Vec<Problem>> {
    let subject = Subject {
        name: "app",
        namespace: "media",
        stateful,
    };
    Intent::read(annotations, None, subject, &Installation::default())
}

#[test]
fn every_valid_file_is_taken() {
    let cases = folder("valid");
    assert!(cases.len() >= 10);
    for (name, annotations) in cases {
        let (intent, _) = read(&annotations, name.starts_with("statefulset")).unwrap_or_else(|problems| {
            panic!("{name}: {problems:?}");
        });
        insta::assert_debug_snapshot!(format!("valid-{name}"), intent);
    }
}

#[test]
fn every_invalid_file_is_refused_by_name_and_with_the_way_out() {
    let cases = folder("invalid");
    assert!(cases.len() >= 10);
    let mut said = String::new();
    for (name, annotations) in cases {
        let problems = read(&annotations, false).expect_err(&name);
        writeln!(said, "{name}").unwrap();
        for problem in &problems {
            let (subject, _) = problem.subject();
            assert!(
                annotations.contains_key(subject),
                "{name}: {subject} is not what was written"
            );
            writeln!(said, "  {problem}").unwrap();
        }
    }
    insta::assert_snapshot!("invalid", said);
}

#[test]
fn an_unknown_key_is_denied_with_a_suggestion_or_warned_about_where_the_installation_says_so() {
    let annotations: Map<String, Value> =
        serde_json::from_str(r#"{"vixens.io/backup":"tier2","vixens.io/backup-retenton":"7d"}"#).unwrap();
    let problems = read(&annotations, false).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "vixens.io/backup-retenton: no such annotation; did you mean vixens.io/backup-retention?"
    );
    let installation = Installation {
        unknown_annotations: UnknownAnnotations::Warn,
        ..Installation::default()
    };
    let subject = Subject {
        name: "app",
        namespace: "media",
        stateful: false,
    };
    let (intent, warnings) = Intent::read(&annotations, None, subject, &installation).unwrap();
    assert!(matches!(intent, Intent::Protect(_)));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn the_profile_is_read_from_the_pod_template_too() {
    let annotations: Map<String, Value> = serde_json::from_str(r#"{"vixens.io/backup":"tier3"}"#).unwrap();
    let subject = Subject {
        name: "app",
        namespace: "media",
        stateful: false,
    };
    let (intent, _) = Intent::read(&annotations, Some("critical"), subject, &Installation::default()).unwrap();
    let Intent::Protect(policy) = intent else {
        panic!("{intent:?}")
    };
    assert_eq!(policy.profile, Profile::Critical);
    assert!(Intent::read(&annotations, Some("urgent"), subject, &Installation::default()).is_err());
}

#[test]
fn every_word_survives_being_written_and_parsed_again() {
    for (word, mode) in MODES {
        assert_eq!(mode.to_string(), word);
        assert_eq!(word.parse::<Mode>().unwrap(), mode);
    }
    for text in ["first", "last", "after=vpn"] {
        assert_eq!(text.parse::<InitPosition>().unwrap().to_string(), text);
    }
    for text in ["1000", "1000:100"] {
        assert_eq!(text.parse::<RunAs>().unwrap().to_string(), text);
    }
}
