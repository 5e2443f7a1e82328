//! The values that an owner writes in an annotation and the agent reads from a flag: one type for each,
//! parsed by `FromStr` and written back by `Display`, the same text for both halves. Pure: no I/O, no clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a value was refused: what would have been allowed, and the nearest value that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// A phrase that completes "allowed: …".
    pub allowed: String,
    /// A value that would have been taken, where one lies near.
    pub nearest: Option<String>,
}

impl Invalid {
    /// A refusal that names what is allowed.
    pub fn allowed(allowed: impl Into<String>) -> Self {
        Self {
            allowed: allowed.into(),
            nearest: None,
        }
    }

    /// The same refusal with a value that would have been taken.
    #[must_use]
    pub fn nearest(mut self, nearest: impl Into<String>) -> Self {
        self.nearest = Some(nearest.into());
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed: {}", self.allowed)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Invalid {}

/// The candidate that looks most like `text`, when one looks like it at all.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.trim().to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(text.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Defines an enumeration whose values are words: `FromStr`, `Display`, `ALL`, and a refusal with the nearest word.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for the value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => {
                        let words = [$($word),+];
                        let refusal = Invalid::allowed(words.join(", "));
                        Err(match nearest(text, words) {
                            Some(word) => refusal.nearest(word),
                            None => refusal,
                        })
                    }
                }
            }
        }
    };
}

words! {
    /// How much of the pattern a workload gets (guide, step 1).
    Tier {
        /// Vanilla configuration and secrets; nothing is stored.
        Tier1 = "tier1",
        /// And file backup and restore.
        Tier2 = "tier2",
        /// And continuous SQLite replication.
        Tier3 = "tier3",
    }
}

words! {
    /// When `init` restores.
    RestorePolicy {
        /// Only what is missing (design, decision 10).
        IfEmpty = "if-empty",
        /// Whenever the backup is newer than the volume's last one.
        Always = "always",
        /// Never; go on to the layers.
        Never = "never",
    }
}

words! {
    /// What `init` does with an empty volume while the store can't be reached.
    StoreDown {
        /// Retry until the timeout, then fail.
        Wait = "wait",
        /// Start on vanilla with backups fenced off.
        Start = "start",
    }
}

words! {
    /// A database's snapshot interval and retention.
    Profile {
        /// Snapshot each hour, kept 336 h.
        Critical = "critical",
        /// Snapshot each 6 h, kept 168 h.
        Standard = "standard",
        /// Snapshot each 24 h, kept 72 h.
        Relaxed = "relaxed",
        /// Not replicated.
        Ephemeral = "ephemeral",
    }
}

words! {
    /// The kinds of workload that are injected.
    WorkloadKind {
        /// `apps/v1` Deployment.
        Deployment = "Deployment",
        /// `apps/v1` StatefulSet.
        StatefulSet = "StatefulSet",
    }
}

words! {
    /// How thoroughly `pre-sync` looks at a snapshot.
    Verify {
        /// The index against the store's listing.
        Listing = "listing",
        /// Download and check everything.
        Full = "full",
    }
}

/// A length of time, written as Go and Prometheus do: `90s`, `5m`, `1h30m`, `7d`, `2w`. Whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same length as the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || {
            let refusal = Invalid::allowed("a duration such as 30s, 5m, 1h30m or 7d");
            match text.trim().parse::<u64>() {
                Ok(number) => refusal.nearest(format!("{number}s")),
                Err(_) => refusal,
            }
        };
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refusal)?;
            let number: u64 = rest[..digits].parse().map_err(|_| refusal())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let (_, unit) = UNITS
                .iter()
                .find(|(name, _)| *name == &rest[..letters])
                .ok_or_else(refusal)?;
            rest = &rest[letters..];
            total = number
                .checked_mul(*unit)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(refusal)?;
        }
        if text.is_empty() {
            return Err(refusal());
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS.iter().filter(|(name, _)| *name != "w") {
            if rest >= *unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written as a Kubernetes quantity: `100M`, `2Gi`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const SUFFIXES: [(&str, u64); 10] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("K", 1_000),
    ("", 1),
];

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || {
            let refusal = Invalid::allowed("a quantity of bytes such as 100M, 2Gi or 4096");
            let trimmed = text.trim().trim_end_matches(['b', 'B']).to_uppercase();
            match (trimmed != text && !trimmed.is_empty()).then(|| trimmed.parse::<Self>()) {
                Some(Ok(_)) => refusal.nearest(trimmed),
                _ => refusal,
            }
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| refusal())?;
        let (_, factor) = SUFFIXES
            .iter()
            .find(|(suffix, _)| *suffix == &text[digits..])
            .ok_or_else(refusal)?;
        number.checked_mul(*factor).map(Self).ok_or_else(refusal)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SUFFIXES
            .iter()
            .find(|(suffix, factor)| *suffix != "K" && self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((suffix, factor)) => write!(f, "{}{suffix}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A share from `0%` to `100%`; the sign may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.strip_suffix('%').unwrap_or(text);
        match digits.parse::<u8>() {
            Ok(number) if number <= 100 => Ok(Self(number)),
            _ => Err(Invalid::allowed("0% to 100%")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Where the store lies: `remote:bucket/path`, a plain remote name and a path below it (design, decision 16).
///
/// `{namespace}`, `{name}` and `{pod}` may stand in the path of an annotation; the agent is given them filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    remote: String,
    path: String,
}

impl Destination {
    /// The remote's name in the rclone configuration, without its colon.
    #[must_use]
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// The folder below the remote, without slashes at either end.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same destination with each placeholder replaced.
    #[must_use]
    pub fn filled(&self, placeholders: &[(&str, &str)]) -> Self {
        let path = placeholders
            .iter()
            .fold(self.path.clone(), |path, (name, value)| path.replace(name, value));
        Self {
            remote: self.remote.clone(),
            path,
        }
    }
}

impl FromStr for Destination {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = |why: &str| {
            Invalid::allowed(format!(
                "remote:bucket/path with a plain remote name, such as minio:vixens-backups/app ({why})"
            ))
        };
        let (remote, path) = text.split_once(':').ok_or_else(|| refusal("there is no colon"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if remote.is_empty() || remote.starts_with(['-', '.']) || !remote.chars().all(plain) {
            return Err(refusal("the remote's name may hold letters, digits, '_', '-' and '.'"));
        }
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(refusal("the path is missing"));
        }
        if path.chars().any(|c| c.is_control() || c == '\\' || c == ',') {
            return Err(refusal("the path holds a control character, a comma or a backslash"));
        }
        for part in path.split('/') {
            if part.is_empty() || part == "." || part == ".." || part.trim() != part {
                return Err(refusal(
                    "each part of the path must be a plain name: not empty, not '.' or '..'",
                ));
            }
        }
        let mut rest = path;
        while let Some(open) = rest.find(['{', '}']) {
            let known = ["{namespace}", "{name}", "{pod}"];
            let Some(found) = known.iter().find(|name| rest[open..].starts_with(**name)) else {
                return Err(refusal("the placeholders are {namespace}, {name} and {pod}"));
            };
            rest = &rest[open + found.len()..];
        }
        Ok(Self {
            remote: remote.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.remote, self.path)
    }
}

/// How long snapshots are kept: `7d` thinned, or how many of each age, and a byte budget for `history/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Keep for this long, thinned: all for an hour, hourly for a day, daily after.
    pub within: Option<Span>,
    /// Keep the newest so many.
    pub last: Option<u32>,
    /// Keep the newest of each of so many hours.
    pub hourly: Option<u32>,
    /// Keep the newest of each of so many days.
    pub daily: Option<u32>,
    /// Keep the newest of each of so many weeks.
    pub weekly: Option<u32>,
    /// Keep the newest of each of so many months.
    pub monthly: Option<u32>,
    /// At most so many bytes in `history/`.
    pub history: Option<Size>,
}

impl FromStr for Retention {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || {
            Invalid::allowed(
                "a duration such as 7d, or any of last=5,hourly=24,daily=7,weekly=4,monthly=6, with history=2Gi as a byte budget",
            )
        };
        let mut retention = Self::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None if retention.within.is_none() => {
                    let within: Span = part.parse().map_err(|_| refusal())?;
                    if within.duration().is_zero() {
                        return Err(refusal());
                    }
                    retention.within = Some(within);
                }
                None => return Err(refusal()),
                Some(("history", size)) if retention.history.is_none() => {
                    retention.history = Some(size.parse().map_err(|_| refusal())?);
                }
                Some((key, count)) => {
                    let slot = match key {
                        "last" => &mut retention.last,
                        "hourly" => &mut retention.hourly,
                        "daily" => &mut retention.daily,
                        "weekly" => &mut retention.weekly,
                        "monthly" => &mut retention.monthly,
                        _ => return Err(refusal()),
                    };
                    let count: u32 = count.parse().map_err(|_| refusal())?;
                    if count == 0 || slot.replace(count).is_some() {
                        return Err(refusal());
                    }
                }
            }
        }
        let keeps = retention.within.is_some()
            || [
                retention.last,
                retention.hourly,
                retention.daily,
                retention.weekly,
                retention.monthly,
            ]
            .iter()
            .any(Option::is_some);
        if !keeps {
            // A byte budget alone says nothing about age: the default age stands beside it.
            retention.within = Some(Span::seconds(7 * 86_400));
        }
        Ok(retention)
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
        ];
        let parts: Vec<String> = self
            .within
            .iter()
            .map(ToString::to_string)
            .chain(
                counts
                    .iter()
                    .filter_map(|(key, count)| count.map(|count| format!("{key}={count}"))),
            )
            .chain(self.history.iter().map(|size| format!("history={size}")))
            .collect();
        f.write_str(&parts.join(","))
    }
}

/// A point in time to go back to: a snapshot's id, or an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RestoreAt {
    /// `20261122T130500Z-3.42-auto`, kept as it was written.
    Snapshot(String),
    /// The newest state at or before this time.
    Time(jiff::Timestamp),
}

impl FromStr for RestoreAt {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let parts: Vec<&str> = text.split('-').collect();
        let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        let is_id = match parts.as_slice() {
            [time, sequence, kind] => {
                time.len() == 16
                    && time.ends_with('Z')
                    && time.as_bytes().get(8) == Some(&b'T')
                    && sequence.split_once('.').is_some_and(|(a, b)| number(a) && number(b))
                    && !kind.is_empty()
                    && kind.chars().all(|c| c.is_ascii_lowercase())
            }
            _ => false,
        };
        if is_id {
            Ok(Self::Snapshot(text.to_owned()))
        } else {
            Err(Invalid::allowed(
                "a snapshot's id such as 20261122T130500Z-3.42-auto, or an RFC 3339 time such as 2026-11-22T13:05:00Z",
            ))
        }
    }
}

impl fmt::Display for RestoreAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => f.write_str(id),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// Which databases a volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Databases {
    /// Found by their header.
    Auto,
    /// Every file is a plain file.
    None,
    /// These, relative to the volume, each with the profile that was given to it.
    Paths(Vec<(String, Option<Profile>)>),
}

impl FromStr for Databases {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = |why: &str| {
            Invalid::allowed(format!(
                "auto, none, or paths relative to the volume, comma-separated, each with an optional =profile, such as app.db=critical ({why})"
            ))
        };
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let mut paths: Vec<(String, Option<Profile>)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (path, profile) = match part.rsplit_once('=') {
                Some((path, profile)) => (
                    path,
                    Some(
                        profile
                            .parse()
                            .map_err(|_| refusal("the profiles are critical, standard, relaxed and ephemeral"))?,
                    ),
                ),
                None => (part, None),
            };
            if path.is_empty()
                || path.starts_with('/')
                || path
                    .split('/')
                    .any(|name| name.is_empty() || name == "." || name == "..")
            {
                return Err(refusal("a path is relative, and without empty parts or '..'"));
            }
            if paths.iter().any(|(seen, _)| seen == path) {
                return Err(refusal("a path is named once"));
            }
            paths.push((path.to_owned(), profile));
        }
        Ok(Self::Paths(paths))
    }
}

impl fmt::Display for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Paths(paths) => {
                let parts: Vec<String> = paths
                    .iter()
                    .map(|(path, profile)| match profile {
                        Some(profile) => format!("{path}={profile}"),
                        None => path.clone(),
                    })
                    .collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

/// A workload: `Deployment/app`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadName {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its `metadata.name`.
    pub name: String,
}

impl FromStr for WorkloadName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, name) = text
            .split_once('/')
            .filter(|(_, name)| !name.is_empty() && !name.contains('/'))
            .ok_or_else(|| Invalid::allowed("Deployment/NAME or StatefulSet/NAME"))?;
        Ok(Self {
            kind: kind.parse()?,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A protected volume as the agent sees it: `NAME:FOLDER:/mount/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProtectedVolume {
    /// The pod volume's name.
    pub name: String,
    /// Its folder in the bucket.
    pub folder: String,
    /// Where it is mounted, in the app and in our containers alike.
    pub mount_path: String,
}

impl FromStr for ProtectedVolume {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(folder), Some(mount_path))
                if !name.is_empty() && !folder.is_empty() && !folder.contains('/') && mount_path.starts_with('/') =>
            {
                Ok(Self {
                    name: name.to_owned(),
                    folder: folder.to_owned(),
                    mount_path: mount_path.to_owned(),
                })
            }
            _ => Err(Invalid::allowed("NAME:FOLDER:/mount/path, such as data:config:/config")),
        }
    }
}

impl fmt::Display for ProtectedVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.folder, self.mount_path)
    }
}

/// The port of the sidecar's HTTP server: `9476`, or `9476+` for the first free one from there on (`hostNetwork`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// This one.
    Fixed(u16),
    /// The first free one from here on.
    From(u16),
}

impl FromStr for Port {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (digits, from) = match text.strip_suffix('+') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        match digits.parse::<u16>() {
            Ok(port) if port > 0 => Ok(if from { Self::From(port) } else { Self::Fixed(port) }),
            _ => Err(Invalid::allowed(
                "a port such as 9476, or 9476+ for the first free one from there on",
            )),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(port) => write!(f, "{port}"),
            Self::From(port) => write!(f, "{port}+"),
        }
    }
}

/// Values stand in JSON as the text that they are parsed from.
macro_rules! serde_as_text {
    ($($name:ty),+ $(,)?) => {
        $(
            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }
        )+
    };
}

serde_as_text!(
    Span,
    Size,
    Percent,
    Destination,
    Retention,
    RestoreAt,
    Databases,
    WorkloadName,
    ProtectedVolume,
    Port
);
