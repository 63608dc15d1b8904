//! What is wrong with an object or listener: a condition, a reason, the field, and the remedy.

use std::fmt;

use super::index::{Key, Reference};
use super::reason::Reason;

/// The condition that a violation turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// `Accepted=False`: the manifest itself.
    Accepted,
    /// `ResolvedRefs=False`: something that it refers to.
    ResolvedRefs,
    /// `Conflicted=True`: another listener wants the same socket.
    Conflicted,
    /// A condition of its own with status True, which keeps nothing from serving.
    Notice(Notice),
}

/// Alarms that keep nothing from serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A certificate has expired. It is served on, since an alarm is better than an outage.
    CertificateExpired,
    /// A certificate expires soon: [`crate::model::tls::EXPIRY_WARNINGS`].
    CertificateExpiring,
    /// A certificate or chain that clients may refuse.
    CertificateUnusual,
    /// A host name that no certificate covers.
    HostnameNotCovered,
    /// A listener of another namespace names a Service with endpoints that it may not connect to.
    BackendNotAllowed,
    /// A listener of another namespace may not tell its backends who the client is.
    IntroductionNotAllowed,
    /// A Service without ready endpoints.
    NoReadyEndpoints,
    /// A backend's port is one for TLS from the first byte, and that is not configured.
    ImplicitTlsExpected,
    /// Passwords may travel in clear because nothing was said about TLS.
    ClearText,
    /// A capability is configured that follows from other settings, and is not announced for it.
    CapabilityIgnored,
}

impl Notice {
    /// All of them.
    const ALL: [Self; 10] = [
        Self::CertificateExpired,
        Self::CertificateExpiring,
        Self::CertificateUnusual,
        Self::HostnameNotCovered,
        Self::BackendNotAllowed,
        Self::IntroductionNotAllowed,
        Self::NoReadyEndpoints,
        Self::ImplicitTlsExpected,
        Self::ClearText,
        Self::CapabilityIgnored,
    ];

    /// The condition's type.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::CertificateExpired => "CertificateExpired",
            Self::CertificateExpiring => "CertificateExpiring",
            Self::CertificateUnusual => "CertificateUnusual",
            Self::HostnameNotCovered => "HostnameNotCovered",
            Self::BackendNotAllowed => "BackendNotAllowed",
            Self::IntroductionNotAllowed => "IntroductionNotAllowed",
            Self::NoReadyEndpoints => "NoReadyEndpoints",
            Self::ImplicitTlsExpected => "ImplicitTLSExpected",
            Self::ClearText => "ClearText",
            Self::CapabilityIgnored => "CapabilityIgnored",
        }
    }

    /// Why, if there is no more to say.
    fn reason(self) -> Reason {
        match self {
            Self::CertificateExpired => Reason::CertificateExpired,
            Self::CertificateExpiring => Reason::ExpiresWithinAMonth,
            Self::CertificateUnusual => Reason::CertificateVersion1,
            Self::HostnameNotCovered => Reason::HostnameNotCovered,
            Self::BackendNotAllowed => Reason::BackendNotAllowed,
            Self::IntroductionNotAllowed => Reason::IntroductionNotAllowed,
            Self::NoReadyEndpoints => Reason::NoReadyEndpoints,
            Self::ImplicitTlsExpected => Reason::ImplicitTlsExpected,
            Self::ClearText => Reason::ClearText,
            Self::CapabilityIgnored => Reason::CapabilityIgnored,
        }
    }
}

impl Concern {
    /// The condition's type.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Conflicted => "Conflicted",
            Self::Notice(notice) => notice.condition(),
        }
    }

    /// Whether a condition of this type is a notice.
    #[must_use]
    pub fn is_notice(condition: &str) -> bool {
        Notice::ALL.iter().any(|notice| notice.condition() == condition)
    }

    /// Whether it keeps the listener from serving.
    #[must_use]
    pub fn excludes(self) -> bool {
        !matches!(self, Self::Notice(_))
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The condition that says so.
    pub concern: Concern,
    /// Its entry in the documentation.
    pub reason: Reason,
    /// The field's path: `spec.listeners[imaps].tls.certificateRefs`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What helps.
    pub remedy: String,
    /// The object that is not there, where nothing else is wrong. Files often show only a part of what a cluster has.
    pub absent: Option<Box<Absent>>,
}

/// An object that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A Secret, ConfigMap or Service.
    Reference(Reference),
    /// The `MailServer` of a `MailListener`.
    Server(Key),
    /// A namespace whose labels decide something.
    Namespace(String),
}

impl Violation {
    /// The manifest itself is wrong.
    #[must_use]
    pub fn invalid(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::Accepted, Reason::Invalid, field, problem, remedy)
    }

    /// The owner of the `MailServer` does not allow it.
    #[must_use]
    pub fn not_allowed(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::BackendNotAllowed, field, problem, remedy)
    }

    /// Something that it refers to is not there.
    #[must_use]
    pub fn missing(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::RefNotFound, field, problem, remedy)
    }

    /// An object that it refers to is not there, and nothing else is wrong.
    #[must_use]
    pub fn absent(
        field: &str,
        absent: Absent,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { absent: Some(Box::new(absent)), ..Self::missing(field, problem, remedy) }
    }

    /// Something that it refers to is there and cannot be used.
    #[must_use]
    pub fn unusable(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::InvalidRef, field, problem, remedy)
    }

    /// It is not known yet whether something that it refers to exists.
    #[must_use]
    pub fn pending(field: &str, problem: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::Pending, field, problem, "")
    }

    /// Whether it is over as soon as the API server has answered.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.concern == Concern::ResolvedRefs && self.reason == Reason::Pending
    }

    /// Whether the owner of the `MailServer` keeps the listener from being served.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.concern.excludes() && self.reason == Reason::BackendNotAllowed
    }

    /// An alarm.
    #[must_use]
    pub fn notice(
        notice: Notice,
        field: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Concern::Notice(notice), notice.reason(), field, problem, remedy)
    }

    /// In full.
    #[must_use]
    pub fn new(
        concern: Concern,
        reason: Reason,
        field: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (problem, remedy) = (problem.into(), remedy.into());
        Self { concern, reason, field: field.to_owned(), problem, remedy, absent: None }
    }
}

/// The condition's message: `field: problem; remedy`.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// The first line of a library's message, for messages of one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
