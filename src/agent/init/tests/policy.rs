//! Restores that the owner always wants, or never.

use super::*;

#[tokio::test]
async fn always_restores_when_the_backup_is_newer_and_only_then() {
    let bed = backed_up().with("--restore=always");
    bed.start().await;
    bed.put("volume/a", "changed since");
    bed.start().await;
    assert_eq!(bed.tree()["a"], "changed since", "the backup is older than the volume");
    bed.claim(9, "elsewhere", "app-9");
    bed.backup("20261122T180500Z-9.1-auto", &after(), &before());
    bed.start().await;
    assert_eq!(bed.tree(), before());
}

#[tokio::test]
async fn always_waits_for_the_last_backup_of_the_pod_before() {
    let bed = backed_up().with("--restore=always").with("--restore-timeout=30s");
    bed.start().await;
    // Another volume's pod took over, and is being stopped before it has saved anything.
    bed.claim(9, "elsewhere", "app-9");
    bed.heartbeat(9, "elsewhere", false, true);
    let last = tree(&[("a", "the last word"), ("dir/b", "first b"), ("new", "is new")]);
    let ending = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        bed.backup("20261122T180500Z-9.1-final", &after(), &last);
        bed.heartbeat(9, "elsewhere", true, false);
    };
    tokio::join!(bed.start(), ending);
    assert_eq!(bed.tree(), last);
}

#[tokio::test]
async fn never_leaves_the_store_alone_and_the_volume_empty() {
    let bed = backed_up().with("--restore=never");
    bed.put("defaults/a", "vanilla");
    let start = bed.start().await;
    assert_eq!(bed.tree(), tree(&[("a", "vanilla")]));
    assert!(start.volumes[0].adopted, "what the store holds goes to history");
}
