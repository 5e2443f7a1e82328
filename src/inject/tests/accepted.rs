//! An answer to a question: where it goes, and when it brings a new block.

use super::*;

fn answering(mut object: Value, ids: &str) -> Value {
    object["metadata"]["annotations"]["vixens.io/backup-accept"] = json!(ids);
    object
}

/// The flags of an injected container that answer.
fn answers(object: &Value, container: &str) -> Vec<String> {
    let containers = crate::workload::list(object, "/spec/template/spec/initContainers");
    let found = containers.iter().find(|found| found["name"] == container).unwrap();
    answers_of(found)
}

fn answers_of(container: &Value) -> Vec<String> {
    let arguments = container["args"].as_array().unwrap().iter();
    let arguments = arguments.map(|argument| argument.as_str().unwrap());
    let answers = arguments.filter(|argument| argument.starts_with("--accept"));
    answers.map(str::to_owned).collect()
}

#[test]
fn an_answer_reaches_whoever_may_have_asked() {
    let object = answering(app(), "hold-1a2b3c4d, missing-00000000");
    let expected = ["--accept=hold-1a2b3c4d", "--accept=missing-00000000"];
    let (stored, _) = admitted(&object, None, &installation());
    assert_eq!(answers(&stored, "init-config"), expected);
    assert_eq!(answers(&stored, "backup-sidecar"), expected);
    let of_the_cron_job = |object: &Value| {
        let plan = Found::read(object).known().unwrap().plan().unwrap();
        let made = companions(&plan, &Surroundings::read(object, &plan), None);
        let cron_job = made.iter().find(|made| made.name.kind == CompanionKind::CronJob);
        answers_of(&cron_job.unwrap().manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0])
    };
    assert_eq!(of_the_cron_job(&stored), [""; 0], "the sidecar knows it");
    let mut object = object;
    object["metadata"]["annotations"]["vixens.io/backup-mode"] = json!("cronjob");
    let (stored, _) = admitted(&object, None, &installation());
    assert_eq!(answers(&stored, "init-config"), expected);
    assert_eq!(of_the_cron_job(&stored), expected);
}

#[test]
fn an_answer_brings_a_new_block_and_its_repetition_none() {
    let (stored, _) = admitted(&app(), None, &installation());
    let (answered, _) = admitted(
        &answering(stored.clone(), "hold-1a2b3c4d"),
        Some(&stored),
        &installation(),
    );
    assert_ne!(answered["spec"]["template"], stored["spec"]["template"]);
    assert_eq!(answers(&answered, "backup-sidecar"), ["--accept=hold-1a2b3c4d"]);
    let again = answering(answered.clone(), " hold-1a2b3c4d,");
    let (same, _) = admitted(&again, Some(&answered), &installation());
    assert_eq!(same["spec"], answered["spec"]);
    let (other, _) = admitted(
        &answering(answered.clone(), "hold-00000000"),
        Some(&answered),
        &installation(),
    );
    assert_eq!(answers(&other, "init-config"), ["--accept=hold-00000000"]);
}

#[test]
fn explain_shows_what_is_answered() {
    let shown = |object: &Value| explain(object, None, &installation()).unwrap();
    let explained = shown(&answering(app(), "hold-1a2b3c4d"));
    let line = "\n  accepts       hold-1a2b3c4d, once: an answer that was acted upon is not taken again\n";
    assert!(explained.to_string().contains(line), "{explained}");
    assert_eq!(
        serde_json::to_value(&explained).unwrap()["accepted"],
        json!(["hold-1a2b3c4d"])
    );
    assert!(!shown(&app()).to_string().contains("accepts"));
}
