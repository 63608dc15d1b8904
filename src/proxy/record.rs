//! Collects what the log line of a session needs, and writes this line when the session ends.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use crate::model::SessionId;
use crate::net::{BackendAddress, ClientAddress};

use super::end::{End, Fault};
use super::metrics::TlsLabel;
use super::serving::ServedListener;
use super::verdicts::Verdict;

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
    /// Why the last login was refused. The session ends with it if nothing follows.
    pub(crate) refused: Option<End>,
    /// Logins that were refused.
    logins_refused: u32,
    /// Logins for which the backend or the auth service was not available.
    logins_unavailable: u32,
    /// The endpoint that the session connected to.
    pub(crate) backend: Option<BackendAddress>,
    /// Bytes relayed to the backend.
    pub(crate) to_backend: u64,
    /// Bytes relayed to the client.
    pub(crate) to_client: u64,
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
            refused: None,
            logins_refused: 0,
            logins_unavailable: 0,
            backend: None,
            to_backend: 0,
            to_client: 0,
        }
    }

    /// Sets the client's address after the PROXY header was read.
    pub(crate) fn set_client(&mut self, client: ClientAddress) {
        self.client = client;
    }

    /// Stores the login name, escaped and shortened.
    pub(crate) fn set_login(&mut self, login: &[u8]) {
        self.login = Some(shown(login));
    }

    /// Counts a login for the session's log line.
    pub(crate) fn count_login(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Refused => self.logins_refused = self.logins_refused.saturating_add(1),
            Verdict::Unavailable => self.logins_unavailable = self.logins_unavailable.saturating_add(1),
            Verdict::Accepted | Verdict::Failed | Verdict::Abandoned => {}
        }
    }

    /// Changes the end of a session whose client leaves after its login failed because the backend or the auth service
    /// was not available: the client is not at fault.
    fn blame(&mut self, end: End) -> End {
        let is_the_clients = matches!(end, End::Quit | End::ClientGone | End::ClientTimeout | End::Done);
        let refused = self.refused.take().filter(|refused| refused.verdict() == Verdict::Unavailable);
        refused.filter(|_| is_the_clients).unwrap_or(end)
    }

    /// Writes the session's log line and counts the session.
    pub(crate) fn finish(mut self, end: End) {
        let end = &self.blame(end);
        let fault = end.fault().name();
        let listener = self.served.as_ref().map_or("", |served| &served.metrics.id);
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
                    logins_unavailable = counted(self.logins_unavailable), backend, to_backend = self.to_backend, to_client = self.to_client, seconds,
                    outcome = end.outcome(), fault, "{end}"
                )
            };
        }
        match end.fault() {
            Fault::None | Fault::Client => line!(info),
            Fault::Backend | Fault::AuthService | Fault::Configuration | Fault::Us => line!(warn),
        }
    }
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

/// The longest IP address with a port: `[ffff:…]:65535`.
const MAX_IP_ENDPOINT: usize = 47;

/// Bytes of a login name that the log shows.
const MAX_LOGGED_LOGIN: usize = 256;
