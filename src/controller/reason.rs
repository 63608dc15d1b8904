//! The reasons of conditions, with their meaning, cause and remedy.
//!
//! The page docs/reasons is generated from them, and `mailgress explain` prints them. The message of a condition that
//! reports a problem ends with a link to its reason.

mod explanations;

use strum::{AsRefStr, Display, EnumString, IntoStaticStr, VariantArray};

use crate::api::status::{Condition, ConditionStatus};

pub use explanations::EXPLANATIONS;

/// The reason of a condition. The variant's name is the text in the API.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    AsRefStr,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
pub enum Reason {
    /// `Accepted`: the manifest is valid.
    Accepted,
    /// `Accepted`: two fields, or a field and its use, contradict each other.
    Invalid,
    /// `Accepted`: an unknown field.
    UnknownField,
    /// `Accepted`: a required field is missing.
    Required,
    /// `Accepted`: a value that is not one of the allowed values.
    NotSupported,
    /// `Accepted`: a value of the wrong type.
    WrongType,
    /// `Accepted`: a string that cannot be parsed.
    WrongForm,
    /// `Accepted`: a value outside its bounds.
    OutOfRange,
    /// `Accepted`: the `MailServer` does not accept listeners from this namespace.
    NotAllowed,
    /// `Accepted`: the `MailServer` does not allow routes of this namespace for a domain.
    DomainNotAllowed,
    /// `ResolvedRefs`, `BackendNotAllowed`: a listener of another namespace uses a destination that is not allowed.
    BackendNotAllowed,
    /// `ResolvedRefs`: all references are resolved.
    ResolvedRefs,
    /// `ResolvedRefs`: a referenced object does not exist.
    RefNotFound,
    /// `ResolvedRefs`: a referenced object may not be read.
    RefNotReadable,
    /// `ResolvedRefs`: a referenced object cannot be used.
    InvalidRef,
    /// `Conflicted`: there is no conflict.
    NoConflicts,
    /// `Conflicted`: another listener uses the same socket.
    SocketConflict,
    /// `Conflicted`: another listener on the same socket has the same host name.
    HostnameConflict,
    /// `Conflicted`, `Drained`: an older route has the same domains or users.
    RouteConflict,
    /// `Programmed`: all listeners are bound in this replica.
    Programmed,
    /// `Programmed`, `Ready`: the listener is bound.
    Bound,
    /// `Programmed`, `Ready`: the change is not complete.
    Pending,
    /// `Programmed`, `Ready`: the operating system refuses the socket.
    BindFailed,
    /// `Programmed`, `Ready`: no version of the listener can be served.
    NotServed,
    /// `Degraded`, `Programmed`, `Ready`: the previous configuration is served.
    UsingLastGood,
    /// `Drained`: no session of a held route is open.
    Drained,
    /// `Drained`: sessions of a held route are open.
    SessionsOpen,
    /// `Ready`: every replica serves this generation.
    Ready,
    /// `Ready`: a replica does not answer.
    ReplicaUnreachable,
    /// `Ready`: the Service does not have the port yet.
    ServicePortPending,
    /// `Ready`: the Service cannot be read or refuses the port.
    ServiceRefused,
    /// `Ready`: the Service does not lead to Mailgress.
    ServiceUnusable,
    /// `Ready`: the Service does not exist.
    ServiceNotFound,
    /// `BackendHealthy`: all endpoints answer.
    AllHealthy,
    /// `BackendHealthy`: some endpoints do not answer.
    SomeUnhealthy,
    /// `BackendHealthy`: no endpoint answers.
    AllUnhealthy,
    /// `NameServersAnswer`: no name server answers.
    NameServersSilent,
    /// `ClientIPPreserved`: connections have the clients' addresses.
    Preserved,
    /// `ClientIPPreserved`: PROXY headers contain the clients' addresses.
    ProxyProtocol,
    /// `ClientIPPreserved`: the Service replaces the clients' addresses.
    ExternalTrafficPolicyCluster,
    /// `ClientIPPreserved`: connections have the address of a node.
    NodeAddress,
    /// `ClientIPPreserved`: all connections have the same source address.
    OneSourceAddress,
    /// `CertificateExpired`: a certificate has expired.
    CertificateExpired,
    /// `CertificateExpiring`: a certificate expires within thirty days.
    ExpiresWithinAMonth,
    /// `CertificateExpiring`: a certificate expires within seven days.
    ExpiresWithinAWeek,
    /// `CertificateUnusual`: X.509 version 1.
    CertificateVersion1,
    /// `CertificateUnusual`: the chain was sorted, or certificates were left out.
    ChainRearranged,
    /// `CertificateUnusual`: there is more than one way to sort the chain.
    ChainNotInOrder,
    /// `CertificateUnusual`: the certificate has no subjectAltName.
    NoAlternativeName,
    /// `CertificateUnusual`: the certificate is not for TLS servers.
    WrongPurpose,
    /// `CertificateUnusual`: the signature uses a broken hash.
    WeakSignature,
    /// `CertificateUnusual`: a certificate of a CA bundle cannot verify any chain.
    AuthorityNotUsed,
    /// `CertificateUnusual`: the certificate is not valid yet.
    CertificateNotYetValid,
    /// `HostnameNotCovered`: no certificate contains the host name.
    HostnameNotCovered,
    /// `IntroductionNotAllowed`: a listener of another namespace is configured to send client information to backends.
    IntroductionNotAllowed,
    /// `NoReadyEndpoints`: a Service has no ready endpoint.
    NoReadyEndpoints,
    /// `ImplicitTLSExpected`: the backend's port expects TLS, which is not configured.
    #[strum(serialize = "ImplicitTLSExpected")]
    ImplicitTlsExpected,
    /// `ClearText`: passwords can be sent without TLS.
    ClearText,
    /// `CapabilityIgnored`: a configured capability is not announced.
    CapabilityIgnored,
    /// `UsersIgnored`: lines of a list of users are ignored.
    UsersIgnored,
    /// `ProtocolNotServed`: no listener of the `MailServer` speaks a protocol of the route.
    ProtocolNotServed,
    /// `EndpointsUnnamed`: endpoints without a Pod, where each user has one endpoint.
    EndpointsUnnamed,
    /// `EndpointsDiffer`: the protocols of an exclusive backend have different endpoints.
    EndpointsDiffer,
    /// `EndpointsLeaving`: endpoints that are taken out of service.
    EndpointsLeaving,
    /// `ReplicasUnknown`: exclusive users, and other replicas cannot be found.
    ReplicasUnknown,
}

/// The explanation of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason.
    pub reason: Reason,
    /// The conditions that can have the reason, with their status.
    pub conditions: &'static [(&'static str, ConditionStatus)],
    /// What the reason means.
    pub meaning: &'static str,
    /// Possible causes. Empty if the condition reports no problem.
    pub cause: &'static str,
    /// How to solve the problem. Empty if there is none.
    pub remedy: &'static str,
}

impl Reason {
    /// All reasons.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// Returns the text in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the explanation of the reason.
    #[must_use]
    pub fn explanation(self) -> Option<&'static Explanation> {
        EXPLANATIONS.iter().find(|explanation| explanation.reason == self)
    }

    /// Returns the address of the reason's entry on the published page.
    #[must_use]
    pub fn link(self) -> String {
        format!("{REASONS}#{}", self.name().to_ascii_lowercase())
    }
}

/// Tells whether a condition reports no problem and no pending change.
#[must_use]
pub fn is_good(condition: &Condition) -> bool {
    let good = if POSITIVE.contains(&condition.type_.as_str()) {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    condition.status == good
}

/// Returns the condition as it is written to objects: with a link at the end of its message if it reports a problem. A
/// reason that this version does not know (from a newer replica) has no link.
#[must_use]
pub fn linked(condition: &Condition) -> Condition {
    let mut linked = condition.clone();
    if let Ok(reason) = condition.reason.parse::<Reason>()
        && !is_good(condition)
    {
        linked.message.push_str(&suffix(reason));
    }
    linked
}

/// Returns a message without the link at its end.
#[must_use]
pub fn unlinked<'a>(reason: &str, message: &'a str) -> &'a str {
    let suffix = reason.parse().map(suffix).unwrap_or_default();
    message.strip_suffix(&suffix).unwrap_or(message)
}

fn suffix(reason: Reason) -> String {
    format!(" ({})", reason.link())
}

/// Conditions that are true if there is no problem. All others are warnings.
const POSITIVE: [&str; 8] = [
    "Accepted",
    "ResolvedRefs",
    "Programmed",
    "Ready",
    "BackendHealthy",
    "NameServersAnswer",
    "ClientIPPreserved",
    "Drained",
];

/// The address of the published page.
const REASONS: &str = "https://mailgress.dev/docs/reasons/";

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status,
            observed_generation: None,
            last_transition_time: String::new(),
            reason: reason.into(),
            message: "it is so".into(),
        }
    }

    #[test]
    fn every_reason_is_explained_once_and_in_order() {
        let explained: Vec<Reason> = EXPLANATIONS.iter().map(|explanation| explanation.reason).collect();
        assert_eq!(explained, Reason::ALL);
    }

    #[test]
    fn only_reasons_of_problems_have_cause_and_remedy() {
        for explanation in &EXPLANATIONS {
            let name = explanation.reason.name();
            assert!(!explanation.conditions.is_empty() && !explanation.meaning.is_empty(), "{name}");
            let well = explanation
                .conditions
                .iter()
                .all(|(type_, status)| is_good(&condition(type_, *status, name)));
            assert_eq!(well, explanation.cause.is_empty(), "{name}: cause");
            assert_eq!(well, explanation.remedy.is_empty(), "{name}: remedy");
        }
    }

    #[test]
    fn only_conditions_with_a_problem_have_a_link_that_can_be_removed() {
        use ConditionStatus::{False, True, Unknown};
        let bad = linked(&condition("ResolvedRefs", False, "RefNotFound"));
        assert_eq!(bad.message, "it is so (https://mailgress.dev/docs/reasons/#refnotfound)");
        assert_eq!(unlinked(&bad.reason, &bad.message), "it is so");
        assert_eq!(unlinked("OfTheFuture", "it is so"), "it is so");
        for (type_, status, reason, is_linked) in [
            ("Ready", True, "Ready", false),
            ("Ready", Unknown, "Pending", true),
            ("Conflicted", False, "NoConflicts", false),
            ("Conflicted", True, "SocketConflict", true),
            ("ClearText", True, "ClearText", true),
            ("Ready", False, "OfTheFuture", false),
        ] {
            let linked = linked(&condition(type_, status, reason));
            assert_eq!(linked.message.contains("https://"), is_linked, "{type_} {reason}");
        }
    }
}
