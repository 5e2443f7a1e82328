//! Starts over a place that somebody else goes on writing to meanwhile, as the runs of another cluster do.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Each is saved once what it follows was looked at: first the place, then history, as often as that is listed.
fn states() -> Vec<(&'static str, Tree)> {
    let with = |changes: &[(&str, &str)]| -> Tree { after().into_iter().chain(tree(changes)).collect() };
    vec![
        (SECOND, after()),
        ("20261122T150500Z-3.3-auto", with(&[("a", "third a")])),
        (
            "20261122T160500Z-3.4-auto",
            with(&[("a", "third a"), ("dir/b", "fourth b")]),
        ),
        (
            "20261122T170500Z-3.5-auto",
            with(&[("a", "third a"), ("dir/b", "fourth b"), ("new", "fifth new")]),
        ),
    ]
}

/// A store where the next state is saved after the first listing of the snapshots, and after each of history; `thins`: what was
/// the newest goes then, with all that it had alone.
fn meddled_with(bed: &Bed, thins: bool) -> Faulty {
    let done = AtomicUsize::new(0);
    Faulty::new(&bed.memory, Fault::None).meddled_with(move |memory, listed| {
        let number = done.load(Ordering::Relaxed);
        let is_next = matches!((listed, number), ("snapshots", 0) | ("history", 1..));
        let states = states();
        if let (true, Some((id, next))) = (is_next, states.get(number + 1)) {
            done.store(number + 1, Ordering::Relaxed);
            let (former, last) = &states[number];
            back_up(memory, id, last, next);
            if thins {
                let mut objects = memory.objects();
                objects.remove(&keys::snapshot(&former.parse().unwrap()));
                objects.retain(|key, _| !key.starts_with(&format!("history/{id}/")));
            }
        }
    })
}

#[tokio::test]
async fn nothing_is_missing_before_the_listing_was_looked_at_again() {
    for thins in [false, true] {
        let bed = backed_up();
        let stores: [Box<dyn Store>; 1] = [Box::new(meddled_with(&bed, thins))];
        start(&bed.arguments(), &stores).await.unwrap();
        let start = Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
        let restored = start.volumes[0].restored.unwrap().to_string();
        let (_, expected) = states().into_iter().find(|(id, _)| *id == restored).unwrap();
        assert_eq!(bed.tree(), expected, "{restored}, {thins}");
    }
}

/// A disk that is not mounted for a moment takes the newest index away, or the word that a value was served: neither an older
/// state nor the value again is what the start goes by.
#[tokio::test]
async fn what_is_not_there_for_a_moment_is_not_gone() {
    for number in 0..25 {
        let bed = backed_up();
        let store = |fault| -> [Box<dyn Store>; 1] { [Box::new(Faulty::new(&bed.memory, fault))] };
        if start(&bed.arguments(), &store(Fault::UnmountedAt(number)))
            .await
            .is_ok()
        {
            assert_eq!(bed.tree(), after(), "call {number}");
        }
        start(&bed.arguments(), &store(Fault::None)).await.unwrap();
        assert_eq!(bed.tree(), after(), "after call {number}");
    }
}
