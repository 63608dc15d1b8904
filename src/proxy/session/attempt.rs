//! The login that is being decided: how a refusal is counted, logged and remembered.
//!
//! fail2ban and CrowdSec parse this log line, so its message and fields must not change. docs/reference/log.md
//! describes them, and tests/it/refusals.rs tests them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant as StdInstant, SystemTime};

use tracing::info;

use crate::model::view::cut;
use crate::net::ClientAddress;
use crate::protocol::backend::RefusalCause;
use crate::protocol::{LoginRequest, Mechanism, PendingLogin};

use super::client::{Attempted, Session};
use super::routing::session_user;
use crate::proxy::bans::Consequence;
use crate::proxy::end::{End, Fault};
use crate::proxy::limits::LimitReached;
use crate::proxy::login_results::LoginResult;
use crate::proxy::record::{self, SessionUser};
use crate::proxy::refusals::{MAX_DETAIL, Refusal, Source};

/// The `reason` of a refused login in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusalReason {
    /// The login or password is wrong.
    Credentials,
    /// The same wrong login again; `limits.authFailures` does not count it.
    Repeated,
    /// The account or the mail is not accepted; the credentials may be correct.
    Policy,
    /// The auth service accepted the login, but the backend refused it.
    Backend,
    /// `limits.authFailures` bans the client.
    Banned,
}

impl RefusalReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Repeated => "repeated",
            Self::Policy => "policy",
            Self::Backend => "backend",
            Self::Banned => "banned",
        }
    }
}

impl Session {
    /// Stores the data of a new login.
    pub(super) fn attempt(&mut self, request: &LoginRequest, pending: &PendingLogin) {
        self.route = None;
        let is_counted = self.served.current.load().limits.auth_failures.is_some();
        self.attempted = Some(Attempted {
            login: record::shown(request.login()),
            user: session_user(request, pending, None),
            method: request.method(),
            number: pending.attempt(),
            has_credentials: !matches!(request, LoginRequest::Anonymous),
            is_token: is_token(request),
            guess: is_counted.then(|| self.served.counters.guess(request)).flatten(),
        });
    }

    /// Stores the user that a later message of the login has named.
    pub(super) fn attempt_named(&mut self, request: &LoginRequest, pending: &PendingLogin) {
        if let Some(attempted) = &mut self.attempted {
            attempted.user = session_user(request, pending, None);
        }
    }

    /// Tells whether a backend's challenge refuses a token: it describes the error (RFC 7628 section 3.2.2). An empty one
    /// asks for the token.
    pub(super) fn refuses_token(&self, challenge: &[u8]) -> bool {
        !challenge.is_empty() && self.attempted.as_ref().is_some_and(|attempted| attempted.is_token)
    }

    /// Counts a refusal for `limits.authFailures` (by client address) and logs it, as soon as it is known, so that a
    /// client that leaves early is counted too. `limits.maxAuthFailures` (by session) is counted separately, when the
    /// protocol's machine refuses the `PendingLogin`. Returns true if the client is banned from now on.
    pub(super) fn count_refusal(&mut self, cause: RefusalCause) -> bool {
        let Some(attempted) = &self.attempted else { return false };
        let (reason, is_banned) = match cause {
            RefusalCause::Server => return false,
            RefusalCause::Credentials if attempted.has_credentials => {
                let limits = &self.served.current.load().limits;
                let (counted_as, guess) = (self.ends.counted, attempted.guess);
                let counted =
                    self.served.counters.login_refused(limits, counted_as, guess, StdInstant::now());
                let is_again = counted == Some(Consequence::Repeated);
                let reason = if is_again { RefusalReason::Repeated } else { RefusalReason::Credentials };
                (reason, counted == Some(Consequence::Banned))
            }
            RefusalCause::Credentials | RefusalCause::Client => (RefusalReason::Policy, false),
        };
        self.log_refusal(reason);
        is_banned
    }

    /// Counts the result of a login, and logs and remembers a refusal. `refused` is the reason of a refusal after which
    /// the session goes on, `end` the end of the session if the login ends it.
    pub(super) fn conclude(
        &mut self,
        (verdict, fault): (LoginResult, Fault),
        refused: Option<&End>,
        end: Option<&End>,
    ) {
        match verdict {
            LoginResult::Refused => self.log_other_refusal(end.or(refused)),
            LoginResult::Unavailable | LoginResult::Failed => {
                self.remember_undecided(verdict, refused.or(end))
            }
            LoginResult::Accepted | LoginResult::Abandoned => {}
        }
        self.served.metrics.login(verdict, fault);
        if let Some(route) = &self.route {
            route.login(verdict);
        }
    }

    /// Logs a refusal that [`Self::count_refusal`] has not logged.
    fn log_other_refusal(&mut self, end: Option<&End>) {
        self.log_refusal(match end {
            Some(End::Limited(LimitReached::Banned)) => RefusalReason::Banned,
            Some(End::BackendRefused { cause: RefusalCause::Credentials, .. }) => RefusalReason::Backend,
            _ => RefusalReason::Policy,
        });
    }

    /// Logs and remembers the refused login, at most once.
    fn log_refusal(&mut self, reason: RefusalReason) {
        let Some(attempted) = self.attempted.take() else { return };
        let Attempted { login, method, number, .. } = &attempted;
        let listener = self.served.listener.id.to_string();
        info!(
            target: "mailgress::login",
            client = %client(self.ends.client, self.ends.counted.failures()),
            listener,
            protocol = self.protocol().name(),
            login = &**login, method, reason = reason.name(), attempt = *number,
            "login refused"
        );
        self.remember(&attempted, reason.name(), None);
    }

    /// Remembers a login that was not decided, for `mailgress why`. The log line of the session has more of it.
    fn remember_undecided(&self, verdict: LoginResult, end: Option<&End>) {
        if let Some(attempted) = &self.attempted {
            let detail = end.map(|end| cut(end.sentence(), MAX_DETAIL).into_boxed_str());
            self.remember(attempted, verdict.name(), detail);
        }
    }

    fn remember(&self, attempted: &Attempted, reason: &'static str, detail: Option<Box<str>>) {
        let routes = self.served.routes.load();
        let rules = routes.routes.as_ref().map(|routes| routes.rules.clone()).unwrap_or_default();
        let user = attempted.user.as_ref().map(|user| match user {
            SessionUser::Login(login) => rules.of_name(login).user,
            SessionUser::Recipient(path) => rules.of_recipient(path).user,
        });
        self.context.refusals.add(Refusal {
            at: SystemTime::now(),
            listener: self.served.listener.id.to_string().into(),
            user: user.map(|user| record::shown(user.as_bytes())).unwrap_or_default(),
            login: attempted.login.clone(),
            client: client(self.ends.client, self.ends.counted.failures()).into(),
            reason,
            detail,
            source: Source {
                counted: self.ends.counted,
                counters: Arc::downgrade(&self.served.counters),
                current: Arc::downgrade(&self.served.current),
            },
        });
    }
}

fn is_token(request: &LoginRequest) -> bool {
    matches!(request, LoginRequest::Relayed { mechanism: Mechanism::XOAuth2 | Mechanism::OAuthBearer, .. })
}

/// Returns the client address for the log. The address of a trusted peer stands for all its clients, so it is not
/// logged: readers of the log must not ban it.
fn client(client: ClientAddress, blamed: Option<IpAddr>) -> String {
    match client {
        ClientAddress::Ip(_) => blamed.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()),
        ClientAddress::Unix => client.to_string(),
    }
}
