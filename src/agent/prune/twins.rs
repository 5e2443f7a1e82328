//! What is to go × the complete indexes that stay → twins that need nothing of what goes, so that of each complete index two
//! objects tell what it tells, however old it is (see [`crate::store::index`]).

use crate::store::indexes::Indexes;
use crate::store::retention::{Listing, Plan};
use crate::store::snapshot::SnapshotId;
use crate::store::{Error, Store, Upload, keys, unwatched};
use std::path::Path;

/// Makes the twins complete that are differences to what is to go. Gives what has to stay all the same, because it is now the
/// only way to a complete index that is damaged itself.
///
/// Killed here, a twin is complete before it has to be. It costs two requests, and the bytes of an index twice, for each
/// complete one whose predecessor goes.
pub(super) async fn made_whole(
    store: &dyn Store,
    scratch: &Path,
    plan: &Plan,
    listing: &Listing,
) -> Result<Vec<SnapshotId>, Error> {
    let mut needed = Vec::new();
    let folder = scratch.join("twins");
    for (complete, before) in plan.bereft(listing) {
        if !is_made_whole(store, &folder, &complete).await? {
            needed.push(before);
        }
        // What can't be removed is in nobody's way: it is written over.
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(needed)
}

/// Makes the twin of one index complete; `false` where the index can't be read itself, or the store does not take it.
async fn is_made_whole(store: &dyn Store, folder: &Path, complete: &SnapshotId) -> Result<bool, Error> {
    let indexes = Indexes::new(store, folder);
    match indexes.totals(complete).await {
        Ok(_) if indexes.broken().is_empty() => {}
        Ok(_) | Err(Error::Damaged { .. } | Error::NotFound { .. }) => return Ok(false),
        Err(other) => return Err(other),
    }
    let twin = Upload {
        local: folder.join(keys::snapshot(complete)),
        name: format!("{complete}.base"),
    };
    Ok(store.upload(keys::SNAPSHOTS, &[twin], &unwatched).await?.is_empty())
}
