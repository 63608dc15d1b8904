//! Collects what the log line of a session needs, and writes this line when the session ends. Operators select sessions
//! by the same data.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::model::clock::unix_seconds;
use crate::model::sessions::{OpenSession, SessionFilter};
use crate::model::{Backend, SessionId};
use crate::net::{BackendAddress, ClientAddress};
use crate::protocol::Protocol;
use crate::protocol::user::{Named, UserRules};

use super::end::{End, Fault};
use super::live::Relayed;
use super::login_results::LoginResult;
use super::metrics::TlsLabel;
use super::serving::ServedListener;

/// The data of a session for its log line.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: SessionId,
    started: Instant,
    client: ClientAddress,
    /// Set when the listener is known.
    pub(crate) served: Option<Arc<ServedListener>>,
    /// How the client's connection is protected.
    pub(crate) tls: TlsLabel,
    /// `TLSv1.3`, for example; empty without TLS.
    pub(crate) tls_version: Box<str>,
    /// The login name; only for the log.
    pub(crate) login: Option<Box<str>>,
    /// The user for `MailRoute`s, as the client has named it.
    pub(crate) user: Option<SessionUser>,
    /// Why the last login was refused. The session ends with it if nothing follows.
    pub(crate) refused: Option<End>,
    /// Logins that were refused.
    logins_refused: u32,
    /// Logins for which the backend or the auth service was not available.
    logins_unavailable: u32,
    /// The endpoint that the session connected to.
    backend: Option<BackendAddress>,
    /// The configured backend of this endpoint, if one is configured.
    configured: Option<Arc<Backend>>,
    /// Set when mail without a login has left its first transaction.
    before: Option<Box<Before>>,
    /// The recipients after the first one, while routes place those of the present transaction.
    pub(crate) further: Option<Arc<FurtherRecipients>>,
}

/// What a session did in the relay before its present transaction.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    relayed: Relayed,
    /// Connections to backends after the first one.
    more_backends: u32,
    /// Transactions that a backend has got after the first one.
    more_transactions: u32,
}

/// The paths of the recipients of a transaction after the first one, which its backend has got.
#[derive(Debug, Default)]
pub(crate) struct FurtherRecipients(Mutex<Vec<Box<[u8]>>>);

impl FurtherRecipients {
    /// Adds a recipient. Returns false if there are too many.
    pub(crate) fn add(&self, path: &[u8]) -> bool {
        let mut paths = self.0.lock();
        let has_room = paths.len() < MAX_FURTHER;
        if has_room {
            paths.push(path.into());
        }
        has_room
    }

    /// Returns the paths.
    pub(crate) fn paths(&self) -> Vec<Box<[u8]>> {
        self.0.lock().clone()
    }
}

/// With the first one, as many as every server must take (RFC 5321 section 4.5.3.1.8).
const MAX_FURTHER: usize = 99;

/// The user of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionUser {
    /// The authorization identity, the login, or the name that the auth service has given.
    Login(Box<[u8]>),
    /// Mail without a login: the path of the first recipient of the last transaction.
    Recipient(Box<[u8]>),
}

impl Record {
    /// Starts a record when the connection is accepted.
    pub(crate) fn new(id: SessionId, client: ClientAddress, started: Instant) -> Self {
        Self {
            id,
            started,
            client,
            served: None,
            tls: TlsLabel::Off,
            tls_version: "".into(),
            login: None,
            user: None,
            refused: None,
            logins_refused: 0,
            logins_unavailable: 0,
            backend: None,
            configured: None,
            before: None,
            further: None,
        }
    }

    /// Returns the record of the same session after it has left the relay, where this was relayed.
    pub(crate) fn continued(&self, relayed: Relayed) -> Box<Self> {
        let mut before = self.before.as_deref().copied().unwrap_or_default();
        before.relayed = before.relayed.and(relayed);
        Box::new(Self {
            id: self.id,
            started: self.started,
            client: self.client,
            served: self.served.clone(),
            tls: self.tls,
            tls_version: self.tls_version.clone(),
            login: self.login.clone(),
            user: self.user.clone(),
            refused: None,
            logins_refused: self.logins_refused,
            logins_unavailable: self.logins_unavailable,
            backend: self.backend.clone(),
            configured: self.configured.clone(),
            before: Some(Box::new(before)),
            further: None,
        })
    }

    /// Returns the users of the session: that of the login, or all recipients of the transaction.
    pub(crate) fn users(&self, rules: &UserRules) -> Vec<Named> {
        let first = self.user.as_ref().map(|user| match user {
            SessionUser::Login(name) => rules.of_name(name),
            SessionUser::Recipient(path) => rules.of_recipient(path),
        });
        let further = self.further.as_ref().map(|further| further.paths()).unwrap_or_default();
        first.into_iter().chain(further.iter().map(|path| rules.of_recipient(path))).collect()
    }

    /// Sets the client's address after the PROXY header was read.
    pub(crate) fn set_client(&mut self, client: ClientAddress) {
        self.client = client;
    }

    /// Stores the login name, escaped and shortened.
    pub(crate) fn set_login(&mut self, login: &[u8]) {
        self.login = Some(shown(login));
    }

    /// Stores the endpoint that the session connected to.
    pub(crate) fn set_backend(&mut self, endpoint: &BackendAddress, of: &Arc<Backend>) {
        if let Some(before) = self.before.as_mut().filter(|_| self.backend.is_some()) {
            before.more_backends = before.more_backends.saturating_add(1);
        }
        self.backend = Some(endpoint.clone());
        // A backend that the auth service has named has only an address.
        self.configured = (!of.reference.is_empty()).then(|| Arc::clone(of));
    }

    /// Counts a transaction of mail without a login after the first one.
    pub(crate) fn count_transaction(&mut self) {
        if let Some(before) = &mut self.before {
            before.more_transactions = before.more_transactions.saturating_add(1);
        }
    }

    /// Returns the configured backend that the session connected to, and the endpoint.
    pub(crate) fn endpoint(&self) -> Option<(&Backend, &BackendAddress)> {
        Some((self.configured.as_deref()?, self.backend.as_ref()?))
    }

    /// Tells whether the auth service has named the server that the session connected to.
    pub(crate) fn is_at_named_server(&self) -> bool {
        self.backend.is_some() && self.configured.is_none()
    }

    /// Returns the protocol if the listener is known.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        self.served.as_ref().map(|served| served.listener.frontend.protocol)
    }

    /// Counts a login for the session's log line.
    pub(crate) fn count_login(&mut self, result: LoginResult) {
        match result {
            LoginResult::Refused => self.logins_refused = self.logins_refused.saturating_add(1),
            LoginResult::Unavailable => self.logins_unavailable = self.logins_unavailable.saturating_add(1),
            LoginResult::Accepted | LoginResult::Failed | LoginResult::Abandoned => {}
        }
    }

    /// Changes the end of a session whose client leaves after its login failed because of the backend, the auth service
    /// or the configuration: the client is not at fault.
    fn blame<'a>(&'a self, end: &'a End) -> &'a End {
        let is_the_clients = matches!(end, End::Quit | End::ClientGone | End::ClientTimeout | End::Done);
        let is_failure =
            |refused: &&End| matches!(refused.login_result(), LoginResult::Unavailable | LoginResult::Failed);
        let refused = self.refused.as_ref().filter(is_failure);
        refused.filter(|_| is_the_clients).unwrap_or(end)
    }

    /// Writes the session's log line and counts the session.
    pub(crate) fn finish(&self, end: &End, relayed: Relayed) {
        let end = self.blame(end);
        let before = self.before.as_deref().copied().unwrap_or_default();
        let Relayed { to_backend, to_client, recipients_refused } = before.relayed.and(relayed);
        let (backends, transactions) = (several(before.more_backends), several(before.more_transactions));
        let fault = end.fault().name();
        let listener = self.listener();
        if let Some(served) = &self.served {
            served.metrics.ended(self.tls, end, SystemTime::now());
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let login = self.login.as_deref().unwrap_or_default();
        let mut backend = String::with_capacity(MAX_IP_ENDPOINT);
        if let Some(address) = &self.backend {
            // Writing to a string cannot fail.
            let _ = write!(backend, "{address}");
        }
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    target: "mailgress::session",
                    session = %self.id,
                    client = %self.client, listener, tls = self.tls.name(), tls_version = %self.tls_version,
                    login, logins_refused = counted(self.logins_refused),
                    logins_unavailable = counted(self.logins_unavailable),
                    recipients_refused = counted(recipients_refused), backend, backends, transactions, to_backend, to_client, seconds,
                    outcome = end.outcome().name(), fault, "{end}"
                )
            };
        }
        match end.fault() {
            Fault::None | Fault::Client => line!(info),
            Fault::Backend | Fault::AuthService | Fault::Configuration | Fault::Us => line!(warn),
        }
    }

    /// Describes a relayed session. `now` and `at` are the same moment.
    pub(crate) fn view(
        &self,
        relayed: Relayed,
        idle: Duration,
        (now, at): (Instant, SystemTime),
    ) -> OpenSession {
        let relayed = self.before.as_ref().map_or(relayed, |before| before.relayed.and(relayed));
        let age = now.saturating_duration_since(self.started);
        let since = at.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        OpenSession {
            id: self.id,
            listener: self.listener().to_owned(),
            protocol: self.protocol().map_or("", Protocol::name).to_owned(),
            client: self.client.to_string(),
            tls: self.tls.name().to_owned(),
            tls_version: self.tls_version.to_string(),
            login: self.login.as_deref().unwrap_or_default().to_owned(),
            backend: self.backend.as_ref().map(ToString::to_string).unwrap_or_default(),
            pod: self.pod().cloned(),
            service: self.configured.as_ref().map(|backend| backend.reference.clone()).unwrap_or_default(),
            since: Timestamp::from_second(unix_seconds(since)).unwrap_or(Timestamp::UNIX_EPOCH),
            idle_seconds: idle.as_secs(),
            to_backend: relayed.to_backend,
            to_client: relayed.to_client,
        }
    }

    fn listener(&self) -> &str {
        self.served.as_ref().map_or("", |served| &served.metrics.id)
    }

    fn pod(&self) -> Option<&String> {
        self.configured.as_ref()?.names.get(self.backend.as_ref()?)
    }
}

/// A [`SessionFilter`], prepared for many sessions.
#[derive(Debug)]
pub(crate) struct Selector<'a> {
    filter: &'a SessionFilter,
    /// As the log shows it.
    user: Option<Box<str>>,
}

impl<'a> Selector<'a> {
    pub(crate) fn new(filter: &'a SessionFilter) -> Self {
        Self { filter, user: filter.user.as_ref().map(|user| shown(user.as_bytes())) }
    }

    /// Tells whether the filter selects this session.
    pub(crate) fn selects(&self, record: &Record) -> bool {
        let SessionFilter { user: _, backend, listener, session } = self.filter;
        session.is_none_or(|session| session == record.id)
            && self
                .user
                .as_ref()
                .is_none_or(|user| record.login.as_ref().is_some_and(|login| is_same_login(user, login)))
            && listener.as_ref().is_none_or(|listener| is_listener(listener, record.listener()))
            && backend.as_ref().is_none_or(|backend| is_backend(backend, record))
    }
}

/// Compares login names. Only the case of the domain does not matter.
pub(super) fn is_same_login(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((one, its)), Some((other, others))) => one == other && its.eq_ignore_ascii_case(others),
        _ => one == other,
    }
}

/// Tells whether `named` is the listener, or its object.
pub(super) fn is_listener(named: &str, listener: &str) -> bool {
    let rest = listener.strip_prefix(named);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') && named.contains('/'))
}

/// Tells whether `named` is the session's endpoint, with or without its port, its Pod, or its Service.
fn is_backend(named: &str, record: &Record) -> bool {
    let is_endpoint = record.backend.as_ref().is_some_and(|address| {
        let is_host = match address {
            BackendAddress::Ip(address) => address.ip().to_string() == named,
            BackendAddress::Name { host, .. } => host.eq_ignore_ascii_case(named),
            BackendAddress::Unix(path) => path.as_os_str() == named,
        };
        is_host || address.to_string() == named
    });
    let is_service = record.configured.as_ref().is_some_and(|backend| {
        let service = backend.reference.strip_prefix("Service ").unwrap_or(&backend.reference);
        service == named || service.rsplit_once(':').is_some_and(|(name, _)| name == named)
    });
    is_endpoint || is_service || record.pod().is_some_and(|pod| pod == named)
}

/// Prepares a login name for the log: shortened, and escaped so that it cannot forge a log line (quirk Q-24).
pub(crate) fn shown(login: &[u8]) -> Box<str> {
    let login = login.get(..MAX_LOGGED_LOGIN).unwrap_or(login);
    login.escape_ascii().to_string().into_boxed_str()
}

/// Returns `None` for 0, so that the field is omitted.
fn counted(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

/// Returns the number of all, or `None` if there is only the first.
fn several(more: u32) -> Option<u32> {
    (more > 0).then(|| more.saturating_add(1))
}

/// The longest IP address with a port: `[ffff:…]:65535`.
const MAX_IP_ENDPOINT: usize = 47;

/// Bytes of a login name that the log shows.
const MAX_LOGGED_LOGIN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_selected_by_the_whole_login() {
        assert!(is_same_login("bob@a.example", "bob@A.Example"));
        for other in ["Bob@a.example", "bob", "b@a.example", "bob@b.example", ""] {
            assert!(!is_same_login("bob@a.example", other), "{other}");
        }
        assert!(is_same_login("bob", "bob") && !is_same_login("bob", "Bob"));
    }

    #[test]
    fn the_users_of_a_transaction_are_all_its_recipients() {
        let id = SessionId { process: 1, number: 1 };
        let mut record = Record::new(id, ClientAddress::Unix, Instant::now());
        let users = |record: &Record| {
            let users = record.users(&UserRules::default()).into_iter();
            users.map(|named| String::from_utf8(named.user.as_bytes().to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert!(users(&record).is_empty());
        record.user = Some(SessionUser::Recipient(b"@relay.example:bob@A.example".as_slice().into()));
        let further = Arc::new(FurtherRecipients::default());
        assert!(further.add(b"al@b.example"));
        record.further = Some(Arc::clone(&further));
        assert!(further.add(b"joe@B.example"));
        assert_eq!(users(&record), ["bob@a.example", "al@b.example", "joe@b.example"]);
        record.further = None;
        record.user = Some(SessionUser::Login(b"bob@A.example*admin".as_slice().into()));
        assert_eq!(users(&record), ["bob@a.example"]);
    }

    #[test]
    fn a_listener_is_selected_by_its_name_or_its_object() {
        for named in ["mail/example", "mail/example/imaps"] {
            assert!(is_listener(named, "mail/example/imaps"), "{named}");
        }
        for named in ["", "mail", "mail/", "mail/ex", "example/imaps", "imaps", "mail/example/imaps2"] {
            assert!(!is_listener(named, "mail/example/imaps"), "{named}");
        }
    }

    #[test]
    fn a_backend_is_selected_by_its_address_pod_or_service() {
        let id = SessionId { process: 1, number: 1 };
        let mut record = Record::new(id, ClientAddress::Unix, Instant::now());
        assert!(!is_backend("10.0.0.5", &record), "it has no backend yet");
        let address = BackendAddress::Ip("10.0.0.5:143".parse().unwrap());
        let mut backend = Backend::new("Service mail/dovecot:143".to_owned(), vec![address.clone()]);
        backend.names.insert(address.clone(), "dovecot-0".to_owned());
        record.set_backend(&address, &Arc::new(backend));
        for named in ["10.0.0.5", "10.0.0.5:143", "dovecot-0", "mail/dovecot", "mail/dovecot:143"] {
            assert!(is_backend(named, &record), "{named}");
        }
        for named in ["", "10.0.0.50", "10.0.0.5:14", "143", "dovecot", "mail", "dovecot-1"] {
            assert!(!is_backend(named, &record), "{named}");
        }
    }
}
