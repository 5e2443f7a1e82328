//! The process: crypto provider, command line, and what an error makes of them. The agent's commands become a process
//! of the program beside this one, where it is there.

use clap::Parser;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use vixens_backup::cli::CommandLine;

// A review is some thousand small allocations: with the C library's allocator they are half of the time that an answer
// takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// See `src/bin/vixens-backup-agent.rs`.
const AGENT: &str = "vixens-backup-agent";
/// For the sidecar, which waits most of the time: memory that is free goes back at once, for a little of its speed.
const GIVE_BACK: &str = "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0:glibc.malloc.top_pad=4096:\
                         glibc.malloc.trim_threshold=4096:glibc.malloc.mmap_threshold=32768";

fn main() -> ExitCode {
    hand_over();
    // Only ring is compiled in; a second call would be the only way to fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match CommandLine::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.told(),
    }
}

/// Becomes the agent's own program. Returns where this one has to do: for other commands, or without it.
fn hand_over() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // While one develops, what lies beside this may be of another day.
    if cfg!(debug_assertions) || arguments.first().is_none_or(|first| first != "agent") {
        return;
    }
    let Ok(agent) = std::env::current_exe().map(|own| own.with_file_name(AGENT)) else {
        return;
    };
    let is_sidecar = arguments.get(1).is_some_and(|second| second == "sidecar");
    let mut command = Command::new(agent);
    command.args(arguments);
    if is_sidecar && std::env::var_os("GLIBC_TUNABLES").is_none() {
        command.env("GLIBC_TUNABLES", GIVE_BACK);
    }
    // It only comes back where it could not be started.
    let _ = command.exec();
}
