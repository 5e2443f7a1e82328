//! Two snapshots → what came, went and changed between them, by path.

use super::Error;
use super::access::{Access, Opened, Wanted};
use super::selection::select;
use super::show::{Line, Whole, bare, stands};
use super::snapshots::{Output, json};
use crate::agent::amount;
use crate::store::index::{Attributes, Entry, What};
use crate::store::snapshot::SnapshotId;
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt::Write;

/// What differs.
#[derive(Debug, Serialize)]
struct Difference {
    from: SnapshotId,
    to: SnapshotId,
    added: Vec<Line>,
    removed: Vec<Line>,
    changed: Vec<Changed>,
}

#[derive(Debug, Serialize)]
struct Changed {
    /// Content, target, mode, owner, time.
    what: Vec<&'static str>,
    before: Line,
    after: Line,
}

/// One path of two snapshots.
#[derive(Debug, PartialEq, Eq)]
enum Pair<'a> {
    Added(&'a Entry),
    Removed(&'a Entry),
    Both(&'a Entry, &'a Entry),
}

/// Compares two snapshots.
pub(super) async fn diff(
    access: &Access,
    opened: &Opened,
    from: &Wanted,
    to: &Wanted,
    paths: &[String],
    output: Output,
) -> Result<String, Error> {
    let (from, to) = (opened.snapshot(from)?, opened.snapshot(to)?);
    let before = Whole::read(access, opened, &from, &[]).await?.entries;
    let after = Whole::read(access, opened, &to, &[]).await?.entries;
    let mut pairs = pairs(&before, &after);
    let either: Vec<&[u8]> = pairs.iter().map(|pair| bare(pair.path())).collect();
    let mut chosen = select(paths, &either)?.into_iter();
    pairs.retain(|_| chosen.next().unwrap_or(false));
    match output {
        Output::Json => json(&difference(from, to, &pairs)),
        Output::Text => Ok(text(from, to, &pairs)),
    }
}

impl Pair<'_> {
    fn path(&self) -> &[u8] {
        match self {
            Self::Added(entry) | Self::Removed(entry) | Self::Both(entry, _) => &entry.path,
        }
    }
}

/// Both in the order of their paths → every path that is in either.
fn pairs<'a>(before: &'a [Entry], after: &'a [Entry]) -> Vec<Pair<'a>> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut pairs = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => old.path.cmp(&new.path),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return pairs,
        };
        let old = order.is_le().then(|| before.next()).flatten();
        let new = order.is_ge().then(|| after.next()).flatten();
        pairs.push(match (old, new) {
            (Some(old), Some(new)) => Pair::Both(old, new),
            (Some(old), None) => Pair::Removed(old),
            (None, Some(new)) => Pair::Added(new),
            (None, None) => return pairs,
        });
    }
}

/// In which ways an entry changed.
fn changes(before: &Entry, after: &Entry) -> Vec<&'static str> {
    let mut changes = Vec::new();
    if before.standing != after.standing {
        changes.push(match stands(after.standing) {
            "" => "live",
            word => word,
        });
    }
    let (old, new) = match (&before.what, &after.what) {
        (What::File(old), What::File(new)) => {
            if (old.size, old.sha256) != (new.size, new.sha256) {
                changes.push("content");
            }
            (old.attributes, new.attributes)
        }
        (What::Link(old, was), What::Link(new, is)) => {
            if old != new {
                changes.push("target");
            }
            (*was, *is)
        }
        // A folder's time changes with what is in it.
        (What::Folder(old), What::Folder(new)) => (
            *old,
            Attributes {
                modified: old.modified,
                ..*new
            },
        ),
        _ => {
            changes.push("type");
            return changes;
        }
    };
    if old.mode != new.mode {
        changes.push("mode");
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        changes.push("owner");
    }
    if old.modified != new.modified {
        changes.push("time");
    }
    changes
}

fn difference(from: SnapshotId, to: SnapshotId, pairs: &[Pair<'_>]) -> Difference {
    let mut difference = Difference {
        from,
        to,
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
    };
    for pair in pairs {
        match pair {
            Pair::Added(entry) => difference.added.push(Line::of(entry)),
            Pair::Removed(entry) => difference.removed.push(Line::of(entry)),
            Pair::Both(before, after) => {
                let what = changes(before, after);
                if !what.is_empty() {
                    let (before, after) = (Line::of(before), Line::of(after));
                    difference.changed.push(Changed { what, before, after });
                }
            }
        }
    }
    difference
}

fn text(from: SnapshotId, to: SnapshotId, pairs: &[Pair<'_>]) -> String {
    let mut text = String::new();
    let (mut added, mut removed, mut changed, mut touched) = (0, 0, 0, 0);
    for pair in pairs {
        // Writing to a String does not fail.
        let _ = match pair {
            Pair::Added(entry) => {
                added += u64::from(!is_folder(entry));
                writeln!(text, "+ {}{}", amount::name(&entry.path), size(entry))
            }
            Pair::Removed(entry) => {
                removed += u64::from(!is_folder(entry));
                writeln!(text, "- {}{}", amount::name(&entry.path), size(entry))
            }
            Pair::Both(before, after) => match changes(before, after).as_slice() {
                [] => Ok(()),
                ["time"] => {
                    touched += 1;
                    Ok(())
                }
                ways => {
                    changed += 1;
                    writeln!(text, "~ {}  {}", amount::name(&after.path), said(before, after, ways))
                }
            },
        };
    }
    let _ = write!(
        text,
        "{from} to {to}: {added} added, {removed} removed, {changed} changed"
    );
    if touched > 0 {
        let _ = write!(text, ", {touched} with another time only");
    }
    text.push('\n');
    text
}

fn is_folder(entry: &Entry) -> bool {
    matches!(entry.what, What::Folder(_))
}

fn size(entry: &Entry) -> String {
    match &entry.what {
        What::File(file) => format!("  {}", amount::bytes(file.size)),
        What::Link(target, _) => format!(" -> {}", amount::name(target)),
        What::Folder(_) | What::Gone => String::new(),
    }
}

fn said(before: &Entry, after: &Entry, changes: &[&'static str]) -> String {
    let attributes = |entry: &Entry| match &entry.what {
        What::File(file) => file.attributes,
        What::Folder(attributes) | What::Link(_, attributes) => *attributes,
        What::Gone => Attributes::default(),
    };
    let (old, new) = (attributes(before), attributes(after));
    let parts = changes.iter().filter_map(|change| match *change {
        "content" => match (&before.what, &after.what) {
            (What::File(old), What::File(new)) if old.size == new.size => {
                Some(format!("{}, other content", amount::bytes(new.size)))
            }
            (What::File(old), What::File(new)) => {
                Some(format!("{} → {}", amount::bytes(old.size), amount::bytes(new.size)))
            }
            _ => None,
        },
        "target" => Some(format!(
            "{} → {}",
            size(before).trim_start_matches(" -> "),
            size(after).trim_start_matches(" -> ")
        )),
        "mode" => Some(format!("mode {:o} → {:o}", old.mode, new.mode)),
        "owner" => Some(format!("owner {}:{} → {}:{}", old.uid, old.gid, new.uid, new.gid)),
        "live" => Some(format!("no longer {}", stands(before.standing))),
        word @ ("held" | "excluded") => Some(word.to_owned()),
        "type" => Some(format!("{} → {}", Line::of(before).kind(), Line::of(after).kind())),
        _ => None,
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::{File, Standing};
    use crate::store::snapshot::Point;

    fn file(path: &str, content: u8, attributes: Attributes) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            what: What::File(File {
                size: 1024 * u64::from(content / 2),
                sha256: [content; 32],
                attributes,
                stored: Point { epoch: 1, sequence: 1 },
                name: None,
                torn: false,
            }),
            standing: Standing::Live,
        }
    }

    fn other(path: &str, what: What) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            what,
            standing: Standing::Live,
        }
    }

    #[test]
    fn each_kind_of_difference_has_its_line_and_what_is_the_same_has_none() {
        let plain = Attributes {
            mode: 0o644,
            ..Attributes::default()
        };
        let later = Attributes { modified: 5, ..plain };
        let private = Attributes {
            mode: 0o600,
            uid: 7,
            ..plain
        };
        let excluded = |path: &str| Entry {
            standing: Standing::Excluded,
            ..file(path, 2, plain)
        };
        let before = [
            other("config/", What::Folder(plain)),
            file("config/a", 2, plain),
            file("config/b", 2, plain),
            file("config/c", 2, plain),
            file("config/d", 2, plain),
            other("config/e", What::Link(b"x".to_vec(), plain)),
            file("config/f", 2, plain),
            file("config/g", 2, plain),
            file("config/h", 2, plain),
            excluded("config/i"),
        ];
        let after = [
            other("config/", What::Folder(later)),
            file("config/a", 2, plain),
            file("config/b", 3, later),
            file("config/c", 8, plain),
            file("config/d", 2, private),
            other("config/e", What::Link(b"y".to_vec(), plain)),
            other("config/f", What::Link(b"y".to_vec(), plain)),
            file("config/g", 2, later),
            excluded("config/h"),
            file("config/i", 2, plain),
            other("config/new/", What::Folder(plain)),
            file("config/new/h", 4, plain),
        ];
        let [from, to] = ["20261122T100000Z-1.1-auto", "20261122T110000Z-1.2-auto"].map(|id| id.parse().unwrap());
        assert_eq!(
            text(from, to, &pairs(&before, &after)),
            "~ config/b  1.0 KiB, other content\n\
             ~ config/c  1.0 KiB → 4.0 KiB\n\
             ~ config/d  mode 644 → 600, owner 0:0 → 7:0\n\
             ~ config/e  x → y\n\
             ~ config/f  file → link\n\
             ~ config/h  excluded\n\
             ~ config/i  no longer excluded\n\
             + config/new/\n\
             + config/new/h  2.0 KiB\n\
             20261122T100000Z-1.1-auto to 20261122T110000Z-1.2-auto: 1 added, 0 removed, 7 changed, 1 with another time only\n"
        );
        let difference = difference(to, from, &pairs(&after, &before));
        let removed: Vec<&str> = difference.removed.iter().map(Line::path).collect();
        assert_eq!(removed, ["config/new/", "config/new/h"]);
        assert_eq!(difference.changed.len(), 8);
    }
}
