//! What each replica serves. The leader reads it from all replicas and computes the condition `Ready`.
//!
//! A ledger numbers its changes. A reader that knows a version gets only later changes, and can wait for the next one.
//! This needs no writes to the API server.

pub mod sealed;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::exclusive::Report;

/// The name of an object in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// `MailServer` or `MailListener`.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// How a replica serves an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedObject {
    /// The object's uid, which distinguishes it from a later one with the same name.
    pub uid: String,
    /// The generation that was rendered.
    pub generation: i64,
    /// Listeners that accept connections, with this or an earlier generation. `None` if the replica's version does not
    /// report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Vec<Bound>>,
    /// Listeners that do not serve this generation; empty if all do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// For a held `MailRoute`: the open sessions of its users, and their logins that are not decided yet. `None` if they are not counted
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
}

/// A listener that accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// The listener's name; empty for a `MailListener`.
    pub listener: String,
    /// The TCP port, if other hosts can reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ServedObject {
    /// Tells whether a listener is served, with any generation, or will be soon.
    #[must_use]
    pub fn serves(&self, listener: &str) -> bool {
        let problem = self.problems.iter().find(|problem| problem.listener == listener);
        if problem.is_some_and(|problem| problem.pending) {
            return true;
        }
        if let Some(bound) = &self.bound {
            return bound.iter().any(|bound| bound.listener == listener);
        }
        let is_refused =
            !listener.is_empty() && self.problems.iter().any(|problem| problem.listener.is_empty());
        !is_refused && problem.is_none_or(|problem| problem.reason == LAST_GOOD)
    }

    /// Tells whether a port may be served. True if the replica does not report ports.
    #[must_use]
    pub fn may_serve_port(&self, port: u16) -> bool {
        self.bound.as_ref().is_none_or(|bound| bound.iter().any(|bound| bound.port == Some(port)))
    }
}

/// A listener that does not serve its object's generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The listener's name. Empty for a `MailListener`, and if the whole object is refused.
    pub listener: String,
    /// Whether it may be served soon without another change.
    pub pending: bool,
    /// The reason in CamelCase.
    pub reason: String,
    /// The message.
    pub message: String,
}

/// The replica that reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// The pod's name.
    pub name: String,
    /// Identifies this process, also among restarts in the same pod.
    pub instance: String,
    /// The address of its node, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<IpAddr>,
}

/// The changes of a ledger since a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The replica of the ledger.
    pub replica: Replica,
    /// The version after these changes.
    pub version: u64,
    /// Whether the replica is ready. `None` if its version does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Whether `objects` are all objects. Otherwise, add them to those already read.
    pub whole: bool,
    /// The changed objects.
    pub objects: Vec<Entry>,
    /// Totals of the replica. `None` if its version does not report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// The exclusive users of the replica. `None` if the reader has read this, or if there is nothing to report yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Report>,
}

/// Totals of a replica for the leader's status page. Missing fields are 0 and unknown ones are ignored, so that
/// versions can be mixed during a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Open sessions.
    pub sessions: u64,
    /// Logins since the start of the process.
    pub accepted: u64,
    /// Refused logins.
    pub refused: u64,
    /// Logins for which a backend or the auth service was not available.
    pub unavailable: u64,
    /// Logins without a decision, because something failed.
    pub failed: u64,
    /// Listeners of all objects.
    pub listeners: u64,
    /// Ready listeners.
    pub ready: u64,
}

/// One object of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The object's name.
    #[serde(flatten)]
    pub object: ObjectName,
    /// `None` if the object is no longer served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<ServedObject>,
}

/// What a reader has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The process of the ledger. Another process has another numbering.
    pub instance: String,
    /// The last version read.
    pub version: u64,
}

/// Everything that a replica reports. Clones share the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    replica: Replica,
    state: Mutex<LedgerState>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct LedgerState {
    version: u64,
    entries: BTreeMap<ObjectName, (u64, ServedObject)>,
    /// The same objects in the order of their last change.
    order: BTreeMap<u64, ObjectName>,
    gone: VecDeque<(u64, ObjectName)>,
    /// A reader with an earlier version may have missed a removal.
    forgotten: u64,
    /// The report about exclusive users, with the version of its last change.
    exclusive: Option<(u64, Report)>,
}

impl Ledger {
    /// Creates an empty ledger.
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        Self(Arc::new(Inner { replica, state: Mutex::default(), version: watch::Sender::new(0) }))
    }

    /// Returns the replica of the ledger.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.0.replica
    }

    /// Records how objects are served. Unchanged ones do not count as a change.
    pub fn enter(&self, entries: impl IntoIterator<Item = (ObjectName, Option<ServedObject>)>) {
        let mut state = self.lock();
        let before = state.version;
        for (object, served) in entries {
            state.enter(object, served);
        }
        let version = state.version;
        drop(state);
        if version != before {
            self.0.version.send_replace(version);
        }
    }

    /// Records the report about exclusive users.
    pub fn enter_exclusive(&self, report: &Report) {
        let mut state = self.lock();
        if state.exclusive.as_ref().is_some_and(|(_, known)| known == report) {
            return;
        }
        state.version = state.version.saturating_add(1);
        let version = state.version;
        state.exclusive = Some((version, report.clone()));
        drop(state);
        self.0.version.send_replace(version);
    }

    /// Waits until there is a change that this reader has not read.
    pub async fn news(&self, read: Option<&Bookmark>) {
        let Some(read) = read.filter(|read| read.instance == self.0.replica.instance) else { return };
        // Cannot fail, because the ledger owns the sender.
        let _ = self.0.version.subscribe().wait_for(|version| *version != read.version).await;
    }

    /// Returns the changes that this reader has not read.
    #[must_use]
    pub fn page(&self, read: Option<&Bookmark>) -> Page {
        let state = self.lock();
        let known = read
            .filter(|read| read.instance == self.0.replica.instance)
            .map(|read| read.version)
            .filter(|version| (state.forgotten..=state.version).contains(version));
        let objects = match known {
            None => state.entries.iter().map(|(object, (_, served))| entry(object, Some(served))).collect(),
            Some(version) => state.since(version),
        };
        let exclusive = state.exclusive.as_ref();
        let exclusive = exclusive.filter(|(changed, _)| known.is_none_or(|version| version < *changed));
        let exclusive = exclusive.map(|(_, report)| report.clone());
        let (replica, version) = (self.0.replica.clone(), state.version);
        Page { replica, version, ready: None, whole: known.is_none(), objects, totals: None, exclusive }
    }

    fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.0.state.lock()
    }
}

impl LedgerState {
    fn enter(&mut self, object: ObjectName, served: Option<ServedObject>) {
        let known = self.entries.get(&object).map(|(version, served)| (*version, served));
        if known.map(|(_, served)| served) == served.as_ref() {
            return;
        }
        if let Some((version, _)) = known {
            self.order.remove(&version);
        }
        self.version = self.version.saturating_add(1);
        if let Some(served) = served {
            self.order.insert(self.version, object.clone());
            self.entries.insert(object, (self.version, served));
            return;
        }
        self.entries.remove(&object);
        self.gone.push_back((self.version, object));
        if self.gone.len() > MAX_GONE
            && let Some((version, _)) = self.gone.pop_front()
        {
            self.forgotten = version;
        }
    }

    fn since(&self, version: u64) -> Vec<Entry> {
        let after = version.saturating_add(1);
        let gone = self.gone.iter().rev().take_while(|(gone, _)| *gone > version);
        let gone = gone.filter(|(_, object)| !self.entries.contains_key(object));
        let changed = self.order.range(after..).map(|(_, object)| object);
        let changed = changed.filter_map(|object| Some((object, &self.entries.get(object)?.1)));
        gone.map(|(_, object)| entry(object, None))
            .chain(changed.map(|(object, served)| entry(object, Some(served))))
            .collect()
    }
}

fn entry(object: &ObjectName, served: Option<&ServedObject>) -> Entry {
    Entry { object: object.clone(), served: served.cloned() }
}

/// The reason of a listener that serves an earlier generation.
const LAST_GOOD: &str = "UsingLastGood";
/// Removals that are remembered. A reader that is further behind reads everything again.
const MAX_GONE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Replica { name: "a".into(), instance: "1".into(), node_address: None })
    }

    fn object(name: &str) -> ObjectName {
        ObjectName { kind: "MailServer".into(), namespace: "mail".into(), name: name.into() }
    }

    fn served(generation: i64) -> Option<ServedObject> {
        Some(ServedObject { generation, ..ServedObject::default() })
    }

    fn names(page: &Page) -> Vec<(&str, bool)> {
        page.objects.iter().map(|entry| (entry.object.name.as_str(), entry.served.is_some())).collect()
    }

    fn bookmark(page: &Page) -> Bookmark {
        Bookmark { instance: page.replica.instance.clone(), version: page.version }
    }

    #[test]
    fn says_what_it_serves_of_an_earlier_generation_too() {
        let problem = |listener: &str, pending, reason: &str| Problem {
            listener: listener.into(),
            pending,
            reason: reason.into(),
            message: String::new(),
        };
        let problems = vec![problem("old", false, LAST_GOOD), problem("none", false, "NotServed")];
        let bound = |listener: &str, port| Bound { listener: listener.into(), port: Some(port) };
        let says = ServedObject {
            bound: Some(vec![bound("old", 993), bound("new", 995)]),
            problems: [problems.clone(), vec![problem("soon", true, "Pending")]].concat(),
            ..ServedObject::default()
        };
        let served = |served: &ServedObject| {
            let all = ["old", "new", "soon", "none", "other"].into_iter();
            all.filter(|listener| served.serves(listener)).collect::<Vec<_>>()
        };
        assert_eq!(served(&says), ["old", "new", "soon"]);
        assert!(says.may_serve_port(995) && !says.may_serve_port(25));
        // A replica of an earlier version reports only problems.
        let page = r#"{"uid":"u","generation":3,"problems":[]}"#;
        let older = ServedObject { problems, ..serde_json::from_str(page).unwrap() };
        assert_eq!(served(&older), ["old", "new", "soon", "other"]);
        assert!(older.may_serve_port(25));
        let refused =
            ServedObject { problems: vec![problem("", false, "Invalid")], ..ServedObject::default() };
        assert!(!refused.serves("imaps"));
    }

    #[test]
    fn a_reader_is_told_only_what_it_has_not_seen() {
        let ledger = ledger();
        ledger.enter([(object("x"), served(1)), (object("y"), served(1))]);
        let first = ledger.page(None);
        assert!(first.whole);
        assert_eq!(names(&first), [("x", true), ("y", true)]);
        ledger.enter([(object("x"), served(1)), (object("y"), served(2))]);
        ledger.enter([(object("x"), None)]);
        let second = ledger.page(Some(&bookmark(&first)));
        assert!(!second.whole);
        assert_eq!(names(&second), [("x", false), ("y", true)]);
        ledger.enter([(object("x"), served(1))]);
        assert_eq!(names(&ledger.page(Some(&bookmark(&second)))), [("x", true)]);
        assert_eq!(names(&ledger.page(Some(&bookmark(&first)))), [("y", true), ("x", true)]);
    }

    #[test]
    fn a_report_about_exclusive_users_is_news_and_is_sent_once() {
        let ledger = ledger();
        let first = ledger.page(None);
        assert_eq!(first.exclusive, None);
        let report = Report { version: 3, ..Report::default() };
        ledger.enter_exclusive(&report);
        let second = ledger.page(Some(&bookmark(&first)));
        assert_eq!((second.version, second.exclusive.as_ref()), (first.version + 1, Some(&report)));
        ledger.enter_exclusive(&report);
        assert_eq!(ledger.page(None).version, second.version);
        assert_eq!(ledger.page(Some(&bookmark(&second))).exclusive, None);
        assert_eq!(ledger.page(None).exclusive, Some(report));
    }

    #[test]
    fn a_reader_of_another_process_or_of_long_ago_reads_everything() {
        let ledger = ledger();
        ledger.enter([(object("x"), served(1))]);
        let other = Bookmark { instance: "0".into(), version: 1 };
        assert!(ledger.page(Some(&other)).whole);
        let old = bookmark(&ledger.page(None));
        for round in 0..=MAX_GONE {
            let name = object(&format!("y{round}"));
            ledger.enter([(name.clone(), served(1))]);
            ledger.enter([(name, None)]);
        }
        let page = ledger.page(Some(&old));
        assert!(page.whole);
        assert_eq!(names(&page), [("x", true)]);
        assert!(!ledger.page(Some(&bookmark(&page))).whole);
    }

    #[test]
    fn old_and_new_replicas_understand_each_other() {
        let old = r#"{"replica":{"name":"a","instance":"1"},"version":7,"whole":true,"objects":[]}"#;
        let page: Page = serde_json::from_str(old).unwrap();
        assert_eq!(page.totals, None);
        let newer = old.replace("[]}", r#"[],"totals":{"sessions":3,"later":1},"more":true}"#);
        let page: Page = serde_json::from_str(&newer).unwrap();
        assert_eq!(page.totals, Some(Totals { sessions: 3, ..Totals::default() }));
    }

    #[tokio::test]
    async fn a_reader_who_has_seen_everything_waits_for_a_change() {
        let ledger = ledger();
        ledger.enter([(object("x"), served(1))]);
        let read = bookmark(&ledger.page(None));
        let waiting = tokio::spawn({
            let (ledger, read) = (ledger.clone(), read.clone());
            async move { ledger.news(Some(&read)).await }
        });
        ledger.enter([(object("x"), served(1))]);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "nothing has changed");
        ledger.enter([(object("x"), served(2))]);
        waiting.await.unwrap();
        ledger.news(None).await;
    }
}
