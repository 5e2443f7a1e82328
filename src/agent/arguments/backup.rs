//! What `agent backup` is told.

use super::{Backups, Flags, Folders, Identity, Protection, QuestionId, Span, Writer};

/// `agent backup`: the companion CronJob. With `--ask`, sidecars are asked; without, it does the work itself.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct BackupArguments {
    /// Who we are.
    #[command(flatten)]
    pub identity: Identity,
    /// What is protected.
    #[command(flatten)]
    pub protection: Protection,
    /// Our own folders.
    #[command(flatten)]
    pub folders: Folders,
    /// How backups are made.
    #[command(flatten)]
    pub backups: Backups,
    /// The sidecar to ask, HOST:PORT; repeated, one a pod. None: do the work here, on the mounted volumes.
    #[arg(long)]
    pub ask: Vec<String>,
    /// A question that is answered by yes: its id, as the log line says it; repeated.
    #[arg(long = "accept")]
    pub accepted: Vec<QuestionId>,
    /// The snapshot's kind: scheduled when the schedule started it, manual when somebody did.
    #[arg(long)]
    pub manual: bool,
    /// The CronJob: a Job with another name than its schedule gives was made by somebody, and its backup is manual.
    #[arg(long)]
    pub cron_job: Option<String>,
    /// The Job that this runs in. Never written as a flag.
    #[arg(long, env = "VIXENS_BACKUP_JOB", default_value = "", hide_short_help = true)]
    pub job: String,
    /// How long to wait for the backup to end.
    #[arg(long, default_value = "30m")]
    pub timeout: Span,
}

impl Flags for BackupArguments {
    fn flags(&self) -> Vec<String> {
        let Self {
            identity: _,
            protection,
            folders,
            backups,
            ask,
            accepted,
            manual,
            cron_job,
            job: _,
            timeout,
        } = self;
        let mut writer = Writer(protection.flags());
        writer.0.extend(backups.flags());
        writer.each("ask", ask);
        writer.each("accept", accepted);
        if *manual {
            writer.0.push("--manual".to_owned());
        }
        writer.some("cron-job", cron_job.as_ref());
        writer.unless("timeout", timeout, &Span::seconds(1800));
        writer.0.extend(folders.flags());
        writer.0
    }
}

impl BackupArguments {
    /// Whether somebody asks, and not the schedule, whose Jobs are named after their CronJob and their minute.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        let is_scheduled = |cron_job: &String| {
            let minute = self
                .job
                .strip_prefix(cron_job.as_str())
                .and_then(|rest| rest.strip_prefix('-'));
            minute.is_some_and(|minute| minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit()))
        };
        self.manual || (!self.job.is_empty() && self.cron_job.as_ref().is_some_and(|cron_job| !is_scheduled(cron_job)))
    }
}
