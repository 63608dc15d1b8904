//! Writes the result of a probe as text.

use std::io::{self, Write};

use anstyle::Style;

use crate::cli::colour::{BAD, FAINT, GOOD, STRONG, WARNING};
use crate::probe::{CertificateFacts, Finding, Outcome, Report, Step};
use crate::protocol::Protocol;
use crate::words::counted;

/// Writes one line for each step, and the certificates below theirs.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "{STRONG}{}{STRONG:#}, {}",
        report.target,
        Protocol::of_name(report.protocol).map_or(report.protocol, Protocol::label)
    )?;
    for finding in &report.findings {
        line(out, finding)?;
        if finding.step == Step::Certificate {
            for (index, certificate) in report.certificates.iter().enumerate() {
                shown(out, index, certificate)?;
            }
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let (word, style) = outcome(finding.outcome);
    let name = finding.step.name();
    writeln!(out, "  {style}{word:<4}{style:#}  {name:<12}  {}", finding.message)?;
    if !finding.remedy.is_empty() {
        writeln!(out, "{:22}{FAINT}{}{FAINT:#}", "", finding.remedy)?;
    }
    Ok(())
}

fn shown(out: &mut impl Write, index: usize, certificate: &CertificateFacts) -> io::Result<()> {
    let CertificateFacts { subject, issuer, names, not_before, not_after, days_left } = certificate;
    let number = index.saturating_add(1);
    writeln!(out, "{:20}{number} {subject}, issued by {issuer}", "")?;
    let left =
        if *days_left < 0 { "expired".to_owned() } else { format!("{} left", counted(*days_left, "day")) };
    writeln!(out, "{:22}{FAINT}{not_before} to {not_after}, {left}{FAINT:#}", "")?;
    if !names.is_empty() {
        writeln!(out, "{:22}{FAINT}for {}{FAINT:#}", "", names.join(", "))?;
    }
    Ok(())
}

/// Returns a word of at most four letters.
pub(super) const fn outcome(outcome: Outcome) -> (&'static str, Style) {
    match outcome {
        Outcome::Ok => ("ok", GOOD),
        Outcome::Warning => ("warn", WARNING),
        Outcome::Failed => ("FAIL", BAD),
    }
}
