//! The volumes of a workload: what each is, who mounts it where, and which of them is to be protected
//! (interface, "Detection of volumes").

use super::{POD, at, list, text};
use crate::policy::{Problem, key};
use serde_json::Value;

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A PersistentVolumeClaim, by its name.
    Claim(String),
    /// A claim that a StatefulSet makes for each pod.
    ClaimTemplate,
    /// A claim that lives and dies with the pod.
    EphemeralClaim,
    /// An emptyDir on the node's disk.
    EmptyDir,
    /// An emptyDir in memory.
    Memory,
    /// NFS.
    Nfs,
    /// A path of the node.
    HostPath,
    /// ConfigMaps, Secrets, the downward API and the like: read-only by nature.
    ReadOnly,
    /// Anything else, such as CSI.
    Other,
}

impl Source {
    /// Whether it may be chosen unasked.
    const fn is_candidate(&self) -> bool {
        matches!(
            self,
            Self::Claim(_) | Self::ClaimTemplate | Self::EphemeralClaim | Self::EmptyDir
        )
    }

    /// Whether it outlives the pod, or at least is a claim.
    pub const fn is_claim(&self) -> bool {
        matches!(self, Self::Claim(_) | Self::ClaimTemplate | Self::EphemeralClaim)
    }

    /// Whether another pod can mount the same data: what a CronJob that does the work itself needs.
    pub const fn is_shared_claim(&self) -> bool {
        matches!(self, Self::Claim(_) | Self::ClaimTemplate)
    }

    /// A word for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Claim(name) => format!("claim {name}"),
            Self::ClaimTemplate => "claim template".to_owned(),
            Self::EphemeralClaim => "ephemeral claim".to_owned(),
            Self::EmptyDir => "emptyDir".to_owned(),
            Self::Memory => "emptyDir in memory".to_owned(),
            Self::Nfs => "NFS".to_owned(),
            Self::HostPath => "hostPath".to_owned(),
            Self::ReadOnly => "read-only source".to_owned(),
            Self::Other => "other".to_owned(),
        }
    }
}

/// One place where an app container mounts a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The container.
    pub container: String,
    /// The path, without a slash at its end.
    pub path: String,
    /// `subPath`, literal.
    pub sub_path: Option<String>,
    /// Whether `subPathExpr` decides.
    pub has_expression: bool,
    /// `readOnly`.
    pub read_only: bool,
}

/// A pod volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub source: Source,
    /// Who mounts it: the app's containers first, its init containers behind them.
    pub mounts: Vec<Mount>,
}

impl Volume {
    /// The mounts that can be written through, by the app's containers before its init containers.
    pub fn writable_mounts(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| !mount.read_only)
    }
}

/// A volume that is to be protected, and how it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// Where our containers mount it: the app's own path.
    pub mount_path: String,
    /// The `subPath` below which it is protected.
    pub sub_path: Option<String>,
    /// Its folder in the bucket.
    pub folder: String,
    /// The app container that mounts it: whose user we take.
    pub container: String,
}

/// Paths at which an emptyDir is plainly scratch.
const SCRATCH: [&str; 6] = ["/tmp", "/run", "/var/run", "/var/cache", "/dev/shm", "/cache"];

/// Reads the volumes of a workload and of a StatefulSet's claim templates.
pub(super) fn read(object: &Value) -> Vec<Volume> {
    let Some(pod) = at(object, POD) else {
        return Vec::new();
    };
    let mounts = |name: &str| -> Vec<Mount> {
        list(pod, "/containers")
            .iter()
            .chain(list(pod, "/initContainers"))
            .flat_map(|container| {
                let of = text(container, "/name").unwrap_or_default();
                list(container, "/volumeMounts")
                    .iter()
                    .filter(|mount| text(mount, "/name") == Some(name))
                    .filter_map(move |mount| read_mount(of, mount))
            })
            .collect()
    };
    let templates = list(object, "/spec/volumeClaimTemplates")
        .iter()
        .filter_map(|claim| text(claim, "/metadata/name"))
        .map(|name| (name, Source::ClaimTemplate));
    let claimed: Vec<&str> = templates.clone().map(|(name, _)| name).collect();
    let volumes = list(pod, "/volumes")
        .iter()
        .filter_map(|volume| Some((text(volume, "/name")?, source(volume))))
        // A claim template takes the place of a volume of its name.
        .filter(|(name, _)| !claimed.contains(name));
    templates
        .chain(volumes)
        .map(|(name, source)| Volume {
            name: name.to_owned(),
            source,
            mounts: mounts(name),
        })
        .collect()
}

fn read_mount(container: &str, mount: &Value) -> Option<Mount> {
    let path = text(mount, "/mountPath")?;
    let trimmed = path.trim_end_matches('/');
    Some(Mount {
        container: container.to_owned(),
        path: if trimmed.is_empty() { "/" } else { trimmed }.to_owned(),
        sub_path: text(mount, "/subPath")
            .filter(|path| !path.is_empty())
            .map(str::to_owned),
        has_expression: text(mount, "/subPathExpr").is_some_and(|path| !path.is_empty()),
        read_only: mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn source(volume: &Value) -> Source {
    let has = |name: &str| volume.get(name).is_some_and(|value| !value.is_null());
    if let Some(claim) = volume.get("persistentVolumeClaim").filter(|claim| claim.is_object()) {
        if claim.get("readOnly").and_then(Value::as_bool).unwrap_or(false) {
            return Source::ReadOnly;
        }
        return Source::Claim(text(claim, "/claimName").unwrap_or_default().to_owned());
    }
    if has("ephemeral") {
        return Source::EphemeralClaim;
    }
    if let Some(directory) = volume.get("emptyDir").filter(|value| !value.is_null()) {
        return match text(directory, "/medium") {
            Some("Memory") => Source::Memory,
            _ => Source::EmptyDir,
        };
    }
    if has("nfs") {
        return Source::Nfs;
    }
    if has("hostPath") {
        return Source::HostPath;
    }
    if ["configMap", "secret", "downwardAPI", "projected", "image"]
        .iter()
        .any(|name| has(name))
    {
        return Source::ReadOnly;
    }
    // A volume without a source is an emptyDir by the API's default.
    if volume.as_object().is_some_and(|volume| volume.len() == 1) {
        return Source::EmptyDir;
    }
    Source::Other
}

/// Chooses the volumes to protect: those that are named, or the one that can be meant.
pub fn select<'a>(volumes: &'a [Volume], named: Option<&[String]>) -> Result<Vec<Candidate<'a>>, Vec<Problem>> {
    let chosen: Vec<&Volume> = match named {
        Some(wanted) => by_name(volumes, wanted)?,
        None => vec![detected(volumes)?],
    };
    let mut problems = Vec::new();
    let mut candidates: Vec<Candidate<'a>> = Vec::new();
    for volume in chosen {
        match candidate(volume, named.is_some()) {
            Ok(candidate) => candidates.push(candidate),
            Err(problem) => problems.push(problem),
        }
    }
    separate(&mut candidates);
    let mut folders: Vec<&str> = candidates.iter().map(|candidate| candidate.folder.as_str()).collect();
    folders.sort_unstable();
    let shared = folders.windows(2).find_map(|pair| match pair {
        [first, second] if first == second => Some(*first),
        _ => None,
    });
    if let Some(folder) = shared {
        problems.push(Problem::conflict(
            key::VOLUMES,
            format!("two volumes would share the folder {folder:?} in the bucket; rename one of the volumes"),
        ));
    }
    if problems.is_empty() {
        Ok(candidates)
    } else {
        Err(problems)
    }
}

fn by_name<'a>(volumes: &'a [Volume], names: &[String]) -> Result<Vec<&'a Volume>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut chosen: Vec<&Volume> = Vec::new();
    for name in names {
        match volumes.iter().find(|volume| &volume.name == name) {
            None => problems.push(Problem::conflict(
                key::VOLUMES,
                format!("there is no volume {name:?} in this pod; {}", listed(volumes)),
            )),
            Some(volume) if volume.writable_mounts().next().is_none() || volume.source == Source::ReadOnly => {
                problems.push(Problem::conflict(
                    key::VOLUMES,
                    format!(
                        "no container of the app can write to volume {name:?}; {}",
                        listed(volumes)
                    ),
                ));
            }
            Some(volume) if chosen.contains(&volume) => {}
            Some(volume) => chosen.push(volume),
        }
    }
    if problems.is_empty() { Ok(chosen) } else { Err(problems) }
}

fn is_scratch(volume: &Volume) -> bool {
    volume.mounts.iter().all(|mount| {
        SCRATCH
            .iter()
            .any(|scratch| mount.path == *scratch || mount.path.starts_with(&format!("{scratch}/")))
    })
}

fn detected(volumes: &[Volume]) -> Result<&Volume, Vec<Problem>> {
    let candidates = || {
        volumes
            .iter()
            .filter(|volume| volume.source.is_candidate() && volume.writable_mounts().next().is_some())
    };
    let claims: Vec<&Volume> = candidates().filter(|volume| volume.source.is_claim()).collect();
    let directories: Vec<&Volume> = candidates()
        .filter(|volume| volume.source == Source::EmptyDir && !is_scratch(volume))
        .collect();
    let several = |kind: &str, found: &[&Volume]| {
        let names: Vec<String> = found.iter().map(|volume| described(volume)).collect();
        vec![Problem::conflict(
            key::VOLUMES,
            format!(
                "the app writes to several {kind}: {}; say which to protect, for example {}: {}",
                names.join(", "),
                key::VOLUMES,
                found.first().map_or("", |volume| &volume.name)
            ),
        )]
    };
    match (claims.as_slice(), directories.as_slice()) {
        ([claim], _) => Ok(claim),
        ([], [directory]) => Ok(directory),
        ([], []) => Err(vec![Problem::conflict(
            key::VOLUMES,
            format!(
                "there is nothing to protect: no container of the app writes to a claim or an emptyDir; {}",
                listed(volumes)
            ),
        )]),
        ([], several_directories) => Err(several("emptyDir volumes", several_directories)),
        (several_claims, _) => Err(several("claims", several_claims)),
    }
}

fn described(volume: &Volume) -> String {
    match volume.writable_mounts().next() {
        Some(mount) => format!("{} ({} at {})", volume.name, volume.source.describe(), mount.path),
        None => format!("{} ({})", volume.name, volume.source.describe()),
    }
}

/// The volumes that could be named, for a message.
fn listed(volumes: &[Volume]) -> String {
    let names: Vec<String> = volumes
        .iter()
        .filter(|volume| volume.source != Source::ReadOnly && volume.writable_mounts().next().is_some())
        .map(described)
        .collect();
    if names.is_empty() {
        format!(
            "it has no writable volume: mount a claim, or use {}: tier1",
            key::BACKUP
        )
    } else {
        format!("write {} with one of: {}", key::VOLUMES, names.join(", "))
    }
}

fn candidate(volume: &Volume, named: bool) -> Result<Candidate<'_>, Problem> {
    let refusal = |why: &str| {
        Problem::conflict(
            key::VOLUMES,
            format!(
                "volume {:?} is mounted {why}; to protect all of it write {}: {}",
                volume.name,
                key::VOLUMES,
                volume.name
            ),
        )
    };
    let mounts: Vec<&Mount> = volume.writable_mounts().collect();
    let Some(first) = mounts.first() else {
        return Err(refusal("read-only"));
    };
    let one_place = mounts
        .iter()
        .all(|mount| mount.sub_path == first.sub_path && !mount.has_expression);
    let (sub_path, folder) = match (one_place, named) {
        (true, _) => (first.sub_path.clone(), folder_of(&first.path, &volume.name)),
        // All of the volume, so the last element of one mount path says nothing.
        (false, true) => (None, volume.name.clone()),
        (false, false) if mounts.iter().any(|mount| mount.has_expression) => {
            return Err(refusal("with subPathExpr"));
        }
        (false, false) => return Err(refusal("in several subPaths")),
    };
    Ok(Candidate {
        volume,
        mount_path: first.path.clone(),
        sub_path,
        folder,
        container: first.container.clone(),
    })
}

/// The last element of the mount path; the volume's name where there is none that can be a folder.
fn folder_of(path: &str, volume: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or_default();
    let reserved = [
        "history",
        "snapshots",
        "claims",
        "served",
        "pins",
        "requests",
        "database",
    ];
    if last.is_empty() || last.starts_with('.') || reserved.contains(&last) || last.contains([':', '\\']) {
        volume.to_owned()
    } else {
        last.to_owned()
    }
}

/// Volumes whose mount paths end alike take their own names.
fn separate(candidates: &mut [Candidate<'_>]) {
    let folders: Vec<String> = candidates.iter().map(|candidate| candidate.folder.clone()).collect();
    for candidate in candidates {
        if folders.iter().filter(|folder| **folder == candidate.folder).count() > 1 {
            candidate.folder = candidate.volume.name.clone();
        }
    }
}
