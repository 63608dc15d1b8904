//! The same nginx.conf, served by the real nginx and, through `mailgress import nginx`, by Mailgress: what the client
//! is told, what the auth service is asked and what the backend is sent must be the same, or be listed.
//!
//! Played are the transcripts of `tests/transcripts`, the cases of `tests/differential/cases` (all vectors of
//! docs/nginx-wire.md section 13 among them), and generated sessions. The differences that are meant stand in
//! `tests/differential/differences.txt` under their register number; an unlisted one fails, and so does a listed one
//! that is not there.
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

/// To the terminal, also when the test passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
