//! One small object out and a few small ones in, by one rclone process: two remotes of the type `combine` that exist for
//! this call alone, each with a folder here and folders in the store, and one copy from the one to the other.

use super::process::Work;
use super::{Call, Rclone};
use crate::store::{Error, Exchanged, SMALL, unwatched};
use std::path::Path;

/// The folder, in both remotes, of what goes out.
const OUT: &str = "out";

impl Rclone {
    /// Nothing where rclone could not do it this way.
    pub(super) async fn exchange_at_once(
        &self,
        key: &str,
        content: &[u8],
        folders: &[&str],
    ) -> Result<Option<Exchanged>, Error> {
        let here = self.own_folder("exchange");
        let result = self.exchange_in(&here, key, content, folders).await;
        // What stays behind is a few small files in our own scratch folder.
        let _ = std::fs::remove_dir_all(&here);
        result
    }

    async fn exchange_in(
        &self,
        here: &Path,
        key: &str,
        content: &[u8],
        folders: &[&str],
    ) -> Result<Option<Exchanged>, Error> {
        let local = |source| Error::Local {
            what: format!("the scratch folder {} can't be used", here.display()),
            source,
        };
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
        let out = here.join(OUT);
        std::fs::create_dir_all(&out).map_err(local)?;
        std::fs::write(out.join(name), content).map_err(local)?;
        let mut from = vec![upstream(OUT, &out.to_string_lossy())];
        let mut to = vec![upstream(OUT, &self.folder(prefix))];
        for folder in folders {
            let back = here.join("back").join(folder);
            std::fs::create_dir_all(&back).map_err(local)?;
            from.push(upstream(folder, &self.folder(folder)));
            to.push(upstream(folder, &back.to_string_lossy()));
        }
        let call = self
            .call("copy")
            .arg("exchangefrom:")
            .arg("exchangeto:")
            .arg("--max-depth=2")
            .arg(format!("--max-size={SMALL}B"))
            .remote("EXCHANGEFROM_TYPE", "combine".to_owned())
            .remote("EXCHANGEFROM_UPSTREAMS", from.join(" "))
            .remote("EXCHANGETO_TYPE", "combine".to_owned())
            .remote("EXCHANGETO_UPSTREAMS", to.join(" "));
        let sent = [format!("{OUT}/{name}")];
        let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
        let work = Work::Files {
            names: &sent,
            done: &unwatched,
        };
        let ended = self.quick(Call::upload_without_names(call), work).await?;
        if !ended.succeeded() || !ended.undone(&sent).is_empty() {
            return Ok(None);
        }
        let mut found = Exchanged::new();
        for folder in folders {
            for entry in std::fs::read_dir(here.join("back").join(folder)).map_err(local)? {
                let entry = entry.map_err(local)?;
                if entry.file_type().map_err(local)?.is_file() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let content = std::fs::read(entry.path()).map_err(local)?;
                    found.insert(((*folder).to_owned(), name), content);
                }
            }
        }
        Ok(Some(found))
    }
}

/// `"name=remote:path"`, as the option's list of fields wants it.
pub(super) fn upstream(name: &str, target: &str) -> String {
    format!("\"{name}={}\"", target.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_one_field_whatever_is_in_its_path() {
        assert_eq!(upstream("out", "/a b/\"c\""), r#""out=/a b/""c""""#);
    }
}
