//! Remembers the last refused logins of the process, for `mailgress why`. It has no passwords and no text of clients,
//! backends or auth services except the login name.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Weak;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::model::Listener;
use crate::model::clock::unix_seconds;
use crate::model::why::{WhyBan, WhyListener, WhyQuery, WhyRefusal};

use super::limits::{CountedAs, Counters};
use super::record::{is_same_login, shown};

/// The last refusals, at most [`MAX_REFUSALS`]. Each has at most about 3 KB, and usually 300 bytes.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<VecDeque<Refusal>>);

/// A login that was refused, or that could not be decided.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) at: SystemTime,
    /// `namespace/object/listener`.
    pub(crate) listener: Box<str>,
    /// The user in the form that routes compare, shortened and escaped; empty if the login did not tell.
    pub(crate) user: Box<str>,
    /// The login name, shortened and escaped; empty for mail without a login.
    pub(crate) login: Box<str>,
    /// The client's address as the log shows it.
    pub(crate) client: Box<str>,
    /// The reason as the log shows it, or `unavailable` or `failed`.
    pub(crate) reason: &'static str,
    /// What has failed, for `unavailable` and `failed`. At most [`MAX_DETAIL`] characters.
    pub(crate) detail: Option<Box<str>>,
    /// What tells whether the client is banned.
    pub(crate) source: Source,
}

/// The client of a refused login, and the listener that may have banned it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) counted: CountedAs,
    pub(crate) counters: Weak<Counters>,
    pub(crate) current: Weak<ArcSwap<Listener>>,
}

impl Refusals {
    /// Adds a refusal. The oldest is forgotten if there are too many.
    pub(crate) fn add(&self, refusal: Refusal) {
        let mut all = self.0.lock();
        all.truncate(MAX_REFUSALS - 1);
        all.push_front(refusal);
    }

    /// Returns the last refusals of a user at these listeners, the newest first, and the bans of their clients that are
    /// in force. At most [`MAX_SHOWN`] of each. `now` and `at` are the same moment.
    pub(crate) fn of(
        &self,
        query: &WhyQuery,
        listeners: &[WhyListener],
        (now, at): (Instant, SystemTime),
    ) -> (Vec<WhyRefusal>, Vec<WhyBan>) {
        let own = self.of_user(query, listeners);
        let mut asked: BTreeSet<(&str, IpAddr)> = BTreeSet::new();
        let bans = own.iter().filter(|refusal| {
            refusal.source.counted.failures().is_some_and(|ip| asked.insert((&refusal.listener, ip)))
        });
        let bans = bans.filter_map(|refusal| refusal.ban(now, at)).take(MAX_SHOWN).collect();
        (own.iter().take(MAX_SHOWN).map(Refusal::view).collect(), bans)
    }

    fn of_user(&self, query: &WhyQuery, listeners: &[WhyListener]) -> Vec<Refusal> {
        let login = shown(query.user.as_bytes());
        let is_users = |refusal: &&Refusal| {
            let mut listeners = listeners.iter();
            let listener = listeners.find(|listener| *listener.listener == *refusal.listener);
            let has_login = !refusal.login.is_empty();
            listener.is_some_and(|listener| {
                *listener.user == *refusal.user && has_login != query.recipient
                    || has_login && !query.recipient && is_same_login(&refusal.login, &login)
            })
        };
        self.0.lock().iter().filter(is_users).cloned().collect()
    }
}

impl Refusal {
    fn view(&self) -> WhyRefusal {
        WhyRefusal {
            time: timestamp(self.at),
            listener: self.listener.to_string(),
            client: self.client.to_string(),
            login: self.login.to_string(),
            reason: self.reason.to_owned(),
            detail: self.detail.as_ref().map(ToString::to_string),
        }
    }

    /// Returns the ban of the client if it is in force.
    fn ban(&self, now: Instant, at: SystemTime) -> Option<WhyBan> {
        let Source { counted, counters, current } = &self.source;
        let limits = current.upgrade()?.load().limits.clone();
        let until = counters.upgrade()?.banned_until(&limits, *counted, now)?;
        Some(WhyBan {
            listener: self.listener.to_string(),
            client: counted.failures()?.to_string(),
            until: timestamp(at + until.saturating_duration_since(now)),
        })
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::from_second(unix_seconds(at)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Refusals that are remembered in the process. Later ones replace the oldest.
const MAX_REFUSALS: usize = 4096;

/// Refusals, and bans, in one answer.
const MAX_SHOWN: usize = 20;

/// Characters of a refusal's detail.
pub(crate) const MAX_DETAIL: usize = 240;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::settings::AuthFailures;
    use crate::model::why::WhyOutcome;
    use crate::net::ClientAddress;
    use crate::proxy::tests::socket;

    /// Counters and settings of a listener that bans after one failure.
    struct Edge {
        counters: Arc<Counters>,
        current: Arc<ArcSwap<Listener>>,
    }

    impl Edge {
        fn new() -> Self {
            let address = crate::net::ListenAddress::Ip(([127, 0, 0, 1], 1110).into());
            let mut listener = (**socket(&address, Vec::new()).listeners.default()).clone();
            let (window, ban) = (Duration::from_secs(60), Duration::from_secs(300));
            listener.limits.auth_failures = Some(AuthFailures { count: 1, window, ban });
            Self { counters: Arc::default(), current: Arc::new(ArcSwap::from_pointee(listener)) }
        }

        fn refusal(&self, user: &str, client: &str, at: SystemTime) -> Refusal {
            let counted = CountedAs::client(ClientAddress::new(format!("{client}:1").parse().unwrap()));
            Refusal {
                at,
                listener: "mail/edge/imap".into(),
                user: user.into(),
                login: user.into(),
                client: client.into(),
                reason: "credentials",
                detail: None,
                source: Source {
                    counted,
                    counters: Arc::downgrade(&self.counters),
                    current: Arc::downgrade(&self.current),
                },
            }
        }
    }

    fn listener(user: &str) -> WhyListener {
        WhyListener {
            listener: "mail/edge/imap".to_owned(),
            protocol: "imap".to_owned(),
            address: "*:143".to_owned(),
            user: user.to_owned(),
            auth_service: None,
            route: None,
            outcome: WhyOutcome::NoBackend,
        }
    }

    fn query(user: &str) -> WhyQuery {
        WhyQuery { user: user.to_owned(), ..WhyQuery::default() }
    }

    #[test]
    fn a_flood_of_refusals_keeps_the_newest_and_an_answer_has_few_of_them() {
        let (refusals, edge, start) = (Refusals::default(), Edge::new(), SystemTime::UNIX_EPOCH);
        refusals.add(edge.refusal("old@a.test", "192.0.2.1", start));
        for second in 1..=MAX_REFUSALS {
            let at = start + Duration::from_secs(u64::try_from(second).unwrap());
            refusals.add(edge.refusal("new@a.test", "192.0.2.1", at));
        }
        assert_eq!(refusals.0.lock().len(), MAX_REFUSALS);
        let shown = |user: &str| refusals.of(&query(user), &[listener(user)], (Instant::now(), start)).0;
        assert!(shown("old@a.test").is_empty());
        let new = shown("new@a.test");
        assert_eq!((new.len(), new[0].time.as_second()), (MAX_SHOWN, 4096));
    }

    #[test]
    fn the_refusals_of_a_user_are_found_by_login_and_by_the_name_that_routes_compare() {
        let (refusals, edge, at) = (Refusals::default(), Edge::new(), SystemTime::UNIX_EPOCH);
        refusals.add(Refusal { login: "bob*admin".into(), ..edge.refusal("bob@a.test", "192.0.2.1", at) });
        refusals.add(Refusal { login: "".into(), ..edge.refusal("bob@a.test", "192.0.2.2", at) });
        refusals.add(edge.refusal("al@a.test", "192.0.2.3", at));
        let elsewhere =
            Refusal { listener: "mail/other/imap".into(), ..edge.refusal("bob@a.test", "192.0.2.4", at) };
        refusals.add(elsewhere);
        let clients = |query: &WhyQuery, user: &str| {
            let (found, _) = refusals.of(query, &[listener(user)], (Instant::now(), at));
            found.into_iter().map(|refusal| refusal.client).collect::<Vec<_>>()
        };
        assert_eq!(clients(&query("bob"), "bob@a.test"), ["192.0.2.1"]);
        assert_eq!(clients(&query("bob*admin"), "other@a.test"), ["192.0.2.1"]);
        assert_eq!(clients(&query("al@A.TEST"), "al@A.TEST"), ["192.0.2.3"]);
        let recipient = WhyQuery { recipient: true, ..query("bob@a.test") };
        assert_eq!(clients(&recipient, "bob@a.test"), ["192.0.2.2"]);
    }

    #[test]
    fn bans_of_the_clients_are_told_while_they_last() {
        let (refusals, edge, at) = (Refusals::default(), Edge::new(), SystemTime::UNIX_EPOCH);
        let now = Instant::now();
        for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            refusals.add(edge.refusal("al@a.test", client, at));
        }
        let bans = |now: Instant| refusals.of(&query("al@a.test"), &[listener("al@a.test")], (now, at)).1;
        assert!(bans(now).is_empty());
        let limits = edge.current.load().limits.clone();
        let banned = edge.refusal("al@a.test", "192.0.2.1", at).source.counted;
        let _ = edge.counters.login_refused(&limits, banned, None, now);
        let told = bans(now + Duration::from_secs(100));
        let expected = WhyBan {
            listener: "mail/edge/imap".to_owned(),
            client: "192.0.2.1".to_owned(),
            until: Timestamp::from_second(200).unwrap(),
        };
        assert_eq!(told, [expected]);
        assert!(bans(now + Duration::from_secs(301)).is_empty());
        drop(edge);
        assert!(bans(now).is_empty(), "the listener is gone");
    }
}
