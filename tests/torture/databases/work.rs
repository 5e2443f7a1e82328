//! What the app does to its databases. Part of [`Databases`].

use super::{Databases, NAMES, Progress};
use rusqlite::Connection;
use std::fs;
use std::time::Duration;

impl Databases {
    pub(super) fn close(&mut self) {
        for database in self.all.values_mut() {
            database.connection = None;
        }
    }

    pub(super) fn reopen(&mut self) {
        for name in self.all.keys().copied().collect::<Vec<_>>() {
            self.open(name);
        }
    }

    /// Opens a database, or makes it, in either journal mode: Litestream may have changed that since.
    pub(super) fn open(&mut self, name: &'static str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = if self.dice.in_hundred(70) { "wal" } else { "delete" };
        let connection = Connection::open(&path).unwrap();
        // Litestream may be in the way for good.
        connection.busy_timeout(Duration::from_millis(100)).unwrap();
        let _ = connection.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(()));
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        let database = self.all.entry(name).or_default();
        let file = database.committed.file;
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, file INTEGER, x TEXT);
                 CREATE TABLE IF NOT EXISTS which AS SELECT {} AS file",
                file.max(1)
            ))
            .unwrap();
        if file == 0 {
            database.committed = Progress { file: 1, rows: 0 };
        }
        database.connection = Some(connection);
    }

    /// The app is at work for so long at most.
    pub(super) fn work(&mut self, milliseconds: u64) {
        let transactions = self.dice.range(1, milliseconds / 100);
        for _ in 0..transactions {
            self.act();
            self.dice.wait(0, 200);
        }
    }

    fn act(&mut self) {
        if self.dice.in_hundred(3) {
            let name = *self.dice.pick(&NAMES).unwrap();
            if !self.all.contains_key(name) {
                self.open(name);
                return;
            }
        }
        let names: Vec<&'static str> = self.all.keys().copied().collect();
        let name = *self.dice.pick(&names).unwrap();
        match self.dice.range(0, 100) {
            0..2 if self.without.iter().any(|without| without == "Replace") => self.insert(name, 1),
            0..2 => self.replace(name),
            2..5 => {
                self.all.get_mut(name).unwrap().connection = None;
                self.open(name);
            }
            5..9 => {
                let statement = if self.dice.in_hundred(50) {
                    "VACUUM"
                } else {
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                };
                let connection = self.all[name].connection.as_ref().unwrap();
                connection.busy_timeout(Duration::from_millis(100)).unwrap();
                let _ = connection.query_row(statement, [], |_| Ok(()));
                connection.busy_timeout(Duration::from_secs(60)).unwrap();
            }
            9..12 => self.insert(name, 700),
            _ => {
                let rows = self.dice.range(1, 10);
                self.insert(name, rows);
            }
        }
    }

    fn insert(&mut self, name: &str, rows: u64) {
        let text: String = "x".repeat(self.dice.count(1, 300));
        let database = self.all.get_mut(name).unwrap();
        let connection = database.connection.as_ref().unwrap();
        let Progress { file, rows: before } = database.committed;
        let after = before + i64::try_from(rows).unwrap();
        insert(connection, file, before, after, &text).unwrap();
        database.committed = Progress { file, rows: after };
    }

    /// The app puts another database in the place of one, as by a restore of its own: of the same page size.
    fn replace(&mut self, name: &'static str) {
        let path = self.path(name);
        let database = self.all.get_mut(name).unwrap();
        database.connection = None;
        let (file, rows) = (
            database.committed.file + 1,
            i64::try_from(self.dice.range(1, 300)).unwrap(),
        );
        let beside = path.with_extension("new");
        {
            let connection = Connection::open(&beside).unwrap();
            connection
                .execute_batch(&format!(
                    "CREATE TABLE t (n INTEGER PRIMARY KEY, file INTEGER, x TEXT); CREATE TABLE which AS SELECT {file} AS file"
                ))
                .unwrap();
            insert(&connection, file, 0, rows, "new").unwrap();
        }
        for ending in ["-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(format!("{}{ending}", path.display()));
        }
        fs::rename(&beside, &path).unwrap();
        database.committed = Progress { file, rows };
        self.note(format!("  {name} is replaced"));
        self.open(name);
    }
}

fn insert(connection: &Connection, file: i64, before: i64, after: i64, text: &str) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for n in before + 1..=after {
        transaction.execute("INSERT INTO t VALUES (?1, ?2, ?3)", (n, file, text))?;
    }
    transaction.commit()
}
