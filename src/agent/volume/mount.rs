//! `/proc/self/mountinfo` → whether a path is a mount of its own. A patch once removed a volume's mount, and the agent
//! backed up its own root file system.

use super::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Refuses a path that is no mount, or with `plain_folder` one that is no folder.
pub fn check(path: &Path, plain_folder: bool) -> Result<(), Error> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::of("looking at", path, source))?;
    if !metadata.is_dir() {
        return Err(Error::of(
            "looking into",
            path,
            std::io::ErrorKind::NotADirectory.into(),
        ));
    }
    if plain_folder {
        return Ok(());
    }
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(table).map_err(|source| Error::of("reading", table, source))?;
    if is_mount(&text, path) {
        Ok(())
    } else {
        Err(Error::NotAMount { path: path.to_owned() })
    }
}

/// Whether a mount table has an entry for exactly this path.
fn is_mount(table: &[u8], path: &Path) -> bool {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|mount| unescaped(mount) == path.as_os_str().as_bytes())
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"36 35 98:0 / / rw,noatime master:1 - ext4 /dev/root rw\n\
        40 36 98:1 /pvc /config rw shared:2 - ext4 /dev/sdb rw\n\
        41 36 98:2 / /my\\040data rw - ext4 /dev/sdc rw\n";

    #[test]
    fn a_path_below_a_mount_is_no_mount_of_its_own() {
        assert!(is_mount(TABLE, Path::new("/config")));
        assert!(is_mount(TABLE, Path::new("/my data")));
        assert!(!is_mount(TABLE, Path::new("/config/sub")));
        assert!(!is_mount(TABLE, Path::new("/data")));
    }

    #[test]
    fn a_plain_folder_is_refused_unless_it_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = check(folder.path(), false).unwrap_err();
        assert!(matches!(refusal, Error::NotAMount { .. }), "{refusal}");
        check(folder.path(), true).unwrap();
        check(Path::new("/proc"), false).unwrap();
    }
}
