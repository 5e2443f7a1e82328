//! The command line: what was typed → what is meant. A subcommand a line; the work lies in the modules.

use crate::agent;
use clap::Parser;

/// One annotation on a workload, and its files are backed up as they change and restored when they are missing.
#[derive(Debug, Parser)]
#[command(name = "vixens-backup", version, propagate_version = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What runs inside the injected containers and the companions.
    #[command(subcommand)]
    Agent(agent::Command),
}

/// The exit code of a command that failed, beside its error.
#[derive(Debug)]
pub struct Failure {
    /// 1 failed, 2 wrong usage, 3 refused by a guard.
    pub code: u8,
    /// What failed, with its causes.
    pub error: anyhow::Error,
}

impl CommandLine {
    /// Does what was asked.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Agent(command) => agent::run(&command).map_err(|error| Failure {
                code: error.exit_code(),
                error: error.into(),
            }),
        }
    }
}
