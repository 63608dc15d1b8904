//! What a visit has found.

use serde::Serialize;

use crate::protocol::Protocol;
use crate::tls::observe::ShownCertificate;

/// What a visit has found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// As it was asked for.
    pub target: String,
    /// The protocol, in lower case.
    pub protocol: &'static str,
    /// Where it went; empty when it went nowhere.
    pub address: String,
    /// Step by step.
    pub findings: Vec<Finding>,
    /// The server's first line.
    pub greeting: Option<String>,
    /// What it offers.
    pub capabilities: Capabilities,
    /// What was agreed on.
    pub tls: Option<TlsFacts>,
    /// The chain, the server's own first.
    pub certificates: Vec<CertificateFacts>,
    /// The login, if it was tried.
    pub login: Option<LoginFacts>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub step: Step,
    /// How it went.
    pub outcome: Outcome,
    /// What there was, or what is wrong.
    pub message: String,
    /// What to do, if anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// A step of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The name is resolved, the address reached.
    Connection,
    /// STARTTLS and the handshake.
    Tls,
    /// Is it who we asked for?
    Certificate,
    /// The first line.
    Greeting,
    /// What it offers.
    Capabilities,
    /// The login.
    Login,
    /// The end.
    Goodbye,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Well.
    Ok,
    /// Well enough.
    Warning,
    /// What was asked for does not work.
    Failed,
}

/// What a server offers, in its own words; nothing where it was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Before TLS.
    pub clear: Option<Vec<String>>,
    /// Over TLS.
    pub tls: Option<Vec<String>>,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// From the first byte, or after STARTTLS.
    pub begins: &'static str,
    /// `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name.
    pub cipher: String,
    /// ALPN's.
    pub alpn: Option<String>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// Its subject.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Whom it is for.
    pub names: Vec<String>,
    /// The day from which it is valid.
    pub not_before: String,
    /// The day on which it ends.
    pub not_after: String,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginFacts {
    /// Who.
    pub user: String,
    /// How.
    pub mechanism: &'static str,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The server's words.
    pub reply: String,
}

impl Report {
    /// Of a visit that has not begun.
    #[must_use]
    pub fn new(target: String, protocol: Protocol) -> Self {
        Self {
            target,
            protocol: protocol.name(),
            address: String::new(),
            findings: Vec::new(),
            greeting: None,
            capabilities: Capabilities::default(),
            tls: None,
            certificates: Vec::new(),
            login: None,
        }
    }

    /// The worst of all.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.findings.iter().map(|finding| finding.outcome).max().unwrap_or(Outcome::Failed)
    }

    pub(super) fn good(&mut self, step: Step, message: String) {
        self.findings.push(Finding::new(step, Outcome::Ok, message, ""));
    }

    pub(super) fn warn(&mut self, step: Step, message: String, remedy: &str) {
        self.findings.push(Finding::new(step, Outcome::Warning, message, remedy));
    }

    /// Nothing is visited, and that is well.
    pub fn skip(&mut self, message: String) {
        self.warn(Step::Connection, message, "");
    }

    /// What was asked for does not work.
    pub fn fail(&mut self, step: Step, message: String, remedy: &str) {
        self.findings.push(Finding::new(step, Outcome::Failed, message, remedy));
    }
}

impl Finding {
    pub(super) fn new(step: Step, outcome: Outcome, message: String, remedy: &str) -> Self {
        Self { step, outcome, message, remedy: remedy.to_owned() }
    }
}

impl Step {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Tls => "TLS",
            Self::Certificate => "certificate",
            Self::Greeting => "greeting",
            Self::Capabilities => "capabilities",
            Self::Login => "login",
            Self::Goodbye => "goodbye",
        }
    }
}

impl CertificateFacts {
    pub(super) fn new(shown: &ShownCertificate, now: i64) -> Self {
        Self {
            subject: shown.subject.clone(),
            issuer: shown.issuer.clone(),
            names: shown.names.clone(),
            not_before: day(shown.not_before),
            not_after: day(shown.not_after),
            days_left: days_left(shown.not_after, now),
        }
    }
}

/// Whole days.
pub(super) fn days_left(not_after: i64, now: i64) -> i64 {
    not_after.saturating_sub(now).div_euclid(24 * 3600)
}

/// `2026-11-21`.
pub(super) fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}
