//! What a snapshot has beside what the volume is: held entries, which vanished suspiciously, and excluded ones, which the
//! policy takes no longer. What of them a comparison allows.

use super::app::App;
use super::tree::{Tree, What, difference, told};

/// The pattern that a pod may have as `--exclude`.
pub const EXCLUDED: &str = "f2*";

/// How many entries may be there besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// None.
    Nothing,
    /// So many files, as `/status` has said with the acknowledgement.
    Files(u64),
    /// Nobody has said how many.
    Any,
}

/// Whether [`EXCLUDED`] takes a path's entry away.
pub fn is_excluded(path: &[u8], what: &What) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    *what != What::Folder && name.starts_with(b"f2")
}

/// Where a tree is another than it should be. What there is besides has to be something that its path once was.
pub fn deviations(expected: &Tree, found: &Tree, besides: Besides, app: &App) -> Vec<String> {
    if besides == Besides::Nothing {
        return difference(expected, found);
    }
    let (mut common, mut files, mut wrong) = (found.clone(), 0, Vec::new());
    for (path, seen) in found.iter().filter(|(path, _)| !expected.contains_key(*path)) {
        common.remove(path);
        files += u64::from(matches!(seen.what, What::File(..) | What::Database(_)));
        let is_known = matches!(seen.what, What::Folder | What::Database(_)) || app.ever_was(path, &seen.what);
        if !is_known {
            wrong.push(format!(
                "{} is kept as {}, which it never was",
                path.escape_ascii(),
                told(Some(seen))
            ));
        }
    }
    if let Besides::Files(said) = besides
        && said != files
    {
        let besides: Vec<String> = found
            .keys()
            .filter(|path| !expected.contains_key(*path))
            .map(|path| path.escape_ascii().to_string())
            .collect();
        wrong.push(format!(
            "{said} files were said to be held or excluded, and these are: {besides:?}"
        ));
    }
    wrong.extend(difference(expected, &common));
    wrong
}
