//! What an IMAP login costs in user-space instructions, which Callgrind counts, and in system calls, which strace counts. These
//! figures are the same on a busy machine.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::load::{self, Security, Target};
use crate::peer::{Peer, Run};
use crate::services::{Protocol, Services};
use crate::table::{PEERS, Row, Unit};
use crate::tls::Identity;
use crate::{CONCURRENCY, PATIENCE, POLL, login_name, peer};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// One session after another.
    Instructions,
    /// With [`CONCURRENCY`] sessions at once, because one wait may report events of several.
    SystemCalls,
}

impl Counted {
    fn run(self, file: &Path) -> Run<'_> {
        match self {
            Self::Instructions => Run::Counted(file),
            Self::SystemCalls => Run::Traced(file),
        }
    }

    fn concurrency(self) -> usize {
        match self {
            Self::Instructions => 1,
            Self::SystemCalls => CONCURRENCY,
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Instructions => Unit::InstructionsPerSession,
            Self::SystemCalls => Unit::SystemCallsPerSession,
        }
    }

    fn bar(self, security: Security) -> f64 {
        match (self, security) {
            (Self::Instructions, Security::Plain) => 4.0,
            (Self::SystemCalls, Security::Plain) => 1.1,
            _ => 1.0,
        }
    }

    /// The total in the file of a tool.
    fn total(self, text: &str) -> Option<u64> {
        match self {
            Self::Instructions => {
                text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
            }
            // `100.00    0.021406           3      6134       212 total`
            Self::SystemCalls => {
                text.lines().find(|line| line.ends_with(" total"))?.split_whitespace().nth(3)?.parse().ok()
            }
        }
    }
}

/// What a login costs more than none: the difference between two runs of new processes, by the logins that one has more.
pub(crate) async fn logins(
    what: Counted,
    counts: [usize; 2],
    directory: &Path,
    (identity, services): (&Identity, &Services),
    security: Security,
) -> Result<Row> {
    let [few, many] = counts;
    let mut rounds = PEERS.map(|_| Vec::new());
    for (start, rounds) in peer::ALL.into_iter().zip(&mut rounds) {
        let mut totals = Vec::new();
        for count in [few, many] {
            let home = directory.join(count.to_string());
            std::fs::create_dir_all(&home)?;
            let file = home.join("counts");
            let peer = start(&home, identity, services, &what.run(&file))?;
            let name = peer.name;
            run_logins(peer, identity, security, (count, what.concurrency())).await?;
            totals.push(total(what, &file).await.with_context(|| format!("the counts of {name}"))?);
        }
        ensure!(totals[1] > totals[0], "more logins cost less");
        rounds.push((totals[1] - totals[0]) as f64 / (many - few) as f64);
    }
    let name = login_name(Protocol::Imap, security);
    Ok(Row { name, unit: what.unit(), rounds, bar: what.bar(security) })
}

/// The peer has ended then.
async fn run_logins(
    peer: Peer,
    identity: &Identity,
    security: Security,
    (count, concurrency): (usize, usize),
) -> Result<()> {
    peer.wait_until_ready(identity).await.with_context(|| peer.failure())?;
    let target = Target::new(&peer, identity, Protocol::Imap, security);
    load::logins(&target, count, concurrency).await.with_context(|| peer.failure())?;
    Ok(())
}

/// What was counted in the whole life of a process. strace writes its file after the process has ended.
async fn total(what: Counted, file: &Path) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(total) = what.total(&text) {
            std::fs::remove_file(file)?;
            return Ok(total);
        }
        ensure!(Instant::now() < deadline, "the tool wrote no counts; see `make bench`");
        tokio::time::sleep(POLL).await;
    }
}
