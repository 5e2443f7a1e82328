//! The agent's commands as a program of their own: what a pod keeps in memory. `vixens-backup agent …` becomes this; it
//! has the same words, without the cluster's half, which is most of that program.

use clap::Parser;
use std::process::ExitCode;
use vixens_backup::agent;
use vixens_backup::cli::Failure;

/// What `vixens-backup agent …` was called with.
#[derive(Debug, Parser)]
#[command(name = "vixens-backup", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What runs inside the injected containers and the companions.
    #[command(subcommand)]
    Agent(agent::Command),
}

fn main() -> ExitCode {
    let Command::Agent(command) = CommandLine::parse().command;
    match agent::run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::from(error).told(),
    }
}
