//! Settings of a remote with buckets → the same bucket as Litestream names it: S3, Azure, Google. Pure but for the
//! environment's certificates.

use super::{Settings, Target, is_true};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Providers that rclone addresses as `bucket.host` (its own table, 1.75); all others as `host/bucket`.
const VIRTUAL_HOST: [&str; 27] = [
    "AWS",
    "Alibaba",
    "Cubbit",
    "DigitalOcean",
    "Dreamhost",
    "GCS",
    "Hetzner",
    "HuaweiOBS",
    "ImpossibleCloud",
    "Intercolo",
    "Leviia",
    "Linode",
    "LyveCloud",
    "Netease",
    "OVHcloud",
    "Petabox",
    "Rabata",
    "RackCorp",
    "Scaleway",
    "Selectel",
    "Servercore",
    "Storj",
    "Synology",
    "TencentCOS",
    "Wasabi",
    "Zata",
    "us3",
];

/// A bucket, and the path in it.
fn bucket(path: &str) -> (String, String) {
    let path = path.trim_matches('/');
    let (bucket, below) = path.split_once('/').unwrap_or((path, ""));
    (bucket.to_owned(), below.to_owned())
}

fn of(kind: &str, path: &str) -> Target {
    let (bucket, root) = bucket(path);
    let mut settings = Map::new();
    settings.insert("type".to_owned(), json!(kind));
    settings.insert("bucket".to_owned(), json!(bucket));
    Target {
        settings,
        root,
        is_s3: kind == "s3",
        environment: BTreeMap::new(),
    }
}

pub(super) fn s3(settings: &Settings, path: &str) -> Result<Target, String> {
    settings.refuse(&[
        "sse_customer_key",
        "sse_customer_key_base64",
        "role_arn",
        "shared_credentials_file",
        "profile",
    ])?;
    if settings.is("v2_auth") {
        return Err("its setting v2_auth has no equal in Litestream".to_owned());
    }
    let mut target = of("s3", path);
    let mut set = |name: &str, value: Value| {
        target.settings.insert(name.to_owned(), value);
    };
    if let Some(endpoint) = settings.get("endpoint") {
        let endpoint = if endpoint.starts_with("http") {
            endpoint.to_owned()
        } else {
            format!("https://{endpoint}")
        };
        let provider = settings.get("provider").unwrap_or("Other");
        let path_style = settings.get("force_path_style").is_none_or(is_true) && !VIRTUAL_HOST.contains(&provider);
        set("endpoint", json!(endpoint));
        set("force-path-style", json!(path_style));
    }
    // Without one, Litestream asks AWS for the bucket's, and a store of one's own has none.
    set("region", json!(settings.get("region").unwrap_or("us-east-1")));
    // Parts of a large upload that are in memory at once.
    set("concurrency", json!(2));
    if let Some(class) = settings.get("storage_class") {
        set("storage-class", json!(class));
    }
    match (settings.get("server_side_encryption"), settings.get("sse_kms_key_id")) {
        (_, Some(key)) => set("sse-kms-key-id", json!(key)),
        // The bucket's own default applies.
        (None | Some("AES256"), None) => {}
        (Some(other), None) => return Err(format!("it asks for {other} without a key (sse_kms_key_id)")),
    }
    if std::env::var("RCLONE_NO_CHECK_CERTIFICATE").is_ok_and(|value| is_true(&value)) {
        set("skip-verify", json!(true));
    }
    let keys = [
        ("AWS_ACCESS_KEY_ID", "access_key_id"),
        ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
        ("AWS_SESSION_TOKEN", "session_token"),
    ];
    if !settings.is("env_auth") {
        for (name, setting) in keys {
            if let Some(value) = settings.get(setting) {
                target.environment.insert(name, value.to_owned());
            }
        }
        if !target.environment.contains_key("AWS_ACCESS_KEY_ID") {
            return Err("it has no access_key_id, and Litestream writes to no bucket without one".to_owned());
        }
    }
    certificates(&mut target);
    Ok(target)
}

/// Authorities that rclone was told to trust.
pub(super) fn certificates(target: &mut Target) {
    let file = ["RCLONE_CA_CERT", "AWS_CA_BUNDLE"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|path| !path.is_empty()));
    if let Some(file) = file {
        target.environment.insert("SSL_CERT_FILE", file);
    }
}

pub(super) fn azure(settings: &Settings, path: &str) -> Result<Target, String> {
    settings.refuse(&["sas_url", "client_id", "service_principal_file", "directory_markers"])?;
    let (Some(account), Some(key)) = (settings.get("account"), settings.get("key")) else {
        return Err("Litestream needs its account and key settings".to_owned());
    };
    let mut target = of("abs", path);
    target.settings.insert("account-name".to_owned(), json!(account));
    if let Some(endpoint) = settings.get("endpoint") {
        target.settings.insert("endpoint".to_owned(), json!(endpoint));
    }
    target
        .environment
        .insert("LITESTREAM_AZURE_ACCOUNT_KEY", key.to_owned());
    certificates(&mut target);
    Ok(target)
}

pub(super) fn google(settings: &Settings, path: &str) -> Result<Target, String> {
    let Some(file) = settings.get("service_account_file") else {
        return Err("Litestream needs its service_account_file setting".to_owned());
    };
    let mut target = of("gs", path);
    target
        .environment
        .insert("GOOGLE_APPLICATION_CREDENTIALS", file.to_owned());
    certificates(&mut target);
    Ok(target)
}
