//! Vanilla never goes over a file; a rendered file is rendered again when it must be, and never when it was edited.

use super::*;
use tempfile::TempDir;

struct Bed {
    volume: TempDir,
    defaults: TempDir,
    secrets: TempDir,
    globs: Vec<String>,
}

impl Bed {
    fn new() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        Self {
            volume: folder(),
            defaults: folder(),
            secrets: folder(),
            globs: Vec::new(),
        }
    }

    fn default(self, name: &str, content: &str) -> Self {
        put(&self.defaults.path().join(name), content);
        self
    }

    fn secret(&self, name: &str, value: &str) {
        put(&self.secrets.path().join("app").join(name), value);
    }

    fn on_volume(&self, name: &str, content: &str) {
        put(&self.volume.path().join(name), content);
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.volume.path().join(name)).unwrap()
    }

    /// One start.
    fn start(&self) -> Layered {
        let own = OwnFolder::on(self.volume.path());
        let mut layered = Layered::default();
        let files = vanilla_files(self.defaults.path()).unwrap();
        lay_vanilla(self.defaults.path(), &files, &own, &mut layered).unwrap();
        let variables = Variables::read(self.secrets.path()).unwrap();
        lay_secrets(
            self.defaults.path(),
            &files,
            &self.globs,
            &variables,
            &own,
            &mut layered,
        )
        .unwrap();
        layered
    }
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn vanilla_is_laid_where_the_volume_lacks_it_and_never_over_a_file() {
    let bed = Bed::new().default("a.yaml", "vanilla").default("b.yaml", "vanilla");
    bed.on_volume("a.yaml", "mine");
    let layered = bed.start();
    assert_eq!(
        (bed.content("a.yaml").as_str(), bed.content("b.yaml").as_str()),
        ("mine", "vanilla")
    );
    assert_eq!(layered.files[Path::new("a.yaml")], Layer::Kept);
    assert_eq!(layered.files[Path::new("b.yaml")], Layer::Vanilla);
    let again = bed.start();
    assert_eq!(again.count(Layer::Vanilla), 0);
}

#[test]
fn a_link_of_the_owners_is_a_file_that_is_there() {
    let bed = Bed::new().default("a.yaml", "vanilla");
    std::os::unix::fs::symlink("elsewhere", bed.volume.path().join("a.yaml")).unwrap();
    bed.start();
    assert!(
        fs::symlink_metadata(bed.volume.path().join("a.yaml"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn a_configmaps_own_folders_are_not_laid() {
    let bed = Bed::new();
    put(&bed.defaults.path().join("..2026_11_22/a.yaml"), "vanilla");
    std::os::unix::fs::symlink("..2026_11_22", bed.defaults.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", bed.defaults.path().join("a.yaml")).unwrap();
    bed.start();
    assert_eq!(bed.content("a.yaml"), "vanilla");
    assert!(!bed.volume.path().join("..data").exists());
}

#[test]
fn secrets_are_replaced_and_mode_and_owner_stay() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new().default("a.yaml", "user: ${USER}\nother: ${OTHER}\n");
    bed.on_volume("a.yaml", "user: ${USER}\nother: ${OTHER}\n");
    let file = bed.volume.path().join("a.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    bed.secret("USER", "me");
    let layered = bed.start();
    assert_eq!(bed.content("a.yaml"), "user: me\nother: ${OTHER}\n");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(layered.unknown["OTHER"], Path::new("a.yaml"));
}

#[test]
fn a_rotated_secret_renders_again() {
    let bed = Bed::new().default("a.yaml", "pass: ${PASS}");
    bed.secret("PASS", "old");
    bed.start();
    bed.secret("PASS", "new");
    bed.start();
    assert_eq!(bed.content("a.yaml"), "pass: new");
}

#[test]
fn a_new_source_renders_again() {
    let bed = Bed::new().default("a.yaml", "pass: ${PASS}");
    bed.secret("PASS", "x");
    bed.start();
    let bed = bed.default("a.yaml", "password: ${PASS}");
    bed.start();
    assert_eq!(bed.content("a.yaml"), "password: x");
}

#[test]
fn an_edited_file_is_left_alone_and_said() {
    let bed = Bed::new().default("a.yaml", "pass: ${PASS}");
    bed.secret("PASS", "old");
    bed.start();
    bed.on_volume("a.yaml", "pass: old\nmine: 1\n");
    bed.secret("PASS", "new");
    let layered = bed.start();
    assert_eq!(bed.content("a.yaml"), "pass: old\nmine: 1\n");
    assert!(layered.edited.contains(Path::new("a.yaml")));
}

#[test]
fn an_edit_that_asks_for_a_variable_gets_it() {
    let bed = Bed::new().default("a.yaml", "pass: ${PASS}");
    bed.secret("PASS", "x");
    bed.start();
    bed.on_volume("a.yaml", "mine: ${PASS}");
    bed.start();
    assert_eq!(bed.content("a.yaml"), "mine: x");
}

#[test]
fn files_of_the_owners_are_rendered_where_the_globs_say_so() {
    let mut bed = Bed::new();
    bed.globs = vec!["conf/**/*.ini".to_owned(), "top.txt".to_owned()];
    for name in ["conf/a.ini", "conf/deep/b.ini", "conf/c.txt", "top.txt", "conf/top.txt"] {
        bed.on_volume(name, "${V}");
    }
    bed.secret("V", "1");
    bed.start();
    let contents: Vec<String> = ["conf/a.ini", "conf/deep/b.ini", "conf/c.txt", "top.txt", "conf/top.txt"]
        .into_iter()
        .map(|name| bed.content(name))
        .collect();
    assert_eq!(contents, ["1", "1", "${V}", "1", "${V}"]);
    bed.secret("V", "2");
    bed.start();
    assert_eq!(bed.content("conf/deep/b.ini"), "2", "its source was kept");
}

#[test]
fn a_kill_between_remembering_and_replacing_renders_at_the_next_start() {
    let bed = Bed::new().default("a.yaml", "pass: ${PASS}");
    bed.secret("PASS", "x");
    bed.start();
    // As if the rename had not happened.
    bed.on_volume("a.yaml", "pass: ${PASS}");
    bed.start();
    assert_eq!(bed.content("a.yaml"), "pass: x");
    bed.secret("PASS", "y");
    bed.start();
    assert_eq!(bed.content("a.yaml"), "pass: y");
}

#[test]
fn a_secret_that_is_gone_does_not_bring_its_placeholder_back() {
    let bed = Bed::new().default("a.yaml", "pass: ${PASS}");
    bed.secret("PASS", "x");
    bed.start();
    fs::remove_dir_all(bed.secrets.path().join("app")).unwrap();
    let layered = bed.start();
    assert_eq!(bed.content("a.yaml"), "pass: x");
    assert_eq!(layered.unknown["PASS"], Path::new("a.yaml"));
}
