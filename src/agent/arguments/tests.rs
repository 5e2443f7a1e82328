//! Every value and every command's flags survive being written and parsed again.

use super::*;
use clap::{Args, Command, FromArgMatches};
use proptest::prelude::*;
use std::fmt::{Debug, Display};
use std::str::FromStr;

fn survives<T>(text: &str)
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Debug,
{
    let value: T = text.parse().unwrap();
    assert_eq!(value.to_string().parse::<T>().unwrap(), value, "{text}");
}

fn parse<T: Args + FromArgMatches>(flags: &[String]) -> T {
    let command = T::augment_args(Command::new("agent").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).unwrap();
    T::from_arg_matches(&matches).unwrap()
}

#[test]
fn every_value_survives_being_written_and_parsed_again() {
    for text in ["1s", "5m", "1h30m", "7d", "250ms", "2w", "0s"] {
        survives::<Span>(text);
    }
    for text in ["100M", "2Gi", "4096", "1k", "0", "1536Mi"] {
        survives::<Size>(text);
    }
    for text in ["50%", "0", "100%"] {
        survives::<Percent>(text);
    }
    for text in [
        "7d",
        "last=5,hourly=24,daily=7,weekly=4,monthly=6",
        "history=2Gi",
        "30d,history=500M",
    ] {
        survives::<Retention>(text);
    }
    for text in ["minio:vixens-backups/app", "s3:b/{namespace}/{name}/{pod}"] {
        survives::<Destination>(text);
    }
    for text in [
        "20261122T130500Z-3.42-auto",
        "2026-11-22T13:05:00Z",
        "2026-11-22T13:05:00+02:00",
    ] {
        survives::<RestoreAt>(text);
    }
    for text in ["auto", "none", "app.db", "a/b.db=critical,c.sqlite"] {
        survives::<Databases>(text);
    }
    survives::<QuestionId>("hold-1a2b3c4d");
    survives::<WorkloadName>("StatefulSet/db");
    survives::<ProtectedVolume>("data:config:/config");
    survives::<Port>("9476+");
    survives::<Port>("9476");
}

#[test]
fn a_job_that_the_schedule_did_not_name_is_somebodys_own() {
    let is_manual = |job: &str, flags: &[&str]| {
        let flags: Vec<String> = ["--workload=Deployment/app"]
            .iter()
            .chain(flags)
            .map(ToString::to_string)
            .collect();
        let mut arguments = parse::<BackupArguments>(&flags);
        job.clone_into(&mut arguments.job);
        arguments.is_manual()
    };
    let ours = ["--cron-job=app-backup"];
    assert!(!is_manual("app-backup-29398217", &ours));
    for job in ["now", "app-backup-now", "app-backup-2", "app-backup"] {
        assert!(is_manual(job, &ours), "{job}");
    }
    assert!(!is_manual("now", &[]), "nobody said which CronJob it is");
    assert!(!is_manual("", &ours), "outside a Job the flag alone says so");
    assert!(is_manual("app-backup-29398217", &["--manual"]));
}

#[test]
fn a_bad_value_names_what_is_allowed_and_the_nearest() {
    let refusal = |text: &str| text.parse::<RestorePolicy>().unwrap_err().to_string();
    assert_eq!(
        refusal("ifempty"),
        "allowed: if-empty, always, never; did you mean \"if-empty\"?"
    );
    assert_eq!(
        "30".parse::<Span>().unwrap_err().to_string(),
        "allowed: a duration such as 30s, 5m, 1h30m or 7d; did you mean \"30s\"?"
    );
    assert_eq!("100MB".parse::<Size>().unwrap_err().nearest.as_deref(), Some("100M"));
}

#[test]
fn a_destination_is_a_plain_remote_and_a_path_without_tricks() {
    for text in [
        "vixens-backups/app",
        ":s3:bucket",
        ":local:/etc",
        "minio:",
        "minio:/etc",
        "minio:a//b",
        "minio:a/../b",
        "minio,env_auth=true:b",
        "-f:b",
        "minio:b/{app}",
        "minio:b/\n",
    ] {
        assert!(text.parse::<Destination>().is_err(), "{text}");
    }
}

fn protection() -> impl Strategy<Value = Protection> {
    (
        prop::collection::vec("[a-z]{1,8}", 1..3),
        prop::collection::vec("[-*{}a-z. /]{1,12}", 0..3),
        prop::option::of(0_u64..10_000_000),
    )
        .prop_map(|(names, excludes, max_size)| Protection {
            workload: "Deployment/app".parse().unwrap(),
            volumes: names
                .iter()
                .map(|name| ProtectedVolume {
                    name: name.clone(),
                    folder: format!("{name}-folder"),
                    mount_path: format!("/mnt/{name}:x"),
                })
                .collect(),
            destinations: vec!["minio:bucket/$(POD_NAMESPACE)/app".parse().unwrap()],
            includes: excludes.clone(),
            excludes,
            max_size: max_size.map(Size),
            databases: "app.db=critical".parse().unwrap(),
        })
}

fn identity() -> Identity {
    Identity {
        namespace: "default".to_owned(),
        ..Identity::default()
    }
}

proptest! {
    #[test]
    fn what_inject_writes_agent_reads(protection in protection(), seconds in 1_u64..100_000, pin: bool, tier in 0_usize..3) {
        let tier = Tier::ALL[tier];
        let init = InitArguments {
            identity: identity(),
            protection: protection.clone(),
            folders: Folders::default(),
            tier,
            restore: RestorePolicy::Always,
            restore_at: Some("20261122T130500Z-3.42-auto".parse().unwrap()),
            restore_timeout: Span::seconds(seconds),
            store_down: StoreDown::Start,
            secrets_files: vec!["-odd*.yaml".to_owned()],
            accepted: vec!["hold-1a2b3c4d".parse().unwrap(), "missing-00000000".parse().unwrap()],
            max_shrink: Percent(20),
            record_dir: if pin { RECORD_PATH.into() } else { "/vixens-backup/record".into() },
        };
        prop_assert_eq!(&parse::<InitArguments>(&init.flags()), &init);
        let sidecar = SidecarArguments {
            identity: identity(),
            protection: protection.clone(),
            folders: Folders { allow_plain_folder: pin, ..Folders::default() },
            backups: Backups { retention: "last=3,history=2Gi".parse().unwrap(), max_shrink: Percent(10) },
            tier,
            profile: Profile::Critical,
            settle: pin.then(|| Span::seconds(seconds)),
            interval: Span::seconds(seconds),
            port: if pin { Port::From(9476) } else { Port::Fixed(9477) },
            grace_period: Span::seconds(seconds),
            accepted: vec!["hold-1a2b3c4d".parse().unwrap()],
        };
        prop_assert_eq!(&parse::<SidecarArguments>(&sidecar.flags()), &sidecar);
        let backup = BackupArguments {
            identity: identity(),
            protection: protection.clone(),
            folders: Folders::default(),
            backups: Backups::default(),
            ask: vec!["app-backup.default.svc:9476".to_owned()],
            accepted: vec!["hold-1a2b3c4d".parse().unwrap()],
            manual: pin,
            cron_job: pin.then(|| "app-backup".to_owned()),
            job: String::new(),
            timeout: Span::seconds(seconds),
        };
        prop_assert_eq!(&parse::<BackupArguments>(&backup.flags()), &backup);
        let pre_sync = PreSyncArguments {
            identity: identity(),
            protection,
            folders: Folders::default(),
            verify: Verify::Full,
            pin,
            secret: Some("rclone-minio-config".to_owned()),
            replicas: if pin { 3 } else { 1 },
        };
        prop_assert_eq!(&parse::<PreSyncArguments>(&pre_sync.flags()), &pre_sync);
        let nudge = NudgeArguments { port: Port::From(9476), restore_dir: RESTORE_PATH.into() };
        prop_assert_eq!(&parse::<NudgeArguments>(&nudge.flags()), &nudge);
    }
}
