//! The binary: installs the TLS provider, parses the command line and prints errors.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use mailgress::cli::{Cli, Usage};

/// jemalloc returns memory to the system some seconds after a flood of connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // The only provider of the process. A second call would be a bug, but has no effect.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command.run() {
        Ok(code) => code,
        // For example `mailgress crds | head`: the reader needs no more output.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // `eprintln!` would panic if standard error is closed.
            let _ = writeln!(io::stderr(), "mailgress: {error:#}");
            Usage::exit_status(&error)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .root_cause()
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
