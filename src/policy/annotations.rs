//! The annotations themselves: their names, and the one place where their values are read.

use super::installation::{Installation, UnknownAnnotations};
use super::list::items;
use super::{InitPosition, Intent, Mode, Policy, Problem, Subject};
use crate::agent::arguments::{
    Databases, Destination, Invalid, Percent, Profile, QuestionId, RestorePolicy, Span, StoreDown, Tier, nearest,
};
use serde_json::{Map, Value};
use std::str::FromStr;

/// What every key of ours starts with.
pub const PREFIX: &str = "vixens.io/backup";

/// The keys, by name.
pub mod key {
    /// The tier: the only one that is needed.
    pub const BACKUP: &str = "vixens.io/backup";
    /// Written by the webhook.
    pub const INJECTED: &str = "vixens.io/backup-injected";
    /// A label of the pod template, written by the webhook.
    pub const APP_LABEL: &str = "vixens.io/backup-app";
    /// A label of companions.
    pub const COMPANION_LABEL: &str = "vixens.io/backup-companion";
    /// A label of companions' pods.
    pub const JOB_LABEL: &str = "vixens.io/backup-job";
    /// The one key that may stand on the pod template too, as a label.
    pub const PROFILE: &str = "vixens.io/backup-profile";
    /// Pod volume names.
    pub const VOLUMES: &str = "vixens.io/backup-volumes";
    /// User and group.
    pub const RUN_AS: &str = "vixens.io/backup-run-as";
    /// Where copies go.
    pub const DESTINATION: &str = "vixens.io/backup-destination";
    /// Who makes backups.
    pub const MODE: &str = "vixens.io/backup-mode";
    /// Where our init container comes.
    pub const INIT_POSITION: &str = "vixens.io/backup-init-position";
    /// Time for a restore.
    pub const RESTORE_TIMEOUT: &str = "vixens.io/backup-restore-timeout";
    /// Questions that are answered by yes.
    pub const ACCEPT: &str = "vixens.io/backup-accept";
    /// Database paths.
    pub const DATABASES: &str = "vixens.io/backup-databases";
}

/// Every annotation that an owner may write, in the order of the documentation.
pub const KEYS: [&str; 27] = [
    key::BACKUP,
    key::VOLUMES,
    key::DESTINATION,
    "vixens.io/backup-secret",
    "vixens.io/backup-vanilla-config",
    "vixens.io/backup-secrets",
    "vixens.io/backup-secrets-files",
    "vixens.io/backup-include",
    "vixens.io/backup-exclude",
    "vixens.io/backup-max-size",
    key::DATABASES,
    key::PROFILE,
    key::MODE,
    "vixens.io/backup-settle",
    "vixens.io/backup-interval",
    "vixens.io/backup-schedule",
    "vixens.io/backup-retention",
    "vixens.io/backup-restore",
    "vixens.io/backup-restore-at",
    key::RESTORE_TIMEOUT,
    "vixens.io/backup-store-down",
    "vixens.io/backup-max-shrink",
    key::RUN_AS,
    key::INIT_POSITION,
    "vixens.io/backup-resources",
    key::ACCEPT,
    "vixens.io/backup-refresh",
];

/// Whether a key is ours, or looks as if it were meant to be.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX)
}

impl Intent {
    /// Reads a workload's annotations. `template_profile` is the pod template's label `vixens.io/backup-profile`.
    ///
    /// Answers with the intent and warnings, or with every problem that was found.
    pub fn read(
        annotations: &Map<String, Value>,
        template_profile: Option<&str>,
        subject: Subject<'_>,
        installation: &Installation,
    ) -> Result<(Self, Vec<String>), Vec<Problem>> {
        let mut reader = Reader {
            annotations,
            problems: Vec::new(),
        };
        let mut warnings = Vec::new();
        for found in annotations.keys().filter(|found| is_ours(found)) {
            if KEYS.contains(&found.as_str()) || found == key::INJECTED {
                continue;
            }
            let problem = Problem::UnknownKey {
                key: found.clone(),
                nearest: nearest(found, KEYS).map(str::to_owned),
            };
            match installation.unknown_annotations {
                UnknownAnnotations::Deny => reader.problems.push(problem),
                UnknownAnnotations::Warn => warnings.push(format!("{problem} It is ignored.")),
            }
        }
        let intent = match reader.text(key::BACKUP) {
            None => {
                let others: Vec<&str> = annotations
                    .keys()
                    .map(String::as_str)
                    .filter(|found| KEYS.contains(found))
                    .collect();
                if !others.is_empty() && reader.problems.is_empty() {
                    warnings.push(format!(
                        "{} without {}: nothing is backed up; add {}: tier2",
                        others.join(", "),
                        key::BACKUP,
                        key::BACKUP
                    ));
                }
                Self::NotOurs
            }
            Some("disabled" | "off") => Self::Disabled,
            Some(text) => {
                let tier = tier(text);
                let policy = reader.policy(template_profile, subject, installation);
                match tier {
                    Ok(tier) => Self::Protect(Box::new(Policy { tier, ..policy })),
                    Err(invalid) => {
                        reader.refuse(key::BACKUP, text, invalid);
                        Self::NotOurs
                    }
                }
            }
        };
        if reader.problems.is_empty() {
            Ok((intent, warnings))
        } else {
            Err(reader.problems)
        }
    }
}

fn tier(text: &str) -> Result<Tier, Invalid> {
    Tier::from_str(text).map_err(|_| {
        let refusal = Invalid::allowed("tier1, tier2, tier3, disabled");
        let digit = text.chars().find(|c| matches!(c, '1'..='3'));
        match (digit, nearest(text, ["tier1", "tier2", "tier3", "disabled"])) {
            (Some(digit), _) => refusal.nearest(format!("tier{digit}")),
            (None, _) if matches!(text, "true" | "yes" | "on" | "enabled") => refusal.nearest("tier2"),
            (None, _) if matches!(text, "false" | "no") => refusal.nearest("disabled"),
            (None, Some(word)) => refusal.nearest(word),
            (None, None) => refusal,
        }
    })
}

/// Reads values, and collects what is wrong with them.
struct Reader<'a> {
    annotations: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).and_then(Value::as_str)
    }

    fn refuse(&mut self, key: &str, value: &str, invalid: Invalid) {
        self.problems.push(Problem::BadValue {
            key: key.to_owned(),
            value: value.to_owned(),
            invalid,
        });
    }

    /// The value of one annotation, read by `parse`; `None` where it is absent or wrong.
    fn with<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let key = format!("{PREFIX}-{name}");
        let text = self.text(&key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.refuse(&key, text, invalid);
                None
            }
        }
    }

    fn value<T: FromStr<Err = Invalid>>(&mut self, name: &str) -> Option<T> {
        self.with(name, str::parse)
    }

    fn span(&mut self, name: &str, low: Span, high: Span) -> Option<Span> {
        self.with(name, |text| {
            let span: Span = text.parse()?;
            if (low..=high).contains(&span) {
                Ok(span)
            } else {
                let near = if span < low { low } else { high };
                Err(Invalid::allowed(format!("{low} to {high}")).nearest(near.to_string()))
            }
        })
    }

    fn object_names(&mut self, name: &str, what: &str) -> Option<Vec<String>> {
        self.with(name, |text| {
            let names = items(text);
            if !names.is_empty() && names.iter().all(|name| is_object_name(name)) {
                Ok(names)
            } else {
                Err(Invalid::allowed(format!("{what}, comma-separated")))
            }
        })
    }

    fn object_name(&mut self, name: &str, what: &str) -> Option<String> {
        self.with(name, |text| {
            if is_object_name(text) {
                Ok(text.to_owned())
            } else {
                Err(Invalid::allowed(format!("the name of {what}")))
            }
        })
    }

    fn patterns(&mut self, name: &str) -> Vec<String> {
        self.with(name, |text| {
            let patterns = items(text);
            match patterns.iter().find(|pattern| !is_balanced(pattern)) {
                Some(pattern) => Err(Invalid::allowed(format!(
                    "rclone filter patterns, comma- or line-separated ({pattern:?} has a bracket without its partner)"
                ))),
                None if patterns.is_empty() => {
                    Err(Invalid::allowed("rclone filter patterns, such as *.bak or media/**"))
                }
                None => Ok(patterns),
            }
        })
        .unwrap_or_default()
    }

    fn question_ids(&mut self, name: &str) -> Vec<QuestionId> {
        self.with(name, |text| {
            let ids: Result<Vec<QuestionId>, String> = items(text)
                .into_iter()
                .map(|item| item.parse().map_err(|_| item))
                .collect();
            ids.map_err(|item| {
                Invalid::allowed(format!(
                    "the ids of questions, comma-separated, such as hold-1a2b3c4d, as an Event, the log and the status say \
                     them ({item:?} is none)"
                ))
            })
        })
        .unwrap_or_default()
    }

    fn destinations(&mut self, subject: Subject<'_>, installation: &Installation) -> Vec<Destination> {
        let written = self.with("destination", |text| {
            let destinations: Vec<Destination> =
                items(text).iter().map(|item| item.parse()).collect::<Result<_, _>>()?;
            let mut places = destinations.clone();
            places.sort();
            places.dedup();
            if destinations.is_empty() || places.len() != destinations.len() {
                return Err(Invalid::allowed("remote:bucket/path, each once"));
            }
            if !subject.stateful
                && destinations
                    .iter()
                    .any(|destination| destination.path().contains("{pod}"))
            {
                return Err(Invalid::allowed(
                    "{namespace} and {name} on a Deployment: its pods have a new name each time",
                ));
            }
            Ok(destinations)
        });
        let built_in = || {
            let text = if subject.stateful {
                "minio:vixens-backups/{pod}"
            } else {
                "minio:vixens-backups/{name}"
            };
            text.parse().into_iter().collect()
        };
        written
            .or_else(|| installation.destination.clone())
            .unwrap_or_else(built_in)
            .iter()
            .map(|destination| destination.filled(&[("{namespace}", subject.namespace), ("{name}", subject.name)]))
            .collect()
    }

    fn policy(&mut self, template_profile: Option<&str>, subject: Subject<'_>, installation: &Installation) -> Policy {
        let profile: Option<Profile> = self.value("profile").or_else(|| {
            let text = template_profile?;
            text.parse()
                .map_err(|invalid| self.refuse("the pod template's label vixens.io/backup-profile", text, invalid))
                .ok()
        });
        Policy {
            tier: Tier::Tier2,
            volumes: self.object_names("volumes", "pod volume names"),
            destinations: self.destinations(subject, installation),
            secret: self
                .object_name("secret", "a Secret")
                .unwrap_or_else(|| installation.secret.clone()),
            vanilla_config: self.object_name("vanilla-config", "a ConfigMap"),
            secrets: self.object_names("secrets", "Secret names").unwrap_or_default(),
            secrets_files: self.patterns("secrets-files"),
            includes: self.patterns("include"),
            excludes: self.patterns("exclude"),
            max_size: self.value("max-size"),
            databases: self.value("databases").unwrap_or(Databases::Auto),
            profile: profile.unwrap_or(installation.profile),
            mode: self.value("mode").unwrap_or(Mode::SidecarAndCronJob),
            settle: self.span("settle", Span::seconds(1), Span::seconds(300)),
            interval: self
                .span("interval", Span::seconds(10), Span::seconds(86_400))
                .unwrap_or(Span::seconds(300)),
            schedule: self.value("schedule").or_else(|| installation.schedule.clone()),
            retention: self.value("retention").unwrap_or(installation.retention),
            restore: self.value("restore").unwrap_or(RestorePolicy::IfEmpty),
            restore_at: self.value("restore-at"),
            restore_timeout: self
                .span("restore-timeout", Span::seconds(1), Span::seconds(7 * 86_400))
                .unwrap_or(Span::seconds(1800)),
            store_down: self.value("store-down").unwrap_or(StoreDown::Wait),
            max_shrink: self.value("max-shrink").unwrap_or(Percent(50)),
            run_as: self.value("run-as"),
            init_position: self.value("init-position").unwrap_or(InitPosition::First),
            resources: self
                .value::<super::Resources>("resources")
                .unwrap_or_default()
                .over(&installation.resources),
            accepted: self.question_ids("accept"),
            refresh: self.text("vixens.io/backup-refresh").map(str::to_owned),
        }
    }
}

/// RFC 1123 subdomain, the rule of most object names and of volumes.
fn is_object_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 253
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

/// Whether each brace and bracket of a glob has its partner.
fn is_balanced(pattern: &str) -> bool {
    let mut braces = 0_i32;
    let mut class = false;
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.next().is_none() => return false,
            '[' => class = true,
            ']' => class = false,
            '{' if !class => braces += 1,
            '}' if !class => braces -= 1,
            _ => {}
        }
        if braces < 0 {
            return false;
        }
    }
    braces == 0 && !class
}
