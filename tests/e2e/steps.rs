//! The steps of one long test, with their names and times.

use std::io::{Result, Write};
use std::time::Instant;

/// Runs a step.
pub fn step<T>(what: &str, take: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let _ = say(&format!("... {what}"));
    let done = take();
    let _ = say(&format!(" ok {what} ({:.1} s)", started.elapsed().as_secs_f64()));
    done
}

/// Prints to the terminal even if the test passes.
pub fn say(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}")
}
