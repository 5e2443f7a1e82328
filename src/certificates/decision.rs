//! What is held and trusted, and the time → what to do now. Pure; a step at a time, each safe to repeat, and to be
//! taken by two replicas at once.

use super::authority::Validity;
use jiff::Timestamp;
use std::time::Duration;

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority.
    pub authority: Duration,
    /// Of a leaf.
    pub leaf: Duration,
}

impl Default for Lifetimes {
    /// Five years, and thirty days.
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            authority: Duration::from_secs(5 * 365 * DAY),
            leaf: Duration::from_secs(30 * DAY),
        }
    }
}

impl Lifetimes {
    /// How long a new authority is in `caBundle` before it signs, and an old one stays there after its last leaf: until
    /// every API server and every replica has surely seen it. A day, at a leaf of thirty.
    pub(super) fn overlap(self) -> Duration {
        self.leaf / 30
    }
}

/// When a third of its life is left.
fn renewal(Validity { made, expires }: Validity) -> Timestamp {
    let left = expires.duration_since(made) / 3;
    expires.checked_sub(left).unwrap_or(made)
}

/// What is held and trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The authority that the Secret holds; nothing where there is no usable one.
    pub(super) authority: Option<Validity>,
    /// Whether older authorities are kept beside it.
    pub(super) older: bool,
    /// The leaf that the Secret holds.
    pub(super) leaf: Option<LeafFacts>,
    /// What the API server trusts.
    pub(super) bundle: Bundle,
}

/// A leaf, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafFacts {
    pub(super) validity: Validity,
    /// The present authority signed it.
    pub(super) by_authority: bool,
    /// It stands for every name that the API server calls us by, and one of the kept authorities signed it.
    pub(super) fits: bool,
}

/// What the API server trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bundle {
    /// There is no webhook configuration, so nobody calls us.
    NoConfiguration,
    /// Something else than what the Secret holds.
    Differs,
    /// What the Secret holds.
    Ours,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make an authority, keeping the older ones and the leaf.
    MakeAuthority(Why),
    /// Write the kept authorities into `caBundle`.
    WriteBundle,
    /// Sign a leaf.
    SignLeaf(Why),
    /// Keep the present authority alone.
    ForgetOlder,
    /// Nothing, until then at the latest.
    Wait(Timestamp),
}

/// Why something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is none that can be used.
    Missing,
    /// The present one ends before long.
    Aging,
    /// The present leaf is not of the present authority, or does not hold the names that it must.
    Outdated,
}

impl std::fmt::Display for Why {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "there was none",
            Self::Aging => "a third of the old one's life is left",
            Self::Outdated => "the old one no longer fits",
        })
    }
}

/// Decides.
pub(super) fn decide(facts: Facts, now: Timestamp, lifetimes: Lifetimes) -> Step {
    let Facts {
        authority,
        older,
        leaf,
        bundle,
    } = facts;
    let after = |time: Timestamp, wait: Duration| time.checked_add(wait).unwrap_or(Timestamp::MAX);
    let Some(authority) = authority else {
        return Step::MakeAuthority(Why::Missing);
    };
    if now >= renewal(authority) {
        return Step::MakeAuthority(Why::Aging);
    }
    match bundle {
        Bundle::NoConfiguration => return Step::Wait(renewal(authority)),
        Bundle::Differs => return Step::WriteBundle,
        Bundle::Ours => {}
    }
    let mut wait = renewal(authority);
    match leaf {
        None => return Step::SignLeaf(Why::Missing),
        Some(leaf) if !leaf.fits => return Step::SignLeaf(Why::Outdated),
        Some(leaf) if now >= leaf.validity.expires => return Step::SignLeaf(Why::Missing),
        Some(leaf) if !leaf.by_authority => {
            let trusted_everywhere = after(authority.made, lifetimes.overlap());
            if now >= trusted_everywhere {
                return Step::SignLeaf(Why::Outdated);
            }
            wait = wait.min(trusted_everywhere).min(leaf.validity.expires);
        }
        Some(leaf) => {
            if now >= renewal(leaf.validity) {
                return Step::SignLeaf(Why::Aging);
            }
            wait = wait.min(renewal(leaf.validity));
            let served_everywhere = after(leaf.validity.made, lifetimes.overlap());
            if older && now >= served_everywhere {
                return Step::ForgetOlder;
            }
            if older {
                wait = wait.min(served_everywhere);
            }
        }
    }
    Step::Wait(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        authority: Duration::from_secs(90_000),
        leaf: Duration::from_secs(9_000),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn authority(made: i64) -> Validity {
        Validity {
            made: at(made),
            expires: at(made + 90_000),
        }
    }

    /// A leaf of the present authority.
    fn leaf(made: i64) -> LeafFacts {
        LeafFacts {
            validity: Validity {
                made: at(made),
                expires: at(made + 9_000),
            },
            by_authority: true,
            fits: true,
        }
    }

    #[test]
    fn each_situation_has_its_step() {
        let settled = Facts {
            authority: Some(authority(0)),
            older: false,
            leaf: Some(leaf(0)),
            bundle: Bundle::Ours,
        };
        let rotating = Facts {
            authority: Some(authority(59_000)),
            older: true,
            leaf: Some(LeafFacts {
                by_authority: false,
                ..leaf(58_900)
            }),
            bundle: Bundle::Ours,
        };
        let cases = [
            (
                "nothing is held",
                Facts {
                    authority: None,
                    ..settled
                },
                0,
                Step::MakeAuthority(Why::Missing),
            ),
            (
                "an authority in its last third",
                settled,
                60_000,
                Step::MakeAuthority(Why::Aging),
            ),
            (
                "nobody calls us yet",
                Facts {
                    leaf: None,
                    bundle: Bundle::NoConfiguration,
                    ..settled
                },
                0,
                Step::Wait(at(60_000)),
            ),
            (
                "an authority that is not trusted yet signs nothing",
                Facts {
                    leaf: None,
                    bundle: Bundle::Differs,
                    ..settled
                },
                0,
                Step::WriteBundle,
            ),
            (
                "trusted, and no leaf",
                Facts { leaf: None, ..settled },
                0,
                Step::SignLeaf(Why::Missing),
            ),
            ("all is well", settled, 10, Step::Wait(at(6_000))),
            (
                "somebody wrote the bundle",
                Facts {
                    bundle: Bundle::Differs,
                    ..settled
                },
                10,
                Step::WriteBundle,
            ),
            ("a leaf in its last third", settled, 6_000, Step::SignLeaf(Why::Aging)),
            (
                "a leaf without a name that it needs",
                Facts {
                    leaf: Some(LeafFacts { fits: false, ..leaf(0) }),
                    ..settled
                },
                10,
                Step::SignLeaf(Why::Outdated),
            ),
            (
                "a new authority is not known everywhere yet",
                rotating,
                59_299,
                Step::Wait(at(59_300)),
            ),
            (
                "a new authority is known everywhere",
                rotating,
                59_300,
                Step::SignLeaf(Why::Outdated),
            ),
            (
                "a leaf that ended is worse than an authority that is not known everywhere",
                Facts {
                    leaf: Some(LeafFacts {
                        by_authority: false,
                        ..leaf(50_000)
                    }),
                    ..rotating
                },
                59_001,
                Step::SignLeaf(Why::Missing),
            ),
            (
                "the old leaf may still be served somewhere",
                Facts {
                    leaf: Some(leaf(59_300)),
                    ..rotating
                },
                59_599,
                Step::Wait(at(59_600)),
            ),
            (
                "the old leaf has gone",
                Facts {
                    leaf: Some(leaf(59_300)),
                    ..rotating
                },
                59_600,
                Step::ForgetOlder,
            ),
        ];
        for (name, facts, now, step) in cases {
            assert_eq!(decide(facts, at(now), LIFETIMES), step, "{name}");
        }
    }

    #[test]
    fn the_usual_overlap_is_a_day() {
        assert_eq!(Lifetimes::default().overlap(), Duration::from_secs(86_400));
    }
}
