//! How many instructions an IMAP login costs in user space. Callgrind counts them: the figure is the same on a busy machine.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::load::{self, Security, Target};
use crate::login_name;
use crate::peer::{Peer, Run, mailgress, nginx};
use crate::services::{Protocol, Services};
use crate::table::{Row, Unit};
use crate::tls::Identity;

/// What a login costs more than none: the difference between two runs of new processes, by the logins that one has more.
pub(crate) async fn logins(
    counts: [usize; 2],
    directory: &Path,
    identity: &Identity,
    services: &Services,
    security: Security,
) -> Result<Row> {
    let [few, many] = counts;
    let mut rounds = [Vec::new(), Vec::new()];
    for (start, rounds) in [nginx, mailgress].into_iter().zip(&mut rounds) {
        let mut totals = Vec::new();
        for count in [few, many] {
            let home = directory.join(count.to_string());
            std::fs::create_dir_all(&home)?;
            let file = home.join("callgrind.out");
            let run = Run::Counted(&file);
            let peer = start(&home, identity, services, &run)?;
            let name = peer.name;
            run_logins(peer, identity, security, count).await?;
            totals.push(total(&file).with_context(|| format!("the counts of {name}"))?);
        }
        ensure!(totals[1] > totals[0], "more logins cost less");
        rounds.push((totals[1] - totals[0]) as f64 / (many - few) as f64);
    }
    let bar = if security == Security::Plain { 4.0 } else { 1.0 };
    Ok(Row { name: login_name(Protocol::Imap, security), unit: Unit::InstructionsPerSession, rounds, bar })
}

/// One after another; the peer has ended then.
async fn run_logins(peer: Peer, identity: &Identity, security: Security, count: usize) -> Result<()> {
    peer.wait_until_ready(identity).await.with_context(|| peer.failure())?;
    let target = Target::new(&peer, identity, Protocol::Imap, security);
    load::logins(&target, count, 1).await.with_context(|| peer.failure())?;
    Ok(())
}

/// What Callgrind counted in the whole life of a process.
fn total(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file).context("valgrind wrote no counts; see `make bench`")?;
    std::fs::remove_file(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("no totals")?;
    Ok(line.trim().parse()?)
}
