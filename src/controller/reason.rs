//! Why a condition says what it says: every reason there is, what it means, where it comes from, and what helps.
//!
//! The page docs/reasons is made of this, `mailgress explain` prints it, and the message of every condition that is not
//! well ends with the address of its entry.

mod explanations;

use strum::{AsRefStr, Display, EnumString, IntoStaticStr, VariantArray};

use crate::api::status::{Condition, ConditionStatus};

pub use explanations::EXPLANATIONS;

/// The reason of a condition. Its name is what the API says.
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
    /// `Accepted`: two fields, or a field and what it is to do, do not go together.
    Invalid,
    /// `Accepted`: there is no such field.
    UnknownField,
    /// `Accepted`: a field is missing.
    Required,
    /// `Accepted`: a value that is none of the possible ones.
    NotSupported,
    /// `Accepted`: a value of another type.
    WrongType,
    /// `Accepted`: a string that cannot be read.
    WrongForm,
    /// `Accepted`: a value beyond a bound.
    OutOfRange,
    /// `Accepted`: a `MailServer` that takes no listeners from there.
    NotAllowed,
    /// `ResolvedRefs`, `BackendNotAllowed`: a listener of another namespace wants to connect to what it may not.
    BackendNotAllowed,
    /// `ResolvedRefs`: all is there.
    ResolvedRefs,
    /// `ResolvedRefs`: something is not there.
    RefNotFound,
    /// `ResolvedRefs`: something may not be read.
    RefNotReadable,
    /// `ResolvedRefs`: something is there and cannot be used.
    InvalidRef,
    /// `Conflicted`: nobody else wants the socket.
    NoConflicts,
    /// `Conflicted`: another listener wants the same socket.
    SocketConflict,
    /// `Conflicted`: another listener wants the same name on the same socket.
    HostnameConflict,
    /// `Programmed`: all listeners are bound here.
    Programmed,
    /// `Programmed`, `Ready`: the listener is bound.
    Bound,
    /// `Programmed`, `Ready`: it is about to be.
    Pending,
    /// `Programmed`, `Ready`: the operating system says no.
    BindFailed,
    /// `Programmed`, `Ready`: nothing can be served.
    NotServed,
    /// `Degraded`, `Programmed`, `Ready`: what was served before is served on.
    UsingLastGood,
    /// `Ready`: every replica serves this generation.
    Ready,
    /// `Ready`: a replica does not answer.
    ReplicaUnreachable,
    /// `Ready`: the Service does not lead to the listener yet.
    ServicePortPending,
    /// `Ready`: the Service cannot be read, or does not get the port.
    ServiceRefused,
    /// `Ready`: the Service leads elsewhere.
    ServiceUnusable,
    /// `Ready`: there is no Service.
    ServiceNotFound,
    /// `BackendHealthy`: all endpoints answer.
    AllHealthy,
    /// `BackendHealthy`: some do not.
    SomeUnhealthy,
    /// `BackendHealthy`: none does.
    AllUnhealthy,
    /// `NameServersAnswer`: none does.
    NameServersSilent,
    /// `ClientIPPreserved`: they come with their addresses.
    Preserved,
    /// `ClientIPPreserved`: their addresses come in PROXY headers.
    ProxyProtocol,
    /// `ClientIPPreserved`: the Service hides them.
    ExternalTrafficPolicyCluster,
    /// `ClientIPPreserved`: they come from a node.
    NodeAddress,
    /// `ClientIPPreserved`: they all come from one address.
    OneSourceAddress,
    /// `CertificateExpired`: it has.
    CertificateExpired,
    /// `CertificateExpiring`: within thirty days.
    ExpiresWithinAMonth,
    /// `CertificateExpiring`: within seven days.
    ExpiresWithinAWeek,
    /// `CertificateUnusual`: it is of X.509 version 1.
    CertificateVersion1,
    /// `CertificateUnusual`: its chain was sorted, or certificates were left out.
    ChainRearranged,
    /// `CertificateUnusual`: its chain cannot be sorted in one way only.
    ChainNotInOrder,
    /// `CertificateUnusual`: only its common name says what it is for.
    NoAlternativeName,
    /// `CertificateUnusual`: it is not for TLS servers.
    WrongPurpose,
    /// `CertificateUnusual`: it is signed with a broken hash.
    WeakSignature,
    /// `CertificateUnusual`: a certificate of a CA bundle through which no chain goes.
    AuthorityNotUsed,
    /// `CertificateUnusual`: it is valid only later.
    CertificateNotYetValid,
    /// `HostnameNotCovered`: a host name without a certificate.
    HostnameNotCovered,
    /// `IntroductionNotAllowed`: a listener of another namespace wants to introduce clients.
    IntroductionNotAllowed,
    /// `NoReadyEndpoints`: a Service without any.
    NoReadyEndpoints,
    /// `ImplicitTLSExpected`: a backend's port for TLS, and no TLS.
    #[strum(serialize = "ImplicitTLSExpected")]
    ImplicitTlsExpected,
    /// `ClearText`: passwords without TLS.
    ClearText,
    /// `CapabilityIgnored`: a configured capability that is not announced.
    CapabilityIgnored,
}

/// What there is to say about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Which one.
    pub reason: Reason,
    /// The conditions that have it, and with which status.
    pub conditions: &'static [(&'static str, ConditionStatus)],
    /// What is so.
    pub meaning: &'static str,
    /// Where it comes from; empty where all is well.
    pub cause: &'static str,
    /// What helps; empty where nothing is needed.
    pub remedy: &'static str,
}

impl Reason {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// As the API says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What there is to say about it.
    #[must_use]
    pub fn explanation(self) -> Option<&'static Explanation> {
        EXPLANATIONS.iter().find(|explanation| explanation.reason == self)
    }

    /// Where that is to be read.
    #[must_use]
    pub fn link(self) -> String {
        format!("{REASONS}#{}", self.name().to_ascii_lowercase())
    }
}

/// Whether a condition says what somebody should look at, or what is not so yet.
#[must_use]
pub fn is_well(condition: &Condition) -> bool {
    let good = if HOLD_WHEN_WELL.contains(&condition.type_.as_str()) {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    condition.status == good
}

/// The condition as objects have it: with the address of its reason's entry at the end of its message. A reason that
/// we do not know, of a newer replica, has none.
#[must_use]
pub fn linked(condition: &Condition) -> Condition {
    let mut linked = condition.clone();
    if let Ok(reason) = condition.reason.parse::<Reason>()
        && !is_well(condition)
    {
        linked.message.push_str(&suffix(reason));
    }
    linked
}

/// A message without the address at its end.
#[must_use]
pub fn unlinked<'a>(reason: &str, message: &'a str) -> &'a str {
    let suffix = reason.parse().map(suffix).unwrap_or_default();
    message.strip_suffix(&suffix).unwrap_or(message)
}

fn suffix(reason: Reason) -> String {
    format!(" ({})", reason.link())
}

/// Conditions that are true where all is well; the others are alarms.
const HOLD_WHEN_WELL: [&str; 7] = [
    "Accepted",
    "ResolvedRefs",
    "Programmed",
    "Ready",
    "BackendHealthy",
    "NameServersAnswer",
    "ClientIPPreserved",
];

/// Where the page about reasons is published.
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
    fn what_is_not_well_has_a_cause_and_a_remedy_and_what_is_well_has_none() {
        for explanation in &EXPLANATIONS {
            let name = explanation.reason.name();
            assert!(!explanation.conditions.is_empty() && !explanation.meaning.is_empty(), "{name}");
            let well = explanation
                .conditions
                .iter()
                .all(|(type_, status)| is_well(&condition(type_, *status, name)));
            assert_eq!(well, explanation.cause.is_empty(), "{name}: cause");
            assert_eq!(well, explanation.remedy.is_empty(), "{name}: remedy");
        }
    }

    #[test]
    fn only_a_condition_that_is_not_well_has_a_link_and_it_can_be_taken_off() {
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
