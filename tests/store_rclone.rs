//! rclone behind the store's trait, on a real S3 server: what is stored comes back, and each kind of failure is told
//! from the others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use support::{BUCKET, Kind, S3, rclone_after, tool, write};
use vixens_backup::store::keys::{StoredName, stored_name};
use vixens_backup::store::rclone::{Rclone, Settings};
use vixens_backup::store::{Depth, Error, Presence, Store, Upload, listed, unwatched};

/// A store whose rclone writes a line for each of its processes to the file that comes with it.
fn counted(server: &S3, folder: &Path) -> (Rclone, PathBuf) {
    let calls = folder.join("calls");
    let program = rclone_after(folder, &format!("echo call >> {}", calls.display()));
    let settings = Settings {
        program,
        ..Settings::lean(server.rclone_dir(), folder)
    };
    (Rclone::new("minio", &format!("{BUCKET}/app"), settings), calls)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_small_object_comes_back_as_it_was_written() {
    let server = S3::start();
    let store = server.store("app");
    store.write("claims/1-ab.json", b"{\"version\":1}\n").await.unwrap();
    assert_eq!(store.read("claims/1-ab.json").await.unwrap(), b"{\"version\":1}\n");
    store.write("claims/1-ab.json", b"other").await.unwrap();
    assert_eq!(store.read("claims/1-ab.json").await.unwrap(), b"other");
}

#[tokio::test]
async fn a_missing_object_is_not_found_and_an_empty_one_is_empty() {
    let mut server = S3::start();
    let store = server.store("app");
    assert!(store.read("state.json").await.unwrap_err().is_not_found());
    server.place("app/state.json", b"");
    assert_eq!(store.read("state.json").await.unwrap(), b"");
}

#[tokio::test]
async fn a_listing_of_nothing_is_empty_and_a_missing_bucket_is_said() {
    let server = S3::start();
    assert_eq!(listed(&server.store("app"), "", Depth::All).await.unwrap(), []);
    let nowhere = server.store_of("minio", "no-such-bucket/app");
    let presence = nowhere.list("", Depth::One, &mut |_| {}).await.unwrap();
    assert_eq!(presence, Presence::Missing);
    assert!(nowhere.read("state.json").await.unwrap_err().is_not_found());
    let error = nowhere.write("state.json", b"{}").await.unwrap_err();
    assert!(matches!(error, Error::NoBucket { .. }), "{error}");
    nowhere.create().await.unwrap();
    nowhere.write("state.json", b"{}").await.unwrap();
}

#[tokio::test]
async fn listings_tell_folders_at_one_level_and_files_at_all() {
    let mut server = S3::start();
    let store = server.store("app");
    server.place("app/config/a/b.txt", "hello");
    server.place("app/state.json", "{}");
    let one: Vec<(String, bool)> = listed(&store, "", Depth::One)
        .await
        .unwrap()
        .into_iter()
        .map(|object| (object.name, object.folder))
        .collect();
    assert_eq!(one, [("config".to_owned(), true), ("state.json".to_owned(), false)]);
    let all: Vec<(String, u64)> = listed(&store, "", Depth::All)
        .await
        .unwrap()
        .into_iter()
        .map(|object| (object.name, object.size))
        .collect();
    assert_eq!(all, [("config/a/b.txt".to_owned(), 5), ("state.json".to_owned(), 2)]);
}

#[tokio::test]
async fn every_name_goes_up_and_comes_back() {
    let server = S3::start();
    let store = server.store("app");
    let volume = tempfile::tempdir().unwrap();
    let raw: &[&[u8]] = &[
        b"plain",
        b"-rf",
        b"#comment",
        b"; other",
        b" leading and trailing ",
        b"new\nline",
        b"a/b/.hidden",
        b"[glob]*?{x}",
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
        "\u{240a}".as_bytes(),
        "\u{201b}\u{201b}".as_bytes(),
        "\u{ff0f}".as_bytes(),
        b"\xff\xfe",
        &[b'x'; 255],
    ];
    let mut files = Vec::new();
    for name in raw {
        let local = volume.path().join(std::ffi::OsStr::from_bytes(name));
        write(&local, name);
        let name = stored_name(name).as_str().to_owned();
        files.push(Upload { local, name });
    }
    let seen = Mutex::new(0);
    let undone = store
        .upload("config", &files, &|_| *seen.lock().unwrap() += 1)
        .await
        .unwrap();
    assert_eq!((undone, *seen.lock().unwrap()), (vec![], raw.len()));
    let wanted: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    for listing in [false, true] {
        let back = tempfile::tempdir().unwrap();
        let told = Mutex::new(BTreeSet::new());
        let done = |name: &str| {
            // It is wholly there when it is told of.
            assert!(std::fs::metadata(back.path().join(name)).unwrap().len() > 0, "{name}");
            told.lock().unwrap().insert(name.to_owned());
        };
        let download = if listing {
            store.download_most("config", &wanted, back.path(), &done)
        } else {
            store.download("config", &wanted, back.path(), &done)
        };
        assert_eq!(download.await.unwrap(), [], "listing: {listing}");
        assert_eq!(
            told.into_inner().unwrap(),
            wanted.iter().cloned().collect(),
            "{listing}"
        );
        for (file, name) in files.iter().zip(raw) {
            assert_eq!(std::fs::read(back.path().join(&file.name)).unwrap(), *name);
        }
    }
    assert!(matches!(stored_name(b"\xff\xfe"), StoredName::Named(_)));
}

#[tokio::test]
async fn what_was_not_done_is_named_whatever_the_exit_code() {
    let server = S3::start();
    let store = server.store("app");
    let volume = tempfile::tempdir().unwrap();
    write(&volume.path().join("here"), "1");
    let upload = |name: &str| Upload {
        local: volume.path().join(name),
        name: name.to_owned(),
    };
    let undone = store
        .upload("config", &[upload("here"), upload("gone")], &unwatched)
        .await
        .unwrap();
    assert_eq!(undone.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["gone"]);
    let wanted = names(&["here", "gone"]);
    let undone = store
        .download("config", &wanted, volume.path(), &unwatched)
        .await
        .unwrap();
    assert_eq!(undone.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["gone"]);
    let undone = store
        .download_most("config", &wanted, volume.path(), &unwatched)
        .await
        .unwrap();
    assert_eq!(undone.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["gone"]);
    let undone = store.copy("config", "history/x/config", &wanted).await.unwrap();
    assert_eq!(undone.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert_eq!(store.delete("config", &wanted).await.unwrap(), []);
    let left: Vec<String> = listed(&store, "", Depth::All)
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.name)
        .collect();
    assert_eq!(left, ["history/x/config/here"]);
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_never_empty() {
    let server = S3::start();
    let store = server.store("app");
    for key in [
        "RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY",
        "RCLONE_CONFIG_MINIO_ACCESS_KEY_ID",
    ] {
        let right = std::fs::read_to_string(server.rclone_dir().join(key)).unwrap();
        server.configure(key, "wrongwrongwrong");
        let listing = listed(&store, "claims", Depth::All).await.unwrap_err();
        assert!(matches!(listing, Error::Refused { .. }), "{listing}");
        let reading = store.read("state.json").await.unwrap_err();
        assert!(matches!(reading, Error::Refused { .. }), "{reading}");
        let writing = store.write("state.json", b"{}").await.unwrap_err();
        assert!(matches!(writing, Error::Refused { .. }), "{writing}");
        assert!(!writing.to_string().contains("wrongwrong"), "{writing}");
        server.configure(key, &right);
        // The Secret is reread for each call.
        assert_eq!(listed(&store, "claims", Depth::All).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_unreachable() {
    let mut server = S3::start();
    let store = server.store("app");
    server.stop();
    let refused = listed(&store, "", Depth::One).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused}");
    let volume = tempfile::tempdir().unwrap();
    write(&volume.path().join("a"), "1");
    let file = Upload {
        local: volume.path().join("a"),
        name: "a".to_owned(),
    };
    let uploading = store.upload("config", &[file], &unwatched).await.unwrap_err();
    assert!(matches!(uploading, Error::Unreachable { .. }), "{uploading}");
    let wanted = names(&["a"]);
    let downloading = store
        .download("config", &wanted, volume.path(), &unwatched)
        .await
        .unwrap_err();
    assert!(matches!(downloading, Error::Unreachable { .. }), "{downloading}");
    server.resume();
    let endpoint = server.endpoint().replace("http://", "https://");
    server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &endpoint);
    let tls = listed(&store, "", Depth::One).await.unwrap_err();
    assert!(matches!(tls, Error::Unreachable { .. }), "{tls}");
    server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", "http://store.nowhere.invalid:9000");
    let name = listed(&store, "", Depth::One).await.unwrap_err();
    assert!(matches!(name, Error::Unreachable { .. }), "{name}");
}

#[tokio::test]
async fn an_unknown_remote_is_misconfigured() {
    let server = S3::start();
    let error = listed(&server.store_of("nope", "b/app"), "", Depth::One)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_crypt_password_looks_empty_and_the_probe_tells() {
    let server = S3::start();
    let obscured = |password: &str| {
        let output = Command::new(tool("rclone"))
            .args(["obscure", password])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    server.configure("RCLONE_CONFIG_SECRET_TYPE", "crypt");
    server.configure("RCLONE_CONFIG_SECRET_REMOTE", &format!("minio:{BUCKET}/encrypted"));
    server.configure("RCLONE_CONFIG_SECRET_PASSWORD", &obscured("right"));
    let store = server.store_of("secret", "app");
    store.write("claims/1-ab.json", b"{}").await.unwrap();
    assert_eq!(listed(&store, "claims", Depth::All).await.unwrap().len(), 1);
    assert_eq!(store.probe().await.unwrap(), Presence::Present);
    server.configure("RCLONE_CONFIG_SECRET_PASSWORD", &obscured("wrong"));
    assert_eq!(
        listed(&store, "claims", Depth::All).await.unwrap(),
        [],
        "this is the trap"
    );
    let error = store.probe().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[tokio::test]
async fn credentials_from_a_configuration_file_work_too() {
    let server = S3::start();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[minio]\ntype = s3\nprovider = Minio\naccess_key_id = {}\nsecret_access_key = {}\nendpoint = {}\n",
        support::ACCESS_KEY,
        support::SECRET_KEY,
        server.endpoint()
    );
    write(&folder.path().join("rclone.conf"), text);
    let settings = Settings {
        program: tool("rclone"),
        ..Settings::lean(folder.path(), folder.path())
    };
    let store = Rclone::new("minio", &format!("{BUCKET}/app"), settings);
    assert_eq!(listed(&store, "", Depth::One).await.unwrap(), []);
}

#[tokio::test]
async fn an_exchange_writes_and_reads_in_one_process() {
    let mut server = S3::start();
    server.place("app/requests/r1.json", "{\"manual\":true}");
    server.place("app/requests/deep/er.json", "{}");
    server.place("app/claims/1-aa.json", "{}");
    let folder = tempfile::tempdir().unwrap();
    let (store, calls) = counted(&server, folder.path());
    let found = store
        .exchange("state.json", b"here", &["claims", "requests"])
        .await
        .unwrap();
    let found: Vec<(String, String, String)> = found
        .into_iter()
        .map(|((folder, name), content)| (folder, name, String::from_utf8(content).unwrap()))
        .collect();
    let expected = [
        ("claims", "1-aa.json", "{}"),
        ("requests", "r1.json", "{\"manual\":true}"),
    ];
    assert_eq!(
        found,
        expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
    assert_eq!(std::fs::read_to_string(&calls).unwrap(), "call\n", "one process");
    assert_eq!(store.read("state.json").await.unwrap(), b"here");
    assert_eq!(
        store.exchange("state.json", b"again", &["pins"]).await.unwrap().len(),
        0
    );
    assert_eq!(store.read("state.json").await.unwrap(), b"again");
    server.stop();
    let error = store.exchange("state.json", b"x", &["requests"]).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn folders_are_listed_and_objects_read_by_one_process_each() {
    let mut server = S3::start();
    server.place("app/claims/2-bb.json", "two");
    server.place("app/claims/1-aa.json", "one");
    server.place("app/snapshots/deep/s.json", "index");
    server.place("app/state.json", "state");
    let folder = tempfile::tempdir().unwrap();
    let (store, calls) = counted(&server, folder.path());
    let processes = || std::fs::read_to_string(&calls).unwrap().lines().count();
    let listings = store.list_all(&["claims", "snapshots"]).await.unwrap();
    let names: Vec<Vec<(&str, u64)>> = listings
        .iter()
        .map(|listing| {
            listing
                .iter()
                .map(|object| (object.name.as_str(), object.size))
                .collect()
        })
        .collect();
    assert_eq!(
        names,
        [vec![("1-aa.json", 3), ("2-bb.json", 3)], vec![("deep/s.json", 5)]]
    );
    assert_eq!(processes(), 1);
    let read = store.read_all(&["state.json", "claims/2-bb.json"]).await.unwrap();
    let read: Vec<(&str, &[u8])> = read
        .iter()
        .map(|(key, content)| (key.as_str(), content.as_slice()))
        .collect();
    assert_eq!(
        read,
        [("claims/2-bb.json", b"two".as_slice()), ("state.json", b"state")]
    );
    assert_eq!(processes(), 2);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "nothing stays behind beside the program and its count");
}

#[tokio::test]
async fn what_is_asked_for_together_is_missing_or_refused_as_it_is_alone() {
    let mut server = S3::start();
    server.place("app/claims/1-aa.json", "one");
    server.place("app/empty", "");
    let store = server.store("app");
    let listings = store.list_all(&["claims", "snapshots"]).await.unwrap();
    assert_eq!(listings.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    let read = store
        .read_all(&["claims/1-aa.json", "state.json", "empty"])
        .await
        .unwrap();
    assert_eq!(read.keys().collect::<Vec<_>>(), ["claims/1-aa.json", "empty"]);
    let nowhere = server.store_of("minio", "no-such-bucket/app");
    assert_eq!(
        nowhere.list_all(&["claims", "snapshots"]).await.unwrap(),
        [vec![], vec![]]
    );
    assert!(nowhere.read_all(&["state.json", "other"]).await.unwrap().is_empty());
    server.configure("RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY", "wrongwrongwrong");
    let listing = store.list_all(&["claims", "snapshots"]).await.unwrap_err();
    assert!(matches!(listing, Error::Refused { .. }), "{listing}");
    let reading = store.read_all(&["claims/1-aa.json", "state.json"]).await.unwrap_err();
    assert!(matches!(reading, Error::Refused { .. }), "{reading}");
    server.stop();
    let listing = store.list_all(&["claims", "snapshots"]).await.unwrap_err();
    assert!(matches!(listing, Error::Unreachable { .. }), "{listing}");
    let reading = store.read_all(&["claims/1-aa.json", "state.json"]).await.unwrap_err();
    assert!(matches!(reading, Error::Unreachable { .. }), "{reading}");
}

/// Of the second one, MinIO sends a part before it breaks off. There are more of them side by side than rclone is let fail.
const ROTTEN: [(&str, usize); 7] = [
    ("c", 10),
    ("d", 3 << 20),
    ("e", 10),
    ("f", 300 << 10),
    ("g", 10),
    ("h", 10),
    ("j", 10),
];

#[tokio::test]
async fn objects_that_rot_on_the_disk_of_minio_are_their_own_trouble_as_long_as_it_answers() {
    let mut server = S3::of(Kind::Minio);
    let store = server.store("app");
    let volume = tempfile::tempdir().unwrap();
    for (name, size) in [("a", 10), ("b", 10), ("i", 10), ("k", 10)].iter().chain(&ROTTEN) {
        write(&volume.path().join(name), vec![b'x'; *size]);
    }
    let all = names(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
    let uploads: Vec<Upload> = all
        .iter()
        .map(|name| Upload {
            local: volume.path().join(name),
            name: name.clone(),
        })
        .collect();
    assert_eq!(store.upload("config", &uploads, &unwatched).await.unwrap(), []);
    store.write("state.json", b"{}").await.unwrap();
    store.write("store-id", b"{}").await.unwrap();
    let rotten: Vec<&str> = ROTTEN.iter().map(|(name, _)| *name).collect();
    for name in &rotten {
        server.rot(&format!("app/config/{name}"));
    }
    server.rot("app/state.json");

    let error = store.read("config/c").await.unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { key, .. } if key == "config/c"),
        "{error}"
    );
    let together = store
        .read_all(&["state.json", "store-id", "claims/none"])
        .await
        .unwrap();
    let together: Vec<(&str, &[u8])> = together.iter().map(|(key, content)| (&**key, &**content)).collect();
    assert_eq!(together, [("state.json", &b""[..]), ("store-id", b"{}")]);
    let undone = async |most| {
        let to = tempfile::tempdir().unwrap();
        let undone = if most {
            store.download_most("config", &all, to.path(), &unwatched).await
        } else {
            store.download("config", &all, to.path(), &unwatched).await
        };
        let undone: BTreeSet<String> = undone.unwrap().into_iter().map(|one| one.name).collect();
        for name in all.iter().filter(|name| !undone.contains(*name)) {
            let content = std::fs::read(to.path().join(name)).unwrap();
            assert_eq!(content, std::fs::read(volume.path().join(name)).unwrap(), "{name}");
        }
        undone
    };
    let expected: BTreeSet<String> = names(&rotten).into_iter().collect();
    assert_eq!(undone(false).await, expected);
    assert_eq!(undone(true).await, expected);
    let copied = store.copy("config", "history/x/config", &all).await.unwrap();
    let copied: BTreeSet<String> = copied.into_iter().map(|one| one.name).collect();
    assert_eq!(copied, expected);
    // Whoever has the content puts it right.
    assert_eq!(store.upload("config", &uploads, &unwatched).await.unwrap(), []);
    assert_eq!(undone(false).await, BTreeSet::new());
    server.rot("app/config/c");
    server.stop();
    let to = tempfile::tempdir().unwrap();
    let away = store.download("config", &all, to.path(), &unwatched).await.unwrap_err();
    assert!(matches!(away, Error::Unreachable { .. }), "{away}");
    let away = store.read("config/c").await.unwrap_err();
    assert!(matches!(away, Error::Unreachable { .. }), "{away}");
}

#[tokio::test]
async fn where_nothing_else_can_be_read_nobody_says_that_an_object_is_damaged() {
    let server = S3::of(Kind::Minio);
    let store = server.store("app");
    for key in ["state.json", "config/a", "config/b"] {
        store.write(key, b"content").await.unwrap();
        server.rot(&format!("app/{key}"));
    }
    let to = tempfile::tempdir().unwrap();
    let wanted = names(&["a", "b"]);
    let unknown = store
        .download("config", &wanted, to.path(), &unwatched)
        .await
        .unwrap_err();
    assert!(matches!(unknown, Error::Unreachable { .. }), "{unknown}");
    let unknown = store.read("state.json").await.unwrap_err();
    assert!(matches!(unknown, Error::Unreachable { .. }), "{unknown}");
}
