//! All listeners and their state, for `mailgress status` and `mailgress probe --service`.
//!
//! They are read once, from the documents of an instance (`instance`) or from the objects of a cluster (`cluster`).
//! Both have the same entries.

pub mod cluster;
pub mod instance;

use serde::Serialize;

use crate::api::status::{Condition, ConditionStatus, ListenerStatus, MailListenerStatus, MailServerStatus};

use super::index::{Key, Kind};
use super::status::alarming;

/// All listeners, and the problems of reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Sorted by object, in the order of their specs.
    pub listeners: Vec<Entry>,
    /// Objects that cannot be read or watched.
    pub problems: Vec<String>,
}

/// A listener, a `MailRoute`, or an object without a known listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `MailServer`, `MailListener` or `MailRoute`.
    pub kind: &'static str,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub object: String,
    /// The listener's name in a MailServer; empty for a MailListener or MailRoute.
    pub listener: String,
    /// The socket, such as `*:993`; empty if unknown.
    pub socket: String,
    /// `IMAP`, `POP3`, `SMTP` or `Sieve`; empty if unknown.
    pub protocol: &'static str,
    /// The TLS mode as in manifests; empty if unknown.
    pub tls: &'static str,
    /// The host names (SNI).
    pub hostnames: Vec<String>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// The addresses that clients connect to.
    pub addresses: Vec<String>,
    /// Whether this generation is served.
    pub ready: Ready,
    /// Problems and warnings.
    pub problems: Vec<Problem>,
}

/// The status of the condition Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Ready {
    /// The condition is true.
    True,
    /// The condition is false.
    False,
    /// The condition is unknown or absent.
    Unknown,
}

/// A condition that reports a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The condition's type.
    pub condition: String,
    /// The condition's reason, one word.
    pub reason: String,
    /// The condition's message, one sentence.
    pub message: String,
}

impl Entry {
    /// Returns the TCP port of the socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        if self.socket.starts_with("unix:") {
            return None;
        }
        self.socket.rsplit_once(':')?.1.parse().ok()
    }

    /// Creates an entry of a listener whose name alone is known.
    fn new(kind: Kind, key: &Key, listener: &str) -> Self {
        Self {
            kind: kind.name(),
            namespace: key.namespace.clone(),
            object: key.name.clone(),
            listener: listener.to_owned(),
            socket: String::new(),
            protocol: "",
            tls: "",
            hostnames: Vec::new(),
            proxy_protocol: false,
            addresses: Vec::new(),
            ready: Ready::Unknown,
            problems: Vec::new(),
        }
    }

    /// Adds the state from the listener's conditions.
    fn with_conditions(mut self, conditions: &[Condition], addresses: &[String]) -> Self {
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        self.ready = match ready.map(|ready| ready.status) {
            Some(ConditionStatus::True) => Ready::True,
            Some(ConditionStatus::False) => Ready::False,
            Some(ConditionStatus::Unknown) | None => Ready::Unknown,
        };
        self.addresses = addresses.to_vec();
        // The condition Ready includes the problem of Programmed.
        let wrong =
            conditions.iter().filter(|condition| condition.type_ != "Programmed").filter(|condition| {
                alarming(condition) || (condition.type_ == "Ready" && self.ready == Ready::Unknown)
            });
        let mut problems: Vec<Problem> = wrong.map(Problem::new).collect();
        if problems.len() > 1 {
            problems.retain(|problem| {
                problem.condition != "Ready" || !CAUSE_IN_OTHERS.contains(&problem.reason.as_str())
            });
        }
        self.problems = problems;
        self
    }
}

impl Problem {
    fn new(condition: &Condition) -> Self {
        let Condition { type_, reason, message, .. } = condition;
        Self { condition: type_.clone(), reason: reason.clone(), message: message.clone() }
    }

    fn of_ready(reason: &str, message: &str) -> Self {
        Self { condition: "Ready".to_owned(), reason: reason.to_owned(), message: message.to_owned() }
    }
}

/// The status of a listener.
enum StatusOf<'a> {
    Listener(&'a ListenerStatus),
    Object(&'a MailListenerStatus),
}

impl StatusOf<'_> {
    fn add_to(&self, entry: Entry) -> Entry {
        match self {
            Self::Listener(status) => entry.with_conditions(&status.conditions, &status.addresses),
            Self::Object(status) => entry.with_conditions(&status.conditions, &status.addresses),
        }
    }
}

/// Returns an entry for a MailServer without known listeners, unless it is ready.
fn without_listeners(key: &Key, status: &MailServerStatus) -> Option<Entry> {
    let entry = Entry::new(Kind::Server, key, "").with_conditions(&status.conditions, &[]);
    (status.listeners.is_empty() && entry.ready != Ready::True).then_some(entry)
}

/// Reasons of Ready whose cause is in another condition.
const CAUSE_IN_OTHERS: [&str; 3] = ["NotServed", "UsingLastGood", "Invalid"];

#[cfg(test)]
mod tests;
