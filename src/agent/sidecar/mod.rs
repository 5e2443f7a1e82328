//! `agent sidecar`: files are backed up as they change, until the pod is stopped. What `init` left in `start.json` says
//! what may be backed up; the volumes are read, never written; one thread, and one task a destination.
//!
//! ```text
//! watch ─► inbox (settle) ─► plan ─► guards ─► pending ─► history ─► upload ─► guards ─► index ─► mirror
//!              ▲ full scan each interval, POST /v1/backup, requests/, SIGTERM
//! ```
//!
//! It never ends by an error of its own: a native sidecar that crash-loops makes the app's pod unready.

pub mod backup;
pub mod batch;
pub mod credentials;
pub mod destination;
pub mod guard;
pub mod inbox;
mod judging;
pub mod known;
pub mod opening;
mod reading;
pub mod reconcile;
pub mod stage;
pub mod status;
mod twin;
pub mod volume;

use crate::agent::arguments::{Databases, Port, SidecarArguments, Span, Tier};
use crate::agent::filters::Filters;
use crate::agent::http;
use crate::agent::litestream::copies::Copies;
use crate::agent::litestream::replication::Replication;
use crate::agent::litestream::supervise::Supervisor;
use crate::agent::litestream::target::{Origin, Target};
use crate::agent::start::{Start, StartedVolume, Status};
use crate::agent::token::Token;
use crate::agent::volume::given_up::GivenUp;
use crate::agent::volume::own::OwnFolder;
use crate::agent::watch::{Changes, Watch};
use crate::store::Store;
use crate::store::rclone::{Rclone, Settings};
use batch::with_sources;
use credentials::Credentials;
use destination::{Destination, Worker};
use inbox::{Inbox, Settle, Stop};
use status::{Shared, VolumeStatus};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use volume::{Scope, Volume};

/// The default of `--settle`.
const QUIET: Duration = Duration::from_secs(2);
/// Kept of the grace period for ending.
const MARGIN: Duration = Duration::from_secs(2);
/// Ports that are tried from the first one on.
const PORTS: u16 = 200;
/// A port that is taken is tried again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// rclone's memory beside Litestream, in MiB: all of it has to fit into 128.
const BESIDE_LITESTREAM: u32 = 48;
/// While `start.json` is not there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why the sidecar could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No runtime, no signals.
    #[error("the sidecar can't run")]
    System(#[source] std::io::Error),
    /// A pattern of the owner's.
    #[error("the sidecar can't run")]
    Pattern(#[from] crate::agent::filters::InvalidPattern),
}

/// Runs until SIGTERM; a second one ends at once.
pub fn run(arguments: &SidecarArguments) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(Error::System)?;
    let result = runtime.block_on(Box::pin(sidecar(arguments)));
    // A call that still waits for the disk holds nobody up.
    runtime.shutdown_background();
    result
}

async fn sidecar(arguments: &SidecarArguments) -> Result<(), Error> {
    let mut stop = signal(SignalKind::terminate()).map_err(Error::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::System)?;
    let protection = &arguments.protection;
    let filters = Filters::new(&protection.includes, &protection.excludes, protection.max_size)?;
    let shared = Arc::new(Shared::default());
    {
        let mut status = shared.status();
        status.version = crate::store::records::VERSION;
        status.release = env!("CARGO_PKG_VERSION");
    }
    let mut tasks = JoinSet::new();
    serve(arguments, &shared, &mut tasks).await;
    tokio::select! {
        () = start(arguments, &filters, &shared) => {}
        () = stopped(&mut stop, &mut interrupt) => return Ok(()),
    };
    let started = Start::read(&arguments.folders.restore_dir).ok().flatten().map(Arc::new);
    let mut workers = JoinSet::new();
    let mut replicating = None;
    if let Some(started) = &started {
        replicating = begin(arguments, started, &filters, &shared, &mut workers, &mut tasks);
    }
    stopped(&mut stop, &mut interrupt).await;
    let deadline = Instant::now() + arguments.grace_period.duration().saturating_sub(MARGIN).max(MARGIN);
    tracing::info!("stopping: one last backup");
    if let Some((replication, mut supervisor)) = replicating {
        // Before the last snapshot, so that it knows the last transaction.
        let patience = last_sync(arguments) + MARGIN;
        replication.stop(Instant::now() + patience);
        if tokio::time::timeout(patience + MARGIN, &mut supervisor).await.is_err() {
            // Its processes end with it: beside the last backup nothing is sent.
            supervisor.abort();
            let _ = supervisor.await;
            tracing::error!(
                "the last synchronisation of databases did not end in time: what it has not sent is saved as files"
            );
        }
        replication.end();
    }
    for inbox in shared.inboxes().iter() {
        inbox.stop(Stop { deadline });
    }
    let last = async { while workers.join_next().await.is_some() {} };
    tokio::select! {
        () = last => {}
        () = tokio::time::sleep_until(deadline) => tracing::error!(
            "the grace period of {} is over before the last backup was: what it had not saved is on the volume alone; a longer terminationGracePeriodSeconds gives it time",
            arguments.grace_period
        ),
        () = stopped(&mut stop, &mut interrupt) => tracing::error!("told to end a second time: ending at once"),
    }
    Ok(())
}

/// Waits until we are told to end.
async fn stopped(stop: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Waits until `init` has said what may be backed up. In a pod it has, before we are started.
async fn start(arguments: &SidecarArguments, _filters: &Filters, shared: &Arc<Shared>) {
    let mut said = false;
    loop {
        let why = match Start::read(&arguments.folders.restore_dir) {
            Ok(Some(_)) => {
                shared.status().idle = None;
                return;
            }
            Ok(None) => "init-config has not ended (there is no start.json): nothing is backed up".to_owned(),
            Err(error) => format!("{}: nothing is backed up", with_sources(&error)),
        };
        if !said {
            tracing::error!("{why}");
            said = true;
        }
        shared.status().idle = Some(why);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The HTTP server, on the port that was given or on the first free one. Without it, backups are made all the same; whoever
/// is still at the port may be on their way out, such as what was here before us: it is tried again.
async fn serve(arguments: &SidecarArguments, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let (first, tries) = match arguments.port {
        Port::Fixed(port) => (port, 1),
        Port::From(port) => (port, PORTS),
    };
    let ports = first..=first.saturating_add(tries - 1);
    let restore_dir = arguments.folders.restore_dir.clone();
    let shared = shared.clone();
    let primary = arguments.protection.destinations.first();
    let token = primary.map(|primary| Token::new(primary, &arguments.folders.rclone_dir));
    let begin = move |listener: TcpListener, port: u16| {
        let nudge = http::announce(&restore_dir, port);
        http::serve(listener, shared, token, nudge)
    };
    match listen(ports.clone()).await {
        Ok((listener, port)) => {
            if port != first {
                tracing::warn!("port {first} is taken on this node: metrics and requests are on {port}");
            }
            tasks.spawn(begin(listener, port));
        }
        Err(error) => {
            tracing::error!(
                "port {first} can't be listened on ({error}): no metrics, and no requests but through the store, until \
                 it is free"
            );
            tasks.spawn(async move {
                loop {
                    tokio::time::sleep(LISTEN_AGAIN).await;
                    if let Ok((listener, port)) = listen(ports.clone()).await {
                        tracing::info!("metrics and requests are on port {port} now");
                        return begin(listener, port).await;
                    }
                }
            });
        }
    }
}

/// Listens on the first of these ports that is free; why the last of them is not.
async fn listen(ports: RangeInclusive<u16>) -> std::io::Result<(TcpListener, u16)> {
    let mut refused = std::io::ErrorKind::AddrInUse.into();
    for port in ports {
        match TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => return Ok((listener, port)),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Starts what `init` allows.
fn begin(
    arguments: &SidecarArguments,
    started: &Arc<Start>,
    filters: &Filters,
    shared: &Arc<Shared>,
    workers: &mut JoinSet<()>,
    tasks: &mut JoinSet<()>,
) -> Option<(Arc<Replication>, JoinHandle<()>)> {
    let scope = scope(arguments, started, filters, shared);
    if scope.volumes.is_empty() {
        shared.metrics.fenced(true);
        let why = "no volume may be backed up by this pod: see each volume's reason";
        shared.status().idle = Some(why.to_owned());
        tracing::error!("{why}");
        return None;
    }
    let replicated = replicated(arguments, &scope);
    let mut replicating = None;
    let quiet = arguments.settle.map_or(QUIET, Span::duration);
    let settle = Settle { quiet, most: quiet * 2 };
    let scratch = arguments.folders.restore_dir.join("sidecar");
    for (index, destination) in arguments.protection.destinations.iter().enumerate() {
        let name = destination.to_string();
        let Some(found) = started.destinations.iter().find(|found| found.destination == name) else {
            tracing::error!(
                destination = name,
                "init-config knows nothing of it: nothing is written there"
            );
            continue;
        };
        let inbox = Arc::new(Inbox::new(settle));
        let scratch = scratch.join(index.to_string());
        let mut settings = Settings::lean(&arguments.folders.rclone_dir, &scratch);
        if replicated.is_some() {
            settings.memory = BESIDE_LITESTREAM;
        }
        let at = |to: &crate::agent::arguments::Destination| -> Arc<dyn Store> {
            Arc::new(Rclone::new(to.remote(), to.path(), settings.clone()))
        };
        let store = at(destination);
        let others = arguments.protection.destinations.iter();
        let elsewhere = others.filter(|other| *other != destination).map(at).collect();
        shared.inboxes().push(inbox.clone());
        // Litestream has one replica a database: at the primary. Elsewhere databases are saved as at tier 2.
        let scope = match &replicated {
            Some((target, replication)) if index == 0 => {
                let scope = Arc::new(Scope {
                    replication: Some(replication.clone()),
                    copies: replication.copies.clone(),
                    ..Scope::clone(&scope)
                });
                let supervisor = Supervisor::new(
                    replication.clone(),
                    target.clone(),
                    store.clone(),
                    shared.clone(),
                    scope.clone(),
                    Origin {
                        destination: destination.clone(),
                        rclone_dir: arguments.folders.rclone_dir.clone(),
                    },
                    last_sync(arguments),
                );
                replicating = Some((replication.clone(), tokio::spawn(supervisor.run())));
                scope
            }
            Some((_, replication)) => Arc::new(Scope {
                copies: Arc::new(Copies::beside(replication.clone())),
                ..Scope::clone(&scope)
            }),
            None => Arc::new(Scope {
                copies: Arc::default(),
                ..Scope::clone(&scope)
            }),
        };
        let worker = Worker::new(Destination {
            store,
            elsewhere,
            writing: found.writing.clone(),
            started: started.clone(),
            scope,
            scratch,
            credentials: Credentials::of(&arguments.folders.rclone_dir),
            inbox,
            shared: shared.clone(),
            interval: arguments.interval.duration(),
            settle: quiet,
            max_shrink: arguments.backups.max_shrink,
            accepted: arguments.accepted.clone(),
            retention: arguments.backups.retention,
            restore_dir: arguments.folders.restore_dir.clone(),
        });
        workers.spawn(worker.run());
    }
    tasks.spawn(watch(scope, shared.clone()));
    replicating
}

/// Tier 3, where the primary store can be served.
fn replicated(arguments: &SidecarArguments, scope: &Scope) -> Option<(Target, Arc<Replication>)> {
    let primary = arguments.protection.destinations.first()?;
    if arguments.tier != Tier::Tier3 || scope.databases == Databases::None {
        return None;
    }
    match Target::of(primary, &arguments.folders.rclone_dir) {
        Ok(target) => {
            let folder = arguments.folders.restore_dir.join("litestream");
            let databases = scope.databases.clone();
            Some((target, Arc::new(Replication::new(databases, arguments.profile, folder))))
        }
        // `init` has refused it; the Secret has changed since.
        Err(unsupported) => {
            tracing::error!("{unsupported}; until then they are saved as at tier 2");
            None
        }
    }
}

/// Of the grace period, what the last synchronisation of databases may take.
fn last_sync(arguments: &SidecarArguments) -> Duration {
    (arguments.grace_period.duration() / 4).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

/// The volumes that may be backed up; the others are reported.
fn scope(arguments: &SidecarArguments, started: &Start, filters: &Filters, shared: &Arc<Shared>) -> Arc<Scope> {
    let (mut volumes, mut given_up) = (Vec::new(), GivenUp::default());
    for volume in &started.volumes {
        let StartedVolume {
            name,
            folder,
            path,
            id,
            status,
            why,
            restored: _,
            // Of the releases before: there, the first backup of such a volume was unguarded.
            adopted: _,
        } = volume;
        let word = match status {
            Status::Settled => "settled",
            Status::Provisional => "provisional",
            Status::Fenced => "fenced",
        };
        shared.status().volumes.insert(
            folder.clone(),
            VolumeStatus {
                path: path.display().to_string(),
                status: word.to_owned(),
                why: why.clone(),
            },
        );
        if *status == Status::Settled {
            if let Err(error) = given_up.read(&OwnFolder::on(path)) {
                tracing::warn!("{error}");
            }
            volumes.push(Volume {
                path: path.clone(),
                folder: folder.clone(),
                id: id.clone(),
                writable: volume::is_writable(path),
            });
        } else {
            shared.metrics.fenced(true);
            tracing::error!(volume = name, "it is not backed up ({word}): {why}");
        }
    }
    volumes.sort_by_key(|volume| format!("{}/", volume.folder));
    Arc::new(Scope {
        volumes,
        filters: filters.clone(),
        databases: arguments.protection.databases.clone(),
        turn: Arc::default(),
        replication: None,
        copies: Arc::default(),
        given_up: Arc::new(given_up),
    })
}

/// Brings events to every inbox. Where events can't be had, full scans find what changes.
async fn watch(scope: Arc<Scope>, shared: Arc<Shared>) {
    let volumes: Vec<(PathBuf, String)> = scope
        .volumes
        .iter()
        .map(|volume| (volume.path.clone(), volume.folder.clone()))
        .collect();
    let limited = |limited: &crate::agent::watch::Limited| {
        let why = with_sources(limited);
        tracing::warn!("{why}");
        shared.status().watch = Some(why);
    };
    let mut watch = match Watch::start(&volumes, &scope.filters) {
        Ok(watch) => watch,
        Err(error) => return limited(&error),
    };
    loop {
        if let Some(error) = watch.take_limited() {
            limited(&error);
        }
        let mut changes = Changes::default();
        if let Err(error) = watch.next(&mut changes).await {
            tracing::warn!("inotify failed ({error}): changes are found by full scans alone");
            shared.status().watch = Some(error.to_string());
            return;
        }
        for inbox in shared.inboxes().iter() {
            inbox.changed(changes.clone());
        }
    }
}

#[cfg(test)]
mod tests;
