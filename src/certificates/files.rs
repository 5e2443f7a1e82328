//! A certificate from two files, as cert-manager's Secrets have them, reread when they change. The kubelet changes a
//! mounted Secret by swapping a symlink, so the files are read again and compared; nothing is missed, and no watch
//! breaks.

use super::{Leaf, Served, Unusable};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often the files are read again.
const REREAD: Duration = Duration::from_secs(5);

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, our own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why the files can't be served.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One of them can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// They do not hold what they should.
    #[error("{} and {} can't be served", files.certificate.display(), files.key.display())]
    Unusable {
        /// Which.
        files: Files,
        /// Why.
        source: Unusable,
    },
}

impl Files {
    /// Reads both.
    pub fn read(&self) -> Result<Leaf, FilesError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| FilesError::Read {
                path: path.clone(),
                source,
            })
        };
        Leaf::from_pem(&read(&self.certificate)?, &read(&self.key)?).map_err(|source| FilesError::Unusable {
            files: self.clone(),
            source,
        })
    }

    /// Serves what the files hold, each time that it changes. `changed` is told of it.
    pub async fn follow(self, served: Arc<Served>, changed: impl Fn(&Leaf)) {
        let mut said = None;
        loop {
            tokio::time::sleep(REREAD).await;
            let change = self.read().and_then(|leaf| match served.serve(&leaf) {
                Ok(changed) => Ok(changed.then_some(leaf)),
                Err(source) => Err(FilesError::Unusable {
                    files: self.clone(),
                    source,
                }),
            });
            match change {
                Ok(leaf) => {
                    said = None;
                    if let Some(leaf) = leaf {
                        tracing::info!(expires = %leaf.expires(), "the certificate's files changed: the new one is served");
                        changed(&leaf);
                    }
                }
                Err(error) => {
                    let problem = error.to_string();
                    if said.as_ref() != Some(&problem) {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "the certificate from before is served on");
                    }
                    said = Some(problem);
                }
            }
        }
    }
}
