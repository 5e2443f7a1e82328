//! What an `agent` command is told: flags that `inject` writes and `agent` parses, the same types for both.
//! This is the only place where the cluster half and the pod half meet. Pure: no I/O, no clock.
//!
//! Each struct is parsed by clap and written by [`Flags::flags`], and a round-trip test holds the two together.
//! Flags that carry their default are not written, so that a previewed pod spec stays short.

mod backup;
mod pre_sync;
mod values;

pub use backup::BackupArguments;
pub use pre_sync::PreSyncArguments;
pub use values::{
    Databases, Destination, Invalid, Percent, Port, Profile, ProtectedVolume, QuestionId, QuestionKind, RestoreAt,
    RestorePolicy, Retention, Size, Span, StoreDown, Tier, Verify, WorkloadKind, WorkloadName, nearest,
};

use std::path::{Path, PathBuf};

/// The port of the sidecar's HTTP server, where it is free.
pub const METRICS_PORT: u16 = 9476;

/// Where the volumes of our own lie in each injected container.
pub const DEFAULTS_PATH: &str = "/defaults";
/// Markers, indexes and scratch, shared by the injected containers of a pod.
pub const RESTORE_PATH: &str = "/restore";
/// The Secrets of layer 3, one folder each.
pub const SECRETS_PATH: &str = "/secrets";
/// The Secret with `rclone.conf`, where it holds one.
pub const RCLONE_PATH: &str = "/rclone";
/// What is kept outside the store of what it held: `contract::record`.
pub const RECORD_PATH: &str = "/record";

/// Writes a value as command-line flags that its own parser reads back as the same value.
pub trait Flags {
    /// `--name=value`, one element each; flags at their default are left out.
    fn flags(&self) -> Vec<String>;
}

/// Collects `--name=value`.
#[derive(Default)]
struct Writer(Vec<String>);

impl Writer {
    fn one(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        self.0.push(format!("--{name}={}", value.to_string()));
    }

    fn each(&mut self, name: &str, values: &[impl ToString]) {
        for value in values {
            self.one(name, value);
        }
    }

    fn some(&mut self, name: &str, value: Option<&impl ToString>) {
        if let Some(value) = value {
            self.one(name, value);
        }
    }

    fn unless<T: ToString + PartialEq>(&mut self, name: &str, value: &T, default: &T) {
        if value != default {
            self.one(name, value);
        }
    }
}

/// Who we are, from the downward API and the injected environment. Never written as flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Identity {
    /// The pod's namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The pod's name.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod: String,
    /// The revision of the pod's template: `pod-template-hash` or `controller-revision-hash`.
    #[arg(long, env = "VIXENS_BACKUP_GENERATION", default_value = "")]
    pub generation: String,
    /// The UID of the cluster's kube-system namespace; empty where manifests were rendered offline.
    #[arg(long, env = "VIXENS_BACKUP_CLUSTER_ID", default_value = "")]
    pub cluster_id: String,
}

/// What is protected, and where its copies lie: the same for every agent command of one workload.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Protection {
    /// The workload, such as Deployment/app.
    #[arg(long)]
    pub workload: WorkloadName,
    /// A protected volume, NAME:FOLDER:/mount/path; repeated.
    #[arg(long = "volume")]
    pub volumes: Vec<ProtectedVolume>,
    /// Where copies go, remote:bucket/path; the first is the primary.
    #[arg(long = "destination")]
    pub destinations: Vec<Destination>,
    /// An rclone filter pattern of files to take; where there are any, only these are taken.
    #[arg(long = "include", allow_hyphen_values = true)]
    pub includes: Vec<String>,
    /// An rclone filter pattern of files to leave out, beside the defaults.
    #[arg(long = "exclude", allow_hyphen_values = true)]
    pub excludes: Vec<String>,
    /// Files above this size are skipped and reported.
    #[arg(long)]
    pub max_size: Option<Size>,
    /// Which files are databases: auto, none, or paths.
    #[arg(long, default_value = "auto")]
    pub databases: Databases,
}

impl Flags for Protection {
    fn flags(&self) -> Vec<String> {
        let Self {
            workload,
            volumes,
            destinations,
            includes,
            excludes,
            max_size,
            databases,
        } = self;
        let mut writer = Writer::default();
        writer.one("workload", workload);
        writer.each("volume", volumes);
        writer.each("destination", destinations);
        writer.each("include", includes);
        writer.each("exclude", excludes);
        writer.some("max-size", max_size.as_ref());
        writer.unless("databases", databases, &Databases::Auto);
        writer.0
    }
}

/// Where the injected folders are mounted; other places are for tests and for people who try it by hand.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Folders {
    /// Layer 1: the vanilla ConfigMap.
    #[arg(long, default_value = DEFAULTS_PATH, hide_short_help = true)]
    pub defaults_dir: PathBuf,
    /// Markers, indexes and scratch.
    #[arg(long, default_value = RESTORE_PATH, hide_short_help = true)]
    pub restore_dir: PathBuf,
    /// Layer 3: Secrets.
    #[arg(long, default_value = SECRETS_PATH, hide_short_help = true)]
    pub secrets_dir: PathBuf,
    /// The folder that may hold rclone.conf.
    #[arg(long, default_value = RCLONE_PATH, hide_short_help = true)]
    pub rclone_dir: PathBuf,
    /// Take a protected path that is not a mount of its own (for use outside a pod).
    #[arg(long, hide_short_help = true)]
    pub allow_plain_folder: bool,
}

impl Default for Folders {
    fn default() -> Self {
        Self {
            defaults_dir: DEFAULTS_PATH.into(),
            restore_dir: RESTORE_PATH.into(),
            secrets_dir: SECRETS_PATH.into(),
            rclone_dir: RCLONE_PATH.into(),
            allow_plain_folder: false,
        }
    }
}

impl Flags for Folders {
    fn flags(&self) -> Vec<String> {
        let Self {
            defaults_dir,
            restore_dir,
            secrets_dir,
            rclone_dir,
            allow_plain_folder,
        } = self;
        let default = Self::default();
        let mut writer = Writer::default();
        for (name, value, default) in [
            ("defaults-dir", defaults_dir, &default.defaults_dir),
            ("restore-dir", restore_dir, &default.restore_dir),
            ("secrets-dir", secrets_dir, &default.secrets_dir),
            ("rclone-dir", rclone_dir, &default.rclone_dir),
        ] {
            if value != default {
                writer.one(name, &value.display());
            }
        }
        if *allow_plain_folder {
            writer.0.push("--allow-plain-folder".to_owned());
        }
        writer.0
    }
}

/// `agent init`: restore, then the layers.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct InitArguments {
    /// Who we are.
    #[command(flatten)]
    pub identity: Identity,
    /// What is protected.
    #[command(flatten)]
    pub protection: Protection,
    /// Our own folders.
    #[command(flatten)]
    pub folders: Folders,
    /// tier1 has no store: layers only.
    #[arg(long)]
    pub tier: Tier,
    /// When to restore: if-empty, always or never.
    #[arg(long, default_value = "if-empty")]
    pub restore: RestorePolicy,
    /// Go back to this snapshot or time, once.
    #[arg(long)]
    pub restore_at: Option<RestoreAt>,
    /// How long to wait for the store, and how long a restore may take.
    #[arg(long, default_value = "30m")]
    pub restore_timeout: Span,
    /// With an empty volume and no store: wait, or start on vanilla.
    #[arg(long, default_value = "wait")]
    pub store_down: StoreDown,
    /// A glob of the files in which ${VAR} is replaced; none: the files of layer 1.
    #[arg(long = "secrets-file", allow_hyphen_values = true)]
    pub secrets_files: Vec<String>,
    /// A question of an earlier start that is answered by yes: its id; repeated.
    #[arg(long = "accept")]
    pub accepted: Vec<QuestionId>,
    /// The percentage of a snapshot's files or bytes that a volume which we did not restore may lack, and still be taken for newer.
    #[arg(long, default_value = "50%")]
    pub max_shrink: Percent,
    /// The folder that may hold record.json: what the store is known to have held.
    #[arg(long, default_value = RECORD_PATH, hide_short_help = true)]
    pub record_dir: PathBuf,
}

impl Flags for InitArguments {
    fn flags(&self) -> Vec<String> {
        let Self {
            identity: _,
            protection,
            folders,
            tier,
            restore,
            restore_at,
            restore_timeout,
            store_down,
            secrets_files,
            accepted,
            max_shrink,
            record_dir,
        } = self;
        let mut writer = Writer::default();
        writer.one("tier", tier);
        writer.0.extend(protection.flags());
        writer.unless("restore", restore, &RestorePolicy::IfEmpty);
        writer.some("restore-at", restore_at.as_ref());
        writer.unless("restore-timeout", restore_timeout, &Span::seconds(1800));
        writer.unless("store-down", store_down, &StoreDown::Wait);
        writer.each("secrets-file", secrets_files);
        writer.each("accept", accepted);
        writer.unless("max-shrink", max_shrink, &Percent(50));
        if record_dir != Path::new(RECORD_PATH) {
            writer.one("record-dir", &record_dir.display());
        }
        writer.0.extend(folders.flags());
        writer.0
    }
}

/// How backups are made, by the sidecar and by a CronJob that does the work itself.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Backups {
    /// How long snapshots are kept.
    #[arg(long, default_value = "7d")]
    pub retention: Retention,
    /// The percentage of files or bytes that may vanish between two backups.
    #[arg(long, default_value = "50%")]
    pub max_shrink: Percent,
}

impl Default for Backups {
    fn default() -> Self {
        Self {
            retention: Retention {
                within: Some(Span::seconds(7 * 86_400)),
                ..Retention::default()
            },
            max_shrink: Percent(50),
        }
    }
}

impl Flags for Backups {
    fn flags(&self) -> Vec<String> {
        let Self { retention, max_shrink } = self;
        let default = Self::default();
        let mut writer = Writer::default();
        writer.unless("retention", retention, &default.retention);
        writer.unless("max-shrink", max_shrink, &default.max_shrink);
        writer.0
    }
}

/// `agent sidecar`: watch, settle, guard, copy what changed, record, prune.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct SidecarArguments {
    /// Who we are.
    #[command(flatten)]
    pub identity: Identity,
    /// What is protected.
    #[command(flatten)]
    pub protection: Protection,
    /// Our own folders.
    #[command(flatten)]
    pub folders: Folders,
    /// How backups are made.
    #[command(flatten)]
    pub backups: Backups,
    /// tier2: files; tier3: databases by Litestream too.
    #[arg(long, default_value = "tier2")]
    pub tier: Tier,
    /// The profile of databases that name none of their own.
    #[arg(long, default_value = "standard")]
    pub profile: Profile,
    /// How long files must be quiet before they are copied; unset: 2s, and never later than 4s after the first change.
    #[arg(long)]
    pub settle: Option<Span>,
    /// Time between two full scans.
    #[arg(long, default_value = "5m")]
    pub interval: Span,
    /// The port of the HTTP server: 9476, or 9476+ for the first free one from there on.
    #[arg(long, default_value = "9476")]
    pub port: Port,
    /// The pod's whole grace period: the last backup has to fit into it.
    #[arg(long, default_value = "30s")]
    pub grace_period: Span,
    /// A question that is answered by yes: its id; repeated.
    #[arg(long = "accept")]
    pub accepted: Vec<QuestionId>,
}

impl Flags for SidecarArguments {
    fn flags(&self) -> Vec<String> {
        let Self {
            identity: _,
            protection,
            folders,
            backups,
            tier,
            profile,
            settle,
            interval,
            port,
            grace_period,
            accepted,
        } = self;
        let mut writer = Writer::default();
        writer.unless("tier", tier, &Tier::Tier2);
        writer.0.extend(protection.flags());
        writer.unless("profile", profile, &Profile::Standard);
        writer.some("settle", settle.as_ref());
        writer.unless("interval", interval, &Span::seconds(300));
        writer.0.extend(backups.flags());
        writer.unless("port", port, &Port::Fixed(METRICS_PORT));
        writer.unless("grace-period", grace_period, &Span::seconds(30));
        writer.each("accept", accepted);
        writer.0.extend(folders.flags());
        writer.0
    }
}

/// `agent nudge`: the sidecar's `preStop` hook. Starts a backup at once and does not wait for its end.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct NudgeArguments {
    /// The port of the sidecar's HTTP server.
    #[arg(long, default_value = "9476")]
    pub port: Port,
    /// Where the sidecar says which port it took.
    #[arg(long, default_value = RESTORE_PATH, hide_short_help = true)]
    pub restore_dir: PathBuf,
}

impl Flags for NudgeArguments {
    fn flags(&self) -> Vec<String> {
        let Self { port, restore_dir } = self;
        let mut writer = Writer::default();
        writer.unless("port", port, &Port::Fixed(METRICS_PORT));
        if restore_dir.as_os_str() != RESTORE_PATH {
            writer.one("restore-dir", &restore_dir.display());
        }
        writer.0
    }
}

#[cfg(test)]
mod tests;
