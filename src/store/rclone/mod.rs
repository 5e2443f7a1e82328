//! The store behind rclone: each call of the trait becomes one rclone process, and what it says becomes a result.
//!
//! rclone is given what facts about it demand: one try a call (retries are ours), no look at the destination, files by
//! name on its standard input, a bounded memory. Credentials reach it by environment and configuration file alone,
//! read afresh for each call, and never appear in arguments or messages.

mod arrivals;
mod configuration;
mod exchange;
mod process;
mod settings;
mod suspects;
mod telling;
mod together;

use super::keys::joined;
use super::{
    Answer, Contents, Depth, Done, Error, Exchanged, Object, Presence, SMALL, Store, Undone, Upload,
    exchange_one_by_one,
};
use process::{Call, Ended, Work};
use serde::Deserialize;
pub use settings::Settings;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use suspects::{Purpose, Verdicts};

/// At most so many names are given to one rclone process (facts, rclone 8).
const BATCH: usize = 10_000;
/// Calls that move no files end within this time, or the store counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(60);
/// Types of remotes that wrap others: what looks empty may be encrypted with another password.
const WRAPPERS: [&str; 8] = [
    "crypt", "alias", "union", "chunker", "combine", "compress", "hasher", "cache",
];

/// One destination, reached by rclone.
#[derive(Debug)]
pub struct Rclone {
    remote: String,
    path: String,
    settings: Settings,
    /// Which objects are damaged, as was seen a moment ago.
    verdicts: Verdicts,
}

/// A listing of names and sizes.
const BARE: [&str; 2] = ["--no-modtime", "--no-mimetype"];
/// The same, of every file below a folder.
const BARE_BELOW: [&str; 4] = ["--no-modtime", "--no-mimetype", "--recursive", "--files-only"];
/// The same, with the time that the store has in its listing: an object store is not asked for each object's own.
const DATED_BELOW: [&str; 4] = ["--use-server-modtime", "--no-mimetype", "--recursive", "--files-only"];

/// Folders of our own are numbered, for calls at the same time.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

impl Rclone {
    /// The destination `remote:path`.
    #[must_use]
    pub fn new(remote: &str, path: &str, settings: Settings) -> Self {
        Self {
            remote: remote.to_owned(),
            path: path.to_owned(),
            settings,
            verdicts: Verdicts::default(),
        }
    }

    /// `remote:path/key/`: with the slash, rclone takes it for a folder without asking.
    fn folder(&self, prefix: &str) -> String {
        let below = joined(&self.path, prefix);
        format!("{}:{below}/", self.remote)
    }

    fn call(&self, command: &str) -> Call<'_> {
        Call::new(&self.settings, command)
    }

    /// A folder in the scratch folder that no other call has.
    fn own_folder(&self, what: &str) -> PathBuf {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}-{}-{number}", std::process::id());
        self.settings.scratch_dir.join(name)
    }

    /// Runs a call that moves no files, within [`PATIENCE`].
    async fn quick(&self, call: Call<'_>, work: Work<'_>) -> Result<Ended, Error> {
        match tokio::time::timeout(PATIENCE, call.run(work)).await {
            Ok(ended) => ended,
            Err(_) => Err(Error::Unreachable {
                destination: self.destination(),
                why: format!("no answer within {} s", PATIENCE.as_secs()),
            }),
        }
    }

    /// Prints one object.
    async fn cat(&self, key: &str) -> Result<Ended, Error> {
        let (folder, name) = folder_and_name(key);
        let call = self
            .call("cat")
            .arg(self.folder(folder))
            .arg("--files-from-raw=-")
            .arg("--no-traverse")
            .stdin(name.as_bytes().to_vec());
        self.quick(call, Work::Bytes { limit: SMALL }).await
    }

    /// An error for a call that did not succeed.
    fn failure(&self, ended: &Ended) -> Error {
        telling::failure(&self.destination(), ended)
    }

    /// Uploads files that lie below `root` under the very names that they are to have.
    async fn upload_below(
        &self,
        root: &Path,
        prefix: &str,
        names: &[&str],
        links: bool,
        done: Done<'_>,
    ) -> Result<Vec<Undone>, Error> {
        let mut undone = Vec::new();
        for names in names.chunks(BATCH) {
            let mut call = self.call("copy").arg(root).arg(self.folder(prefix)).upload();
            if links {
                call = call.arg("--copy-links");
            }
            undone.extend(self.batch(call, prefix, names, done, Purpose::Write).await?);
        }
        Ok(undone)
    }

    /// Makes a folder of links, named as the files are to be named in the store.
    fn link(&self, files: &[&Upload]) -> Result<PathBuf, Error> {
        let root = self.own_folder("links");
        let make = || -> std::io::Result<()> {
            // Left by a process of the same number that was killed: in a container that is any.
            if root.exists() {
                std::fs::remove_dir_all(&root)?;
            }
            std::fs::create_dir_all(&root)?;
            for Upload { local, name } in files {
                let link = root.join(name);
                if let Some(folder) = link.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                std::os::unix::fs::symlink(local, link)?;
            }
            Ok(())
        };
        match make() {
            Ok(()) => Ok(root),
            Err(source) => {
                let _ = std::fs::remove_dir_all(&root);
                Err(Error::Local {
                    what: format!("links in {} can't be made", root.display()),
                    source,
                })
            }
        }
    }

    /// The remote's type, such as `s3` or `crypt`, without its settings.
    async fn remote_type(&self) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Remote {
            name: String,
            r#type: String,
        }

        let call = self.call("listremotes").arg("--json").arg("--long");
        let ended = self.quick(call, Work::Bytes { limit: SMALL }).await?;
        if !ended.succeeded() {
            return Err(self.failure(&ended));
        }
        let remotes: Vec<Remote> = serde_json::from_slice(&ended.bytes).unwrap_or_default();
        Ok(remotes
            .into_iter()
            .find(|remote| remote.name == self.remote)
            .map(|remote| remote.r#type))
    }

    async fn list_folder(
        &self,
        folder: String,
        extra: &[&str],
        each: &mut (dyn FnMut(Object) + Send),
    ) -> Result<Presence, Error> {
        let call = self.call("lsjson").arg(folder).args(extra);
        let ended = call.run(Work::Listing { each }).await?;
        if ended.succeeded() {
            return Ok(Presence::Present);
        }
        if telling::is_missing_folder(&ended) {
            return Ok(Presence::Missing);
        }
        Err(self.failure(&ended))
    }
}

impl Store for Rclone {
    fn destination(&self) -> String {
        format!("{}:{}", self.remote, self.path)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        depth: Depth,
        each: &'a mut (dyn FnMut(Object) + Send),
    ) -> Answer<'a, Presence> {
        Box::pin(async move {
            let flags: &[&str] = match depth {
                Depth::One => &BARE,
                Depth::All => &BARE_BELOW,
                Depth::Dated => &DATED_BELOW,
            };
            self.list_folder(self.folder(prefix), flags, each).await
        })
    }

    fn list_all<'a>(&'a self, prefixes: &'a [&'a str]) -> Answer<'a, Vec<Vec<Object>>> {
        Box::pin(self.list_together(prefixes))
    }

    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let ended = self.cat(key).await?;
            let bytes = if ended.succeeded() || telling::is_missing_folder(&ended) {
                ended.bytes
            } else if telling::may_be_of_objects(&ended) {
                self.read_again(key, self.failure(&ended)).await?
            } else {
                return Err(self.failure(&ended));
            };
            if bytes.len() as u64 > SMALL {
                return Err(Error::Damaged {
                    destination: self.destination(),
                    key: key.to_owned(),
                    why: format!("it is larger than {SMALL} bytes"),
                });
            }
            if bytes.is_empty() {
                let (folder, name) = folder_and_name(key);
                // rclone prints nothing for a missing object and for an empty one, and succeeds for both.
                let mut exists = false;
                self.list(folder, Depth::One, &mut |object| {
                    exists |= object.name == name && !object.folder;
                })
                .await?;
                if !exists {
                    return Err(Error::NotFound {
                        destination: self.destination(),
                        key: key.to_owned(),
                    });
                }
            }
            Ok(bytes)
        })
    }

    fn read_all<'a>(&'a self, keys: &'a [&'a str]) -> Answer<'a, Contents> {
        Box::pin(self.read_together(keys))
    }

    fn write<'a>(&'a self, key: &'a str, content: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let target = format!("{}:{}", self.remote, joined(&self.path, key));
            let call = self
                .call("rcat")
                .arg(target)
                .upload_without_names()
                .stdin(content.to_vec());
            let ended = self.quick(call, Work::Bytes { limit: SMALL }).await?;
            if ended.succeeded() {
                Ok(())
            } else {
                Err(self.failure(&ended))
            }
        })
    }

    fn upload<'a>(&'a self, prefix: &'a str, files: &'a [Upload], done: Done<'a>) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let mut by_root: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
            let mut renamed: Vec<&Upload> = Vec::new();
            for file in files {
                match root_of(file) {
                    Some(root) => by_root.entry(root).or_default().push(&file.name),
                    None => renamed.push(file),
                }
            }
            let mut undone = Vec::new();
            for (root, names) in &by_root {
                undone.extend(self.upload_below(root, prefix, names, false, done).await?);
            }
            if !renamed.is_empty() {
                let root = self.link(&renamed)?;
                let names: Vec<&str> = renamed.iter().map(|file| file.name.as_str()).collect();
                let result = self.upload_below(&root, prefix, &names, true, done).await;
                // What stays behind is a few links in our own scratch folder.
                let _ = std::fs::remove_dir_all(&root);
                undone.extend(result?);
            }
            Ok(undone)
        })
    }

    fn download<'a>(
        &'a self,
        prefix: &'a str,
        names: &'a [String],
        to: &'a Path,
        done: Done<'a>,
    ) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut undone = Vec::new();
            for names in names.chunks(BATCH) {
                let call = self.call("copy").arg(self.folder(prefix)).arg(to).named().download();
                undone.extend(self.batch(call, prefix, names, done, Purpose::Read).await?);
            }
            Ok(undone)
        })
    }

    fn download_most<'a>(
        &'a self,
        prefix: &'a str,
        names: &'a [String],
        to: &'a Path,
        done: Done<'a>,
    ) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut left = Vec::new();
            for names in names.chunks(BATCH) {
                let call = self.call("copy").arg(self.folder(prefix)).arg(to).listed().download();
                // Room is not looked for beforehand: most files are small.
                let call = call.arg("--local-no-preallocate");
                left.extend(self.arriving(call, names, to, done).await?);
            }
            // What went wrong is told apart there; and what a listing does not show may be had by its name.
            self.download(prefix, &left, to, done).await
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut undone = Vec::new();
            for names in names.chunks(BATCH) {
                let call = self.call("copy").arg(self.folder(from)).arg(self.folder(to)).upload();
                undone.extend(self.batch(call, from, names, &super::unwatched, Purpose::Read).await?);
            }
            Ok(undone)
        })
    }

    fn delete<'a>(&'a self, prefix: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut undone = Vec::new();
            for names in names.chunks(BATCH) {
                // Nobody looks whether it is there first.
                let call = self
                    .call("delete")
                    .arg(self.folder(prefix))
                    .named()
                    .arg("--s3-no-head-object");
                let done = &super::unwatched;
                let left = self.batch(call, prefix, names, done, Purpose::Write).await?;
                // Nothing was said about what is not there: it is as good as deleted.
                undone.extend(left.into_iter().filter(|one| one.why != process::NOTHING_SAID));
            }
            Ok(undone)
        })
    }

    fn probe(&self) -> Answer<'_, Presence> {
        Box::pin(async move {
            let kind = self.remote_type().await?;
            if !kind.is_some_and(|kind| WRAPPERS.contains(&kind.as_str())) {
                return Ok(Presence::Present);
            }
            let root = format!("{}:", self.remote);
            let flags = [&BARE[..], &["--crypt-strict-names"]].concat();
            self.list_folder(root, &flags, &mut |_| {}).await
        })
    }

    fn exchange<'a>(&'a self, key: &'a str, content: &'a [u8], folders: &'a [&'a str]) -> Answer<'a, Exchanged> {
        Box::pin(async move {
            match self.exchange_at_once(key, content, folders).await? {
                Some(found) => Ok(found),
                // What does not work is told apart there; and what works elsewhere works there too.
                None => exchange_one_by_one(self, key, content, folders).await,
            }
        })
    }

    fn create(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let bucket = self.path.split('/').next().unwrap_or_default();
            let call = self.call("mkdir").arg(format!("{}:{bucket}", self.remote));
            let ended = self.quick(call, Work::Bytes { limit: SMALL }).await?;
            if ended.succeeded() {
                Ok(())
            } else {
                Err(self.failure(&ended))
            }
        })
    }
}

fn folder_and_name(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// The folder below which a file lies under the very name that it is to have.
fn root_of(file: &Upload) -> Option<PathBuf> {
    let local = file.local.as_os_str().as_bytes();
    let root = local.strip_suffix(file.name.as_bytes())?.strip_suffix(b"/")?;
    let root = if root.is_empty() { b"/" } else { root };
    Some(PathBuf::from(OsStr::from_bytes(root)))
}

impl Call<'_> {
    /// Files by name, from standard input, without looking for others.
    fn named(self) -> Self {
        self.listed().arg("--no-traverse")
    }

    /// Files by name, from standard input, found by listing their folders.
    fn listed(self) -> Self {
        self.arg("--files-from-raw=-").arg("--no-unicode-normalization")
    }

    /// One PUT a file, whatever is there.
    fn upload(self) -> Self {
        self.named().upload_without_names()
    }

    fn upload_without_names(self) -> Self {
        self.arg("--no-check-dest")
            .arg("--s3-no-head")
            .arg("--s3-no-check-bucket")
            .arg("--s3-upload-concurrency=2")
    }

    /// Straight into place, unverified: the caller verifies, and sets times.
    fn download(self) -> Self {
        self.arg("--no-check-dest")
            .arg("--ignore-checksum")
            .arg("--inplace")
            .arg("--local-no-set-modtime")
    }
}

/// The names among `names` that `done` does not have.
fn missing<'a>(names: &[&'a str], done: &HashSet<String>) -> Vec<&'a str> {
    names.iter().copied().filter(|name| !done.contains(*name)).collect()
}
