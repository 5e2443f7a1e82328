//! Connections: accept, TLS, HTTP/1.1, and an end that loses none of them. HTTP/1.1 alone, because that is what the
//! API server speaks to a webhook behind a Service (kubernetes/kubernetes#75791).

use super::Readiness;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may idle. Longer than the 90 s after which the API server closes it by itself: were we the
/// first, a request could be on its way already, and an answered POST is not sent again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// How many connections are held at once. An API server keeps up to 25 idle ones, and opens more under load.
const CONNECTIONS: usize = 1024;
/// How long an answer may take once the process is told to end: the longest time that the API server waits for one.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// A bound port.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds `address`; without one, port 8443 of every address that the machine has, whichever IP families those are.
    pub async fn bind(address: Option<SocketAddr>) -> io::Result<Self> {
        const PORT: u16 = 8443;
        let listener = match address {
            Some(address) => TcpListener::bind(address).await,
            None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await
                }
                bound => bound,
            },
        };
        listener.map(Self)
    }

    /// Where it listens; tells the port when 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves `router` until `shutdown` is ready. Then no longer ready, it goes on for `delay`, until nobody sends requests
/// here any more; then the answers under way are finished.
pub async fn serve(
    Listener(listener): Listener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    readiness: &Readiness,
    shutdown: impl Future<Output = ()>,
    delay: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    let end = async {
        shutdown.await;
        readiness.drain();
        tracing::info!(
            "ending: not ready from now on; serving for another {} s until nobody asks any more",
            delay.as_secs_f32()
        );
        tokio::time::sleep(delay).await;
    };
    tokio::pin!(end);
    loop {
        // Whoever finds no room waits in the kernel's queue.
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut end => break,
        };
        let acceptor = acceptor.clone();
        let http = http.clone();
        let service = TowerToHyperService::new(router.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let Some(stream) = handshake(&acceptor, stream).await else {
                return;
            };
            if let Err(error) = watcher
                .watch(http.serve_connection(TokioIo::new(stream), service))
                .await
            {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    if drained.is_ok() {
        tracing::info!("every request was answered");
    } else {
        tracing::warn!("some requests were not answered within {} s", DRAIN_TIMEOUT.as_secs());
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    // Answers are small and waited for. Where it can't be set, they are merely slower.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}
