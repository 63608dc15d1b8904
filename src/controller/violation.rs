//! Violations of an object or listener: condition, reason, field, problem, and remedy.

use std::fmt;

use super::index::{Key, Reference};
use super::reason::Reason;

/// The condition that a violation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// `Accepted=False`: the manifest is not valid.
    Accepted,
    /// `ResolvedRefs=False`: a reference cannot be used.
    ResolvedRefs,
    /// `Conflicted=True`: another listener uses the same socket, or another route has the same users.
    Conflicted,
    /// A condition of its own with the status True. The listener is served anyway.
    Notice(Notice),
}

/// Warnings. The listener is served anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A certificate has expired. It is still used, because a warning is better than an outage.
    CertificateExpired,
    /// A certificate expires soon: [`crate::model::tls::EXPIRY_WARNINGS`].
    CertificateExpiring,
    /// A certificate or chain that clients may refuse.
    CertificateUnusual,
    /// A host name that no certificate contains.
    HostnameNotCovered,
    /// A listener of another namespace uses a Service with endpoints that are not allowed.
    BackendNotAllowed,
    /// A listener of another namespace may not send client information to its backends.
    IntroductionNotAllowed,
    /// A Service without ready endpoints.
    NoReadyEndpoints,
    /// A backend's port expects TLS from the first byte, which is not configured.
    ImplicitTlsExpected,
    /// Passwords can be sent in clear text, because TLS is not configured.
    ClearText,
    /// A capability is configured that depends on other settings, and is ignored.
    CapabilityIgnored,
    /// Lines of a list of users that are ignored.
    UsersIgnored,
    /// A route has a backend for a protocol that the `MailServer` does not serve.
    ProtocolNotServed,
    /// Endpoints without a Pod, where each user has one endpoint.
    EndpointsUnnamed,
    /// The protocols of an exclusive backend have different endpoints.
    EndpointsDiffer,
    /// Endpoints that are taken out of service.
    EndpointsLeaving,
    /// Exclusive users, and other replicas cannot be found.
    ReplicasUnknown,
}

impl Notice {
    /// All notices.
    const ALL: [Self; 16] = [
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
        Self::UsersIgnored,
        Self::ProtocolNotServed,
        Self::EndpointsUnnamed,
        Self::EndpointsDiffer,
        Self::EndpointsLeaving,
        Self::ReplicasUnknown,
    ];

    /// Returns the condition's type.
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
            Self::UsersIgnored => "UsersIgnored",
            Self::ProtocolNotServed => "ProtocolNotServed",
            Self::EndpointsUnnamed => "EndpointsUnnamed",
            Self::EndpointsDiffer => "EndpointsDiffer",
            Self::EndpointsLeaving => "EndpointsLeaving",
            Self::ReplicasUnknown => "ReplicasUnknown",
        }
    }

    /// Returns the reason if there is no specific one.
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
            Self::UsersIgnored => Reason::UsersIgnored,
            Self::ProtocolNotServed => Reason::ProtocolNotServed,
            Self::EndpointsUnnamed => Reason::EndpointsUnnamed,
            Self::EndpointsDiffer => Reason::EndpointsDiffer,
            Self::EndpointsLeaving => Reason::EndpointsLeaving,
            Self::ReplicasUnknown => Reason::ReplicasUnknown,
        }
    }
}

impl Concern {
    /// Returns the condition's type.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Conflicted => "Conflicted",
            Self::Notice(notice) => notice.condition(),
        }
    }

    /// Tells whether a condition of this type is a notice.
    #[must_use]
    pub fn is_notice(condition: &str) -> bool {
        Notice::ALL.iter().any(|notice| notice.condition() == condition)
    }

    /// Tells whether the listener is excluded.
    #[must_use]
    pub fn excludes(self) -> bool {
        !matches!(self, Self::Notice(_))
    }
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The condition that reports it.
    pub concern: Concern,
    /// The reason, which has an entry in the documentation.
    pub reason: Reason,
    /// The field's path: `spec.listeners[imaps].tls.certificateRefs`.
    pub field: String,
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
    /// The object that does not exist, if that is the only problem. Files often contain only a part of a cluster's
    /// objects.
    pub absent: Option<Box<Absent>>,
}

/// An object that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A Secret, ConfigMap or Service.
    Reference(Reference),
    /// The `MailServer` of a `MailListener`.
    Server(Key),
    /// A namespace whose labels are needed for a decision.
    Namespace(String),
}

impl Violation {
    /// Creates a violation of the manifest itself.
    #[must_use]
    pub fn invalid(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::Accepted, Reason::Invalid, field, problem, remedy)
    }

    /// Creates a violation for something that the owner of the `MailServer` does not allow.
    #[must_use]
    pub fn not_allowed(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::BackendNotAllowed, field, problem, remedy)
    }

    /// Creates a violation for a reference to something that does not exist.
    #[must_use]
    pub fn missing(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::RefNotFound, field, problem, remedy)
    }

    /// Creates a violation for an object that does not exist, if that is the only problem.
    #[must_use]
    pub fn absent(
        field: &str,
        absent: Absent,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { absent: Some(Box::new(absent)), ..Self::missing(field, problem, remedy) }
    }

    /// Creates a violation for a referenced object that cannot be used.
    #[must_use]
    pub fn unusable(field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::InvalidRef, field, problem, remedy)
    }

    /// Creates a violation for a reference that is not known yet.
    #[must_use]
    pub fn pending(field: &str, problem: impl Into<String>) -> Self {
        Self::new(Concern::ResolvedRefs, Reason::Pending, field, problem, "")
    }

    /// Tells whether the violation ends when the API server answers.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.concern == Concern::ResolvedRefs && self.reason == Reason::Pending
    }

    /// Tells whether the owner of the `MailServer` does not allow the listener.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.concern.excludes() && self.reason == Reason::BackendNotAllowed
    }

    /// Creates a warning.
    #[must_use]
    pub fn notice(
        notice: Notice,
        field: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Concern::Notice(notice), notice.reason(), field, problem, remedy)
    }

    /// Creates a violation with all its fields.
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

/// Writes the condition's message: `field: problem; remedy`.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Returns the first line of a library's message.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
