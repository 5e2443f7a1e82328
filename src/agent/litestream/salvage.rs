//! A replica of which something is damaged → the newest state that its other files make up. They are fetched beside the
//! volume's own staging, tried from the first on, and the first that spoils a restore is left out: another level, or an
//! older snapshot, has the same transactions most of the time.

use super::ltx::{self, File, Txid};
use super::replica::Replica;
use super::restore::{Error, Restore, failed, litestream, restored};
use crate::store::unwatched;
use std::fs;
use std::path::Path;

/// So many damaged files are looked for.
const MOST: usize = 32;

/// Restores the newest whole state at or before `limit` to `output`; how it is told.
pub(super) async fn salvage(
    restore: &Restore<'_>,
    replica: &Replica<'_>,
    mut files: Vec<File>,
    limit: Option<Txid>,
    staged: &Path,
    output: &Path,
    first_why: &str,
) -> Result<String, Error> {
    let newest = files.iter().map(|file| file.max).max();
    let mut spoilt: Vec<String> = Vec::new();
    let fetched = staged.join("replica");
    for _ in 0..MOST {
        let Some(chain) = ltx::newest(&files, limit) else { break };
        let names: Vec<String> = chain.iter().map(|file| replica.name(file)).collect();
        let missing: Vec<String> = names
            .iter()
            .filter(|name| !fetched.join(name).exists())
            .cloned()
            .collect();
        fs::create_dir_all(&fetched).map_err(failed("making", &fetched))?;
        let undone = replica
            .store
            .download(replica.key, &missing, &fetched, &unwatched)
            .await?;
        let lost: Vec<&File> = chain
            .iter()
            .filter(|file| undone.iter().any(|one| one.name == replica.name(file)))
            .collect();
        let spoiler = match lost.first() {
            Some(file) => Some(**file),
            None => spoiler(replica, &chain, staged, output).await?,
        };
        let Some(spoiler) = spoiler else {
            let reached = chain.last().map(|file| file.max);
            return Ok(told(reached, newest, limit, &spoilt));
        };
        spoilt.push(replica.name(&spoiler));
        files.retain(|file| *file != spoiler);
    }
    Err(Error::Unrestorable {
        destination: restore.store.destination(),
        why: first_why.to_owned(),
    })
}

/// The first file of a chain with which a restore fails; none: it succeeded, and lies at `output`.
async fn spoiler(replica: &Replica<'_>, chain: &[File], staged: &Path, output: &Path) -> Result<Option<File>, Error> {
    if attempt(replica, chain, staged, output).await?.is_ok() {
        return Ok(None);
    }
    // The longest beginning that is whole, by halving what is left.
    let (mut whole, mut damaged) = (0, chain.len());
    while damaged - whole > 1 {
        let middle = whole.midpoint(damaged);
        let beginning = chain.get(..middle).unwrap_or_default();
        if attempt(replica, beginning, staged, output).await?.is_ok() {
            whole = middle;
        } else {
            damaged = middle;
        }
    }
    Ok(chain.get(whole).copied())
}

/// Restores from these files alone.
async fn attempt(
    replica: &Replica<'_>,
    chain: &[File],
    staged: &Path,
    output: &Path,
) -> Result<Result<(), String>, Error> {
    let folder = staged.join("attempt");
    let _ = fs::remove_dir_all(&folder);
    for file in chain {
        let level = folder.join(format!("ltx/{}", file.level));
        fs::create_dir_all(&level).map_err(failed("making", &level))?;
        let (from, to) = (staged.join("replica").join(replica.name(file)), level.join(file.name()));
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(|_| ()))
            .map_err(failed("linking", &from))?;
    }
    let mut command = litestream();
    command
        .args(["restore", "-o"])
        .arg(output)
        .arg(format!("file://{}", folder.display()));
    Ok(restored(command, output).await)
}

fn told(reached: Option<Txid>, newest: Option<Txid>, limit: Option<Txid>, spoilt: &[String]) -> String {
    let reached = reached.unwrap_or_default();
    let goal = limit.or(newest).unwrap_or_default();
    let lost = if reached < goal {
        format!("; what came after it, up to {goal}, is lost")
    } else {
        String::new()
    };
    format!(
        "transaction {reached}, by way of other files, because these are damaged: {}{lost}",
        spoilt.join(", ")
    )
}
