//! What replicas report to each other about users that must not have sessions on two endpoints. `proxy::exclusive`
//! decides with these reports who may log in where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::{Deserialize, Serialize};

/// Which endpoint of a backend a user gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Affinity {
    /// Any.
    #[default]
    None,
    /// The user's own one, if it can be reached.
    User,
    /// The user's own one, and never two at one time.
    Exclusive(Arc<ExclusiveBackend>),
}

/// A backend with exclusive users, for one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExclusiveBackend {
    /// The group of the backend.
    pub group: GroupName,
    /// Its time limits.
    pub timing: Timing,
    /// All its endpoints, ready or not.
    pub endpoints: BTreeMap<EndpointName, EndpointState>,
}

impl Affinity {
    /// Returns the group of exclusive users.
    #[must_use]
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Exclusive(backend) => Some(&backend.group),
            Self::None | Self::User => None,
        }
    }
}

/// Time limits of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// How long the login of a user is held whose endpoint changes.
    #[serde(serialize_with = "duration::required::serialize")]
    pub move_timeout: Duration,
    /// When the sessions end on an endpoint that does not exist any more.
    #[serde(serialize_with = "duration::required::serialize")]
    pub grace: Duration,
    /// How long an endpoint that is not ready keeps its users.
    #[serde(serialize_with = "duration::required::serialize")]
    pub return_grace: Duration,
}

/// The state of an endpoint in the cluster. An endpoint that does not exist has none. Where Services differ, the last one
/// in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum EndpointState {
    /// It takes new sessions.
    Ready,
    /// It exists, but takes no new sessions: it starts, ends, or fails its probe. Its sessions continue.
    Unready,
    /// It is taken out of service. Its users move at once.
    Leaving,
}

/// The identity of an endpoint, which does not depend on its address: the name of its Pod. An endpoint without a Pod has
/// its address as its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointName(Arc<str>);

/// The name of a group: the backends that are the same storage for their users. All protocols of a backend are one
/// group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupName(Arc<str>);

/// The endpoints among which users are distributed: sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<EndpointName>")]
pub struct EndpointSet(Arc<[EndpointName]>);

/// The state of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Grows with each change of `groups`. A new process counts from the beginning.
    pub version: u64,
    /// For each other process, by its instance: the version that this replica has read.
    pub acknowledged: BTreeMap<String, u64>,
    /// For each group, the sets by which this replica may have sessions. A group that is not here has no sessions.
    pub groups: BTreeMap<GroupName, Vec<EndpointSet>>,
    /// The groups that this replica knows. It opens sessions of their users only as members of the group, and has ended
    /// all others.
    #[serde(default)]
    pub known: BTreeSet<GroupName>,
}

/// What the controller learns about the other replicas, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// All groups of the cluster are served, so this replica can report.
    Begin,
    /// The listed replicas, and whether each is ready.
    List(BTreeMap<String, bool>),
    /// A replica has reported.
    Heard {
        /// Its Pod.
        pod: String,
        /// Its process.
        instance: String,
        /// The report.
        report: Report,
    },
}

impl EndpointName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EndpointName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for GroupName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EndpointSet {
    /// Returns the endpoints in their order.
    #[must_use]
    pub fn names(&self) -> &[EndpointName] {
        &self.0
    }

    /// Tells whether there are no endpoints.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl From<Vec<EndpointName>> for EndpointSet {
    fn from(mut names: Vec<EndpointName>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self(names.into())
    }
}

impl FromIterator<EndpointName> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = EndpointName>>(names: I) -> Self {
        names.into_iter().collect::<Vec<_>>().into()
    }
}

impl Report {
    /// Tells whether the report of another replica is as small as this version's reports are.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let is_short = |set: &EndpointSet| {
            let names = set.names();
            names.len() <= MAX_ENDPOINTS && names.iter().all(|name| name.0.len() <= MAX_NAME)
        };
        let mut groups = self.groups.iter();
        groups.all(|(name, sets)| {
            name.0.len() <= MAX_NAME && sets.len() <= MAX_SETS && sets.iter().all(is_short)
        }) && self.acknowledged.len() <= MAX_REPLICAS
            && self.known.iter().all(|name| name.0.len() <= MAX_NAME)
    }
}

/// Endpoints of a group.
pub const MAX_ENDPOINTS: usize = 1024;
/// Sets of a group by which sessions may be open.
pub const MAX_SETS: usize = 8;
/// Other replicas that a report names.
pub const MAX_REPLICAS: usize = 1024;
/// Bytes of a name.
const MAX_NAME: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> EndpointSet {
        names.iter().map(|name| EndpointName::from(*name)).collect()
    }

    #[test]
    fn a_report_has_a_short_form() {
        let report = Report {
            version: 7,
            acknowledged: BTreeMap::from([("3f".to_owned(), 12)]),
            groups: BTreeMap::from([("mail/dovecot".into(), vec![set(&["dovecot-1", "dovecot-0"])])]),
            known: ["mail/dovecot".into()].into(),
        };
        let text = r#"{"version":7,"acknowledged":{"3f":12},"groups":{"mail/dovecot":[["dovecot-0","dovecot-1"]]},"known":["mail/dovecot"]}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
        assert_eq!(serde_json::from_str::<Report>(text).unwrap(), report);
    }

    #[test]
    fn sets_are_equal_whatever_the_order_of_their_names() {
        let read: EndpointSet = serde_json::from_str(r#"["b","a","b"]"#).unwrap();
        assert_eq!(read, set(&["a", "b"]));
    }

    #[test]
    fn a_report_of_unusual_size_is_recognised() {
        let with = |groups| Report { groups, ..Report::default() };
        let group = |sets| BTreeMap::from([(GroupName::from("g"), sets)]);
        let many: EndpointSet =
            (0..=MAX_ENDPOINTS).map(|number| EndpointName::from(&*number.to_string())).collect();
        assert!(with(group(vec![set(&["a"]); MAX_SETS])).is_bounded());
        assert!(!with(group(vec![set(&["a"]); MAX_SETS + 1])).is_bounded());
        assert!(!with(group(vec![many])).is_bounded());
        assert!(!with(group(vec![set(&[&"a".repeat(MAX_NAME + 1)])])).is_bounded());
        let acknowledged = (0..=MAX_REPLICAS).map(|number| (number.to_string(), 1)).collect();
        assert!(!Report { acknowledged, ..Report::default() }.is_bounded());
    }
}
