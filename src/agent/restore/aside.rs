//! The files of a volume that a restore will replace or remove → `history/<id>/.vixens-aside/`, with an index of their
//! own. Only uploads: the volume is not touched, and no snapshot is made, so that nobody restores them unasked.

use super::plan::{Content, Plan, Planned};
use super::verify::{is_as_planned, sha256_of};
use super::{Error, attributes};
use crate::agent::volume;
use crate::agent::volume::marker::INCOMING;
use crate::agent::volume::own::OwnFolder;
use crate::store::index::{Carried, Entry, File, Header, IndexWriter, IndexedVolume, Standing, Totals, What};
use crate::store::keys::{self, OWN_FOLDER, StoredName, stored_name};
use crate::store::snapshot::SnapshotId;
use crate::store::{Store, Upload, unwatched};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Uploads what none of the plans has as it is. Returns how many files that were.
pub async fn set_aside(
    store: &dyn Store,
    plans: &[&Plan],
    own: &OwnFolder,
    folder: &str,
    volume_id: &str,
    id: SnapshotId,
) -> Result<usize, Error> {
    let files = unplanned(plans, own.volume())?;
    if files.is_empty() {
        return Ok(0);
    }
    let uploads: Vec<Upload> = files
        .iter()
        .map(|path| Upload {
            local: own.volume().join(path),
            name: stored_name(path.as_os_str().as_bytes()).as_str().to_owned(),
        })
        .collect();
    let prefix = keys::aside(&id, folder);
    tracing::info!(
        "setting {} files aside in {}/{prefix}",
        uploads.len(),
        store.destination()
    );
    let mut undone = store.upload(&prefix, &uploads, &unwatched).await?;
    let index = own.join(INCOMING).join("index.json");
    write_index(&index, &files, own.volume(), folder, volume_id, id)
        .map_err(|source| volume::Error::of("writing", &index, source))?;
    let key = keys::aside_index(&id);
    if let Some((above, name)) = key.rsplit_once('/') {
        let upload = Upload {
            local: index.clone(),
            name: name.to_owned(),
        };
        undone.extend(store.upload(above, &[upload], &unwatched).await?);
    }
    if undone.is_empty() {
        return Ok(files.len());
    }
    Err(Error::NotSetAside {
        destination: store.destination(),
        undone: undone
            .iter()
            .take(5)
            .map(|one| format!("{} ({})", one.name, one.why))
            .collect(),
    })
}

/// The files on the volume that are not as any of the plans says, in the order of an index.
fn unplanned(plans: &[&Plan], root: &Path) -> Result<Vec<PathBuf>, volume::Error> {
    let mut planned: HashMap<&Path, Vec<&Content>> = HashMap::new();
    for item in plans.iter().flat_map(|plan| &plan.items) {
        if let Planned::File(content, _) = &item.what {
            planned.entry(&item.path).or_default().push(content);
        }
    }
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| volume::Error::of("reading", &folder, source);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let below = path.strip_prefix(root).unwrap_or(&path);
            if below == Path::new(OWN_FOLDER) || below == Path::new("lost+found") {
                continue;
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let mut same = false;
                for content in planned.get(below).into_iter().flatten() {
                    same = same || is_as_planned(&path, content).map_err(failed)?;
                }
                if !same {
                    files.push(below.to_owned());
                }
            }
        }
    }
    files.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(files)
}

fn write_index(
    index: &Path,
    files: &[PathBuf],
    root: &Path,
    folder: &str,
    volume_id: &str,
    id: SnapshotId,
) -> io::Result<()> {
    if let Some(above) = index.parent() {
        fs::create_dir_all(above)?;
    }
    let header = Header {
        id,
        base: None,
        time: Timestamp::now(),
        volumes: vec![IndexedVolume {
            folder: folder.to_owned(),
            id: volume_id.to_owned(),
        }],
        databases: Vec::new(),
        skipped: BTreeMap::new(),
        carried: Carried::default(),
    };
    let mut writer = IndexWriter::new(BufWriter::new(fs::File::create(index)?), &header)?;
    let mut totals = Totals::default();
    for path in files {
        let local = root.join(path);
        let mut file = fs::File::open(&local)?;
        let metadata = file.metadata()?;
        let name = path.as_os_str().as_bytes();
        let entry = Entry {
            path: [folder.as_bytes(), b"/", name].concat(),
            what: What::File(File {
                size: metadata.len(),
                sha256: sha256_of(&mut file)?,
                attributes: attributes::of(&metadata),
                stored: id.point(),
                name: match stored_name(name) {
                    StoredName::Plain(_) => None,
                    StoredName::Named(name) => Some(name),
                },
                torn: false,
            }),
            standing: Standing::Live,
        };
        totals.add(&entry);
        writer.push(&entry)?;
    }
    writer.finish(totals)?;
    Ok(())
}
