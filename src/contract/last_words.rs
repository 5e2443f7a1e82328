//! What a run of the CronJob that does the work itself leaves as its last words, for the controller: which snapshot each
//! destination holds. Questions have words of their own (`question`). Types only.

use std::fmt;

/// A destination, after a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// As the agent was told it.
    pub destination: String,
    /// Its newest snapshot.
    pub snapshot: String,
    /// The id in its `store-id` object, where that is known.
    pub store_id: Option<String>,
}

const SAVED: &str = "vixens-backup saved ";
const SNAPSHOT: &str = ": newest snapshot ";
const STORE: &str = ", store ";

impl Saved {
    /// All of them in what a container said, in the words of [`fmt::Display`].
    pub fn find_all(text: &str) -> impl Iterator<Item = Self> + '_ {
        text.lines().filter_map(|line| {
            let (destination, rest) = line.trim().strip_prefix(SAVED)?.rsplit_once(SNAPSHOT)?;
            let (snapshot, store_id) = match rest.split_once(STORE) {
                Some((snapshot, store_id)) => (snapshot, Some(store_id.to_owned())),
                None => (rest, None),
            };
            Some(Self {
                destination: destination.to_owned(),
                snapshot: snapshot.to_owned(),
                store_id,
            })
        })
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            destination,
            snapshot,
            store_id,
        } = self;
        write!(f, "{SAVED}{destination}{SNAPSHOT}{snapshot}")?;
        match store_id {
            Some(id) => write!(f, "{STORE}{id}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_found_again_in_what_was_said() {
        let saved = |store_id: Option<&str>| Saved {
            destination: "minio:vixens-backups/my app".to_owned(),
            snapshot: "20261122T130500Z-3.42-scheduled".to_owned(),
            store_id: store_id.map(str::to_owned),
        };
        let both = [saved(Some("0123456789abcdef")), saved(None)];
        let said = format!("{}\n{}\nvixens-backup asks hold-1a2b3c4d: …\n", both[0], both[1]);
        assert_eq!(Saved::find_all(&said).collect::<Vec<_>>(), both);
        assert_eq!(Saved::find_all("b2:b/app: no route to host").count(), 0);
    }
}
