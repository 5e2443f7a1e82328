//! A snapshot → what it is, and the files that it has.

use super::Error;
use super::access::{Access, Opened, Wanted};
use super::selection::select;
use super::snapshots::{Output, json};
use crate::agent::amount;
use crate::store::index::{Attributes, Carried, Entry, Header, HoldId, Standing, Totals, What};
use crate::store::indexes::Indexes;
use crate::store::keys::hex;
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write;

/// A path of a snapshot, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// Lossy where it is no UTF-8: then `path_hex` has its bytes.
    path: String,
    #[serde(rename = "pathHex", skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    modified: Option<Timestamp>,
    uid: u32,
    gid: u32,
    /// Octal.
    mode: String,
    /// It changed while it was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
    /// The hold that keeps it, though the volume does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<HoldId>,
    /// The policy takes it no longer; the last version is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    excluded: bool,
}

impl Line {
    /// The path, lossy.
    #[cfg(test)]
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// file, folder or link.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn of(entry: &Entry) -> Self {
        let (kind, attributes) = match &entry.what {
            What::File(file) => ("file", file.attributes),
            What::Folder(attributes) => ("folder", *attributes),
            What::Link(_, attributes) => ("link", *attributes),
            What::Gone => ("gone", Attributes::default()),
        };
        let file = match &entry.what {
            What::File(file) => Some(file),
            _ => None,
        };
        Self {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            path_hex: std::str::from_utf8(&entry.path).is_err().then(|| hex(&entry.path)),
            kind,
            size: file.map(|file| file.size),
            sha256: file.map(|file| hex(&file.sha256)),
            target: match &entry.what {
                What::Link(target, _) => Some(String::from_utf8_lossy(target).into_owned()),
                _ => None,
            },
            modified: modified(&attributes),
            uid: attributes.uid,
            gid: attributes.gid,
            mode: format!("{:o}", attributes.mode),
            torn: file.is_some_and(|file| file.torn),
            held: match entry.standing {
                Standing::Held(id) => Some(id),
                Standing::Live | Standing::Excluded => None,
            },
            excluded: entry.standing == Standing::Excluded,
        }
    }
}

fn modified(attributes: &Attributes) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(attributes.modified)).ok()
}

#[derive(Serialize)]
struct Shown<'a> {
    snapshot: &'a Header,
    files: u64,
    bytes: u64,
    entries: Vec<Line>,
}

/// A snapshot whole: what it is, and those of its entries that are meant.
pub(super) struct Whole {
    pub(super) header: Header,
    pub(super) entries: Vec<Entry>,
}

impl Whole {
    pub(super) async fn read(
        access: &Access,
        opened: &Opened,
        id: &SnapshotId,
        paths: &[String],
    ) -> Result<Self, Error> {
        let indexes = Indexes::new(&opened.store, opened.scratch.path());
        let (header, entries) = indexes.read(id).await.map_err(|error| access.failed(error))?;
        let bare: Vec<&[u8]> = entries.iter().map(|entry| bare(&entry.path)).collect();
        let chosen = select(paths, &bare)?;
        let mut chosen = chosen.into_iter();
        let mut entries = entries;
        entries.retain(|_| chosen.next().unwrap_or(false));
        Ok(Self { header, entries })
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for entry in &self.entries {
            totals.add(entry);
        }
        totals
    }
}

/// A path without the slash that marks a folder.
pub(super) fn bare(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Shows a snapshot.
pub(super) async fn show(
    access: &Access,
    opened: &Opened,
    wanted: &Wanted,
    paths: &[String],
    output: Output,
) -> Result<String, Error> {
    let id = opened.snapshot(wanted)?;
    let whole = Whole::read(access, opened, &id, paths).await?;
    let Totals { files, bytes } = whole.totals();
    match output {
        Output::Json => json(&Shown {
            snapshot: &whole.header,
            files,
            bytes,
            entries: whole.entries.iter().map(Line::of).collect(),
        }),
        Output::Text => Ok(text(&whole, Timestamp::now())),
    }
}

fn text(whole: &Whole, now: Timestamp) -> String {
    let Whole { header, entries } = whole;
    let Totals { files, bytes } = whole.totals();
    let folders: Vec<&str> = header.volumes.iter().map(|volume| volume.folder.as_str()).collect();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "snapshot   {}", header.id);
    let made = header.time.strftime("%Y-%m-%d %H:%M:%S UTC");
    let _ = writeln!(text, "made       {made}, {}", amount::ago(header.time, now));
    let _ = writeln!(text, "volumes    {}", folders.join(", "));
    let _ = writeln!(
        text,
        "holds      {}, {}",
        amount::count(files, "file"),
        amount::bytes(bytes)
    );
    for line in kept(&header.carried) {
        let _ = writeln!(text, "{line}");
    }
    for (reason, count) in &header.skipped {
        let _ = writeln!(text, "left out   {}: {reason}", amount::count(*count, "file"));
    }
    for database in &header.databases {
        if database.is_a_file_alone() {
            let _ = writeln!(
                text,
                "database   {}/{}, which is not replicated: it is among the files",
                database.folder, database.path
            );
            continue;
        }
        let _ = writeln!(
            text,
            "database   {}/{} at transaction {}, {}{}",
            database.folder,
            database.path,
            database.txid,
            database.time,
            if database.file.is_some() {
                ", and what was not sent of it: it is among the files"
            } else {
                ""
            }
        );
    }
    text.push('\n');
    for entry in entries {
        text.push_str(&entry_line(entry));
        text.push('\n');
    }
    text
}

/// What of it the volumes don't have, a line each.
fn kept(carried: &Carried) -> Vec<String> {
    let line = |word: &str, totals: Totals, why: &str| {
        format!(
            "{word:10} {}, {}: {why}",
            amount::count(totals.files, "file"),
            amount::bytes(totals.bytes)
        )
    };
    let held = carried.holds.iter().map(|hold| {
        let why = format!(
            "vanished at {}, and stay until somebody decides ({})",
            hold.since, hold.id
        );
        line("held", hold.totals, &why)
    });
    let why = "the policy takes them no longer; the last version of each stays";
    let excluded = (!carried.excluded.is_nothing()).then(|| line("excluded", carried.excluded, why));
    held.chain(excluded).collect()
}

/// How an entry stands, where that is worth a word.
pub(super) fn stands(standing: Standing) -> &'static str {
    match standing {
        Standing::Live => "",
        Standing::Held(_) => "held",
        Standing::Excluded => "excluded",
    }
}

/// A line like that of `ls -l`.
fn entry_line(entry: &Entry) -> String {
    let path = amount::name(&entry.path);
    let (letter, attributes, size, after) = match &entry.what {
        What::File(file) => {
            let torn = if file.torn { "  (changed while it was read)" } else { "" };
            ('-', &file.attributes, amount::bytes(file.size), torn.to_owned())
        }
        What::Folder(attributes) => ('d', attributes, String::new(), String::new()),
        What::Link(target, attributes) => ('l', attributes, String::new(), format!(" -> {}", amount::name(target))),
        What::Gone => return format!("gone {path}"),
    };
    let owner = format!("{}:{}", attributes.uid, attributes.gid);
    let time = modified(attributes).map_or_else(String::new, |time| time.strftime("%Y-%m-%d %H:%M").to_string());
    let stands = match stands(entry.standing) {
        "" => String::new(),
        word => format!("  ({word})"),
    };
    format!(
        "{letter}{} {owner:>11} {size:>10} {time:>16} {path}{after}{stands}",
        permissions(letter, attributes.mode)
    )
}

/// `rwxr-xr-x`.
fn permissions(letter: char, mode: u32) -> String {
    if letter == 'l' {
        return "rwxrwxrwx".to_owned();
    }
    let special = [(0o4000, 's'), (0o2000, 's'), (0o1000, 't')];
    let mut text = String::with_capacity(9);
    for (group, (bit, sign)) in [6, 3, 0].into_iter().zip(special) {
        let bits = mode >> group;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & bit == 0, bits & 1 == 0) {
            (true, true) => '-',
            (true, false) => 'x',
            (false, true) => sign.to_ascii_uppercase(),
            (false, false) => sign,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::Hold;

    #[test]
    fn permissions_read_as_those_of_ls() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o2070, "---rws---"),
            (0o1777, "rwxrwxrwt"),
            (0o7000, "--S--S--T"),
        ] {
            assert_eq!(permissions('-', mode), text, "{mode:o}");
        }
    }

    #[test]
    fn what_the_volume_does_not_have_says_so() {
        let mut entry = Entry {
            path: b"config/a".to_vec(),
            what: What::Folder(Attributes::default()),
            standing: Standing::Held(HoldId::new(1)),
        };
        assert!(
            entry_line(&entry).ends_with("config/a  (held)"),
            "{}",
            entry_line(&entry)
        );
        entry.standing = Standing::Excluded;
        assert!(entry_line(&entry).ends_with("config/a  (excluded)"));
        let carried = Carried {
            holds: vec![Hold {
                id: HoldId::new(0x1a),
                since: Timestamp::UNIX_EPOCH,
                totals: Totals { files: 2, bytes: 1024 },
            }],
            excluded: Totals { files: 1, bytes: 1 },
            marked: Vec::new(),
        };
        assert_eq!(
            kept(&carried),
            [
                "held       2 files, 1.0 KiB: vanished at 1970-01-01T00:00:00Z, and stay until somebody decides (hold-0000001a)",
                "excluded   1 file, 1 B: the policy takes them no longer; the last version of each stays",
            ]
        );
    }

    #[test]
    fn an_entry_is_one_line_whatever_its_name_holds() {
        let entry = Entry {
            path: b"config/a\nb".to_vec(),
            what: What::Link(b"c\xff".to_vec(), Attributes::default()),
            standing: Standing::Live,
        };
        assert_eq!(
            entry_line(&entry),
            "lrwxrwxrwx         0:0            1970-01-01 00:00 config/a\\nb -> c\\xff"
        );
    }
}
