//! One HTTP call to a sidecar: a question in, the lines of its answer out. Plain HTTP/1.1 within the cluster.

use crate::agent::http::BackupRequest;
use crate::agent::sidecar::inbox::Progress;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nobody is there, or the network forbids it.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody is there, and said no.
    #[error("the sidecar said {status}: {why}")]
    Denied { status: StatusCode, why: String },
}

/// Asks `address` for a backup; `each` sees every line as it comes.
pub(super) async fn backup(
    address: &str,
    token: &str,
    question: &BackupRequest,
    mut each: impl FnMut(Progress),
) -> Result<(), Unanswered> {
    let unreachable = |error: &dyn std::error::Error| Unanswered::Unreachable(error.to_string());
    let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => {
            return Err(Unanswered::Unreachable(format!(
                "no answer within {} s",
                CONNECT.as_secs()
            )));
        }
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(&error))?;
    let connection = tokio::spawn(connection);
    let body = serde_json::to_vec(question).unwrap_or_default();
    let request = Request::post("/v1/backup")
        .header(header::HOST, address)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreachable(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| unreachable(&error))?;
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let why = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        connection.abort();
        return Err(Unanswered::Denied {
            status,
            why: String::from_utf8_lossy(&why).trim().to_owned(),
        });
    }
    let result = lines(&mut body, &mut each).await;
    connection.abort();
    result
}

async fn lines(body: &mut Incoming, each: &mut impl FnMut(Progress)) -> Result<(), Unanswered> {
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Unanswered::Unreachable(format!("the answer broke off: {error}")))?;
        buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            // An event of a release to come is passed over.
            if let Ok(progress) = serde_json::from_slice(&line) {
                each(progress);
            }
        }
    }
    Ok(())
}
