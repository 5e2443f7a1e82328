//! PURE: annotations + the installation's defaults → [`Policy`], what the owner asks for.
//!
//! Every annotation is parsed here, once, into a type that can't be wrong; nothing further in reads one. No clock, no
//! randomness, no I/O.

mod annotations;
mod fingerprint;
mod installation;
mod list;
mod problem;
mod resources;
mod schedule;

pub use annotations::{KEYS, PREFIX, is_ours, key};
pub use fingerprint::fingerprint;
pub use installation::{ConfigurationError, Installation, UnknownAnnotations};
pub use problem::Problem;
pub use resources::{Amounts, ContainerKind, Quantity, Requirements, Resources};
pub use schedule::{Schedule, staggered};

use crate::agent::arguments::{
    Databases, Destination, Invalid, Percent, Profile, QuestionId, RestoreAt, RestorePolicy, Retention, Size, Span,
    StoreDown, Tier, nearest,
};
use std::fmt;
use std::str::FromStr;

/// Whose policy is read: what a default or a placeholder may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.namespace`, or the request's.
    pub namespace: &'a str,
    /// Whether it is a StatefulSet: one place in the bucket for each pod.
    pub stateful: bool,
}

/// What the owner of a workload asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// No annotation: never touched.
    NotOurs,
    /// `disabled` or `off`: un-injected, what is stored stays.
    Disabled,
    /// A tier.
    Protect(Box<Policy>),
}

/// One workload's policy: each annotation, or its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `vixens.io/backup`.
    pub tier: Tier,
    /// `backup-volumes`; `None`: detected.
    pub volumes: Option<Vec<String>>,
    /// `backup-destination`, with `{namespace}` and `{name}` filled in; `{pod}` may be left.
    pub destinations: Vec<Destination>,
    /// `backup-secret`.
    pub secret: String,
    /// `backup-vanilla-config`; `None`: `<name>-vanilla-config`, used when it exists.
    pub vanilla_config: Option<String>,
    /// `backup-secrets`.
    pub secrets: Vec<String>,
    /// `backup-secrets-files`.
    pub secrets_files: Vec<String>,
    /// `backup-include`.
    pub includes: Vec<String>,
    /// `backup-exclude`, beside the agent's own defaults.
    pub excludes: Vec<String>,
    /// `backup-max-size`.
    pub max_size: Option<Size>,
    /// `backup-databases`.
    pub databases: Databases,
    /// `backup-profile`, or the pod template's label of the same name.
    pub profile: Profile,
    /// `backup-mode`.
    pub mode: Mode,
    /// `backup-settle`.
    pub settle: Option<Span>,
    /// `backup-interval`.
    pub interval: Span,
    /// `backup-schedule`; `None`: staggered by name.
    pub schedule: Option<Schedule>,
    /// `backup-retention`.
    pub retention: Retention,
    /// `backup-restore`.
    pub restore: RestorePolicy,
    /// `backup-restore-at`.
    pub restore_at: Option<RestoreAt>,
    /// `backup-restore-timeout`.
    pub restore_timeout: Span,
    /// `backup-store-down`.
    pub store_down: StoreDown,
    /// `backup-max-shrink`.
    pub max_shrink: Percent,
    /// `backup-run-as`.
    pub run_as: Option<RunAs>,
    /// `backup-init-position`.
    pub init_position: InitPosition,
    /// `backup-resources`, over the installation's, over the defaults.
    pub resources: Resources,
    /// `backup-accept`.
    pub accepted: Vec<QuestionId>,
    /// `backup-refresh`.
    pub refresh: Option<String>,
}

impl Policy {
    /// Whether a sidecar is injected.
    pub const fn has_sidecar(&self) -> bool {
        !matches!(self.tier, Tier::Tier1) && self.mode.has_sidecar()
    }

    /// The policy without what only companions feel: when this stands still, no pod needs a new block.
    #[must_use]
    pub fn without_companions(&self) -> Self {
        Self {
            schedule: None,
            ..self.clone()
        }
    }
}

/// `vixens.io/backup-mode`: who makes backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// The sidecar, and a CronJob that asks it.
    #[default]
    #[serde(rename = "sidecar+cronjob")]
    SidecarAndCronJob,
    /// The sidecar alone.
    #[serde(rename = "sidecar")]
    Sidecar,
    /// A CronJob that does the work itself.
    #[serde(rename = "cronjob")]
    CronJob,
}

impl Mode {
    /// Whether a sidecar runs.
    pub const fn has_sidecar(self) -> bool {
        !matches!(self, Self::CronJob)
    }

    /// Whether there is a CronJob.
    pub const fn has_cron_job(self) -> bool {
        !matches!(self, Self::Sidecar)
    }
}

const MODES: [(&str, Mode); 3] = [
    ("sidecar+cronjob", Mode::SidecarAndCronJob),
    ("sidecar", Mode::Sidecar),
    ("cronjob", Mode::CronJob),
];

impl FromStr for Mode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some((_, mode)) = MODES.iter().find(|(word, _)| *word == text) {
            return Ok(*mode);
        }
        let refusal = Invalid::allowed("sidecar+cronjob, sidecar, cronjob");
        // Both words in the other order mean the same to whoever wrote them.
        let guess = if text.contains("sidecar") && text.contains("cron") {
            Some("sidecar+cronjob")
        } else {
            nearest(text, MODES.map(|(word, _)| word))
        };
        Err(match guess {
            Some(word) => refusal.nearest(word),
            None => refusal,
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = MODES.iter().find(|(_, mode)| mode == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// `vixens.io/backup-run-as`: `uid` or `uid:gid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub uid: u32,
    /// The group; unset: the app's.
    pub gid: Option<u32>,
}

impl FromStr for RunAs {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = |_| Invalid::allowed("a number for the user, or user:group, such as 1000 or 1000:1000");
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        Ok(Self {
            uid: uid.parse().map_err(refusal)?,
            gid: gid.map(str::parse).transpose().map_err(refusal)?,
        })
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gid {
            Some(gid) => write!(f, "{}:{gid}", self.uid),
            None => write!(f, "{}", self.uid),
        }
    }
}

/// `vixens.io/backup-init-position`: where among the app's own init containers ours come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InitPosition {
    /// Before all of them.
    #[default]
    First,
    /// After all of them.
    Last,
    /// Behind the one of this name: a mesh or VPN proxy.
    After(String),
}

impl FromStr for InitPosition {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match (text, text.strip_prefix("after=")) {
            ("first", _) => Ok(Self::First),
            ("last", _) => Ok(Self::Last),
            (_, Some(name)) if !name.is_empty() => Ok(Self::After(name.to_owned())),
            _ => {
                let refusal = Invalid::allowed("first, last, or after=<init container>");
                Err(match nearest(text, ["first", "last"]) {
                    Some(word) => refusal.nearest(word),
                    None => refusal,
                })
            }
        }
    }
}

impl fmt::Display for InitPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Last => f.write_str("last"),
            Self::After(name) => write!(f, "after={name}"),
        }
    }
}

#[cfg(test)]
mod tests;
