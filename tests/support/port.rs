//! Ports for servers that take none by themselves.

#![allow(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, create_dir_all};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// Below the range from which Linux takes the ports of outgoing connections: a server that is away for a moment finds its
/// own free when it is back.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nobody listens on, and that nobody else is given as long as this process lives: it is locked as by
/// `reserve_port` of `tests/bed/processes.bash`.
pub(crate) fn free_port() -> u16 {
    static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("vixens-backup-ports-{user}"));
    create_dir_all(&folder).expect("a folder");
    loop {
        let dice = RandomState::new().hash_one(FIRST) % u64::from(COUNT);
        let port = FIRST + u16::try_from(dice).expect("less than COUNT");
        let lock = File::create(folder.join(port.to_string())).expect("a file");
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        {
            LOCKS.lock().expect("no panic").push(lock);
            return port;
        }
    }
}
