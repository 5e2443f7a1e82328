//! Annotations and the installation's defaults → what the owner asks for. Pure.

/// The installation's own defaults: one YAML file, `--config`.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    /// The UID of the cluster's kube-system namespace; nothing where manifests are rendered offline.
    pub cluster_id: Option<String>,
}

/// Why the installation's defaults can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(String);

impl Installation {
    /// Reads the `--config` file.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigurationError> {
        let value: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| ConfigurationError(error.to_string()))?;
        if value.is_null() || value.is_object() {
            Ok(Self::default())
        } else {
            Err(ConfigurationError("not a mapping of keys to values".into()))
        }
    }
}
