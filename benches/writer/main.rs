//! An app that writes to SQLite. For `benches/databases`: `fill PATH MB`, or `run PATH SECONDS`, which prints how many
//! transactions it committed in a second. As the example app of the tests on a node: `tick PATH`, which commits a number
//! ten times a second and then prints it, and `last PATH`, which prints whether the database is sound, and the last number.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool of the benchmarks: it prints its result and fails by failing"
)]

use rusqlite::Connection;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match arguments.as_slice() {
        ["fill", path, megabytes] => fill(&open(path), megabytes.parse().unwrap()),
        ["run", path, seconds] => run(&open(path), seconds.parse().unwrap()),
        ["tick", path] => tick(&open(path)),
        ["last", path] => last(&open(path)),
        _ => {
            println!("usage: writer fill PATH MB | run PATH SECONDS | tick PATH | last PATH");
            std::process::exit(2);
        }
    }
}

fn open(path: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode=wal; PRAGMA synchronous=NORMAL; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x BLOB);",
        )
        .unwrap();
    connection
}

fn fill(connection: &Connection, megabytes: u64) {
    for _ in 0..megabytes {
        connection
            .execute("INSERT INTO t (x) VALUES (randomblob(1000000))", [])
            .unwrap();
    }
}

fn run(connection: &Connection, seconds: u64) {
    let (begun, mut committed) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        connection
            .execute("INSERT INTO t (x) VALUES (randomblob(200))", [])
            .unwrap();
        committed += 1;
    }
    println!("{}", committed / seconds.max(1));
}

fn tick(connection: &Connection) {
    loop {
        connection
            .execute("INSERT INTO t (x) VALUES (randomblob(200))", [])
            .unwrap();
        println!("{}", connection.last_insert_rowid());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn last(connection: &Connection) {
    let sound: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let number: i64 = connection
        .query_row("SELECT coalesce(max(n), 0) FROM t", [], |row| row.get(0))
        .unwrap();
    println!("{sound} {number}");
}
