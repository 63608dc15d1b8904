//! Every listener, and how it is: what `mailgress status` prints, and `mailgress probe --service` visits.
//!
//! Read once, from an instance's own documents (`instance`) or from the objects of a cluster (`cluster`); both come to
//! the same entries.

pub mod cluster;
pub mod instance;

use serde::Serialize;

use crate::api::status::{Condition, ConditionStatus, ListenerStatus, MailListenerStatus, MailServerStatus};

use super::index::{Key, Kind};
use super::status::alarming;

/// Every listener, and what keeps us from knowing more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// By object, in the order of their specs.
    pub listeners: Vec<Entry>,
    /// What cannot be read or watched.
    pub problems: Vec<String>,
}

/// One listener; or an object of which no listener is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `MailServer` or `MailListener`.
    pub kind: &'static str,
    /// The object's.
    pub namespace: String,
    /// The object's.
    pub object: String,
    /// The listener's name in a MailServer; empty for a MailListener.
    pub listener: String,
    /// Where it is bound: `*:993`; empty where that is not known.
    pub socket: String,
    /// `IMAP`, `POP3` or `SMTP`; empty where that is not known.
    pub protocol: &'static str,
    /// As manifests write it; empty where that is not known.
    pub tls: &'static str,
    /// By SNI.
    pub hostnames: Vec<String>,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    /// Whether this generation is served.
    pub ready: Ready,
    /// What is wrong, or worth an alarm.
    pub problems: Vec<Problem>,
}

/// As the condition Ready says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Ready {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody has said.
    Unknown,
}

/// A condition that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its type.
    pub condition: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Entry {
    /// The TCP port that it is bound to.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        if self.socket.starts_with("unix:") {
            return None;
        }
        self.socket.rsplit_once(':')?.1.parse().ok()
    }

    /// A listener of which only the name is known.
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

    /// What its conditions say.
    fn told(mut self, conditions: &[Condition], addresses: &[String]) -> Self {
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        self.ready = match ready.map(|ready| ready.status) {
            Some(ConditionStatus::True) => Ready::True,
            Some(ConditionStatus::False) => Ready::False,
            Some(ConditionStatus::Unknown) | None => Ready::Unknown,
        };
        self.addresses = addresses.to_vec();
        // Ready says what Programmed says, or more.
        let wrong =
            conditions.iter().filter(|condition| condition.type_ != "Programmed").filter(|condition| {
                alarming(condition) || (condition.type_ == "Ready" && self.ready == Ready::Unknown)
            });
        let mut problems: Vec<Problem> = wrong.map(Problem::new).collect();
        if problems.len() > 1 {
            problems.retain(|problem| {
                problem.condition != "Ready" || !SAID_BY_OTHERS.contains(&problem.reason.as_str())
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

    fn unsaid(reason: &str, message: &str) -> Self {
        Self { condition: "Ready".to_owned(), reason: reason.to_owned(), message: message.to_owned() }
    }
}

/// What the status of an object says of a listener of it.
enum Said<'a> {
    Listener(&'a ListenerStatus),
    Object(&'a MailListenerStatus),
}

impl Said<'_> {
    fn to(&self, entry: Entry) -> Entry {
        match self {
            Self::Listener(status) => entry.told(&status.conditions, &status.addresses),
            Self::Object(status) => entry.told(&status.conditions, &status.addresses),
        }
    }
}

/// A MailServer none of whose listeners is known, as it stands in a table.
fn without_listeners(key: &Key, status: &MailServerStatus) -> Option<Entry> {
    let entry = Entry::new(Kind::Server, key, "").told(&status.conditions, &[]);
    (status.listeners.is_empty() && entry.ready != Ready::True).then_some(entry)
}

/// Ready's reasons whose message is that other conditions say why.
const SAID_BY_OTHERS: [&str; 3] = ["NotServed", "UsingLastGood", "Invalid"];

#[cfg(test)]
mod tests;
