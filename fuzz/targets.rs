//! The bodies of the fuzz targets: functions that take any bytes and panic if an invariant does not hold.
//!
//! `fuzz_targets/` runs them with libFuzzer. `tests/fuzz.rs` runs them with the committed corpora and with the seeds, so
//! `make test` needs no fuzzer. The protocol machines are driven by the players of `tests/transcripts`, and the follower
//! of SMTP by that of its unit tests.

#[path = "targets/auth_answer.rs"]
mod auth_answer;
#[path = "targets/backends.rs"]
mod backends;
#[path = "targets/certificates.rs"]
mod certificates;
#[path = "targets/choices.rs"]
mod choices;
#[path = "targets/clients.rs"]
mod clients;
#[path = "targets/follow_imap.rs"]
mod follow_imap;
#[path = "targets/follow_sieve.rs"]
mod follow_sieve;
#[path = "targets/follow_smtp.rs"]
mod follow_smtp;
#[path = "targets/manifests.rs"]
mod manifests;
#[path = "targets/nginx.rs"]
mod nginx;
#[path = "targets/postfix.rs"]
mod postfix;
#[path = "targets/proxy_header.rs"]
mod proxy_header;
#[path = "targets/responses.rs"]
mod responses;
#[path = "targets/sasl.rs"]
mod sasl;
#[path = "targets/seeds.rs"]
mod seeds;
#[path = "targets/served.rs"]
mod served;
#[path = "targets/users.rs"]
mod users;

#[allow(dead_code, reason = "shared with tests/transcripts.rs, which needs all of it")]
#[path = "../tests/transcripts/backend.rs"]
mod backend;
#[allow(dead_code, reason = "shared with tests/transcripts.rs, which needs all of it")]
#[path = "../tests/transcripts/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with tests/transcripts.rs, which needs all of it")]
#[path = "../tests/transcripts/script.rs"]
mod script;

use std::path::{Path, PathBuf};

use mailgress::protocol::Protocol;

/// A target.
pub(crate) struct Target {
    /// Its name: of its file in `fuzz_targets`, and of its folder in `corpus`.
    pub(crate) name: &'static str,
    /// Panics if an invariant does not hold.
    pub(crate) run: fn(&[u8]),
}

/// All targets.
pub(crate) const TARGETS: [Target; 19] = [
    Target { name: "imap_client", run: |data| clients::target(Protocol::Imap, data) },
    Target { name: "pop3_client", run: |data| clients::target(Protocol::Pop3, data) },
    Target { name: "smtp_client", run: |data| clients::target(Protocol::Smtp, data) },
    Target { name: "imap_backend", run: |data| backends::target(Protocol::Imap, data) },
    Target { name: "pop3_backend", run: |data| backends::target(Protocol::Pop3, data) },
    Target { name: "smtp_backend", run: |data| backends::target(Protocol::Smtp, data) },
    Target { name: "sieve_client", run: |data| clients::target(Protocol::Sieve, data) },
    Target { name: "sieve_backend", run: |data| backends::target(Protocol::Sieve, data) },
    Target { name: "follow_sieve", run: follow_sieve::target },
    Target { name: "follow_imap", run: follow_imap::target },
    Target { name: "follow_smtp", run: follow_smtp::target },
    Target { name: "sasl", run: sasl::target },
    Target { name: "proxy_header", run: proxy_header::target },
    Target { name: "auth_answer", run: auth_answer::target },
    Target { name: "certificates", run: certificates::target },
    Target { name: "nginx", run: nginx::target },
    Target { name: "manifests", run: manifests::target },
    Target { name: "served", run: served::target },
    Target { name: "users", run: users::target },
];

/// Returns the inputs to start from: transcripts and examples of the repository, which are not in the corpus.
pub(crate) fn seeds(name: &str) -> Vec<Vec<u8>> {
    seeds::of(name, &repository())
}

/// Runs a target with libFuzzer's input.
#[allow(dead_code, reason = "tests/fuzz.rs runs all targets")]
pub(crate) fn run(name: &str, data: &[u8]) {
    (of(name).run)(data);
}

/// Writes the seeds of a target into the folder `MAILGRESS_FUZZ_SEEDS`, if it is set. Call it before libFuzzer reads
/// its corpora.
#[allow(dead_code, reason = "tests/fuzz.rs runs the seeds without files")]
pub(crate) fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os("MAILGRESS_FUZZ_SEEDS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).expect("a folder for the seeds");
    for (index, seed) in seeds(name).iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{index}")), seed).expect("a file for a seed");
    }
}

fn of(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

/// Returns the root of the repository: the folder of this file's package, or the one above.
pub(crate) fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = package.join("fuzz").is_dir();
    if is_root { package.to_owned() } else { package.join("..") }
}
