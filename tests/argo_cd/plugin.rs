//! `deploy/argocd/plugin/render` as Argo CD's cmp-server runs it: what it takes for its own, and what it makes of that.

use crate::control_plane::{Said, root};
use crate::tools::Tool;
use std::path::Path;
use std::process::Command;

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  annotations:
    vixens.io/backup: tier2
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: app
        image: app:1
        volumeMounts: [{name: config, mountPath: /config}]
      volumes: [{name: config, persistentVolumeClaim: {claimName: app-config}}]
";
const OTHER: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";

/// Runs it in a folder, in the environment of an Application.
fn render(folder: &Path, what: &str) -> Said {
    let mut folders = vec![
        Path::new(env!("CARGO_BIN_EXE_vixens-backup"))
            .parent()
            .expect("a folder")
            .to_owned(),
    ];
    folders.extend(["kustomize", "helm"].map(|name| Tool::new(name).programs()));
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").expect("a PATH")));
    let output = Command::new("sh")
        .arg(root().join("deploy/argocd/plugin/render"))
        .arg(what)
        .current_dir(folder)
        .env("PATH", std::env::join_paths(folders).expect("a PATH"))
        .env("ARGOCD_APP_NAME", "media-app")
        .env("ARGOCD_APP_NAMESPACE", "media")
        .env("KUBE_VERSION", "1.34.4")
        .env("KUBE_API_VERSIONS", "v1,apps/v1")
        .output()
        .expect("sh");
    Said::from(output)
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, content).expect("a file");
    }
    folder
}

#[track_caller]
fn is_ours(folder: &Path) -> bool {
    !render(folder, "discover").succeeds().is_empty()
}

#[track_caller]
fn is_rendered(folder: &Path, name: &str) {
    assert!(is_ours(folder), "it is not discovered");
    let manifests = render(folder, "generate").succeeds();
    assert!(manifests.contains("name: init-config"), "{manifests}");
    assert!(manifests.contains(&format!("name: {name}-presync")), "{manifests}");
    assert!(manifests.contains("name: other"), "{manifests}");
}

#[test]
fn plain_files_are_the_plugins_when_one_is_annotated() {
    let annotated = folder(&[
        ("app.yaml", APP),
        (
            "other.json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#,
        ),
    ]);
    assert!(is_ours(annotated.path()));
    let annotated = folder(&[("app.yaml", APP), ("other.yml", OTHER), ("notes.txt", "not: [yaml")]);
    is_rendered(annotated.path(), "app");
    assert!(!is_ours(folder(&[("other.yaml", OTHER)]).path()));
    // Told of, but not by an annotation.
    let comment = format!("# see vixens.io/backup\n{OTHER}");
    assert!(!is_ours(folder(&[("other.yaml", &comment)]).path()));
    let skipped = format!("# +argocd:skip-file-rendering\n{APP}");
    assert!(!is_ours(
        folder(&[("app.yaml", &skipped), ("other.yaml", OTHER)]).path()
    ));
    assert!(!is_ours(folder(&[("app.yaml", APP), ("more.jsonnet", "{}")]).path()));
}

#[test]
fn an_annotation_in_a_base_outside_the_applications_path_is_found() {
    let repository = folder(&[
        ("base/kustomization.yaml", "resources: [app.yaml, other.yaml]\n"),
        ("base/app.yaml", APP),
        ("base/other.yaml", OTHER),
        (
            "clusters/home/kustomization.yaml",
            "resources: [../../base]\nnameSuffix: -home\n",
        ),
    ]);
    let manifests = render(&repository.path().join("clusters/home"), "generate").succeeds();
    assert!(manifests.contains("name: app-home-presync"), "{manifests}");
    assert!(is_ours(&repository.path().join("clusters/home")));
}

#[test]
fn a_chart_is_rendered_as_argo_cd_does() {
    let template = APP.replace("name: app\n  annotations", "name: {{ .Release.Name }}\n  annotations");
    let chart = folder(&[
        ("Chart.yaml", "apiVersion: v2\nname: app\nversion: 0.1.0\n"),
        ("values.yaml", ""),
        ("templates/app.yaml", &template),
        ("templates/other.yaml", OTHER),
    ]);
    is_rendered(chart.path(), "media-app");
}

#[test]
fn what_does_not_render_is_left_to_argo_cd_and_what_is_refused_says_why() {
    let broken = folder(&[("kustomization.yaml", "resources: [missing.yaml]\n"), ("app.yaml", APP)]);
    assert!(!is_ours(broken.path()));
    let mistyped = APP.replace("vixens.io/backup: tier2", "vixens.io/backup: teir2");
    let refused = folder(&[("app.yaml", &mistyped)]);
    assert!(is_ours(refused.path()));
    let said = render(refused.path(), "generate").fails();
    assert!(said.contains(r#"did you mean "tier2"?"#), "{said}");
}

/// What it adds to your Argo CD: by kustomize, as its own manifests are written.
#[test]
fn the_component_adds_the_plugin_to_argo_cds_repo_server() {
    let repo_server = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: argocd-repo-server}\nspec:\n  template:\n    spec:\n      \
        containers: [{name: argocd-repo-server, image: argocd:1}]\n      initContainers: [{name: copyutil, image: argocd:1}]\n      \
        volumes: [{name: var-files, emptyDir: {}}, {name: plugins, emptyDir: {}}]\n";
    let argo_cd = folder(&[
        ("repo-server.yaml", repo_server),
        (
            "kustomization.yaml",
            "namespace: argocd\nresources: [repo-server.yaml]\ncomponents: [plugin]\nimages: [{name: vixens-backup, newName: \
             registry.example/vixens-backup, newTag: '7'}]\n",
        ),
    ]);
    let copied = Command::new("cp")
        .arg("-r")
        .arg(root().join("deploy/argocd/plugin"))
        .arg(argo_cd.path())
        .output();
    Said::from(copied.expect("cp")).succeeds();
    let built = Command::new(Tool::new("kustomize").programs().join("kustomize"))
        .args(["build", "."])
        .current_dir(argo_cd.path())
        .output();
    let built = Said::from(built.expect("kustomize")).succeeds();
    let deployment = built
        .split("\n---\n")
        .find(|document| document.contains("kind: Deployment"))
        .expect("the repo-server");
    let deployment: serde_json::Value = serde_saphyr::from_str(deployment).expect("YAML");
    let pod = &deployment["spec"]["template"]["spec"];
    let names = |list: &str| -> Vec<String> {
        let items = pod[list].as_array().expect("a list").iter();
        items
            .map(|item| item["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names("containers").len(), 2);
    assert_eq!(names("initContainers").len(), 2);
    assert_eq!(names("volumes").len(), 5);
    // One image: that of the program, and that of the injected containers.
    assert_eq!(built.matches("registry.example/vixens-backup:7").count(), 2, "{built}");
    assert!(!built.contains("vixens-backup:0.1.0"), "{built}");
    let volumes = pod["volumes"].to_string();
    assert!(
        volumes.contains("vixens-backup-plugin-"),
        "a change of the plugin is a rollout: {volumes}"
    );
}

/// The two write over each other's work where their defaults differ.
#[test]
fn the_plugin_has_the_defaults_of_the_webhook() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("a file");
    assert_eq!(
        read("deploy/argocd/plugin/installation.yaml"),
        read("deploy/base/installation.yaml")
    );
}
