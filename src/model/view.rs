//! What the status page shows: made where things are known, drawn by the admin server, which knows no mail.
//!
//! It holds no secret, no login, no address of a client, and no words of theirs, of backends or of auth services. All
//! lists are bounded by whoever makes them.

use std::time::Duration;

use super::served;

/// As much of a text as there is room for, in characters.
#[must_use]
pub fn cut(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// What rows must contain, without case; empty: all.
    pub text: String,
    /// Only what somebody should look at.
    pub only_troubled: bool,
    /// Which page of the listeners, from 1.
    pub page: usize,
    /// How certificates are sorted.
    pub certificates: CertificateOrder,
}

/// How certificates are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateOrder {
    /// What ends first is first.
    #[default]
    Expiry,
    /// By Secret.
    Secret,
}

/// The page.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// This process.
    pub replica: Replica,
    /// Of everything, whatever was asked for.
    pub totals: Totals,
    /// What cannot be read or written.
    pub problems: Vec<String>,
    /// The listeners asked for, those in trouble first.
    pub listeners: Excerpt<Listener>,
    /// The certificates asked for, each once, with the number of listeners that serve it.
    pub certificates: Excerpt<(Certificate, usize)>,
    /// The backends asked for, those in trouble first.
    pub backends: Excerpt<Backend>,
    /// Sessions that failed, by whose fault it was.
    pub faults: Vec<Fault>,
    /// The last changes, newest first.
    pub changes: Vec<Change>,
    /// All replicas, where this one leads several.
    pub replicas: Vec<Peer>,
}

/// This process.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// The pod's name.
    pub name: String,
    /// Of Mailgress.
    pub version: String,
    /// The class that is ours.
    pub class: String,
    /// Since the start.
    pub uptime: Duration,
    /// Unix seconds, for everything that is told with its time.
    pub now: i64,
    /// `None` without a cluster.
    pub leads: Option<bool>,
    /// The name of the one that leads, if it is another one and asks us.
    pub leader: Option<String>,
    /// The port of the admin server.
    pub admin_port: u16,
}

/// Sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Listeners of all objects.
    pub listeners: usize,
    /// Those that are not ready.
    pub not_ready: usize,
    /// Those that are on their way to be.
    pub pending: usize,
    /// Those that are ready with an alarm.
    pub alarming: usize,
    /// What is counted.
    pub numbers: Numbers,
}

/// What is counted of a listener, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Open sessions.
    pub open: u64,
    /// New sessions, over the last minute or less.
    pub sessions_per_minute: f64,
    /// Relayed bytes in both directions, over the same time.
    pub bytes_per_second: f64,
    /// Logins since the start.
    pub accepted: u64,
    /// Logins that the auth service or the backend refused to the client.
    pub refused: u64,
    /// Logins for which the auth service or the backend was not available.
    pub unavailable: u64,
    /// Logins without a verdict.
    pub failed: u64,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Excerpt<T> {
    /// What is shown.
    pub shown: Vec<T>,
    /// How many there are that were asked for.
    pub matching: usize,
    /// How many there are.
    pub all: usize,
    /// Which page this is, from 1.
    pub page: usize,
    /// How many there are of them; at least one.
    pub pages: usize,
}

impl<T> Default for Excerpt<T> {
    fn default() -> Self {
        Self { shown: Vec::new(), matching: 0, all: 0, page: 1, pages: 1 }
    }
}

impl<T> Excerpt<T> {
    /// The same of something else.
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Excerpt<U> {
        let Self { shown, matching, all, page, pages } = self;
        Excerpt { shown: shown.into_iter().map(map).collect(), matching, all, page, pages }
    }
}

/// How something is; the worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It does not work.
    Bad,
    /// It works, and somebody should look.
    Alarming,
    /// It may become good without a change of anything.
    Pending,
    /// Nothing is known against it.
    #[default]
    Good,
}

/// A listener.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// `MailServer` or `MailListener`.
    pub kind: String,
    /// `mail/example`.
    pub object: String,
    /// Its name; empty for a `MailListener`, and for an object of which no listener is known.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Reason and sentence of what somebody should look at.
    pub notes: Vec<(String, String)>,
    /// Where and how it is served, if it is.
    pub serving: Option<Serving>,
}

/// How a listener is served.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// `*:993`.
    pub address: String,
    /// The addresses really bound.
    pub bound: Vec<String>,
    /// `IMAP`.
    pub protocol: String,
    /// `Implicit`.
    pub tls: String,
    /// The names that it answers to.
    pub hostnames: Vec<String>,
    /// Those that clients are shown.
    pub certificates: Vec<Certificate>,
    /// How many there are.
    pub certificates_in_all: usize,
    /// What is counted.
    pub numbers: Numbers,
    /// `limits.maxConnections`.
    pub limit: Option<u32>,
    /// `Service mail/dovecot:143`.
    pub backend: Option<String>,
}

/// A certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// `mail/mail-tls`.
    pub secret: String,
    /// The first of its names.
    pub names: Vec<String>,
    /// How many it has.
    pub names_in_all: usize,
    /// Alarming where the end is near for a certificate of such a life, bad after it.
    pub state: State,
    /// Unix seconds.
    pub not_after: i64,
}

/// A backend that objects name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// `Service mail/dovecot:143`.
    pub reference: String,
    /// How it is.
    pub state: State,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Whether they are checked.
    pub is_checked: bool,
    /// Those that fail their checks, with the reason; the first few.
    pub unhealthy: Vec<(String, String)>,
    /// How many fail.
    pub unhealthy_in_all: usize,
    /// How many listeners use it.
    pub listeners: usize,
}

/// Failed sessions that are the fault of one party.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `client`, `backend`, `auth_service`, `configuration`, `us`.
    pub whose: String,
    /// Since the start.
    pub sessions: u64,
    /// Logins that were not accepted, since the start; a session may have several.
    pub logins: u64,
    /// What was wrong lately, newest first.
    pub sentences: Vec<Sentence>,
}

/// Something that was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// What.
    pub text: String,
    /// At which listener the last time.
    pub listener: String,
    /// How often while it is remembered.
    pub times: u64,
    /// The last time, in Unix seconds.
    pub last: i64,
}

/// Something that has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Unix seconds.
    pub at: i64,
    /// `bound`, `swapped`, `Ready=False`.
    pub what: String,
    /// Which socket, object or listeners.
    pub which: String,
    /// A sentence, or nothing.
    pub text: String,
    /// Whether somebody should look.
    pub is_alarming: bool,
}

/// One of several replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The pod's name.
    pub name: String,
    /// Where it is asked.
    pub address: String,
    /// How it is.
    pub state: State,
    /// Whether it is this process.
    pub is_own: bool,
    /// Why it does not answer.
    pub problem: Option<String>,
    /// Objects of which it has not got as far as this one.
    pub behind: usize,
    /// Its sums, if it tells them.
    pub totals: Option<served::Totals>,
}
