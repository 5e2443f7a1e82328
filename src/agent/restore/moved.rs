//! Files of a plan whose content lies on the volume under a name that the plan does not have it under → left out: what was
//! moved is not missing, and bringing it again would take its room twice.

use super::plan::{Content, Plan, Planned};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A content that can be known again: size and SHA-256. An empty file has none.
pub type Known = (u64, [u8; 32]);

/// Contents that were moved.
pub type Moved = HashSet<Known>;

/// What a content is known by.
#[must_use]
pub fn known(content: &Content) -> Option<Known> {
    Some((content.size, content.sha256?)).filter(|(size, _)| *size > 0)
}

/// Leaves out what was moved, and the folders that had nothing else.
#[must_use]
pub fn without(mut plan: Plan, moved: &Moved, volume: &Path) -> Plan {
    if moved.is_empty() {
        return plan;
    }
    let is_there = |path: &Path| fs::symlink_metadata(volume.join(path)).is_ok();
    let (mut left, mut needed): (HashSet<PathBuf>, HashSet<PathBuf>) = (HashSet::new(), HashSet::new());
    plan.items.retain(|item| {
        let is_moved = matches!(&item.what, Planned::File(content, _)
            if known(content).is_some_and(|known| moved.contains(&known)) && !is_there(&item.path));
        let is_folder = matches!(item.what, Planned::Folder(_));
        if !is_folder {
            let above = if is_moved { &mut left } else { &mut needed };
            above.extend(item.path.ancestors().skip(1).map(Path::to_owned));
        }
        !is_moved
    });
    plan.items.retain(|item| {
        !matches!(item.what, Planned::Folder(_))
            || !left.contains(&item.path)
            || needed.contains(&item.path)
            || is_there(&item.path)
    });
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::restore::plan::Item;
    use crate::store::index::{Attributes, Standing};

    fn file(path: &str, hash: u8) -> Item {
        let content = Content {
            key: format!("config/{path}"),
            size: 1,
            sha256: Some([hash; 32]),
        };
        Item {
            standing: Standing::Live,
            path: path.into(),
            what: Planned::File(content, None),
        }
    }

    fn folder(path: &str) -> Item {
        Item {
            standing: Standing::Live,
            path: path.into(),
            what: Planned::Folder(Attributes::default()),
        }
    }

    #[test]
    fn what_was_moved_is_left_out_with_the_folders_that_had_nothing_else() {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir_all(volume.path().join("there")).unwrap();
        fs::write(volume.path().join("there/e"), "").unwrap();
        let plan = Plan {
            snapshot: None,
            items: vec![
                folder(""),
                folder("documents"),
                file("documents/a", 1),
                folder("documents/sub"),
                file("documents/sub/b", 2),
                folder("empty"),
                folder("some"),
                file("some/c", 1),
                file("some/d", 9),
                folder("there"),
                file("there/e", 2),
                file("there/f", 2),
            ],
        };
        let moved: Moved = [(1, [1; 32]), (1, [2; 32])].into();
        let kept = |moved| {
            let plan = without(plan.clone(), moved, volume.path());
            let paths = plan.items.iter().map(|item| item.path.display().to_string());
            paths.collect::<Vec<_>>()
        };
        assert_eq!(kept(&moved), ["", "empty", "some", "some/d", "there", "there/e"]);
        assert_eq!(kept(&Moved::new()).len(), plan.items.len());
    }
}
