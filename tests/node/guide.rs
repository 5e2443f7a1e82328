//! The guide's three tests, word for word where they can be: backup; the claim destroyed; the namespace destroyed. For
//! every kind of app.

use crate::app::Kind::{Deployment, StatefulSet};
use crate::app::Tier::{Databases, Files};
use crate::app::User::{Named, Root, Silent};
use crate::app::Volume::{Claim, EmptyDir};
use crate::app::{App, Tier};
use crate::bucket;
use crate::cluster::{eventually, kubectl, try_kubectl};
use crate::space::Space;

macro_rules! apps {
    ($($name:ident: $kind:ident, $volume:ident, $user:ident, $tier:ident;)*) => {
        $(
            #[test]
            fn $name() {
                the_guides_tests(stringify!($name), App { kind: $kind, volume: $volume, user: $user, tier: $tier });
            }
        )*
    };
}

apps! {
    deployment_claim_root_files: Deployment, Claim, Root, Files;
    deployment_claim_named_files: Deployment, Claim, Named, Files;
    deployment_claim_silent_files: Deployment, Claim, Silent, Files;
    deployment_emptydir_root_files: Deployment, EmptyDir, Root, Files;
    deployment_emptydir_named_files: Deployment, EmptyDir, Named, Files;
    deployment_emptydir_silent_files: Deployment, EmptyDir, Silent, Files;
    deployment_claim_root_databases: Deployment, Claim, Root, Databases;
    deployment_claim_named_databases: Deployment, Claim, Named, Databases;
    deployment_claim_silent_databases: Deployment, Claim, Silent, Databases;
    deployment_emptydir_root_databases: Deployment, EmptyDir, Root, Databases;
    deployment_emptydir_named_databases: Deployment, EmptyDir, Named, Databases;
    deployment_emptydir_silent_databases: Deployment, EmptyDir, Silent, Databases;
    statefulset_claim_root_files: StatefulSet, Claim, Root, Files;
    statefulset_claim_named_files: StatefulSet, Claim, Named, Files;
    statefulset_claim_silent_files: StatefulSet, Claim, Silent, Files;
    statefulset_emptydir_root_files: StatefulSet, EmptyDir, Root, Files;
    statefulset_emptydir_named_files: StatefulSet, EmptyDir, Named, Files;
    statefulset_emptydir_silent_files: StatefulSet, EmptyDir, Silent, Files;
    statefulset_claim_root_databases: StatefulSet, Claim, Root, Databases;
    statefulset_claim_named_databases: StatefulSet, Claim, Named, Databases;
    statefulset_claim_silent_databases: StatefulSet, Claim, Silent, Databases;
    statefulset_emptydir_root_databases: StatefulSet, EmptyDir, Root, Databases;
    statefulset_emptydir_named_databases: StatefulSet, EmptyDir, Named, Databases;
    statefulset_emptydir_silent_databases: StatefulSet, EmptyDir, Silent, Databases;
}

fn the_guides_tests(name: &str, app: App) {
    let space = Space::new(name);
    space.apply(&app.manifests());
    let first = space.ready("");
    let mut case = Case {
        place: App::place(space.name()),
        space,
        app,
        pod: first,
    };
    case.backup_functionality();
    case.restore_functionality();
    case.disaster_recovery();
}

struct Case {
    space: Space,
    app: App,
    place: String,
    pod: String,
}

impl Case {
    /// Test 1: a file is written, and a backup made now has it.
    fn backup_functionality(&self) {
        self.exec("echo 'test-backup' > /config/test.txt; mkdir -p /config/.storage; echo hidden >/config/.storage/auth; chmod 640 /config/.storage/auth");
        let log = self.space.backup_job("manual-backup");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.ends_with("-manual"), "the log ends with the snapshot's id: {log}");
        assert_eq!(
            bucket::content(&format!("{}/config/test.txt", self.place)),
            "test-backup\n"
        );
        assert!(bucket::listing(&format!("{}/snapshots", self.place)).contains(&format!("{last}.json")));
        if self.app.tier == Tier::Databases {
            eventually("the database has a replica", || {
                let replica = bucket::listing(&format!("{}/database/config/app.db", self.place));
                if replica.is_empty() {
                    Err("there is none".to_owned())
                } else {
                    Ok(())
                }
            });
        }
    }

    /// Test 2: the volume is destroyed, and the app is back by itself.
    fn restore_functionality(&mut self) {
        let (before, rows) = (self.exec(LISTING), self.rows());
        self.app.destroy_volume(&self.space);
        self.pod = self.space.ready(&self.pod);
        self.everything_is_back(&before, rows);
    }

    /// Test 3: the namespace is destroyed, and everything is back by itself.
    fn disaster_recovery(&mut self) {
        self.space.backup_job("pre-test-backup");
        let (before, rows) = (self.exec(LISTING), self.rows());
        kubectl(&["delete", "namespace", self.space.name()], "");
        self.space.make();
        self.space.apply(&self.app.manifests());
        self.pod = self.space.ready(&self.pod);
        let log = self.space.job("app-restore");
        assert!(
            log.contains("restore point"),
            "it says what a restore would bring: {log}"
        );
        self.everything_is_back(&before, rows);
    }

    fn everything_is_back(&self, before: &str, rows: u64) {
        let log = self.space.logs(&[self.app.workload(), "-c", "init-config"]);
        assert!(log.contains("restored"), "{log}");
        assert_eq!(self.exec("cat /config/test.txt"), "test-backup");
        assert_eq!(self.exec(LISTING), before, "names, modes, owners and times");
        let restored = self.rows();
        assert!(restored >= rows, "rows of the database: {restored}, of {rows}");
        // The app works: it serves what is its own, through its Service.
        let path = format!(
            "/api/v1/namespaces/{}/services/app:8080/proxy/test.txt",
            self.space.name()
        );
        eventually("the app answers", || match try_kubectl(&["get", "--raw", &path], "")? {
            text if text == "test-backup\n" => Ok(()),
            text => Err(text),
        });
    }

    fn exec(&self, script: &str) -> String {
        self.space.exec(self.app.workload(), script)
    }

    /// How far the app's database is.
    fn rows(&self) -> u64 {
        if self.app.tier == Tier::Files {
            0
        } else {
            self.app.rows(&self.space)
        }
    }
}

/// Every name, mode, owner, time and content below `/config`, but for the database, which goes on, and what is ours.
const LISTING: &str = "cd /config && find . -mindepth 1 -path ./.vixens-backup -prune -o -path './.app.db*' -prune -o \
    ! -name 'app.db*' -mindepth 1 -exec stat -c '%A %u:%g %Y %N' {} + | sort -k 4";
