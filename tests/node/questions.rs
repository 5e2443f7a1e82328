//! What only a person decides, on a real node: it is held, told on the workload, and decided by the annotation that the
//! Event names.

use crate::app::{APP, App, Volume};
use crate::bucket::{self, BUCKET, listing, rclone};
use crate::cluster::eventually;
use crate::space::Space;

/// The id of the question that an Event of a reason tells.
fn asked(space: &Space, reason: &str) -> String {
    eventually(&format!("an Event {reason}"), || {
        let events = space.events("app");
        let head = format!("{reason}: ");
        let note = events.iter().find_map(|event| event.strip_prefix(&head));
        let id = note.and_then(|note| note.split_once(": ")).map(|(id, _)| id.to_owned());
        id.ok_or_else(|| events.join("\n"))
    })
}

fn ended(space: &Space, id: &str) {
    eventually("its end is told", || {
        let events = space.events("app");
        let is_end = |event: &String| event.starts_with(&format!("BackupQuestionEnded: {id} "));
        events
            .iter()
            .find(|event| is_end(event))
            .map(|_| ())
            .ok_or_else(|| events.join("\n"))
    });
}

fn recorded(space: &Space) {
    eventually("what the store holds is recorded", || {
        let record = space.get("configmaps/app-backup-record");
        record.map(|_| ()).ok_or_else(|| "there is no record".to_owned())
    });
}

#[test]
fn what_vanishes_is_held_told_and_let_go_by_the_id_that_the_event_names() {
    let space = Space::new("held");
    space.apply(&APP.manifests());
    let pod = space.ready("");
    let place = App::place(space.name());
    space.exec(APP.workload(), "for i in 1 2 3 4 5 6 7 8; do echo $i >/config/$i; done");
    space.backup_job("before");
    space.exec(APP.workload(), "cd /config && rm 1 2 3 4 5 6 7 && echo new >9");
    let id = asked(&space, "BackupHeld");
    assert_eq!(bucket::content(&format!("{place}/config/1")), "1\n", "it is held");
    eventually("what is new is saved", || {
        match bucket::content(&format!("{place}/config/9")) {
            content if content == "new\n" => Ok(()),
            other => Err(other),
        }
    });
    let accept = format!("vixens.io/backup-accept={id}");
    space.kubectl(&["annotate", APP.workload(), &accept], "");
    space.ready(&pod);
    eventually("it goes", || match bucket::content(&format!("{place}/config/1")) {
        content if content.is_empty() => Ok(()),
        other => Err(other),
    });
    ended(&space, &id);
}

#[test]
fn a_pod_without_files_asks_before_it_begins_anew_in_a_store_that_lost_what_was_recorded_of_it() {
    let app = App {
        volume: Volume::EmptyDir,
        ..APP
    };
    let space = Space::new("emptied");
    space.apply(&app.annotated(&[("vixens.io/backup-restore-timeout", "10s")]));
    let pod = space.ready("");
    space.exec(app.workload(), "echo kept >/config/settings.yaml");
    space.backup_job("before");
    recorded(&space);
    // Its pod is gone with its files, and then the bucket is emptied: a sidecar that still ends would write its state
    // into it.
    space.kubectl(&["scale", app.workload(), "--replicas=0"], "");
    space.released(&App::place(space.name()));
    rclone(&["delete", "--rmdirs", &format!("{BUCKET}/{}", space.name())], "");
    space.kubectl(&["scale", app.workload(), "--replicas=1"], "");
    let id = asked(&space, "BackupQuestion");
    assert!(id.starts_with("startnew-"), "{id}");
    assert_eq!(
        listing(space.name()),
        [""; 0],
        "nothing is written before somebody says so"
    );
    let accept = format!("vixens.io/backup-accept={id}");
    space.kubectl(&["annotate", app.workload(), &accept], "");
    space.ready(&pod);
    ended(&space, &id);
}
