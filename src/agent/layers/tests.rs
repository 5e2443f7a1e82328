//! What each layer does to files that are absent, restored, filled, edited, rotated; and what it never does.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

struct Stage {
    folder: tempfile::TempDir,
    globs: Vec<String>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["volume", "defaults", "secrets"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            globs: Vec::new(),
        }
    }

    fn with(self, path: &str, content: &str) -> Self {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn lay(&self) -> Laid {
        let root = self.folder.path();
        lay(&Layers {
            volume: &root.join("volume"),
            defaults: &root.join("defaults"),
            secrets: &root.join("secrets"),
            secrets_files: &self.globs,
        })
        .unwrap()
    }

    fn volume(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("volume").join(path)).unwrap()
    }
}

#[test]
fn vanilla_goes_only_where_the_volume_lacks_the_file() {
    let stage = Stage::new()
        .with("defaults/new.yaml", "vanilla")
        .with("defaults/restored.yaml", "vanilla")
        .with("volume/restored.yaml", "the owner's");
    let laid = stage.lay();
    assert_eq!(stage.volume("new.yaml"), "vanilla");
    assert_eq!(stage.volume("restored.yaml"), "the owner's");
    assert_eq!((laid.vanilla.len(), laid.kept.len()), (1, 1));
    assert_eq!(stage.lay().vanilla.len(), 0);
}

#[test]
fn a_config_map_as_the_kubelet_mounts_it_is_read_through_its_links() {
    let stage = Stage::new().with("defaults/..2026/app.yaml", "vanilla");
    let defaults = stage.folder.path().join("defaults");
    symlink("..2026", defaults.join("..data")).unwrap();
    symlink("..data/app.yaml", defaults.join("app.yaml")).unwrap();
    assert_eq!(stage.lay().vanilla, [PathBuf::from("app.yaml")]);
    assert_eq!(stage.volume("app.yaml"), "vanilla");
}

#[test]
fn secrets_go_into_the_files_of_layer_1_without_a_shell() {
    let stage = Stage::new()
        .with(
            "defaults/app.yaml",
            "user: ${USER}\npass: ${DB_PASSWORD}\nother: ${NOBODY}\n",
        )
        .with("secrets/app.env", "USER='me & \"you\" $x'\n")
        .with("secrets/DB_PASSWORD", "a=b`c`\n");
    let laid = stage.lay();
    assert_eq!(
        stage.volume("app.yaml"),
        "user: me & \"you\" $x\npass: a=b`c`\nother: ${NOBODY}\n"
    );
    assert_eq!(laid.rendered, [PathBuf::from("app.yaml")]);
    assert!(laid.unknown[Path::new("app.yaml")].contains("NOBODY"));
    assert_eq!(stage.lay().rendered.len(), 0, "nothing is done twice");
}

#[test]
fn a_rotated_secret_or_a_changed_source_is_rendered_again_unless_somebody_edited_the_file() {
    let stage = Stage::new()
        .with("defaults/a.yaml", "a: ${KEY}")
        .with("defaults/b.yaml", "b: ${KEY}")
        .with("secrets/KEY", "old");
    stage.lay();
    let stage = stage.with("volume/b.yaml", "b: mine").with("secrets/KEY", "new");
    let laid = stage.lay();
    assert_eq!(
        (stage.volume("a.yaml"), stage.volume("b.yaml")),
        ("a: new".into(), "b: mine".into())
    );
    assert_eq!(laid.edited, [PathBuf::from("b.yaml")]);
    let stage = stage.with("defaults/a.yaml", "a: ${KEY}\nmore: 1");
    stage.lay();
    assert_eq!(stage.volume("a.yaml"), "a: new\nmore: 1");
}

#[test]
fn a_secret_that_is_gone_does_not_bring_its_placeholder_back() {
    let stage = Stage::new()
        .with("defaults/a.yaml", "a: ${KEY} ${OTHER}")
        .with("secrets/KEY", "x")
        .with("secrets/OTHER", "y");
    stage.lay();
    std::fs::remove_file(stage.folder.path().join("secrets/KEY")).unwrap();
    let laid = stage.lay();
    assert_eq!(stage.volume("a.yaml"), "a: x y");
    assert!(laid.unknown[Path::new("a.yaml")].contains("KEY"));
}

#[test]
fn a_restored_file_with_an_old_secret_gets_the_new_one() {
    let stage = Stage::new()
        .with("defaults/a.yaml", "key: ${KEY}\nend\n")
        .with("volume/a.yaml", "key: before-the-disaster\nend\n")
        .with("secrets/KEY", "rotated");
    stage.lay();
    assert_eq!(stage.volume("a.yaml"), "key: rotated\nend\n");
}

#[test]
fn named_files_of_the_volume_are_filled_and_their_mode_kept() {
    let mut stage = Stage::new()
        .with("volume/deep/app.conf", "k=${KEY}")
        .with("volume/deep/other.txt", "k=${KEY}")
        .with("secrets/KEY", "v");
    stage.globs = vec!["*.conf".to_owned(), "/nowhere.txt".to_owned()];
    let file = stage.folder.path().join("volume/deep/app.conf");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("app.conf", stage.folder.path().join("volume/deep/link.conf")).unwrap();
    let laid = stage.lay();
    assert_eq!(stage.volume("deep/app.conf"), "k=v");
    assert_eq!(stage.volume("deep/other.txt"), "k=${KEY}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(laid.rendered.len(), 1);
    let stage = stage.with("secrets/KEY", "w");
    stage.lay();
    assert_eq!(stage.volume("deep/app.conf"), "k=w", "its template is remembered");
}

#[test]
fn a_kill_between_the_record_and_the_file_is_mended_by_the_next_start() {
    let stage = Stage::new()
        .with("defaults/a.yaml", "a: ${KEY}")
        .with("secrets/KEY", "old");
    stage.lay();
    let stage = stage.with("secrets/KEY", "new");
    stage.lay();
    // The record says new, the file is as it was before.
    let stage = stage.with("volume/a.yaml", "a: old");
    assert_eq!(stage.lay().edited.len(), 0);
    assert_eq!(stage.volume("a.yaml"), "a: new");
}

#[test]
fn a_damaged_record_never_writes_over_an_edit() {
    let stage = Stage::new()
        .with("defaults/a.yaml", "a: ${KEY}")
        .with("secrets/KEY", "old");
    stage.lay();
    let stage = stage
        .with("volume/.vixens-backup/rendered.json", "{")
        .with("volume/a.yaml", "a: mine, edited\nb: 1")
        .with("secrets/KEY", "new");
    stage.lay();
    assert_eq!(stage.volume("a.yaml"), "a: mine, edited\nb: 1");
}

#[test]
fn an_env_file_that_does_not_parse_is_named_and_its_text_is_not_shown() {
    let stage = Stage::new()
        .with("secrets/app.env", "hunter2\n")
        .with("defaults/a", "${X}");
    let root = stage.folder.path();
    let error = lay(&Layers {
        volume: &root.join("volume"),
        defaults: &root.join("defaults"),
        secrets: &root.join("secrets"),
        secrets_files: &[],
    })
    .unwrap_err();
    let said = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(
        said.contains("app.env") && said.contains("line 1") && !said.contains("hunter2"),
        "{said}"
    );
    assert!(!root.join("volume/a").exists(), "nothing is changed");
}

#[test]
fn absent_folders_are_no_layers() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let laid = lay(&Layers {
        volume: folder.path(),
        defaults: &none,
        secrets: &none,
        secrets_files: &[],
    })
    .unwrap();
    assert_eq!(laid, Laid::default());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
