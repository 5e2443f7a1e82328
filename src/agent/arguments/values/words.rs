//! Values that are one of a few words.

use super::{Invalid, nearest};
use std::fmt;
use std::str::FromStr;

/// Defines an enumeration whose values are words: `FromStr`, `Display`, `ALL`, and a refusal with the nearest word.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for the value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => {
                        let words = [$($word),+];
                        let refusal = Invalid::allowed(words.join(", "));
                        Err(match nearest(text, words) {
                            Some(word) => refusal.nearest(word),
                            None => refusal,
                        })
                    }
                }
            }
        }
    };
}

words! {
    /// How much of the pattern a workload gets (guide, step 1).
    Tier {
        /// Vanilla configuration and secrets; nothing is stored.
        Tier1 = "tier1",
        /// And file backup and restore.
        Tier2 = "tier2",
        /// And continuous SQLite replication.
        Tier3 = "tier3",
    }
}

words! {
    /// When `init` restores.
    RestorePolicy {
        /// Only what is missing (design, decision 10).
        IfEmpty = "if-empty",
        /// Whenever the backup is newer than the volume's last one.
        Always = "always",
        /// Never; go on to the layers.
        Never = "never",
    }
}

words! {
    /// What `init` does with an empty volume while the store can't be reached.
    StoreDown {
        /// Retry until the timeout, then fail.
        Wait = "wait",
        /// Start on vanilla with backups fenced off.
        Start = "start",
    }
}

words! {
    /// A database's snapshot interval and retention.
    Profile {
        /// Snapshot each hour, kept 336 h.
        Critical = "critical",
        /// Snapshot each 6 h, kept 168 h.
        Standard = "standard",
        /// Snapshot each 24 h, kept 72 h.
        Relaxed = "relaxed",
        /// Not replicated.
        Ephemeral = "ephemeral",
    }
}

impl Profile {
    /// The snapshot interval and the retention, in hours; nothing for databases that are not replicated.
    #[must_use]
    pub const fn hours(self) -> Option<(u32, u32)> {
        match self {
            Self::Critical => Some((1, 336)),
            Self::Standard => Some((6, 168)),
            Self::Relaxed => Some((24, 72)),
            Self::Ephemeral => None,
        }
    }
}

words! {
    /// The kinds of workload that are injected.
    WorkloadKind {
        /// `apps/v1` Deployment.
        Deployment = "Deployment",
        /// `apps/v1` StatefulSet.
        StatefulSet = "StatefulSet",
    }
}

words! {
    /// How thoroughly `pre-sync` looks at a snapshot.
    Verify {
        /// The index against the store's listing.
        Listing = "listing",
        /// Download and check everything.
        Full = "full",
    }
}
