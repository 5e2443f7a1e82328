//! What `agent pre-sync` is told.

use super::{Destination, Flags, Folders, Identity, Protection, Verify, Writer};

/// `agent pre-sync`: the restore Jobs. Checks the store and the restore point, and prints what a restore would bring.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct PreSyncArguments {
    /// Who we are.
    #[command(flatten)]
    pub identity: Identity,
    /// What is protected.
    #[command(flatten)]
    pub protection: Protection,
    /// Our own folders.
    #[command(flatten)]
    pub folders: Folders,
    /// listing: the index against the store's listing; full: download and check everything.
    #[arg(long, default_value = "listing")]
    pub verify: Verify,
    /// Pin the newest complete snapshot, so that retention keeps it (the Argo CD hook).
    #[arg(long)]
    pub pin: bool,
    /// The Secret with the store's credentials, for messages: it may not exist yet.
    #[arg(long)]
    pub secret: Option<String>,
    /// A StatefulSet's replicas: a destination with {pod} is checked for each of its pods.
    #[arg(long, default_value_t = 1)]
    pub replicas: u32,
}

impl PreSyncArguments {
    /// The destinations of each pod, the primary first. Where no path holds `{pod}`, all pods have the same.
    #[must_use]
    pub fn places(&self) -> Vec<Vec<Destination>> {
        let destinations = &self.protection.destinations;
        if !destinations.iter().any(|to| to.path().contains("{pod}")) {
            return vec![destinations.clone()];
        }
        let filled = |ordinal| {
            let pod = format!("{}-{ordinal}", self.protection.workload.name);
            destinations.iter().map(|to| to.filled(&[("{pod}", &pod)])).collect()
        };
        (0..self.replicas).map(filled).collect()
    }
}

impl Flags for PreSyncArguments {
    fn flags(&self) -> Vec<String> {
        let Self {
            identity: _,
            protection,
            folders,
            verify,
            pin,
            secret,
            replicas,
        } = self;
        let mut writer = Writer(protection.flags());
        writer.unless("verify", verify, &Verify::Listing);
        writer.unless("replicas", replicas, &1);
        if *pin {
            writer.0.push("--pin".to_owned());
        }
        writer.some("secret", secret.as_ref());
        writer.0.extend(folders.flags());
        writer.0
    }
}
