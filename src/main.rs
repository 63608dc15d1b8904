//! The thin binary: installs the TLS provider, parses the command line, prints what went wrong.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use mailgress::cli::{Cli, Usage};

/// It gives memory back some seconds after a flood of connections has ended.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // The one provider of the process; a second call would be an error of ours, and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command.run() {
        Ok(code) => code,
        // `mailgress crds | head`: whoever reads has enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // `eprintln!` would panic where nobody reads standard error.
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
