//! The command line: what was typed → what is meant. A subcommand a line; the work lies in the modules.

mod install_into;
mod offline;

use crate::{agent, operator, serve};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// One annotation on a workload, and its files are backed up as they change and restored when they are missing.
#[derive(Debug, Parser)]
#[command(name = "vixens-backup", version, propagate_version = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value, made once")]
enum Command {
    /// Manifests in, injected manifests out; what is not ours passes byte for byte.
    Inject(offline::Inject),
    /// What would happen to each workload, and why.
    Explain(offline::Explain),
    /// The reverse of inject.
    Eject(offline::Eject),
    /// What runs inside the injected containers and the companions.
    #[command(subcommand)]
    Agent(agent::Command),
    /// The admission webhook with its certificates, and the controller of companions.
    Serve(serve::Arguments),
    Snapshots(operator::Snapshots),
    /// Have the sidecar of this pod make a backup now.
    Backup(operator::Backup),
    Restore(operator::Restore),
    /// Copy this program into a folder, for plugins that need it beside the programs of another image.
    InstallInto(install_into::InstallInto),
}

/// The exit code of a command that failed, beside its error.
#[derive(Debug)]
pub struct Failure {
    /// 1 failed, 2 wrong usage, 3 refused by a guard.
    pub code: u8,
    /// What failed, with its causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// Prints the error with its causes; the process's exit code.
    #[must_use]
    pub fn told(&self) -> ExitCode {
        let mut line = format!("vixens-backup: {}", self.error);
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            // An error that is no more than its cause has its text.
            if !line.ends_with(&cause) {
                line.push_str(": ");
                line.push_str(&cause);
            }
        }
        let _ = writeln!(std::io::stderr(), "{line}");
        ExitCode::from(self.code)
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        Self {
            code: error.exit_code(),
            error: error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: 1, error }
    }
}

impl From<operator::Error> for Failure {
    fn from(error: operator::Error) -> Self {
        Self {
            code: error.exit_code(),
            error: error.into(),
        }
    }
}

impl CommandLine {
    /// Does what was asked.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Inject(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Eject(command) => command.run(),
            Command::Agent(command) => Ok(agent::run(&command)?),
            Command::Serve(arguments) => serve::run(arguments).map_err(|error| Failure {
                code: 1,
                error: error.into(),
            }),
            Command::Snapshots(command) => Ok(command.run()?),
            Command::Backup(command) => command.run().map_err(|error| Failure {
                code: error.exit_code(),
                error: error.into(),
            }),
            Command::Restore(command) => Ok(command.run()?),
            Command::InstallInto(command) => command.run(),
        }
    }
}
