//! Volumes with files that we did not bring: an init container of the owner, or the app without us, wrote first.

use super::*;

#[tokio::test]
async fn a_foreign_volume_that_has_most_of_the_snapshot_wins_and_gets_the_rest_around_it() {
    let bed = backed_up();
    bed.put("volume/a", "mine");
    bed.put("volume/moved/new", "is new");
    bed.put("volume/dir/b", "first b");
    let start = bed.start().await;
    let expected = [("a", "mine"), ("moved/new", "is new"), ("dir/b", "first b")];
    assert_eq!(bed.tree(), tree(&expected), "what was moved is not missing");
    assert_eq!((start.volumes[0].status, aside(&bed)), (Status::Settled, Tree::new()));
    // Killed while files came, the next start knows that too.
    bed.lose_volume();
    bed.put("volume/a", "second a");
    bed.put("volume/moved/new", "is new");
    assert!(bed.start_over(Fault::HalfFiles).await.is_err());
    bed.start().await;
    let expected = [("a", "second a"), ("moved/new", "is new"), ("dir/b", "first b")];
    assert_eq!(bed.tree(), tree(&expected));
}

#[tokio::test]
async fn a_foreign_volume_that_lost_most_of_the_snapshot_gives_way_and_its_files_are_in_history() {
    for flag in ["--restore=if-empty", "--restore=always"] {
        let bed = backed_up().with(flag);
        // A fresh start of the app wrote its defaults before anybody looked.
        bed.put("volume/a", "default");
        bed.put("volume/log", "started");
        let start = bed.start().await;
        assert_eq!(bed.tree(), after());
        assert_eq!(aside(&bed), tree(&[("a", "default"), ("log", "started")]));
        let why = &start.volumes[0].why;
        assert!(why.contains("kept for 30 days, in memory:store/history/"), "{why}");
        if flag.ends_with("if-empty") {
            assert!(why.contains("only 0 of 3 files"), "{why}");
        }
    }
}

#[tokio::test]
async fn a_foreign_volume_may_lack_as_much_as_the_owner_says() {
    let bed = backed_up().with("--max-shrink=100%");
    bed.put("volume/a", "mine");
    bed.start().await;
    let expected = [("a", "mine"), ("new", "is new"), ("dir/b", "first b")];
    assert_eq!(bed.tree(), tree(&expected));
}

#[tokio::test]
async fn a_foreign_volume_that_never_restores_stays_as_it_is() {
    let bed = backed_up().with("--restore=never");
    bed.put("volume/a", "mine");
    let start = bed.start().await;
    assert_eq!(bed.tree(), tree(&[("a", "mine")]));
    assert_eq!(start.volumes[0].status, Status::Settled);
}

#[tokio::test]
async fn a_place_made_by_hand_is_restored_around_the_volume_that_it_was_made_from() {
    let bed = Bed::new();
    for (path, content) in after() {
        bed.memory
            .objects()
            .insert(format!("config/{path}"), content.into_bytes());
    }
    bed.put("volume/a", "second A");
    bed.put("volume/dir/b", "first b");
    bed.start().await;
    assert_eq!(
        bed.tree(),
        tree(&[("a", "second A"), ("dir/b", "first b"), ("new", "is new")])
    );
}

#[tokio::test]
async fn of_a_damaged_newest_snapshot_and_the_one_before_the_one_that_can_be_read_is_compared() {
    let bed = backed_up();
    bed.memory
        .objects()
        .insert(format!("snapshots/{SECOND}.json"), b"{\"version\":1,".to_vec());
    bed.put("volume/a", "default");
    bed.start().await;
    // What only the lost index knew is in the mirror.
    let mut expected = before();
    expected.insert("new".to_owned(), "is new".to_owned());
    assert_eq!(bed.tree(), expected);
    assert_eq!(aside(&bed), tree(&[("a", "default")]));
}

#[tokio::test]
async fn foreign_files_are_kept_and_fenced_while_nobody_knows_the_store() {
    let bed = backed_up();
    bed.put("volume/a", "mine");
    let start = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    assert_eq!(
        (start.volumes[0].status, bed.tree()),
        (Status::Fenced, tree(&[("a", "mine")]))
    );
    assert_eq!(start.destinations[0].writing, Writing::Fenced);
    // The next start looks again, as if it were the first.
    assert_eq!(bed.start().await.volumes[0].status, Status::Settled);
    assert_eq!(bed.tree(), after());
}
