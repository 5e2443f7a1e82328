//! Patterns as rclone understands them, one table for each rule.

use super::*;

fn filters(includes: &[&str], excludes: &[&str]) -> Filters {
    let owned = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    Filters::new(&owned(includes), &owned(excludes), Some(Size(1000))).unwrap()
}

/// What rclone 1.75's own documentation and `rclone ls --include` say about each.
#[test]
fn a_pattern_matches_what_rclone_matches() {
    for (pattern, matching, other) in [
        (
            "file.jpg",
            &["file.jpg", "a/file.jpg"][..],
            &["afile.jpg", "file.jpg/x"][..],
        ),
        ("/file.jpg", &["file.jpg"], &["a/file.jpg", "afile.jpg"]),
        ("*.jpg", &["a.jpg", "a/b.jpg", ".jpg"], &["a.jpgx", "a.jpg/b"]),
        ("/*.jpg", &["a.jpg"], &["a/b.jpg"]),
        ("a/*.jpg", &["a/b.jpg", "x/a/b.jpg"], &["a/b/c.jpg"]),
        ("a/**", &["a/b", "a/b/c", "x/a/b"], &["a", "ab/c"]),
        ("/a/**.jpg", &["a/b.jpg", "a/b/c.jpg"], &["x/a/b.jpg"]),
        ("**.jpg", &["a.jpg", "a/b.jpg"], &["a.png"]),
        ("f?o", &["fao", "fäo", "x/f.o"], &["fo", "faao", "f/o"]),
        ("h[ae]llo", &["hallo", "hello"], &["hillo", "h/llo"]),
        ("h[^ae]llo", &["hillo"], &["hallo", "h/llo"]),
        ("h[a-c]llo", &["hbllo"], &["hdllo"]),
        ("{one,two}.txt", &["one.txt", "x/two.txt"], &["three.txt", "onetwo.txt"]),
        ("a{b,c{d,e}}f", &["abf", "acdf", "acef"], &["acf", "abcdf"]),
        ("dir/", &["dir/a", "x/dir/a/b"], &["dir", "xdir/a"]),
        ("/dir/", &["dir/a"], &["x/dir/a"]),
        (r"\*.txt", &["*.txt"], &["a.txt"]),
        (r"a\{b", &["a{b"], &["ab"]),
        ("-dash", &["-dash"], &["dash"]),
    ] {
        let pattern_ = Pattern::parse(pattern).unwrap();
        for path in matching {
            assert!(pattern_.matches(&decode(path.as_bytes())), "{pattern} takes {path}");
        }
        for path in other {
            assert!(!pattern_.matches(&decode(path.as_bytes())), "{pattern} leaves {path}");
        }
    }
}

#[test]
fn a_pattern_that_is_not_one_is_refused_with_its_reason() {
    for pattern in ["", "/", "a{b", "a}b", "[a", "a]", "***", "{{x.*}}", "a\\", "[z-a]"] {
        let refusal = Pattern::parse(pattern).unwrap_err().to_string();
        assert!(refusal.contains(&format!("{pattern:?}")), "{refusal}");
    }
}

#[test]
fn the_owners_patterns_add_to_the_defaults() {
    let filters = filters(&[], &["*.bak"]);
    for path in ["a.log", "x/b.tmp", ".cache/x", "deep/.cache/y", "c.bak"] {
        assert_eq!(filters.file(path.as_bytes(), 1), Some(Skipped::Excluded), "{path}");
    }
    assert_eq!(
        filters.file(b"app.db", 1),
        None,
        "a database is never left out by default"
    );
    assert_eq!(filters.file(b".storage/auth", 1), None, "dot-files are data");
}

#[test]
fn our_own_folders_stay_out_whatever_is_included() {
    let filters = filters(&["**"], &[]);
    for path in [
        ".vixens-backup/volume.json",
        ".app.db-litestream/x",
        "data/.app.db-litestream/ltx/0",
        "lost+found/#1",
    ] {
        assert_eq!(filters.file(path.as_bytes(), 1), Some(Skipped::Internal), "{path}");
    }
    assert_eq!(
        filters.file(b"data/.vixens-backup/mine", 1),
        None,
        "only the one at the root is ours"
    );
}

#[test]
fn with_includes_only_what_they_take_is_taken() {
    let filters = filters(&["/config/**", "*.yaml"], &["secret.yaml"]);
    assert_eq!(filters.file(b"config/a", 1), None);
    assert_eq!(filters.file(b"x/y.yaml", 1), None);
    assert_eq!(filters.file(b"x/y.txt", 1), Some(Skipped::NotIncluded));
    assert_eq!(filters.file(b"secret.yaml", 1), Some(Skipped::Excluded));
}

#[test]
fn a_large_file_is_left_out_and_named_so() {
    assert_eq!(filters(&[], &[]).file(b"a", 1000), None);
    assert_eq!(filters(&[], &[]).file(b"a", 1001), Some(Skipped::TooLarge));
}

#[test]
fn a_folder_is_pruned_only_when_all_of_it_is_left_out() {
    let filters = filters(&[], &["/media/**", "thumbs/", "part*"]);
    for folder in ["media", "x/thumbs", ".cache", "a/.cache", "media/films"] {
        assert_eq!(filters.folder(folder.as_bytes()), Some(Skipped::Excluded), "{folder}");
    }
    assert_eq!(filters.folder(b".vixens-backup"), Some(Skipped::Internal));
    for folder in ["x/media", "partial", "med", "thumbsx"] {
        assert_eq!(filters.folder(folder.as_bytes()), None, "{folder}");
    }
}

#[test]
fn names_that_are_not_utf_8_are_matched_all_the_same() {
    let filters = filters(&[], &["caf?"]);
    assert_eq!(filters.file(b"caf\xe9", 1), Some(Skipped::Excluded));
    assert_eq!(filters.file(b"\xff\xfe.log", 1), Some(Skipped::Excluded));
}

#[test]
fn no_pattern_takes_exponential_time() {
    let pattern = Pattern::parse(&"*a".repeat(40)).unwrap();
    assert!(
        !pattern.matches(
            &decode("a".repeat(2000).as_bytes())
                .into_iter()
                .chain([98])
                .collect::<Vec<_>>()
        )
    );
}
