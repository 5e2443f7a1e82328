//! Deletions that a store may refuse: where objects are locked for a time, or the key may only add. That is normal there. What
//! can't be deleted stays, and nothing that we keep or restore depends on its being gone: it is said once, and tried again
//! once a day. Also where a deletion only hides, as in a bucket with versions, it is done as far as anybody here sees.

use crate::store::{Error, Store, Undone};
use std::collections::BTreeSet;

/// More copies in the mirror than these are found again by listing it.
const MOST: usize = 50_000;

/// What a place refuses to delete.
#[derive(Debug, Default)]
pub struct Deletions {
    /// Why the last one was refused.
    refused: Option<String>,
    /// Objects that stay, as far as they were counted.
    count: usize,
    /// Copies in the mirror of files that are gone, by their names below the destination: none of them is a stranger.
    mirror: BTreeSet<String>,
    said: bool,
}

/// Deletes, and says what stays. A refusal is none of the credentials as a whole: what is written is another matter.
pub async fn undeleted(store: &dyn Store, folder: &str, names: &[String]) -> Result<Vec<Undone>, Error> {
    match store.delete(folder, names).await {
        Err(Error::Refused { why, .. }) => Ok(names
            .iter()
            .map(|name| Undone {
                name: name.clone(),
                why: why.clone(),
            })
            .collect()),
        other => other,
    }
}

impl Deletions {
    /// Deletes; whether all of it is gone.
    pub async fn delete(&mut self, store: &dyn Store, folder: &str, names: &[String]) -> Result<bool, Error> {
        let undone = undeleted(store, folder, names).await?;
        if folder.is_empty() {
            let room = MOST.saturating_sub(self.mirror.len());
            self.mirror
                .extend(undone.iter().take(room).map(|undone| undone.name.clone()));
        }
        Ok(self.note(&undone))
    }

    /// Takes note of what was not deleted; whether that is nothing.
    pub fn note(&mut self, undone: &[Undone]) -> bool {
        if let Some(first) = undone.first() {
            self.refused = Some(first.why.clone());
            self.count += undone.len();
        }
        undone.is_empty()
    }

    /// Whether it is of no use to try now.
    #[must_use]
    pub const fn are_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// A file is saved under this name again.
    pub fn forget(&mut self, name: &str) {
        self.mirror.remove(name);
    }

    /// Whether a name in the mirror is that of a copy which could not be deleted.
    #[must_use]
    pub fn leaves(&self, name: &str) -> bool {
        self.mirror.contains(name)
    }

    /// Tries again what was refused. Whether it is refused no more.
    pub async fn try_again(&mut self, store: &dyn Store) -> Result<bool, Error> {
        let names: Vec<String> = std::mem::take(&mut self.mirror).into_iter().collect();
        self.refused = None;
        self.count = 0;
        if names.is_empty() {
            return Ok(true);
        }
        let tried = self.delete(store, "", &names).await;
        if tried.is_err() {
            self.mirror.extend(names);
        }
        tried
    }

    /// What there is to say, once; and again after it had been over.
    pub fn news(&mut self, destination: &str) -> Option<String> {
        let refused = self.refused.as_ref()?;
        if std::mem::replace(&mut self.said, true) {
            return None;
        }
        Some(format!(
            "{destination} does not delete what it is asked to ({refused}), as where objects are locked or the key may only add: \
             backups and restores go on, and what nobody wants kept stays there ({} objects until now). It is tried again once a \
             day",
            self.count
        ))
    }
}
