//! How the API server of a control plane without a node calls a webhook by its Service's name: its own egress selector
//! sends what it would say to the Service through a proxy, and the proxy to a Service in miniature.

use crate::connection::{End, Service, copy};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Flags by which an API server that is about to start calls this one by the name of any Service.
pub(crate) fn egress(service: &Service, folder: &Path) -> Vec<String> {
    let (socket, file) = (folder.join("egress.socket"), folder.join("egress.yaml"));
    let listener = UnixListener::bind(&socket).expect("a socket");
    let port = service.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                if answer_connect(&mut stream).is_ok()
                    && let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                {
                    copy(&stream, &onward);
                    copy(&onward, &stream);
                }
            });
        }
    });
    let configuration = serde_json::json!({
        "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect",
            "transport": {"uds": {"udsName": socket}}}}],
    });
    std::fs::write(&file, configuration.to_string()).expect("a file");
    vec![
        format!("--egress-selector-config-file={}", file.display()),
        // Else it looks for endpoints, of which there are none without a node.
        "--enable-aggregator-routing=false".to_owned(),
    ]
}

/// Reads `CONNECT …` up to its empty line, and agrees.
fn answer_connect(stream: &mut UnixStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")
}

impl End for UnixStream {
    fn duplicate(&self) -> Self {
        self.try_clone().expect("a socket")
    }

    fn close(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}
