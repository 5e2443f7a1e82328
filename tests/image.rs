//! The image as it is made from the files of `deploy/Containerfile`: what it holds, and that it holds nothing else.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The machine's own names for where the C library and its loader lie.
#[cfg(target_arch = "x86_64")]
const LIBRARIES: (&str, &str) = ("lib/x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2");
#[cfg(target_arch = "aarch64")]
const LIBRARIES: (&str, &str) = ("lib/aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1");

/// What a program printed.
fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

struct Image {
    configuration: Value,
    /// The mode, owner and size of each file and folder, as `tar` lists them.
    files: BTreeMap<String, Vec<String>>,
}

/// Makes the image, and reads it.
fn image() -> Image {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/image");
    let file = path("image.tar");
    let program = env!("CARGO_BIN_EXE_vixens-backup");
    output(&script, &["product", "--binary", program, "-o", &file]);
    output("tar", &["-xf", &file, "-C", &path("")]);
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(path(name)).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        digest.replacen("sha256:", "blobs/sha256/", 1)
    };
    let manifest = read(&blob(&read("index.json")["manifests"][0]));
    let mut files = BTreeMap::new();
    for layer in manifest["layers"].as_array().expect("a list") {
        for line in output("tar", &["--numeric-owner", "-tvf", &path(&blob(layer))]).lines() {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let name = words.last().expect("a name").trim_start_matches("./").to_owned();
            if !name.is_empty() {
                files.insert(name, words);
            }
        }
    }
    Image {
        configuration: read(&blob(&manifest["config"]))["config"].clone(),
        files,
    }
}

#[test]
fn the_image_holds_the_programs_their_libraries_certificates_and_nothing_else() {
    let Image { configuration, files } = image();
    let (libraries, loader) = LIBRARIES;
    let mut expected: BTreeSet<String> = [
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        loader,
        "usr/local/bin/litestream",
        "usr/local/bin/rclone",
        "usr/local/bin/vixens-backup",
        "usr/local/bin/vixens-backup-agent",
    ]
    .map(str::to_owned)
    .into();
    // What the program is linked against, and what the C library looks up names with.
    for library in [
        "libc.so.6",
        "libgcc_s.so.1",
        "libm.so.6",
        "libnss_dns.so.2",
        "libnss_files.so.2",
        "libresolv.so.2",
    ] {
        expected.insert(format!("{libraries}/{library}"));
    }
    let found: BTreeSet<String> = files.keys().filter(|name| !name.ends_with('/')).cloned().collect();
    assert_eq!(found, expected);

    // Root alone, who is not there, may change any of it; and no file lends its owner's rights.
    for (name, words) in &files {
        let (mode, owner) = (&*words[0], &*words[1]);
        assert_eq!(owner, "0/0", "{name}");
        if name == "tmp/" {
            assert_eq!(mode, "drwxrwxrwt");
        } else {
            assert!(!mode[5..].contains('w') && !mode.contains(['s', 't']), "{name}: {mode}");
        }
    }
    assert_eq!(configuration["User"], "65532:65532");
    assert_eq!(configuration["Entrypoint"], serde_json::json!(["vixens-backup"]));
}
