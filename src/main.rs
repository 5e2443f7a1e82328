//! The process: crypto provider, command line, and the one place that prints an error with its causes.

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use vixens_backup::cli::CommandLine;

// A review is some thousand small allocations: with the C library's allocator they are half of the time that an answer
// takes, and a sidecar at rest is larger by a mebibyte.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Only ring is compiled in; a second call would be the only way to fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match CommandLine::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut line = format!("vixens-backup: {}", failure.error);
            for cause in failure.error.chain().skip(1).map(ToString::to_string) {
                // An error that is no more than its cause has its text.
                if !line.ends_with(&cause) {
                    line.push_str(": ");
                    line.push_str(&cause);
                }
            }
            let _ = writeln!(std::io::stderr(), "{line}");
            ExitCode::from(failure.code)
        }
    }
}
