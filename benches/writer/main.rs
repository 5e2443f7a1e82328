//! An app that writes to SQLite, for `benches/databases`: `fill PATH MB`, or `run PATH SECONDS`, which prints how many
//! transactions it committed in a second.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool of the benchmarks: it prints its result and fails by failing"
)]

use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, path, amount] = arguments.as_slice() else {
        println!("usage: writer fill PATH MB | writer run PATH SECONDS");
        std::process::exit(2);
    };
    let amount: u64 = amount.parse().unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode=wal; PRAGMA synchronous=NORMAL; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x BLOB);",
        )
        .unwrap();
    if what == "fill" {
        for _ in 0..amount {
            connection
                .execute("INSERT INTO t (x) VALUES (randomblob(1000000))", [])
                .unwrap();
        }
        return;
    }
    let (begun, mut committed) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(amount) {
        connection
            .execute("INSERT INTO t (x) VALUES (randomblob(200))", [])
            .unwrap();
        committed += 1;
    }
    println!("{}", committed / amount.max(1));
}
