//! Tier 3, the sidecar: which databases Litestream replicates, where they go, and what becomes of the files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use support::S3;
use support::app::{App, create, insert, rows, strays};

#[test]
fn a_database_is_replicated_and_comes_back_whole_when_everything_is_lost() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    support::write(&app.path("settings.yaml"), "a: 1\n");
    app.start();
    insert(&writer, 0, 100);
    app.until_replicated("app.db");
    drop(writer);
    app.kill();
    app.lose_volume();
    let said = app.bed.start().0;
    assert!(said.contains("restored database"), "{said}");
    assert_eq!(rows(&app.path("app.db")), (0..100).collect::<Vec<_>>());
    assert_eq!(std::fs::read_to_string(app.path("settings.yaml")).unwrap(), "a: 1\n");
    assert_eq!(strays(&app.path("app.db")), Vec::<String>::new());
}
