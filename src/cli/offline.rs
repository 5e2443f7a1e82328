//! `inject`, `explain` and `eject` on files: the webhook's own functions, for CI, Git and Argo CD plugins.
//! Nothing is written unless everything could be done.

use super::Failure;
use crate::inject::{Explanation, eject, explain, inject, is_presync_job, presync_job};
use crate::manifests::{self, Change};
use crate::policy::{Installation, Problem};
use crate::workload::text;
use anyhow::Context;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::PathBuf;

/// Where manifests come from.
#[derive(Debug, clap::Args)]
pub(super) struct Sources {
    /// A file of manifests, YAML or JSON; - is standard input, which is also read when there is no -f
    #[arg(short, long = "filename", value_name = "FILE|-")]
    filename: Vec<PathBuf>,
}

/// What stands in for the cluster.
#[derive(Debug, clap::Args)]
pub(super) struct Setting {
    /// The file with the installation's own defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The image of the injected containers, where that file names none
    #[arg(long, env = "VIXENS_BACKUP_IMAGE")]
    image: Option<String>,
    /// The namespace of manifests that name none
    #[arg(short, long)]
    namespace: Option<String>,
}

/// `vixens-backup inject`.
#[derive(Debug, clap::Args)]
pub(super) struct Inject {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    setting: Setting,
    /// Add Job/<name>-presync after each workload: as a PreSync hook of Argo CD it looks at the store before a sync
    #[arg(long)]
    with_presync: bool,
}

/// `vixens-backup explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    setting: Setting,
    /// text, for people; json, for scripts
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// `vixens-backup eject`.
#[derive(Debug, clap::Args)]
pub(super) struct Eject {
    #[command(flatten)]
    sources: Sources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Sources {
    /// Each source's name and text, in order.
    fn read(&self) -> anyhow::Result<Vec<(String, String)>> {
        let standard_input = [PathBuf::from("-")];
        let names = if self.filename.is_empty() {
            &standard_input[..]
        } else {
            &self.filename
        };
        names
            .iter()
            .map(|name| {
                let mut text = String::new();
                if name.as_os_str() == "-" {
                    std::io::stdin()
                        .read_to_string(&mut text)
                        .context("standard input can't be read as text")?;
                    return Ok(("standard input".to_owned(), text));
                }
                text = std::fs::read_to_string(name).with_context(|| {
                    format!(
                        "{} can't be read; -f takes files, and - for standard input",
                        name.display()
                    )
                })?;
                Ok((name.display().to_string(), text))
            })
            .collect()
    }
}

/// The rewritten text of all sources, with a separator between two where there is none.
fn rewrite(sources: &[(String, String)], mut change: impl FnMut(&str, &Value) -> Change) -> anyhow::Result<String> {
    let mut output = String::new();
    for (name, text) in sources {
        let rewritten = manifests::rewrite(text, |object| change(name, object)).context(name.clone())?;
        if !output.is_empty() && !rewritten.starts_with("---") && !rewritten.trim().is_empty() {
            if !output.ends_with('\n') {
                output.push('\n');
            }
            output.push_str("---\n");
        }
        output.push_str(&rewritten);
    }
    Ok(output)
}

impl Setting {
    fn installation(&self) -> anyhow::Result<Installation> {
        let mut installation = Installation::default();
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
            installation = Installation::from_yaml(&text).with_context(|| path.display().to_string())?;
        }
        if let Some(image) = &self.image {
            installation.or_image(image);
        }
        Ok(installation)
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

fn described(source: &str, object: &Value) -> String {
    let kind = text(object, "/kind").unwrap_or_default();
    let name = text(object, "/metadata/name").unwrap_or_default();
    format!("{source}: {kind}/{name}")
}

fn refusal(source: &str, object: &Value, problems: &[Problem]) -> String {
    let mut said = format!("{} can't be protected as it is written:", described(source, object));
    for problem in problems {
        let _ = write!(said, "\n  {problem}");
    }
    said
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .context("standard output can't be written")
}

fn warn(text: &str) {
    // There is nowhere else to say that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Inject {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let installation = self.setting.installation()?;
        let sources = self.sources.read()?;
        let made: Vec<String> = sources
            .iter()
            .flat_map(|(_, text)| manifests::namespaces(text))
            .collect();
        let mut refusals = Vec::new();
        let output = rewrite(&sources, |source, object| {
            if self.with_presync && is_presync_job(object) {
                return Change::Becomes(Vec::new());
            }
            match inject(object, self.setting.namespace(), &installation) {
                Ok(injected) => {
                    for warning in injected.warnings {
                        warn(&format!("{}: warning: {warning}", described(source, object)));
                    }
                    let job = presync_job(&injected.object).filter(|job| self.adds(job, source, &made));
                    Change::Becomes([injected.object].into_iter().chain(job).collect())
                }
                Err(problems) => {
                    refusals.push(refusal(source, object, &problems));
                    Change::Stays
                }
            }
        })?;
        if !refusals.is_empty() {
            return Err(anyhow::anyhow!("{}", refusals.join("\n")).into());
        }
        Ok(print(&output)?)
    }

    /// Whether a PreSync Job is wanted, and can come before its Namespace. `made` are those that the manifests make.
    fn adds(&self, job: &Value, source: &str, made: &[String]) -> bool {
        let namespace = text(job, "/metadata/namespace").unwrap_or(self.setting.namespace());
        let is_made = made.iter().any(|made| made == namespace);
        if self.with_presync && is_made {
            warn(&format!(
                "{}: warning: it is left out, because Namespace/{namespace} is among the manifests, and a PreSync hook comes \
                 before them: have Argo CD make the namespace, by the sync option CreateNamespace=true",
                described(source, job)
            ));
        }
        self.with_presync && !is_made
    }
}

impl Eject {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let output = rewrite(&self.sources.read()?, |source, object| {
            if is_presync_job(object) {
                return Change::Becomes(Vec::new());
            }
            let ejected = eject(object);
            for warning in ejected.warnings {
                warn(&format!("{}: warning: {warning}", described(source, object)));
            }
            Change::Becomes(vec![ejected.object])
        })?;
        Ok(print(&output)?)
    }
}

impl Explain {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let installation = self.setting.installation()?;
        let mut explanations: Vec<Explanation> = Vec::new();
        for (name, text) in self.sources.read()? {
            manifests::visit(&text, |object| {
                explanations.extend(explain(object, self.setting.namespace.as_deref(), &installation));
            })
            .context(name)?;
        }
        let output = match self.output {
            Output::Json => {
                let mut text = serde_json::to_string_pretty(&explanations).context("the explanation is no JSON")?;
                text.push('\n');
                text
            }
            Output::Text if explanations.is_empty() => "no workload carries vixens.io/backup\n".to_owned(),
            Output::Text => {
                let texts: Vec<String> = explanations.iter().map(ToString::to_string).collect();
                texts.join("\n")
            }
        };
        print(&output)?;
        let refused = explanations
            .iter()
            .filter(|explanation| !explanation.errors.is_empty())
            .count();
        if refused > 0 {
            return Err(anyhow::anyhow!("{refused} of {} workloads would be refused", explanations.len()).into());
        }
        Ok(())
    }
}
