//! The installation's own defaults: one YAML file (`--config`, a ConfigMap) → [`Installation`]. Its keys are checked as
//! strictly as the annotations.

use super::resources::Resources;
use super::schedule::Schedule;
use crate::agent::arguments::{Destination, Invalid, Profile, Retention, nearest};
use serde_json::Value;
use std::str::FromStr;

/// What happens to an annotation that starts like ours and is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownAnnotations {
    /// The workload is denied.
    #[default]
    Deny,
    /// It is ignored, and warned about.
    Warn,
}

/// Defaults of this installation, and what the webhook knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The image of the injected containers, pinned by version or digest.
    pub image: String,
    /// `backup-destination` where a workload names none; `None`: `minio:vixens-backups/{name}`, on a StatefulSet `{pod}`.
    pub destination: Option<Vec<Destination>>,
    /// `backup-secret` where a workload names none.
    pub secret: String,
    /// `backup-schedule` where a workload names none; `None`: staggered by name.
    pub schedule: Option<Schedule>,
    /// `backup-retention` where a workload names none.
    pub retention: Retention,
    /// `backup-profile` where a workload names none.
    pub profile: Profile,
    /// Under what a workload's `backup-resources` say.
    pub resources: Resources,
    /// Namespaces whose workloads are never touched.
    pub excluded_namespaces: Vec<String>,
    /// What happens to unknown keys.
    pub unknown_annotations: UnknownAnnotations,
    /// The UID of the namespace kube-system; `serve` reads it at its start, offline it is not known.
    pub cluster_id: Option<String>,
}

impl Default for Installation {
    fn default() -> Self {
        Self {
            image: concat!("ghcr.io/vixens-io/vixens-backup:", env!("CARGO_PKG_VERSION")).to_owned(),
            destination: None,
            secret: "rclone-minio-config".to_owned(),
            schedule: None,
            retention: Retention {
                within: Some(crate::agent::arguments::Span::seconds(7 * 86_400)),
                ..Retention::default()
            },
            profile: Profile::Standard,
            resources: Resources::default(),
            excluded_namespaces: Vec::new(),
            unknown_annotations: UnknownAnnotations::Deny,
            cluster_id: None,
        }
    }
}

/// Why the file with the installation's defaults was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It is not YAML.
    #[error("the configuration is not YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is not a mapping.
    #[error("the configuration must be a mapping of keys to values")]
    NotAMapping,
    /// A key that is none.
    #[error("{key}: no such key; the keys are {}{}", KEYS.join(", "), nearest.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The closest one that is known.
        nearest: Option<String>,
    },
    /// A value that does not parse.
    #[error("{key}: {value} does not parse")]
    BadValue {
        /// The key.
        key: String,
        /// The value, as JSON.
        value: String,
        /// What is allowed.
        #[source]
        invalid: Invalid,
    },
}

const KEYS: [&str; 9] = [
    "image",
    "destination",
    "secret",
    "schedule",
    "retention",
    "profile",
    "resources",
    "excludedNamespaces",
    "unknownAnnotations",
];

impl Installation {
    /// Reads the file's text; an empty file is all defaults.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigurationError> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| ConfigurationError::Yaml(Box::new(error)))?;
        let mut installation = Self::default();
        let entries = match value {
            Value::Null => return Ok(installation),
            Value::Object(entries) => entries,
            _ => return Err(ConfigurationError::NotAMapping),
        };
        for (key, value) in &entries {
            let refused = |invalid| ConfigurationError::BadValue {
                key: key.clone(),
                value: value.to_string(),
                invalid,
            };
            match key.as_str() {
                "image" => installation.image = image(value).map_err(refused)?,
                "destination" => installation.destination = Some(destinations(value).map_err(refused)?),
                "secret" => text_of(value).map_err(refused)?.clone_into(&mut installation.secret),
                "schedule" => installation.schedule = Some(parsed(value).map_err(refused)?),
                "retention" => installation.retention = parsed(value).map_err(refused)?,
                "profile" => installation.profile = parsed(value).map_err(refused)?,
                "resources" => installation.resources = parsed(value).map_err(refused)?,
                "excludedNamespaces" => installation.excluded_namespaces = texts(value).map_err(refused)?,
                "unknownAnnotations" => {
                    installation.unknown_annotations = match value.as_str() {
                        Some("deny") => UnknownAnnotations::Deny,
                        Some("warn") => UnknownAnnotations::Warn,
                        _ => return Err(refused(Invalid::allowed("deny, warn"))),
                    };
                }
                _ => {
                    return Err(ConfigurationError::UnknownKey {
                        key: key.clone(),
                        nearest: nearest(key, KEYS).map(str::to_owned),
                    });
                }
            }
        }
        Ok(installation)
    }

    /// The image where its file names none.
    pub fn or_image(&mut self, image: &str) {
        if self.image == Self::default().image {
            image.clone_into(&mut self.image);
        }
    }
}

fn text_of(value: &Value) -> Result<&str, Invalid> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Invalid::allowed("a text that is not empty"))
}

fn parsed<T: FromStr<Err = Invalid>>(value: &Value) -> Result<T, Invalid> {
    text_of(value)?.parse()
}

fn texts(value: &Value) -> Result<Vec<String>, Invalid> {
    let refusal = || Invalid::allowed("a list of texts");
    value
        .as_array()
        .ok_or_else(refusal)?
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(refusal))
        .collect()
}

fn destinations(value: &Value) -> Result<Vec<Destination>, Invalid> {
    super::list::items(text_of(value)?)
        .iter()
        .map(|item| item.parse())
        .collect()
}

/// An image reference with a tag or a digest; `latest` is neither.
fn image(value: &Value) -> Result<String, Invalid> {
    let text = text_of(value)?;
    let last = text.rsplit('/').next().unwrap_or(text);
    let pinned = last.contains('@')
        || last
            .split_once(':')
            .is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest");
    if pinned && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err(Invalid::allowed(
            "an image with a version or a digest, such as registry.example/vixens-backup:0.1.0, never latest",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_an_empty_file_is_all_defaults() {
        assert_eq!(Installation::from_yaml("").unwrap(), Installation::default());
        let installation = Installation::from_yaml(
            "image: registry.example:5000/backup@sha256:0a\ndestination: minio:b/{namespace}/{name},offsite:c/{name}\n\
             secret: keys\nschedule: '*/5 * * * *'\nretention: last=3\nprofile: critical\n\
             resources: init.limits.cpu=2\nexcludedNamespaces: [a, b]\nunknownAnnotations: warn\n",
        )
        .unwrap();
        assert_eq!(installation.destination.unwrap().len(), 2);
        assert_eq!(installation.excluded_namespaces, ["a", "b"]);
        assert_eq!(installation.unknown_annotations, UnknownAnnotations::Warn);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let error = Installation::from_yaml("destinaton: minio:b/c")
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean destination?"), "{error}");
    }

    #[test]
    fn an_image_is_pinned() {
        for bad in [
            "vixens-backup",
            "vixens-backup:latest",
            "registry:5000/vixens-backup",
            "''",
        ] {
            assert!(Installation::from_yaml(&format!("image: {bad}")).is_err(), "{bad}");
        }
    }
}
