//! The data of the status page. The app collects them, and the admin server, which knows nothing of mail, displays
//! them.
//!
//! They contain no secrets, logins or client addresses, and no text from clients, backends or auth services. The code
//! that fills a list limits its length.

use std::time::Duration;

use super::served;

/// Shortens a text to `most` characters, followed by an ellipsis.
#[must_use]
pub fn cut(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A request for the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Text that rows must contain, ignoring case. Empty: all rows.
    pub text: String,
    /// Only rows with a problem.
    pub only_troubled: bool,
    /// The page number of the listeners, from 1.
    pub page: usize,
    /// The order of certificates.
    pub certificates: CertificateOrder,
}

/// The order of certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateOrder {
    /// The first to expire comes first.
    #[default]
    Expiry,
    /// By Secret.
    Secret,
}

/// The content of the page.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// This process.
    pub replica: Replica,
    /// Totals of all listeners, whatever was requested.
    pub totals: Totals,
    /// Problems with reading objects or writing status.
    pub problems: Vec<String>,
    /// The requested listeners, those with problems first.
    pub listeners: Excerpt<Listener>,
    /// The requested certificates, each once, with the number of listeners that serve it.
    pub certificates: Excerpt<(Certificate, usize)>,
    /// The requested backends, those with problems first.
    pub backends: Excerpt<Backend>,
    /// The requested routes, those with problems first.
    pub routes: Excerpt<Route>,
    /// Failed sessions, by fault.
    pub faults: Vec<Fault>,
    /// The last changes, newest first.
    pub changes: Vec<Change>,
    /// All replicas, if this one leads several.
    pub replicas: Vec<Peer>,
}

/// This process.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// The pod's name.
    pub name: String,
    /// The version of Mailgress.
    pub version: String,
    /// Our class.
    pub class: String,
    /// Time since the start.
    pub uptime: Duration,
    /// The current time in Unix seconds, for relative times.
    pub now: i64,
    /// Whether this replica leads. `None` without a cluster.
    pub role: Option<Role>,
    /// The port of the admin server.
    pub status_port: u16,
}

/// The role of a replica in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It writes status and events.
    Leader,
    /// Another replica leads, or none.
    Follower {
        /// The name of the leader, if it is known.
        leader: Option<String>,
    },
}

impl Default for Role {
    fn default() -> Self {
        Self::Follower { leader: None }
    }
}

/// Totals of all listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Listeners of all objects.
    pub listeners: usize,
    /// Those that are not ready.
    pub not_ready: usize,
    /// Those that may soon be ready.
    pub pending: usize,
    /// Those that are ready but have a warning.
    pub alarming: usize,
    /// Sessions, logins and bytes.
    pub numbers: Numbers,
}

/// Counters of a listener, or their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Open sessions.
    pub open: u64,
    /// New sessions per minute, over the last minute or less.
    pub sessions_per_minute: f64,
    /// Relayed bytes per second in both directions, over the same time.
    pub bytes_per_second: f64,
    /// Accepted logins since the start.
    pub accepted: u64,
    /// Logins that the auth service or the backend refused.
    pub refused: u64,
    /// Logins for which the auth service or the backend was not available.
    pub unavailable: u64,
    /// Logins without a decision, because something failed.
    pub failed: u64,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Excerpt<T> {
    /// The entries of this page.
    pub shown: Vec<T>,
    /// Number of entries that match the request.
    pub matching: usize,
    /// Number of all entries.
    pub all: usize,
    /// The page number, from 1.
    pub page: usize,
    /// Number of pages; at least one.
    pub pages: usize,
}

impl<T> Default for Excerpt<T> {
    fn default() -> Self {
        Self { shown: Vec::new(), matching: 0, all: 0, page: 1, pages: 1 }
    }
}

impl<T> Excerpt<T> {
    /// Converts the entries.
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Excerpt<U> {
        let Self { shown, matching, all, page, pages } = self;
        Excerpt { shown: shown.into_iter().map(map).collect(), matching, all, page, pages }
    }
}

/// How well something works; the worst state is first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It does not work.
    Bad,
    /// It works, but needs attention.
    Alarming,
    /// It may work soon without another change.
    Pending,
    /// It works.
    #[default]
    Good,
}

/// A listener.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// `MailServer` or `MailListener`.
    pub kind: String,
    /// Namespace and name of the object, such as `mail/example`.
    pub object: String,
    /// The listener's name. Empty for a `MailListener`, and for an object without known listeners.
    pub name: String,
    /// The state of the listener.
    pub state: State,
    /// Reasons and messages of problems and warnings.
    pub notes: Vec<(String, String)>,
    /// How it is served; `None` if it is not.
    pub serving: Option<Serving>,
}

/// How a listener is served.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// The configured address, such as `*:993`.
    pub address: String,
    /// The bound addresses.
    pub bound: Vec<String>,
    /// The protocol, such as `IMAP`.
    pub protocol: String,
    /// The TLS mode, such as `Implicit`.
    pub tls: String,
    /// The host names that select it.
    pub hostnames: Vec<String>,
    /// Its certificates; at most the first few.
    pub certificates: Vec<Certificate>,
    /// Number of all its certificates.
    pub certificates_in_all: usize,
    /// Its counters.
    pub numbers: Numbers,
    /// `limits.maxConnections`.
    pub limit: Option<u32>,
    /// The backend, such as `Service mail/dovecot:143`.
    pub backend: Option<String>,
}

/// A certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Namespace and name of the Secret, such as `mail/mail-tls`.
    pub secret: String,
    /// The first of its names.
    pub names: Vec<String>,
    /// Number of all its names.
    pub names_in_all: usize,
    /// `Alarming` when it expires soon, `Bad` when it has expired.
    pub state: State,
    /// The end of validity in Unix seconds.
    pub not_after: i64,
}

/// A `MailRoute`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Namespace and name.
    pub object: String,
    /// The state of the route.
    pub state: State,
    /// Reasons and messages of problems and warnings.
    pub notes: Vec<(String, String)>,
    /// The first of its domains.
    pub domain_names: Vec<String>,
    /// Number of domains.
    pub domains: u32,
    /// Number of users.
    pub users: u32,
    /// While it is held: the open sessions of its users in all replicas, if they are known.
    pub sessions: Option<u32>,
    /// Its backends with their protocols and the state of their endpoints, such as `IMAP Service mail/dovecot:143, 2/3
    /// ready`.
    pub backends: Vec<String>,
}

/// A backend that an object names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The name, such as `Service mail/dovecot:143`.
    pub reference: String,
    /// The state of the backend.
    pub state: State,
    /// Number of endpoints.
    pub endpoints: usize,
    /// The Pods that are taken out of service. They are not in `endpoints`.
    pub leaving: Vec<String>,
    /// Whether it has health checks.
    pub is_checked: bool,
    /// The first failing endpoints, with the reason.
    pub unhealthy: Vec<(String, String)>,
    /// Number of all failing endpoints.
    pub unhealthy_in_all: usize,
    /// Number of listeners that use it.
    pub listeners: usize,
    /// Number of routes that use it, once for each listener.
    pub routes: usize,
}

/// Failed sessions and logins with one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The fault: `client`, `backend`, `auth_service`, `configuration` or `us`.
    pub whose: String,
    /// Failed sessions since the start.
    pub sessions: u64,
    /// Logins that were not accepted since the start; a session may have several.
    pub logins: u64,
    /// Recent problems, newest first.
    pub sentences: Vec<Sentence>,
}

/// A recent problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// The description.
    pub text: String,
    /// The listener where it occurred last.
    pub listener: String,
    /// How often it has occurred since it was first recorded.
    pub times: u64,
    /// The last time, in Unix seconds.
    pub last: i64,
}

/// A recent change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The time in Unix seconds.
    pub at: i64,
    /// The kind of change, such as `bound`, `swapped` or `Ready=False`.
    pub what: String,
    /// The socket, object or listeners.
    pub which: String,
    /// The details; may be empty.
    pub text: String,
    /// Whether it needs attention.
    pub is_alarming: bool,
}

/// One of several replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The pod's name.
    pub name: String,
    /// The address of its admin server.
    pub address: String,
    /// The state of the replica.
    pub state: State,
    /// Whether it is this process.
    pub is_own: bool,
    /// Why it does not answer.
    pub problem: Option<String>,
    /// Number of objects whose generation it does not serve yet, unlike this replica.
    pub behind: usize,
    /// Its totals, if it reports them.
    pub totals: Option<served::Totals>,
}
