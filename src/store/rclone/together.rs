//! Several questions, one rclone process: each takes some fifty milliseconds to begin, which is longer than most answers
//! take. What does not work this way, or seems not to be there, is asked for by itself: there it is told apart why.

use super::process::Work;
use super::{BARE_BELOW, Rclone, exchange};
use crate::store::{Contents, Depth, Error, Object, SMALL, listed, read_one_by_one, unwatched};
use std::collections::BTreeMap;
use std::path::Path;

impl Rclone {
    /// What lies below each of some folders, by one listing of a remote of the type `combine` that has them all.
    pub(super) async fn list_together(&self, prefixes: &[&str]) -> Result<Vec<Vec<Object>>, Error> {
        let upstreams: Vec<String> = prefixes
            .iter()
            .map(|prefix| exchange::upstream(prefix, &self.folder(prefix)))
            .collect();
        let call = self
            .call("lsjson")
            .arg("together:")
            .args(&BARE_BELOW)
            .remote("TOGETHER_TYPE", "combine".to_owned())
            .remote("TOGETHER_UPSTREAMS", upstreams.join(" "));
        let mut found: BTreeMap<String, Vec<Object>> = BTreeMap::new();
        let mut each = |object: Object| {
            if let Some((prefix, name)) = object.name.split_once('/') {
                let below = found.entry(prefix.to_owned()).or_default();
                below.push(Object {
                    name: name.to_owned(),
                    ..object
                });
            }
        };
        let ended = self.quick(call, Work::Listing { each: &mut each }).await?;
        if !ended.succeeded() {
            found.clear();
        }
        let mut listings = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            listings.push(match found.remove(*prefix) {
                Some(mut objects) => {
                    objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                    objects
                }
                // One that can't be listed, or is not there, looks like an empty one here.
                None => listed(self, prefix, Depth::All).await?,
            });
        }
        Ok(listings)
    }

    /// Small objects, copied to a folder of our own.
    pub(super) async fn read_together(&self, keys: &[&str]) -> Result<Contents, Error> {
        let here = self.own_folder("read");
        let result = self.read_into(&here, keys).await;
        // What stays behind is a few small files in our own scratch folder.
        let _ = std::fs::remove_dir_all(&here);
        let mut read = result?;
        let left: Vec<&str> = keys.iter().copied().filter(|key| !read.contains_key(*key)).collect();
        read.append(&mut read_one_by_one(self, &left).await?);
        Ok(read)
    }

    async fn read_into(&self, here: &Path, keys: &[&str]) -> Result<Contents, Error> {
        let call = self.call("copy").arg(self.folder("")).arg(here).named().download();
        let done = &unwatched;
        let ended = self.quick(call, Work::Files { names: keys, done }).await?;
        let undone = ended.undone(keys);
        let mut read = Contents::new();
        for key in keys {
            let file = here.join(key);
            let is_small = |found: std::fs::Metadata| found.len() <= SMALL;
            if !undone.iter().any(|one| one.name == *key)
                && std::fs::metadata(&file).is_ok_and(is_small)
                && let Ok(content) = std::fs::read(&file)
            {
                read.insert((*key).to_owned(), content);
            }
        }
        Ok(read)
    }
}
