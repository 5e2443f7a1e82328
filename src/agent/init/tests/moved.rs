//! Workloads and volumes that are not called what they were: nothing starts empty beside its own backup in silence.

use super::*;
use crate::agent::lease::acquire::{Claimed, claim};
use crate::agent::lease::beat::Observation;
use crate::agent::lease::known::KnownStore;
use crate::agent::volume::own::OwnFolder;
use crate::contract::question::Question;
use crate::store::claims::Owner;
use crate::store::decisions::is_decided;

/// The workload as it was called before.
fn earlier() -> Owner {
    Owner {
        cluster: "c1".to_owned(),
        namespace: "elsewhere".to_owned(),
        kind: "Deployment".to_owned(),
        name: "old-app".to_owned(),
        pod: String::new(),
    }
}

impl Bed {
    /// A place of the workload as it was called before.
    fn claimed_earlier(&self) {
        self.claim(3, "theirs", "app-0");
        let key = keys::claim(3, "theirs");
        let mut objects = self.memory.objects();
        let mut claim: Claim = crate::store::records::decode(&objects[&key]).unwrap();
        claim.owner = earlier();
        objects.insert(key, encode(&claim));
    }

    async fn asked(&self, arguments: &InitArguments) -> Question {
        let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&self.memory, Fault::None))];
        match start(arguments, &stores).await {
            Err(Error::Asks(question)) => question,
            Err(error) => panic!("{error}"),
            Ok(()) => panic!("it did not ask"),
        }
    }

    async fn started(&self, arguments: &InitArguments) -> Start {
        let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&self.memory, Fault::None))];
        start(arguments, &stores).await.unwrap();
        Start::read(&self.folder.path().join("restore")).unwrap().unwrap()
    }

    fn accepting(&self, id: &str) -> InitArguments {
        let mut arguments = self.arguments();
        arguments.accepted.push(id.parse().unwrap());
        arguments
    }
}

/// The id in the text that answers otherwise.
fn other_id(question: &Question) -> String {
    let (_, id) = question.text.rsplit_once("accept ").unwrap();
    id.to_owned()
}

#[tokio::test]
async fn a_place_of_the_workload_as_it_was_called_before_is_taken_over_once_that_is_accepted() {
    let bed = Bed::new();
    bed.claimed_earlier();
    bed.heartbeat(3, "theirs", true, false);
    bed.backup(FIRST, &Tree::new(), &before());
    let question = bed.asked(&bed.arguments()).await;
    assert!(question.id.as_str().starts_with("takeover-"), "{question}");
    for hidden in ["elsewhere", "old-app"] {
        assert!(!question.to_string().contains(hidden), "{question}");
    }
    assert_eq!(bed.asked(&bed.arguments()).await, question, "the same each time");
    assert_eq!(bed.tree(), Tree::new());
    let accepting = bed.accepting(question.id.as_str());
    let start = bed.started(&accepting).await;
    assert_eq!(bed.tree(), before());
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
    assert!(is_decided(bed.memory.as_ref(), &question.id).await.unwrap());
    // It is ours now, and nobody is asked again.
    bed.lose_volume();
    bed.start().await;
    assert_eq!(bed.tree(), before());
}

#[tokio::test]
async fn a_place_is_not_taken_over_while_its_holder_has_not_let_go() {
    let bed = Bed::new();
    bed.claimed_earlier();
    bed.heartbeat(3, "theirs", false, false);
    bed.backup(FIRST, &Tree::new(), &before());
    let question = bed.asked(&bed.arguments()).await;
    let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::None))];
    let error = start(&bed.accepting(question.id.as_str()), &stores).await.unwrap_err();
    assert!(matches!(error, Error::PlaceInUse { .. }), "{error}");
    assert!(!error.to_string().contains("elsewhere"), "{error}");
    assert_eq!(bed.tree(), Tree::new());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_shows_no_sign_for_three_minutes_is_gone() {
    let bed = Bed::new().with("--restore-timeout=10m");
    bed.claimed_earlier();
    bed.heartbeat(3, "theirs", false, false);
    bed.backup(FIRST, &Tree::new(), &before());
    let question = bed.asked(&bed.arguments()).await;
    bed.started(&bed.accepting(question.id.as_str())).await;
    assert_eq!(bed.tree(), before());
}

/// A volume in use, whose marker and place name the workload as it was called before.
async fn renamed() -> Bed {
    let bed = Bed::new();
    bed.start().await;
    for (path, content) in after() {
        bed.put(&format!("volume/{path}"), &content);
    }
    let own = OwnFolder::on(&bed.volume());
    let marker: Marker = own.read(MARKER).unwrap().unwrap();
    let owner = earlier();
    own.write(MARKER, &Marker { owner, ..marker }).unwrap();
    bed
}

#[tokio::test]
async fn a_volume_that_was_kept_when_its_workload_was_renamed_is_taken_over_with_its_files() {
    let bed = renamed().await;
    bed.memory.objects().clear();
    let question = bed.asked(&bed.arguments()).await;
    assert!(question.id.as_str().starts_with("takeover-"), "{question}");
    for hidden in ["elsewhere", "old-app"] {
        assert!(!question.to_string().contains(hidden), "{question}");
    }
    let start = bed.started(&bed.accepting(question.id.as_str())).await;
    assert_eq!((bed.tree(), start.volumes[0].status), (after(), Status::Settled));
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
    assert_eq!(bed.start().await.volumes[0].id, start.volumes[0].id, "it is ours now");
}

#[tokio::test]
async fn a_volume_of_another_workload_has_its_files_compared_with_our_backup() {
    let bed = renamed().await;
    bed.memory.objects().clear();
    bed.claim(3, "theirs", "app-0");
    bed.backup(
        FIRST,
        &Tree::new(),
        &tree(&[("a", "ours"), ("b", "ours too"), ("c", "and this")]),
    );
    let question = bed.asked(&bed.arguments()).await;
    bed.started(&bed.accepting(question.id.as_str())).await;
    assert_eq!(bed.tree(), tree(&[("a", "ours"), ("b", "ours too"), ("c", "and this")]));
    assert_eq!(aside(&bed).len(), 3, "what was on it is in history");
}

#[tokio::test]
async fn one_answer_is_enough_for_a_volume_and_the_place_that_its_backups_are_at() {
    let bed = renamed().await;
    {
        let mut objects = bed.memory.objects();
        let key = objects.keys().find(|key| key.starts_with("claims/")).unwrap().clone();
        let mut claim: Claim = crate::store::records::decode(&objects[&key]).unwrap();
        claim.owner = earlier();
        objects.insert(key, encode(&claim));
        let (epoch, id) = (claim.epoch, claim.volumes[0].id.clone());
        drop(objects);
        bed.heartbeat(epoch, &id, true, false);
    }
    bed.backup("20261122T130500Z-1.1-auto", &Tree::new(), &before());
    let question = bed.asked(&bed.arguments()).await;
    let start = bed.started(&bed.accepting(question.id.as_str())).await;
    assert_eq!(
        bed.tree(),
        after(),
        "the place was written from this very volume: what is on it is newer"
    );
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
    bed.start().await;
}

/// The volume has another name and mount path, and is a new one.
fn under_another_name(bed: &Bed) -> InitArguments {
    let mut arguments = bed.arguments();
    let volume = &mut arguments.protection.volumes[0];
    (volume.name, volume.folder) = ("library".to_owned(), "books".to_owned());
    arguments
}

#[tokio::test]
async fn a_volume_with_another_name_and_path_is_asked_about_beside_a_folder_that_nobody_uses() {
    let bed = backed_up();
    let arguments = under_another_name(&bed);
    let question = bed.asked(&arguments).await;
    assert!(question.id.as_str().starts_with("folder-"), "{question}");
    assert!(
        question.text.contains("config/ (3 files)") && question.text.contains("library"),
        "{question}"
    );
    assert!(other_id(&question).starts_with("startnew-"), "{question}");
    assert_eq!(bed.tree(), Tree::new());
    let mut accepting = arguments.clone();
    accepting.accepted.push(question.id.clone());
    let start = bed.started(&accepting).await;
    assert_eq!((bed.tree(), start.volumes[0].folder.as_str()), (after(), "config"));
    assert!(is_decided(bed.memory.as_ref(), &question.id).await.unwrap());
    // From now on the claim knows, and so does the marker.
    bed.started(&arguments).await;
    bed.lose_volume();
    assert_eq!(bed.started(&arguments).await.volumes[0].folder, "config");
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_volume_that_is_new_on_purpose_starts_so_and_nobody_is_asked_again() {
    let bed = backed_up();
    let arguments = under_another_name(&bed);
    let question = bed.asked(&arguments).await;
    let mut accepting = arguments.clone();
    accepting.accepted.push(other_id(&question).parse().unwrap());
    let start = bed.started(&accepting).await;
    assert_eq!((bed.tree(), start.volumes[0].folder.as_str()), (Tree::new(), "books"));
    bed.started(&arguments).await;
    bed.lose_volume();
    bed.started(&arguments).await;
    assert_eq!(bed.tree(), Tree::new());
}

#[tokio::test]
async fn a_start_that_is_killed_while_it_restores_the_folder_that_was_accepted_goes_on_with_it() {
    let bed = backed_up();
    let arguments = under_another_name(&bed);
    let question = bed.asked(&arguments).await;
    let mut accepting = arguments.clone();
    accepting.accepted.push(question.id.clone());
    let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::HalfFiles))];
    start(&accepting, &stores).await.unwrap_err();
    let start = bed.started(&accepting).await;
    assert_eq!((bed.tree(), start.volumes[0].folder.as_str()), (after(), "config"));
}

#[tokio::test]
async fn an_app_that_wrote_its_defaults_first_is_asked_too() {
    let bed = backed_up();
    bed.put("volume/a", "default");
    let arguments = under_another_name(&bed);
    let question = bed.asked(&arguments).await;
    let mut accepting = arguments.clone();
    accepting.accepted.push(question.id.clone());
    bed.started(&accepting).await;
    assert_eq!(bed.tree(), after());
    assert_eq!(aside(&bed), tree(&[("a", "default")]));
}

#[tokio::test]
async fn a_volume_that_never_restores_is_not_asked_about() {
    let bed = backed_up().with("--restore=never");
    let start = bed.started(&under_another_name(&bed)).await;
    assert_eq!((bed.tree(), start.volumes[0].folder.as_str()), (Tree::new(), "books"));
}

#[tokio::test]
async fn a_new_volume_at_the_path_of_an_old_one_gets_a_folder_of_its_own_and_a_copy_is_refused() {
    let bed = backed_up();
    bed.start().await;
    let (old, new) = (bed.volume(), bed.folder.path().join("new"));
    fs::create_dir(&new).unwrap();
    let mut arguments = bed.arguments();
    arguments.protection.volumes = [("data", "old", &old), ("new", "config", &new)]
        .map(|(name, folder, path)| format!("{name}:{folder}:{}", path.display()).parse().unwrap())
        .to_vec();
    let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::None))];
    start(&arguments, &stores).await.unwrap();
    assert_eq!(bed.tree(), after());
    assert_eq!(fs::read_dir(&new).unwrap().count(), 1, "nothing of the other one");
    let started = Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
    let folders: Vec<&str> = started.volumes.iter().map(|volume| volume.folder.as_str()).collect();
    assert_eq!(folders, ["config", "new"]);
    // Somebody copies the old one with all that is on it.
    let marker = |volume: &std::path::Path| volume.join(keys::OWN_FOLDER).join("volume.json");
    fs::copy(marker(&old), marker(&new)).unwrap();
    let error = start(&arguments, &stores).await.unwrap_err();
    assert!(error.to_string().contains("are both in config/"), "{error}");
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_place_whose_takeover_was_accepted_and_that_could_not_be_claimed_yet_is_claimed_by_the_sidecar() {
    let bed = Bed::new();
    bed.claimed_earlier();
    bed.heartbeat(3, "theirs", true, false);
    bed.backup(FIRST, &Tree::new(), &before());
    let question = bed.asked(&bed.arguments()).await;
    let accepting = bed.accepting(question.id.as_str());
    // The claim is what fails of it: whichever call that is.
    let mut unclaimed = None;
    for call in 0..40 {
        bed.lose_volume();
        let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::FailsAt(call)))];
        let objects = bed.memory.objects().clone();
        let is_started = start(&accepting, &stores).await.is_ok();
        let started = Start::read(&bed.folder.path().join("restore")).unwrap();
        if let Some(started) = started.filter(|started| is_started && started.destinations[0].takes_over.is_some()) {
            unclaimed = Some(started);
            break;
        }
        *bed.memory.objects() = objects;
    }
    let started = unclaimed.expect("a start without a claim");
    assert_eq!(bed.tree(), before());
    let claimed = claim(
        bed.memory.as_ref(),
        &started,
        &started.destinations[0].writing,
        &KnownStore::default(),
        &[],
        &mut Observation::default(),
    )
    .await;
    assert!(matches!(claimed.unwrap(), Claimed::Held(_)));
    assert!(is_decided(bed.memory.as_ref(), &question.id).await.unwrap());
}
