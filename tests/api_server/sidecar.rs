//! A sidecar in miniature: says one thing at `/status`. And what a kubelet would say of its pod.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) struct Sidecar {
    address: SocketAddr,
    says: Arc<Mutex<String>>,
}

impl Sidecar {
    /// On an address of loopback that nobody else has: its port is the injected container's.
    pub(crate) fn start(says: &Value) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(77);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low.max(1));
        let address = SocketAddr::from((address, 9476));
        let listener = TcpListener::bind(address).expect("an address");
        let says = Arc::new(Mutex::new(says.to_string()));
        let shared = says.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                let body = shared.lock().expect("words").clone();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { address, says }
    }

    pub(crate) fn say(&self, words: &Value) {
        *self.says.lock().expect("words") = words.to_string();
    }

    /// The status of a pod in which it runs.
    pub(crate) fn status(&self) -> Value {
        let ip = self.address.ip().to_string();
        let through = json!({"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T13:05:00Z"}});
        let running = json!({"running": {"startedAt": "2026-11-22T13:05:00Z"}});
        json!({"podIP": ip, "podIPs": [{"ip": ip}], "initContainerStatuses": [
            container("init-config", 0, &through), container("backup-sidecar", 0, &running)]})
    }
}

/// What a kubelet says of a container.
pub(crate) fn container(name: &str, restarts: u32, state: &Value) -> Value {
    json!({"name": name, "image": "image:1", "imageID": "", "ready": false, "restartCount": restarts, "state": state})
}
