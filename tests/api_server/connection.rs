//! A Service in miniature, and connections of our own to what is served.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a Service is to the API server: an address, behind which endpoints come and go. A connection stays with the
/// endpoint that it was made to.
pub(crate) struct Service {
    port: u16,
    endpoints: Arc<Mutex<Vec<u16>>>,
}

impl Service {
    /// One without endpoints.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let endpoints = Arc::new(Mutex::new(Vec::new()));
        let shared = endpoints.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let endpoint = {
                    let mut endpoints: std::sync::MutexGuard<'_, Vec<u16>> = shared.lock().expect("endpoints");
                    if !endpoints.is_empty() {
                        endpoints.rotate_left(1);
                    }
                    endpoints.first().copied()
                };
                // Without an endpoint, or when it is gone: refused, as kube-proxy does.
                if let Some(endpoint) = endpoint
                    && let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint))
                {
                    copy(&stream, &onward);
                    copy(&onward, &stream);
                }
            }
        });
        Self { port, endpoints }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// New connections go there, too.
    pub(crate) fn add(&self, endpoint: u16) {
        self.endpoints.lock().expect("endpoints").push(endpoint);
    }

    /// New connections go there no more.
    pub(crate) fn remove(&self, endpoint: u16) {
        self.endpoints
            .lock()
            .expect("endpoints")
            .retain(|known| *known != endpoint);
    }
}

/// Passes on what comes from one end to the other, until it ends.
pub(crate) fn copy(from: &impl End, to: &impl End) {
    let mut from = from.duplicate();
    let mut to = to.duplicate();
    std::thread::spawn(move || {
        // A connection that breaks ends both ways.
        let _ = io::copy(&mut from, &mut to);
        to.close();
    });
}

/// One end of a connection.
pub(crate) trait End: Read + Write + Send + Sized + 'static {
    /// The same end once more.
    fn duplicate(&self) -> Self;
    /// Nothing more will be written.
    fn close(&self);
}

impl End for TcpStream {
    fn duplicate(&self) -> Self {
        self.try_clone().expect("a socket")
    }

    fn close(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// The certificates that `port` shows to somebody who trusts everybody.
pub(crate) fn chain(port: u16) -> Vec<CertificateDer<'static>> {
    let mut stream = connect(port, Arc::new(TrustsEverybody)).expect("a connection");
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).expect("a handshake");
    }
    let chain = stream.conn.peer_certificates().expect("certificates");
    chain
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}

/// A connection by somebody who trusts everybody.
pub(crate) fn open(port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    connect(port, Arc::new(TrustsEverybody)).expect("a connection")
}

/// What `GET path` gives, head and body.
pub(crate) fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = connect(port, Arc::new(TrustsEverybody))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error),
    }
}

fn connect(port: u16, verifier: Arc<dyn ServerCertVerifier>) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    Ok(StreamOwned::new(
        connection,
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))?,
    ))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// As the kubelet, whose probes verify nothing.
#[derive(Debug)]
struct TrustsEverybody;

impl ServerCertVerifier for TrustsEverybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
