//! What containers leave as their last words for the controller: a run of the CronJob that does the work itself, which
//! snapshot each destination holds; a start, what it has brought back. Questions have words of their own (`question`).
//! Types only.

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

/// What a start has brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Whether somebody should look at it: it is not what would be expected, such as an older snapshot.
    pub is_unexpected: bool,
    /// In words, on one line. Says nothing of other namespaces: it is shown in Events.
    pub text: String,
}

const RESTORED: &str = "vixens-backup restored: ";
const UNEXPECTED: &str = "vixens-backup restored, please look: ";

impl Restored {
    /// What was restored, in the words of [`fmt::Display`], found in what a container said.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let of = |is_unexpected, text: &str| Self {
                is_unexpected,
                text: text.to_owned(),
            };
            let unexpected = line.strip_prefix(UNEXPECTED).map(|text| of(true, text));
            unexpected.or_else(|| line.strip_prefix(RESTORED).map(|text| of(false, text)))
        })
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = if self.is_unexpected { UNEXPECTED } else { RESTORED };
        write!(f, "{head}{}", self.text.replace('\n', " "))
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

    #[test]
    fn what_was_restored_is_found_again_in_what_was_said() {
        for is_unexpected in [false, true] {
            let restored = Restored {
                is_unexpected,
                text: "volume data: restored from 20261122T130500Z-3.42-auto".to_owned(),
            };
            assert_eq!(Restored::find(&format!("{restored}\n")), Some(restored));
        }
        assert_eq!(Restored::find("the store could not be asked"), None);
    }
}
