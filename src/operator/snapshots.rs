//! `vixens-backup snapshots`: the points in time of a destination, one of them, or what differs between two. Reads only.

use super::access::{Access, Wanted};
use super::{Error, diff, list, run, show};
use std::io::{self, Write};

/// The points in time of a destination: list them, show one, or what differs between two.
#[derive(Debug, clap::Args)]
pub struct Snapshots {
    #[command(flatten)]
    access: Access,
    /// text, for people; json, for scripts
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What a snapshot is, and the files that it has
    Show {
        /// newest, a snapshot's id or its number (3.42), or a time: what was newest then
        #[arg(default_value = "newest")]
        snapshot: Wanted,
        /// Only these files and folders: config/a.yaml, config/sub, 'config/**/*.db'
        paths: Vec<String>,
    },
    /// What came, went and changed between two snapshots
    Diff {
        /// The earlier one
        from: Wanted,
        /// The later one
        #[arg(default_value = "newest")]
        to: Wanted,
        /// Only these files and folders
        paths: Vec<String>,
    },
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

impl Snapshots {
    /// Prints what was asked for.
    pub fn run(self) -> Result<(), Error> {
        let Self {
            access,
            output,
            command,
        } = self;
        run(async move {
            let opened = access.open().await?;
            let text = match command {
                None => list::list(&access, &opened, output).await?,
                Some(Command::Show { snapshot, paths }) => {
                    show::show(&access, &opened, &snapshot, &paths, output).await?
                }
                Some(Command::Diff { from, to, paths }) => {
                    diff::diff(&access, &opened, &from, &to, &paths, output).await?
                }
            };
            print(&text)
        })
    }
}

/// Prints a result. Whoever stops reading has read enough.
pub(super) fn print(text: &str) -> Result<(), Error> {
    match io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::local("the result can't be printed", error))
        }
        _ => Ok(()),
    }
}

/// The bytes of a JSON document, and a newline.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Error::local("the result can't be printed", io::Error::other(error)))
}
