//! A TCP proxy before an S3 server: it counts HTTP requests, and passes every byte on after a delay, in both directions.
//!
//! `proxy LISTEN CONNECT DELAY_MS LOG`: for each request, a line in LOG: when its answer began (nanoseconds since 1970), the
//! method, and the path. `benches/agent` compiles it by itself: it needs nothing but the standard library.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that can't be set up fails"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Read at once.
const PIECE: usize = 256 * 1024;
/// Pieces under way in one direction: more than a delay's worth.
const UNDER_WAY: usize = 256;
/// Longer heads are no S3 client's.
const LONGEST_HEAD: usize = 64 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, connect, delay, log] = arguments.as_slice() else {
        panic!("usage: proxy LISTEN CONNECT DELAY_MS LOG");
    };
    let delay = Duration::from_millis(delay.parse().unwrap());
    let log = Arc::new(File::options().append(true).create(true).open(log).unwrap());
    for client in TcpListener::bind(listen).unwrap().incoming() {
        let Ok(client) = client else { continue };
        let Ok(server) = TcpStream::connect(connect) else {
            continue;
        };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let asked = Arc::new(Mutex::new(VecDeque::new()));
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (questions, mut parser) = (asked.clone(), Parser::default());
        pass(from, to, delay, move |bytes| {
            let requests = parser.take(bytes);
            questions.lock().unwrap().extend(requests);
        });
        let log = log.clone();
        pass(server, client, delay, move |bytes| {
            if bytes.starts_with(b"HTTP/1.1 100") {
                return;
            }
            // One at a time, as all clients here do: whatever comes after a request is its answer.
            if let Some(request) = asked.lock().unwrap().pop_front() {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                (&*log)
                    .write_all(format!("{} {request}\n", now.as_nanos()).as_bytes())
                    .unwrap();
            }
        });
    }
}

/// Passes one direction on, on threads of its own. `seen` is shown the bytes when they leave.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration, mut seen: impl FnMut(&[u8]) + Send + 'static) {
    let (sender, receiver): (_, Receiver<(Instant, Vec<u8>)>) = sync_channel(UNDER_WAY);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            if sender.send((Instant::now() + delay, piece[..length].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Read);
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            seen(&bytes);
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Finds the requests in what a client sends.
#[derive(Default)]
struct Parser {
    head: Vec<u8>,
    /// Of the body of the request before.
    left: u64,
}

impl Parser {
    fn take(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut requests = Vec::new();
        while !bytes.is_empty() {
            if self.left > 0 {
                let body = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= body as u64;
                bytes = &bytes[body..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            assert!(
                self.head.len() < LONGEST_HEAD,
                "that is no HTTP/1.1 with a Content-Length"
            );
            if !self.head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let head = String::from_utf8_lossy(&self.head).into_owned();
            self.head.clear();
            let mut lines = head.lines();
            let request = lines.next().unwrap_or_default();
            requests.push(request.split(" HTTP/").next().unwrap_or_default().to_owned());
            self.left = lines
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.trim().parse().unwrap());
        }
        requests
    }
}
