//! `inject`, `explain` and `eject` on files, as people run them.

#![expect(clippy::unwrap_used, reason = "a test says what failed by failing")]

use assert_cmd::Command;
use serde_json::Value;
use std::path::PathBuf;

fn shape(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/workloads")
        .join(name)
}

fn vixens_backup(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vixens-backup").unwrap();
    command.args(arguments);
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

fn stderr_of_failure(command: &mut Command, code: i32) -> String {
    let assert = command.assert().code(code);
    assert!(
        assert.get_output().stdout.is_empty(),
        "nothing is written when something is refused"
    );
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

fn value(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn inject_and_eject_are_each_others_reverse() {
    let file = shape("injected/home-assistant.yaml");
    let injected = stdout(&mut vixens_backup(&[
        "inject",
        "-n",
        "media",
        "-f",
        file.to_str().unwrap(),
    ]));
    assert!(injected.contains("name: init-config") && injected.contains("name: backup-sidecar"));
    let again = stdout(vixens_backup(&["inject", "-n", "media"]).write_stdin(injected.clone()));
    assert_eq!(again, injected);
    let ejected = stdout(vixens_backup(&["eject", "-f", "-"]).write_stdin(injected));
    assert_eq!(value(&ejected), value(&std::fs::read_to_string(file).unwrap()));
}

#[test]
fn what_is_not_ours_passes_byte_for_byte_between_workloads() {
    let ours = std::fs::read_to_string(shape("injected/s6-puid.yaml")).unwrap();
    let other = "# kept\napiVersion: v1\nkind: Service\nmetadata: {name: x}   # as it is\n";
    let output = stdout(vixens_backup(&["inject"]).write_stdin(format!("{other}---\n{ours}---\n{other}")));
    assert_eq!(output.matches(other).count(), 2);
    let plain = format!("{other}---\n{other}");
    assert_eq!(stdout(vixens_backup(&["inject"]).write_stdin(plain.clone())), plain);
}

#[test]
fn the_presync_job_follows_its_workload_once_and_goes_with_eject() {
    let app = std::fs::read_to_string(shape("injected/home-assistant.yaml")).unwrap();
    let tier1 = std::fs::read_to_string(shape("injected/tier1.yaml")).unwrap();
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: x}   # as it is\n";
    let input = format!("{app}---\n{other}---\n{tier1}");
    let with_presync = ["inject", "--with-presync", "-n", "media"];
    let injected = stdout(vixens_backup(&with_presync).write_stdin(input.clone()));
    let kinds: Vec<&str> = injected.lines().filter(|line| line.starts_with("kind: ")).collect();
    assert_eq!(
        kinds,
        ["kind: Deployment", "kind: Job", "kind: Service", "kind: Deployment"],
        "tier1 stores nothing"
    );
    assert!(injected.contains("\n  name: home-assistant-presync\n"), "{injected}");
    assert!(injected.contains("argocd.argoproj.io/hook: PreSync"), "{injected}");
    assert!(injected.contains(other), "{injected}");
    let again = stdout(vixens_backup(&with_presync).write_stdin(injected.clone()));
    assert_eq!(again, injected);
    let ejected = stdout(vixens_backup(&["eject"]).write_stdin(injected));
    assert_eq!(ejected.lines().filter(|line| line.starts_with("kind: ")).count(), 3);
    assert!(!ejected.contains("presync"), "{ejected}");

    let list = serde_json::json!({"apiVersion": "v1", "kind": "List",
        "items": [value(&app), {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}]});
    let injected = stdout(vixens_backup(&with_presync).write_stdin(list.to_string()));
    let injected: Value = serde_json::from_str(&injected).unwrap();
    let kinds: Vec<&Value> = injected["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["kind"])
        .collect();
    assert_eq!(kinds, ["Deployment", "Job", "Service"]);
}

/// A hook in a namespace that comes with the sync would stop that sync for ever.
#[test]
fn where_the_namespace_is_among_the_manifests_no_hook_comes_before_it() {
    let app = std::fs::read_to_string(shape("injected/home-assistant.yaml")).unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: media\n";
    let inject = |namespace_of_app: &str| {
        let mut command = vixens_backup(&["inject", "--with-presync", "-n", namespace_of_app]);
        let assert = command.write_stdin(format!("{app}---\n{namespace}")).assert().success();
        let output = assert.get_output();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&output.stdout), text(&output.stderr))
    };
    let (manifests, said) = inject("media");
    assert!(!manifests.contains("kind: Job") && manifests.contains("name: init-config"));
    assert!(
        said.contains("Job/home-assistant-presync: warning: it is left out") && said.contains("CreateNamespace=true"),
        "{said}"
    );
    assert!(inject("games").0.contains("kind: Job"));
}

#[test]
fn the_image_of_the_installation_and_its_excluded_namespaces_count_offline_too() {
    let app = shape("injected/home-assistant.yaml");
    let inject = |more: &[&str]| {
        let mut command = vixens_backup(&[&["inject", "-f", app.to_str().unwrap()], more].concat());
        stdout(command.env("VIXENS_BACKUP_IMAGE", "registry.example/vixens-backup:7"))
    };
    assert!(inject(&[]).contains("image: registry.example/vixens-backup:7"));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "image: named:1\nexcludedNamespaces: [games]\n").unwrap();
    let config = ["--config", config.to_str().unwrap()];
    assert!(inject(&config).contains("image: named:1"));
    let excluded = inject(&[&config[..], &["-n", "games"]].concat());
    assert_eq!(excluded, std::fs::read_to_string(&app).unwrap());
}

#[test]
fn several_files_are_kept_apart() {
    let (first, second) = (shape("injected/s6-puid.yaml"), shape("injected/tier1.yaml"));
    let output = stdout(&mut vixens_backup(&[
        "inject",
        "-f",
        first.to_str().unwrap(),
        "-f",
        second.to_str().unwrap(),
    ]));
    assert_eq!(output.lines().filter(|line| *line == "---").count(), 1);
}

#[test]
fn a_refused_workload_is_named_with_its_file_and_nothing_is_written() {
    let (good, bad) = (shape("injected/s6-puid.yaml"), shape("refused/mistyped.yaml"));
    let said = stderr_of_failure(
        &mut vixens_backup(&["inject", "-f", good.to_str().unwrap(), "-f", bad.to_str().unwrap()]),
        1,
    );
    assert!(
        said.contains("mistyped.yaml: Deployment/app can't be protected"),
        "{said}"
    );
    assert!(said.contains("did you mean \"tier2\"?"), "{said}");
}

#[test]
fn a_missing_file_wrong_usage_and_a_bad_configuration_say_what_to_do() {
    let said = stderr_of_failure(&mut vixens_backup(&["inject", "-f", "no-such-file.yaml"]), 1);
    assert!(said.contains("no-such-file.yaml can't be read"), "{said}");
    stderr_of_failure(&mut vixens_backup(&["inject", "--no-such-flag"]), 2);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "retenton: 7d\n").unwrap();
    let said = stderr_of_failure(
        vixens_backup(&["inject", "--config", config.to_str().unwrap()]).write_stdin(""),
        1,
    );
    assert!(said.contains("did you mean retention?"), "{said}");
}

#[test]
fn explain_is_one_element_for_each_annotated_workload_and_fails_where_one_would_be_refused() {
    let (good, bad) = (
        shape("injected/two-containers.yaml"),
        shape("refused/two-empty-dirs.yaml"),
    );
    let assert = vixens_backup(&[
        "explain",
        "-o",
        "json",
        "-f",
        good.to_str().unwrap(),
        "-f",
        bad.to_str().unwrap(),
    ])
    .assert()
    .code(1);
    let explanations: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(explanations.as_array().unwrap().len(), 2);
    assert_eq!(explanations[0]["volumes"][0]["folder"], "data");
    assert_eq!(explanations[0]["namespace"], "{namespace}");
    assert_eq!(explanations[1]["errors"].as_array().unwrap().len(), 1);
    let text = stdout(&mut vixens_backup(&[
        "explain",
        "-n",
        "media",
        "-f",
        good.to_str().unwrap(),
    ]));
    insta::assert_snapshot!(text);
}

#[test]
fn it_can_be_brought_beside_the_programs_of_another_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    // Twice: a pod's init container may run again.
    for _ in 0..2 {
        vixens_backup(&["install-into", path]).assert().success();
    }
    let mut copy = Command::new(folder.path().join("vixens-backup"));
    assert_eq!(
        stdout(copy.arg("--version")),
        stdout(&mut vixens_backup(&["--version"]))
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let said = stderr_of_failure(&mut vixens_backup(&["install-into", "/no/such/folder"]), 1);
    assert!(
        said.contains("can't be copied to /no/such/folder/vixens-backup"),
        "{said}"
    );
}

#[test]
fn the_help_of_every_command_is_what_the_documentation_shows() {
    for command in ["", "inject", "explain", "eject"] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let text = stdout(vixens_backup(&arguments).env("COLUMNS", "100"));
        insta::assert_snapshot!(format!("help-{command}"), text);
    }
}
