//! The cluster as Argo CD makes it of `deploy/argocd/application.yaml`, and the webhook as it is deployed so, with
//! certificates that are renewed all the time.

use crate::applications::await_synced;
use crate::argo_cd::{ArgoCd, Tracking};
use crate::connection::Service;
use crate::control_plane::{Said, control_plane, control_plane_with, root};
use crate::repository::Repository;
use crate::webhook::{Process, await_called};
use crate::{deployed, egress};
use serde_json::{Value, json};
use std::process::Command;

/// The Application's name.
pub(crate) const NAME: &str = "vixens-backup";

/// A certificate for a minute, an authority for two: each is renewed when a third of that is left.
const LIFETIMES: [&str; 2] = ["--certificate-lifetime=60s", "--authority-lifetime=120s"];

/// What is installed.
pub(crate) struct Installation {
    repository: Repository,
    service: Service,
    process: Option<Process>,
    _argo_cd: ArgoCd,
}

impl Installation {
    /// Has Argo CD install it.
    pub(crate) fn new() -> Self {
        let service = Service::new();
        control_plane_with(|folder| egress::egress(&service, folder));
        let argo_cd = ArgoCd::start();

        // The checkout as it lies here, under the tag that the Application names.
        let text = std::fs::read_to_string(root().join("deploy/argocd/application.yaml")).expect("the Application");
        let mut manifest: Value = serde_saphyr::from_str(&text).expect("YAML");
        let repository = Repository::new(NAME);
        let copied = Command::new("cp")
            .args(["-r", "deploy"])
            .arg(repository.folder())
            .current_dir(root())
            .output()
            .expect("cp");
        Said::from(copied).succeeds();
        let revision = repository.commit();
        let source = &mut manifest["spec"]["source"];
        repository.git(&["tag", source["targetRevision"].as_str().expect("a tag")]);
        source["repoURL"] = json!(repository.url());
        control_plane().apply(&manifest);
        await_synced(&revision, |name| name == NAME);

        let mut installation = Self {
            repository,
            service,
            process: None,
            _argo_cd: argo_cd,
        };
        installation.roll();
        await_called(NAME);
        installation
    }

    /// Has Argo CD install another release, and rolls the Deployment as Kubernetes would.
    pub(crate) fn upgrade(&mut self) {
        let file = self.repository.folder().join("deploy/base/deployment.yaml");
        let text = std::fs::read_to_string(&file).expect("the Deployment");
        std::fs::write(file, text.replace("vixens-backup:0.1.0", "vixens-backup:0.2.0")).expect("the Deployment");
        let revision = self.repository.commit();
        self.repository.git(&["tag", "v0.2.0"]);
        let patch = json!({"spec": {"source": {"targetRevision": "v0.2.0"}}}).to_string();
        let namespace = Tracking::Annotation.namespace();
        let arguments = [
            "--namespace",
            namespace,
            "patch",
            "applications.argoproj.io",
            NAME,
            "--type=merge",
            "-p",
            &patch,
        ];
        control_plane().kubectl(&arguments).succeeds();
        await_synced(&revision, |name| name == NAME);
        self.roll();
    }

    /// A process of what the Deployment says now, in the place of the one before.
    fn roll(&mut self) {
        let process = deployed::serve_with(&[], &LIFETIMES);
        let port = process.port();
        self.service.add(port);
        if let Some(before) = self.process.replace(process) {
            self.service.remove(before.port());
            assert!(before.end(), "it does not end well");
        }
    }
}

/// Whom the API server trusts.
pub(crate) fn ca_bundle() -> Value {
    let configuration = control_plane().get(&["mutatingwebhookconfiguration/vixens-backup"]);
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
    assert!(bundle.is_string(), "caBundle is gone");
    bundle
}
