//! The report of a visit.

use serde::Serialize;

use crate::protocol::Protocol;
use crate::tls::observe::ShownCertificate;

/// The results of a visit, also as JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The target as the user wrote it.
    pub target: String,
    /// The protocol in lower case.
    pub protocol: &'static str,
    /// The address that was connected to; empty if none was.
    pub address: String,
    /// The results of the steps, in order.
    pub findings: Vec<Finding>,
    /// The server's first line.
    pub greeting: Option<String>,
    /// The capabilities of the server.
    pub capabilities: Capabilities,
    /// The negotiated TLS parameters.
    pub tls: Option<TlsFacts>,
    /// The certificate chain, the server's own certificate first.
    pub certificates: Vec<CertificateFacts>,
    /// The login, if it was tried.
    pub login: Option<LoginFacts>,
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// Whether it succeeded.
    pub outcome: Outcome,
    /// The result, or the problem.
    pub message: String,
    /// What to do; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// A step of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Resolving the name and connecting.
    Connection,
    /// STARTTLS and the TLS handshake.
    Tls,
    /// Checking the server's certificate.
    Certificate,
    /// The server's first line.
    Greeting,
    /// The server's capabilities.
    Capabilities,
    /// The login.
    Login,
    /// Ending the session.
    Goodbye,
}

/// Whether a step succeeded; the worst value is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It succeeded.
    Ok,
    /// It succeeded, but may need attention.
    Warning,
    /// It failed.
    Failed,
}

/// The capabilities as the server names them. `None` if they were not requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Before TLS.
    pub clear: Option<Vec<String>>,
    /// With TLS.
    pub tls: Option<Vec<String>>,
}

/// The negotiated TLS parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// Text: from the first byte, or after STARTTLS.
    pub begins: &'static str,
    /// The version, such as `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: String,
    /// The ALPN protocol.
    pub alpn: Option<String>,
}

/// A certificate in readable form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// The distinguished name of the subject.
    pub subject: String,
    /// The distinguished name of the issuer.
    pub issuer: String,
    /// DNS names and addresses of subjectAltName.
    pub names: Vec<String>,
    /// The first day of validity.
    pub not_before: String,
    /// The last day of validity.
    pub not_after: String,
    /// Whole days until the end of validity; negative after it.
    pub days_left: i64,
}

/// A login that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginFacts {
    /// The user name.
    pub user: String,
    /// The command and mechanism.
    pub mechanism: &'static str,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The last line of the server's reply.
    pub reply: String,
}

impl Report {
    /// Creates an empty report.
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

    /// Returns the worst outcome. `Failed` if there are no findings.
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

    /// Adds a warning instead of a visit.
    pub fn skip(&mut self, message: String) {
        self.warn(Step::Connection, message, "");
    }

    /// Adds a failed step.
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
    /// Returns the name to print.
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

/// Returns whole days, rounded down.
pub(super) fn days_left(not_after: i64, now: i64) -> i64 {
    not_after.saturating_sub(now).div_euclid(24 * 3600)
}

/// Formats a day as `2026-11-21`.
pub(super) fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}
