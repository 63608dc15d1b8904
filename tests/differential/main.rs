//! The same nginx.conf is served by nginx and, after `mailgress import nginx`, by Mailgress. The replies to the client,
//! the requests to the auth service and the bytes for the backend must be equal, or the difference must be listed.
//!
//! The tests play the transcripts of `tests/transcripts`, the cases of `tests/differential/cases` (including all
//! vectors of docs/nginx-wire.md section 13), and generated sessions. `tests/differential/differences.txt` has the
//! intended differences with their register numbers. An unlisted difference fails, and so does a listed one that was
//! not found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole crate is tests and their fixtures: to panic is how they fail"
)]
#![allow(
    unreachable_pub,
    reason = "`pub` is what a fixture offers to the tests, private what it keeps to itself"
)]

mod conf;
mod differences;
mod generated;
mod observed;
mod peer;
mod played;
mod scenario;
mod services;

#[allow(dead_code, reason = "shared with tests/transcripts.rs, which needs all of it")]
#[path = "../transcripts/script.rs"]
mod script;

#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
mod support;

use std::io::Write;

use differences::Listed;
use peer::Peers;
use scenario::Scenario;

#[test]
fn every_transcript_and_case_is_as_nginx_has_it_or_listed() {
    let (scenarios, others) = Scenario::written();
    let vectors = scenarios.iter().filter(|scenario| scenario.is_vector()).count();
    let peers = Peers::start(&scenarios);
    let differences = played::all(&peers, &scenarios);
    tell(&format!(
        "compared with nginx: {} written sessions, of which {vectors} vectors; {} transcripts are of what nginx has not",
        scenarios.len(),
        others
    ));
    Listed::read().check(differences);
}

#[test]
fn generated_sessions_are_as_nginx_has_them() {
    let sessions = generated::Sessions::new();
    let peers = Peers::start(sessions.servers());
    let count = sessions.compare(&peers);
    tell(&format!("compared with nginx: {count} generated sessions"));
}

/// Prints to the terminal even if the test passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
