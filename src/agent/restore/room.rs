//! A plan, and a volume that may have no room for all of it → live entries first; of what is held or excluded, as much as
//! fits then. What is left out stays in the store and in each snapshot, and nobody is asked for it.

use super::plan::{Item, Plan, Planned};
use super::stage::{Error, Fetch, Lacking};
use crate::agent::amount;
use crate::agent::volume::room::Room;
use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is held or excluded leaves so much of a volume to the app, and to what a start has yet to lay there: a part of it,
/// and no more than this.
const LEFT_FREE: (u64, u64) = (50, 64 << 20);

/// What came of staging.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// What the store lacks.
    pub lacking: Vec<Lacking>,
    /// What is held or excluded, and was left out for want of room.
    pub left_out: LeftOut,
}

/// Files that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Their paths.
    pub paths: Vec<PathBuf>,
    /// Their bytes, in all.
    pub bytes: u64,
}

impl LeftOut {
    /// For the log and an Event.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let first = self.paths.first()?;
        Some(format!(
            "the volume has no room for {} ({}) that are held or excluded, such as {}: they stay in the bucket and in each \
             snapshot; to have them back: vixens-backup restore, or, once the volume is larger, vixens.io/backup-restore-at \
             with the newest snapshot",
            amount::count(self.paths.len() as u64, "file"),
            amount::bytes(self.bytes),
            amount::name(first.as_os_str().as_bytes())
        ))
    }
}

impl Fetch<'_> {
    /// Stages a plan, as [`Fetch::stage`] does. Where there is no room for everything, what is held or excluded is left out of
    /// it: [`Planned::Missing`].
    pub async fn stage_what_fits(&self, plan: &mut Plan) -> Result<Fitted, Error> {
        if !plan.items.iter().any(is_carried_file) {
            let lacking = self.stage(plan).await?;
            return Ok(Fitted {
                lacking,
                ..Fitted::default()
            });
        }
        self.clear(plan)?;
        if self.room().is_none_or(|room| self.fits(plan, room)) {
            match self.fetch(plan).await {
                Err(error) if error.lacks_room() => {}
                lacking => {
                    return Ok(Fitted {
                        lacking: lacking?,
                        ..Fitted::default()
                    });
                }
            }
        }
        let live = part(plan, |item| !is_carried_file(item));
        let lacking = match self.fetch(&live).await {
            // What was staged before may take up the room.
            Err(error) if error.lacks_room() => self.stage(&live).await?,
            lacking => lacking?,
        };
        self.fetch_what_fits(plan, lacking).await
    }

    /// The live entries are there, but for what the store lacks.
    async fn fetch_what_fits(&self, plan: &mut Plan, mut lacking: Vec<Lacking>) -> Result<Fitted, Error> {
        let carried = part(plan, is_carried_file);
        let (mut left, mut never) = (self.missing(&carried)?, HashSet::new());
        loop {
            // What came may have taken less room than it seemed.
            let mut room = self.room();
            let next = part(&carried, |item| match &item.what {
                Planned::File(content, _) => {
                    left.contains(&content.key) && room.as_mut().is_none_or(|room| room.take(content.size))
                }
                Planned::Folder(_) | Planned::Link(..) | Planned::Missing => false,
            });
            if next.items.is_empty() {
                break;
            }
            match self.fetch(&next).await {
                Ok(more) => {
                    for key in next.items.iter().filter_map(key) {
                        left.remove(key);
                    }
                    // Another version of it is not looked for where there is no room.
                    never.extend(more.iter().map(|one| one.key.clone()));
                    lacking.extend(more);
                }
                Err(error) if error.lacks_room() => {
                    left = self.missing(&carried)?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        left.extend(never);
        Ok(Fitted {
            lacking,
            left_out: plan.leave_out(&left, self.volume),
        })
    }

    /// The room that there is for what is carried.
    fn room(&self) -> Option<Room> {
        let mut room = Room::of(self.volume)?;
        let (part, most) = LEFT_FREE;
        room.free = room.free.saturating_sub((room.size / part).min(most));
        Some(room)
    }

    /// Whether everything that is not there yet fits, as far as sizes tell.
    fn fits(&self, plan: &Plan, mut room: Room) -> bool {
        plan.items.iter().all(|item| match &item.what {
            Planned::File(content, _) => {
                let has_size =
                    |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.len() == content.size);
                has_size(self.incoming.join(&content.key))
                    || has_size(self.volume.join(&item.path))
                    || room.take(content.size)
            }
            Planned::Folder(_) | Planned::Link(..) | Planned::Missing => true,
        })
    }
}

impl Plan {
    /// Leaves out the files of these keys, and the folders that are held or excluded, are not there, and had nothing else.
    fn leave_out(&mut self, keys: &HashSet<String>, volume: &Path) -> LeftOut {
        let mut left_out = LeftOut::default();
        let (mut above_left, mut needed): (HashSet<PathBuf>, HashSet<PathBuf>) = (HashSet::new(), HashSet::new());
        // What is in a folder comes after it.
        for item in self.items.iter_mut().rev() {
            let above = item.path.ancestors().skip(1).map(Path::to_owned);
            let is_left = match &item.what {
                Planned::File(content, _) if keys.contains(&content.key) => {
                    left_out.bytes = left_out.bytes.saturating_add(content.size);
                    left_out.paths.push(item.path.clone());
                    true
                }
                Planned::Folder(_) => {
                    !item.standing.is_live()
                        && above_left.contains(&item.path)
                        && !needed.contains(&item.path)
                        && fs::symlink_metadata(volume.join(&item.path)).is_err()
                }
                Planned::File(..) | Planned::Link(..) | Planned::Missing => false,
            };
            if is_left {
                above_left.extend(above);
                item.what = Planned::Missing;
            } else {
                needed.extend(above);
            }
        }
        left_out.paths.reverse();
        left_out
    }
}

fn is_carried_file(item: &Item) -> bool {
    matches!(item.what, Planned::File(..)) && !item.standing.is_live()
}

fn key(item: &Item) -> Option<&str> {
    match &item.what {
        Planned::File(content, _) => Some(&content.key),
        Planned::Folder(_) | Planned::Link(..) | Planned::Missing => None,
    }
}

fn part(plan: &Plan, mut is_in: impl FnMut(&Item) -> bool) -> Plan {
    Plan {
        snapshot: plan.snapshot,
        items: plan.items.iter().filter(|item| is_in(item)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests;
