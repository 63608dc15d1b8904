//! Recent events for the status page: changes of sockets, and why sessions failed, grouped by fault.
//!
//! Everything is bounded. Texts come from [`End::sentence`], which contains no login, client address or text of others.
//! Equal texts are counted, not repeated.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::model::clock::unix_seconds;
use crate::model::view::{Change, Fault as FaultView, Sentence, cut};
use crate::model::{Listener, Socket};
use crate::net::ListenAddress;

use super::end::{End, Fault};

/// The recent events of the data plane.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    changes: Mutex<VecDeque<Change>>,
    faults: [Faults; 5],
}

/// Counts of failed sessions and logins with one [`Fault`], and the last texts.
#[derive(Debug, Default)]
struct Faults {
    sessions: AtomicU64,
    logins: AtomicU64,
    /// Sorted by time; the newest is last.
    sentences: Mutex<Vec<Sentence>>,
}

impl Journal {
    /// Records a change of a socket.
    pub(crate) fn changed(&self, what: &str, address: &ListenAddress, text: String, at: SystemTime) {
        let is_alarming = what == FAILED;
        let change = Change {
            at: unix_seconds(at),
            what: what.to_owned(),
            which: address.to_string(),
            text,
            is_alarming,
        };
        let mut changes = self.changes.lock();
        changes.push_front(change);
        changes.truncate(MAX_CHANGES);
    }

    /// Records a failed session.
    pub(crate) fn failed(&self, end: &End, listener: &str, at: SystemTime) {
        let Some(faults) = self.of(end.fault()) else { return };
        faults.sessions.fetch_add(1, Ordering::Relaxed);
        // Losing one text is better than blocking a session.
        let Some(mut sentences) = faults.sentences.try_lock() else { return };
        let text = cut(end.sentence(), MAX_SENTENCE);
        let known = sentences.iter().position(|sentence| sentence.text == text);
        let times = known.map_or(0, |position| sentences.remove(position).times);
        if sentences.len() >= MAX_SENTENCES {
            sentences.remove(0);
        }
        let times = times.saturating_add(1);
        sentences.push(Sentence { text, listener: listener.to_owned(), times, last: unix_seconds(at) });
    }

    /// Counts a login that was not accepted.
    pub(crate) fn login_failed(&self, fault: Fault) {
        if let Some(faults) = self.of(fault) {
            faults.logins.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the last changes, newest first.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().iter().cloned().collect()
    }

    /// Returns counts and texts for each fault, newest text first.
    pub(crate) fn faults(&self) -> Vec<FaultView> {
        let view = |(fault, faults): (&Fault, &Faults)| FaultView {
            whose: fault.name().to_owned(),
            sessions: faults.sessions.load(Ordering::Relaxed),
            logins: faults.logins.load(Ordering::Relaxed),
            sentences: faults.sentences.lock().iter().rev().cloned().collect(),
        };
        ORDER.iter().zip(&self.faults).map(view).collect()
    }

    fn of(&self, fault: Fault) -> Option<&Faults> {
        let position = ORDER.iter().position(|other| *other == fault)?;
        self.faults.get(position)
    }
}

/// Names the listeners of a socket that changed or were removed.
pub(crate) fn difference(old: &Socket, new: &Socket) -> String {
    let before: HashSet<*const Listener> = old.listeners.iter().map(std::sync::Arc::as_ptr).collect();
    let other = new.listeners.iter().filter(|listener| !before.contains(&std::sync::Arc::as_ptr(listener)));
    let stays: HashSet<_> = new.listeners.iter().map(|listener| &listener.id).collect();
    let removed = old.listeners.iter().filter(|listener| !stays.contains(&listener.id));
    let other = other.map(|listener| listener.id.to_string());
    let names: Vec<String> =
        other.chain(removed.map(|listener| format!("without {}", listener.id))).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names.get(..MAX_NAMES).unwrap_or(&names).join(", ");
    match (names.is_empty(), more) {
        (true, _) => "shared settings of its listeners".to_owned(),
        (false, 0) => shown,
        (false, more) => format!("{shown} and {more} more"),
    }
}

/// Names the socket's listeners for a log line, at most [`SHOWN_NAMES`].
pub(crate) fn names(socket: &Socket) -> String {
    let names = socket.listeners.iter().take(SHOWN_NAMES).map(|listener| listener.id.to_string());
    let names = names.collect::<Vec<_>>().join(", ");
    match socket.listeners.len().saturating_sub(SHOWN_NAMES) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// The kind of change for a socket that cannot be served. The status page highlights it.
pub(crate) const FAILED: &str = "failed";

/// The positions in `Journal::faults`, in the order of display: the party that should act first is first.
const ORDER: [Fault; 5] =
    [Fault::Us, Fault::Configuration, Fault::AuthService, Fault::Backend, Fault::Client];

const MAX_CHANGES: usize = 32;
/// Texts kept for each fault.
const MAX_SENTENCES: usize = 6;
/// Maximum length of a text, in characters.
const MAX_SENTENCE: usize = 240;
/// Listeners named in a change.
const MAX_NAMES: usize = 4;

/// Listeners of a socket that a log line names.
const SHOWN_NAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn equal_sentences_are_counted_and_old_ones_forgotten() {
        let journal = Journal::default();
        for second in 0..20 {
            journal.failed(
                &End::NoEndpoints(format!("Service mail/b{}", second % 8)),
                "mail/x/imaps",
                at(second),
            );
            journal.failed(&End::NoEndpoints("Service mail/often".into()), "mail/x/pop3s", at(second));
        }
        let faults = journal.faults();
        let backend = faults.iter().find(|fault| fault.whose == "backend").unwrap();
        assert_eq!((backend.sessions, backend.sentences.len()), (40, MAX_SENTENCES));
        let first = &backend.sentences[0];
        assert_eq!((first.times, first.last, first.listener.as_str()), (20, 19, "mail/x/pop3s"));
        assert!(faults.iter().filter(|fault| fault.sessions > 0).count() == 1, "{faults:?}");
    }

    #[test]
    fn a_flood_of_changes_keeps_the_newest() {
        let journal = Journal::default();
        for port in 1..100 {
            journal.changed("bound", &ListenAddress::Any { port }, String::new(), at(port.into()));
        }
        let changes = journal.changes();
        assert_eq!((changes.len(), changes[0].which.as_str(), changes[0].at), (MAX_CHANGES, "*:99", 99));
    }

    #[test]
    fn sentences_tell_nothing_of_a_client() {
        let journal = Journal::default();
        let secret = "joe@example.com from 192.0.2.77";
        let refused = crate::protocol::BackendError::Unexpected {
            step: "AUTH",
            reply: secret.to_owned(),
            verbatim: secret.into(),
        };
        let unavailable = crate::protocol::BackendError::Unavailable {
            step: "AUTH",
            reply: secret.to_owned(),
            verbatim: secret.into(),
        };
        let cause = crate::protocol::backend::RefusalCause::Server;
        for end in [
            End::UntrustedPeer(secret.into()),
            End::UnwantedHeader(secret.into()),
            End::BackendRefused { cause, is_clients_password: true, text: secret.into() },
            End::AuthServiceUnavailable(secret.into()),
            End::Backend(refused),
            End::Backend(unavailable),
            End::Handshake(crate::tls::HandshakeError::Client(crate::tls::HandshakeFailure::UnknownName(
                secret.into(),
            ))),
        ] {
            journal.failed(&end, "mail/x", at(1));
        }
        assert!(!format!("{:?}", journal.faults()).contains("192.0.2.77"), "{:?}", journal.faults());
    }
}
