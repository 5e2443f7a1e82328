//! A running Litestream, asked through its control socket. Paths in, its answers out. A process that does not answer in time
//! is no error of ours: whoever asks goes by what lies on the volume and in the store.

use serde::Deserialize;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What `/sync` says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Synced {
    /// The newest transaction that was sent.
    #[serde(rename = "replicated_txid")]
    pub replicated: u64,
}

#[derive(Deserialize)]
struct Info {
    pid: i32,
}

/// Has a database's log read to its end now; with `wait`, sent too.
pub async fn sync(socket: &Path, database: &Path, wait: bool, patience: Duration) -> std::io::Result<Synced> {
    let body = json!({"path": database.to_string_lossy(), "wait": wait, "timeout": patience.as_secs().max(1)});
    let answer = tokio::time::timeout(patience, ask(socket, "POST /sync", &body.to_string())).await??;
    serde_json::from_str(&answer).map_err(|_| std::io::Error::other(answer))
}

/// The process that listens there.
pub async fn process(socket: &Path) -> std::io::Result<i32> {
    let answer = tokio::time::timeout(Duration::from_secs(2), ask(socket, "GET /info", "")).await??;
    let info: Info = serde_json::from_str(&answer)?;
    Ok(info.pid)
}

async fn ask(socket: &Path, request: &str, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!(
        "{request} HTTP/1.0\r\nHost: litestream\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
