//! `served/`: the restore-at values whose result is in a snapshot, and which are never served again, wherever the volume is by
//! then. Records ↔ objects of a store.

use super::records::{Served, VERSION, encode};
use super::snapshot::SnapshotId;
use super::{Error, Store, keys};
use jiff::Timestamp;

/// Whether a value was served.
pub async fn is_served(store: &dyn Store, value: &str) -> Result<bool, Error> {
    match store.read(&keys::served(value)).await {
        // That it is there says all.
        Ok(_) | Err(Error::Damaged { .. }) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Records that a value, which meant this snapshot, was served. To be called once a snapshot of the result is published.
pub async fn record(store: &dyn Store, value: &str, snapshot: SnapshotId) -> Result<(), Error> {
    let served = Served {
        version: VERSION,
        value: value.to_owned(),
        snapshot,
        time: Timestamp::now(),
    };
    store.write(&keys::served(value), &encode(&served)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn a_value_is_served_once_it_is_recorded() {
        let store = Memory::default();
        let snapshot = "20261122T130500Z-3.1-auto".parse().unwrap();
        assert!(!is_served(&store, "2026-11-22T14:00:00Z").await.unwrap());
        record(&store, "2026-11-22T14:00:00Z", snapshot).await.unwrap();
        assert!(is_served(&store, "2026-11-22T14:00:00Z").await.unwrap());
        assert!(!is_served(&store, "2026-11-22T15:00:00Z").await.unwrap());
    }
}
