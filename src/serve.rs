//! `vixens-backup serve`: arguments → the admission server with its certificates, and the controller, until a signal ends it. Parts are put
//! together here; what each of them does lies in its own module.

use crate::admission::{self, Admission, Listener, Readiness};
use crate::certificates::{
    Authority, Files, FilesError, Keeper, Leaf, Lifetimes, Replica, Served, Unusable, watch_trust,
};
use crate::controller::{self, Controller};
use crate::inject;
use crate::policy::{ConfigurationError, Installation};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// What `vixens-backup serve` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen [default: port 8443 of every address].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The installation's defaults, a YAML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The image of the injected containers, where the installation's defaults name none.
    #[arg(long, env = "VIXENS_BACKUP_IMAGE")]
    image: Option<String>,
    /// Serve this certificate instead of one of our own; it is reread when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Answer admission requests alone, without any cluster. Unless --tls-cert is given, the certificate is made at the
    /// start, kept nowhere, and trusted by nobody.
    #[arg(long)]
    without_controller: bool,
    /// Our own namespace [default: the pod's, or the kubeconfig's].
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// The Service by which the API server reaches us.
    #[arg(long, value_name = "NAME", default_value = "vixens-backup")]
    service: String,
    /// The MutatingWebhookConfiguration that calls us: its caBundle is kept, and ready means that it trusts us.
    #[arg(long, value_name = "NAME", default_value = "vixens-backup")]
    webhook_configuration: String,
    /// The Secret that keeps our own certificates.
    #[arg(long, value_name = "NAME", default_value = "vixens-backup-certificates")]
    certificates_secret: String,
    /// How long our own certificates last; each is renewed when a third of that is left.
    #[arg(long, value_name = "DURATION", default_value = "720h")]
    certificate_lifetime: SignedDuration,
    /// How long our own certificate authority lasts; it is renewed when a third of that is left.
    #[arg(long, value_name = "DURATION", default_value = "43800h")]
    authority_lifetime: SignedDuration,
    /// The Lease by which the replicas agree on the one that keeps the companions.
    #[arg(long, value_name = "NAME", default_value = "vixens-backup")]
    lease: String,
    /// Keep the companions of workloads with these labels alone, as in kubectl's -l.
    #[arg(long, value_name = "SELECTOR", env = "VIXENS_BACKUP_WATCH_LABEL_SELECTOR")]
    watch_label_selector: Option<String>,
    /// How often the sidecars are asked how their backups are doing.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    status_interval: SignedDuration,
    /// How long to go on serving once told to end, until the Service's endpoints are known everywhere.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    shutdown_delay: SignedDuration,
    /// How log lines are written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// Why `serve` can't.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The installation's defaults can't be read.
    #[error("the installation's defaults, {}, can't be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The installation's defaults are wrong.
    #[error("the installation's defaults, {}, are wrong", path.display())]
    Configuration {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigurationError,
    },
    /// A duration is negative.
    #[error("--{0} must not be negative")]
    Negative(&'static str),
    /// The port is taken, or not ours to take.
    #[error("can't listen on {0}")]
    Listen(String, #[source] io::Error),
    /// The operating system refuses.
    #[error("can't start")]
    Start(#[source] io::Error),
    /// There is no certificate to begin with.
    #[error("the first certificate can't be made")]
    Certificate(#[from] Unusable),
    /// The certificate's files can't be served.
    #[error("no certificate to serve")]
    Files(#[from] FilesError),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// No cluster is known.
    #[error("no cluster is known: run in a pod, set KUBECONFIG, or say --without-controller")]
    Cluster(#[source] Box<kube::Error>),
    /// A part ended that should not.
    #[error("{0} ended by itself; the log says why")]
    Ended(&'static str),
}

/// The part of readiness that waits for the cluster's identity.
const CLUSTER: &str = "cluster";

/// How long the controller may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);
/// After so long, a controller that panicked begins anew.
const ANEW: Duration = Duration::from_secs(10);

/// How many threads answer at most. A decision takes microseconds: on a large node, more would be nothing but memory.
const THREADS: usize = 4;

/// Serves until SIGTERM or SIGINT, and then until nobody is waiting for an answer. A second signal ends it at once.
pub fn run(arguments: Arguments) -> Result<(), Error> {
    begin_log(arguments.log_format);
    let installation = arguments.installation()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(Error::Start)?
        .block_on(serve(arguments, installation))
}

async fn serve(arguments: Arguments, installation: Installation) -> Result<(), Error> {
    let shutdown_delay = positive("shutdown-delay", arguments.shutdown_delay)?;
    let lifetimes = Lifetimes {
        authority: positive("authority-lifetime", arguments.authority_lifetime)?,
        leaf: positive("certificate-lifetime", arguments.certificate_lifetime)?,
    };
    let status_interval = positive("status-interval", arguments.status_interval)?.max(Duration::from_millis(100));
    let mut signals = Signals::listen().map_err(Error::Start)?;
    let mut hurry = Signals::listen().map_err(Error::Start)?;
    let listener = Listener::bind(arguments.listen).await.map_err(|error| {
        let address = arguments
            .listen
            .map_or_else(|| "port 8443".to_owned(), |address| address.to_string());
        Error::Listen(address, error)
    })?;
    let readiness = Arc::new(Readiness::default());
    let mut registry = Registry::default();
    let metrics = controller::Metrics::new(&mut registry);
    let admission = Arc::new(Admission::new(inject::admit, registry, readiness.clone()));
    let own = temporary_leaf(lifetimes)?;
    let served = Arc::new(Served::new(&own)?);
    let announce = {
        let metrics = admission.metrics().clone();
        move |leaf: &Leaf| metrics.serves_certificate_until(leaf.expires())
    };

    let mut parts = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut controller = None;
    let files = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Files {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        _ => None,
    };
    let own_certificates = files.is_none();
    if let Some(files) = files {
        let leaf = files.read()?;
        served.serve(&leaf)?;
        announce(&leaf);
        let follow = files.follow(served.clone(), announce.clone());
        parts.spawn(async move {
            follow.await;
            "the certificate's files"
        });
    }
    if arguments.without_controller {
        if own_certificates {
            served.serve(&own)?;
            announce(&own);
        }
        admission.begin(installation);
    } else {
        let cluster = Client::try_default()
            .await
            .map_err(|error| Error::Cluster(Box::new(error)))?;
        let configurations = Api::all(cluster.clone());
        let trust = watch_trust(
            configurations.clone(),
            arguments.webhook_configuration.clone(),
            served.clone(),
            readiness.clone(),
        );
        parts.spawn(async move {
            trust.await;
            "the watch of the MutatingWebhookConfiguration"
        });
        let namespace = arguments
            .namespace
            .clone()
            .unwrap_or_else(|| cluster.default_namespace().to_owned());
        if own_certificates {
            let keeper = Keeper {
                secrets: Api::namespaced(cluster.clone(), &namespace),
                secret: arguments.certificates_secret.clone(),
                configurations,
                configuration: arguments.webhook_configuration.clone(),
                served: served.clone(),
                replica: Replica::new(format!("{}.{namespace}.svc", arguments.service), lifetimes),
            };
            let keep = keeper.keep(announce);
            parts.spawn(async move {
                keep.await;
                "the keeper of our certificates"
            });
        }
        readiness.wait(
            CLUSTER,
            "namespace kube-system was not read yet: its UID names the cluster",
        );
        let kept = Kept {
            cluster,
            namespace,
            lease: arguments.lease.clone(),
            selector: arguments
                .watch_label_selector
                .clone()
                .filter(|selector| !selector.is_empty()),
            status_interval,
            metrics,
        };
        controller = Some(tokio::spawn(identify_and_keep(
            kept,
            admission.clone(),
            installation,
            stopped,
        )));
    }

    let tls = Arc::new(served.tls()?);
    if let Ok(address) = listener.address() {
        tracing::info!(%address, "listening");
    }
    let mut ended = None;
    let told_to_end = async {
        tokio::select! {
            () = signals.next() => {}
            Some(part) = parts.join_next() => {
                ended = Some(part.unwrap_or("a part that panicked"));
            }
        }
        // Another replica leads while this one still answers.
        let _ = stop.send(true);
    };
    let router = admission::router(admission);
    tokio::select! {
        () = admission::serve(listener, tls, router, &readiness, told_to_end, shutdown_delay) => {}
        () = hurry.twice() => tracing::warn!("told twice to end: whoever waits for an answer gets none"),
    }
    if let Some(controller) = controller {
        // It gives its Lease back; where it can't, that runs out.
        let _ = tokio::time::timeout(GOODBYE, controller).await;
    }
    ended.map_or(Ok(()), |part| Err(Error::Ended(part)))
}

/// What the controller is made from, once the cluster is known.
#[derive(Clone)]
struct Kept {
    cluster: Client,
    namespace: String,
    lease: String,
    selector: Option<String>,
    status_interval: Duration,
    metrics: controller::Metrics,
}

/// Lets requests be decided, and runs the controller beside that. Whatever happens to the controller, the webhook goes on.
async fn identify_and_keep(
    kept: Kept,
    admission: Arc<Admission>,
    installation: Installation,
    stopped: tokio::sync::watch::Receiver<bool>,
) {
    let mut early = stopped.clone();
    let installation = tokio::select! {
        installation = identify(kept.cluster.clone(), admission.clone(), installation) => installation,
        _ = early.wait_for(|stop| *stop) => return,
    };
    loop {
        let controller = Controller {
            client: kept.cluster.clone(),
            namespace: kept.namespace.clone(),
            lease: kept.lease.clone(),
            identity: identity(),
            selector: kept.selector.clone(),
            status_interval: kept.status_interval,
            installation: installation.clone(),
            readiness: admission.readiness().clone(),
            metrics: kept.metrics.clone(),
        };
        if tokio::spawn(controller.run(stopped.clone())).await.is_ok() {
            return;
        }
        tracing::error!("the controller panicked: it begins anew in {} s", ANEW.as_secs());
        tokio::time::sleep(ANEW).await;
    }
}

/// Who this replica is, in the Lease: its pod, and which of those that ever ran in it.
fn identity() -> String {
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "vixens-backup".to_owned());
    let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{name}_{}", unique.trim())
}

/// Reads the cluster's identity, then lets requests be decided: a block that is injected without it would differ from
/// the next one.
async fn identify(cluster: Client, admission: Arc<Admission>, mut installation: Installation) -> Installation {
    const PART: &str = "cluster";
    let readiness = admission.readiness();
    readiness.wait(
        PART,
        "namespace kube-system was not read yet: its UID names the cluster",
    );
    let namespaces: Api<Namespace> = Api::all(cluster);
    loop {
        match namespaces.get("kube-system").await {
            Ok(namespace) => {
                installation.cluster_id = namespace.uid();
                break;
            }
            Err(error) => readiness.wait(CLUSTER, format!("namespace kube-system can't be read: {error}")),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    admission.begin(installation.clone());
    readiness.done(CLUSTER);
    installation
}

/// What is served until there is a certificate that somebody trusts, or where nobody needs to.
fn temporary_leaf(lifetimes: Lifetimes) -> Result<Leaf, Unusable> {
    let now = Timestamp::now();
    let names = BTreeSet::from(["127.0.0.1", "::1", "localhost"].map(str::to_owned));
    let authority = Authority::make(now, lifetimes.authority).map_err(Unusable::Key)?;
    authority.sign(&names, now, lifetimes.authority)
}

impl Arguments {
    fn installation(&self) -> Result<Installation, Error> {
        let mut installation = match &self.config {
            Some(path) => read_installation(path)?,
            None => Installation::default(),
        };
        if let Some(image) = &self.image {
            installation.or_image(image);
        }
        Ok(installation)
    }
}

fn read_installation(path: &Path) -> Result<Installation, Error> {
    let path = || path.to_owned();
    let text = std::fs::read_to_string(path()).map_err(|source| Error::Read { path: path(), source })?;
    Installation::from_yaml(&text).map_err(|source| Error::Configuration { path: path(), source })
}

fn positive(flag: &'static str, duration: SignedDuration) -> Result<Duration, Error> {
    Duration::try_from(duration).map_err(|_| Error::Negative(flag))
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn twice(&mut self) {
        self.next().await;
        self.next().await;
    }
}

fn begin_log(format: LogFormat) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // Where a log was begun before, it goes on.
    let _ = match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        // Its text could hold what was being read, a Secret's value at worst; where it happened says enough.
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "a part of this process panicked; please report this");
    }));
}
