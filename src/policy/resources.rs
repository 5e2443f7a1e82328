//! What our containers ask of the node and may use at most: the defaults, the installation's, the workload's, in
//! that order. Quantities stay the text that was written: Kubernetes reads them.

use crate::agent::arguments::{Invalid, nearest};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A Kubernetes quantity, such as `128Mi` or `50m`, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Quantity(String);

impl Quantity {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The quantity in base units, for comparison: bytes or cores.
    pub fn amount(&self) -> f64 {
        let end = self
            .0
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(self.0.len());
        let number: f64 = self.0[..end].parse().unwrap_or(0.0);
        let factor = match &self.0[end..] {
            "m" => 0.001,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "Ki" => 1024.0,
            "Mi" => 1_048_576.0,
            "Gi" => 1_073_741_824.0,
            "Ti" => 1_099_511_627_776.0,
            _ => 1.0,
        };
        number * factor
    }
}

impl FromStr for Quantity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || Invalid::allowed("a quantity such as 128Mi or 50m");
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let known = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
        if number.parse::<f64>().is_err() || !known.contains(&suffix) {
            return Err(refusal());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The containers that are ours, by the name they have in `backup-resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerKind {
    /// `init-config`.
    Init,
    /// `backup-sidecar`.
    Sidecar,
    /// The companion CronJob's.
    CronJob,
    /// The restore Jobs'.
    Restore,
}

const CONTAINERS: [(&str, ContainerKind); 4] = [
    ("init", ContainerKind::Init),
    ("sidecar", ContainerKind::Sidecar),
    ("cronjob", ContainerKind::CronJob),
    ("restore", ContainerKind::Restore),
];
const SIDES: [&str; 2] = ["requests", "limits"];
const NAMES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Resource names and their quantities.
pub type Amounts = BTreeMap<String, Quantity>;

/// `requests` and `limits` of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// What the scheduler sets aside.
    pub requests: Amounts,
    /// What the kernel enforces.
    pub limits: Amounts,
}

/// The requirements of all our containers: the defaults, under what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<(ContainerKind, &'static str, &'static str), Quantity>);

impl Resources {
    /// These, over `base`.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut merged = base.0.clone();
        merged.extend(self.0.clone());
        Self(merged)
    }

    /// One container's requirements. A request above its limit is lowered to it, and `guaranteed` makes both equal:
    /// a pod of QoS class Guaranteed stays so.
    #[must_use]
    pub fn of(&self, kind: ContainerKind, guaranteed: bool) -> Requirements {
        let defaults: [(&str, &str, &str); 4] = match kind {
            // The guide's 100m made one small backup take four seconds; a request of 10m reserves no more than before.
            ContainerKind::Sidecar => [
                ("requests", "memory", "64Mi"),
                ("requests", "cpu", "10m"),
                ("limits", "memory", "128Mi"),
                ("limits", "cpu", "500m"),
            ],
            ContainerKind::CronJob => [
                ("requests", "memory", "64Mi"),
                ("requests", "cpu", "10m"),
                ("limits", "memory", "128Mi"),
                ("limits", "cpu", "100m"),
            ],
            ContainerKind::Init => [
                ("requests", "memory", "64Mi"),
                ("requests", "cpu", "50m"),
                ("limits", "memory", "256Mi"),
                ("limits", "cpu", "1"),
            ],
            ContainerKind::Restore => [
                ("requests", "memory", "128Mi"),
                ("requests", "cpu", "50m"),
                ("limits", "memory", "256Mi"),
                ("limits", "cpu", "200m"),
            ],
        };
        let mut sides: BTreeMap<&str, Amounts> = SIDES.map(|side| (side, Amounts::new())).into();
        let written = self
            .0
            .iter()
            .filter(|((of, _, _), _)| *of == kind)
            .map(|((_, side, name), quantity)| (*side, *name, quantity.clone()));
        let defaults = defaults.map(|(side, name, text)| (side, name, Quantity(text.to_owned())));
        for (side, name, quantity) in defaults.into_iter().chain(written) {
            sides.entry(side).or_default().insert(name.to_owned(), quantity);
        }
        let mut requests = sides.remove("requests").unwrap_or_default();
        let limits = sides.remove("limits").unwrap_or_default();
        for (name, limit) in &limits {
            match requests.get(name) {
                Some(request) if !guaranteed && request.amount() <= limit.amount() => {}
                None if !guaranteed => {}
                _ => {
                    requests.insert(name.clone(), limit.clone());
                }
            }
        }
        Requirements { requests, limits }
    }
}

impl FromStr for Resources {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut resources = Self::default();
        for item in super::list::items(text) {
            let refusal = |why: &str| {
                Invalid::allowed(format!(
                    "CONTAINER.requests|limits.cpu|memory|ephemeral-storage=QUANTITY, comma-separated, such as \
                     init.limits.memory=256Mi ({item:?}: {why})"
                ))
            };
            let (path, quantity) = item.split_once('=').ok_or_else(|| refusal("there is no '='"))?;
            let parts: Vec<&str> = path.splitn(3, '.').map(str::trim).collect();
            let [container, side, name] = parts.as_slice() else {
                return Err(refusal("three words with dots between them stand before the '='"));
            };
            let (_, kind) = CONTAINERS.iter().find(|(word, _)| word == container).ok_or_else(|| {
                let guess = nearest(container, CONTAINERS.map(|(word, _)| word));
                let refusal = refusal("the containers are init, sidecar, cronjob and restore");
                match guess {
                    Some(guess) => refusal.nearest(format!("{guess}.{side}.{name}={quantity}")),
                    None => refusal,
                }
            })?;
            let side = SIDES
                .into_iter()
                .find(|word| word == side)
                .ok_or_else(|| refusal("it is requests or limits"))?;
            let name = NAMES
                .into_iter()
                .find(|word| word == name)
                .ok_or_else(|| refusal("it is cpu, memory or ephemeral-storage"))?;
            let quantity = quantity
                .trim()
                .parse()
                .map_err(|_| refusal("a quantity is written as 128Mi or 50m"))?;
            resources.0.insert((*kind, side, name), quantity);
        }
        Ok(resources)
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for ((kind, side, name), quantity) in &self.0 {
            let word = CONTAINERS
                .iter()
                .find(|(_, of)| of == kind)
                .map_or("", |(word, _)| word);
            write!(f, "{comma}{word}.{side}.{name}={quantity}")?;
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerKind, Resources};

    #[test]
    fn what_is_written_goes_over_the_defaults_and_survives_being_written_again() {
        let resources: Resources = "init.limits.memory=512Mi, sidecar.requests.cpu=20m".parse().unwrap();
        assert_eq!(resources.to_string().parse::<Resources>().unwrap(), resources);
        let init = resources.of(ContainerKind::Init, false);
        assert_eq!(init.limits["memory"].as_str(), "512Mi");
        assert_eq!(init.requests["memory"].as_str(), "64Mi");
        assert_eq!(
            resources.of(ContainerKind::Sidecar, false).requests["cpu"].as_str(),
            "20m"
        );
    }

    #[test]
    fn a_request_never_exceeds_its_limit_and_a_guaranteed_pod_stays_so() {
        let resources: Resources = "sidecar.limits.memory=32Mi".parse().unwrap();
        let sidecar = resources.of(ContainerKind::Sidecar, false);
        assert_eq!(sidecar.requests["memory"].as_str(), "32Mi");
        let guaranteed = Resources::default().of(ContainerKind::Sidecar, true);
        assert_eq!(guaranteed.requests, guaranteed.limits);
    }

    #[test]
    fn a_bad_item_is_named() {
        for text in [
            "init.limits.memory",
            "main.limits.cpu=1",
            "init.limit.cpu=1",
            "init.limits.cpu=fast",
        ] {
            let refusal = text.parse::<Resources>().unwrap_err().to_string();
            assert!(refusal.contains(text), "{refusal}");
        }
    }
}
