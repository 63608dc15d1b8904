//! Replays the wire transcripts in `tests/transcripts/` with the pure state machines: whole, byte by byte and in random
//! chunks. `tests/transcripts/README.md` describes the format.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "transcripts/backend.rs"]
mod backend;
#[path = "transcripts/client.rs"]
mod client;
#[path = "transcripts/properties.rs"]
mod properties;
#[path = "transcripts/script.rs"]
mod script;

use mailgress::protocol::Protocol;

use script::{Chunking, Script};

#[test]
fn imap_clients_get_what_the_transcripts_say() {
    replay("imap", |script, chunking| client::replay(Protocol::Imap, script, chunking));
}

#[test]
fn pop3_clients_get_what_the_transcripts_say() {
    replay("pop3", |script, chunking| client::replay(Protocol::Pop3, script, chunking));
}

#[test]
fn smtp_clients_get_what_the_transcripts_say() {
    replay("smtp", |script, chunking| client::replay(Protocol::Smtp, script, chunking));
}

#[test]
fn sieve_clients_get_what_the_transcripts_say() {
    replay("sieve", |script, chunking| client::replay(Protocol::Sieve, script, chunking));
}

#[test]
fn backends_get_what_the_transcripts_say() {
    replay("backend", backend::replay);
}

/// Replays each script of a folder in every chunking. Reports all failures, not only the first one.
fn replay(folder: &str, run: impl Fn(&Script, &mut Chunking) -> Result<(), String>) {
    let scripts = Script::all(&format!("transcripts/{folder}"));
    assert!(!scripts.is_empty(), "no transcripts in {folder}");
    let mut failures = Vec::new();
    for script in &scripts {
        for mut chunking in Chunking::all() {
            if let Err(difference) = run(script, &mut chunking) {
                failures.push(format!("{} ({chunking}):\n{difference}", script.name));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), scripts.len(), failures.join("\n"));
}
