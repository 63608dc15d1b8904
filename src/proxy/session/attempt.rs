//! The login that is being decided: how its refusal is counted, and its line in the log.
//!
//! Operators give that line to fail2ban and CrowdSec, so its message and fields stay as they are; docs/reference/log.md
//! has them, and tests/it/refusals.rs holds them.

use std::net::IpAddr;
use std::time::Instant as StdInstant;

use tracing::info;

use crate::net::ClientAddress;
use crate::protocol::backend::RefusalCause;
use crate::protocol::{LoginRequest, PendingLogin};

use super::client::Session;
use crate::proxy::bans::Counted;
use crate::proxy::end::End;
use crate::proxy::guess::Guess;
use crate::proxy::limits::Refusal;
use crate::proxy::record;

/// What is kept of a login until its verdict, or until its refusal is logged.
#[derive(Debug)]
pub(super) struct Attempted {
    /// As the log shows it.
    login: Box<str>,
    method: &'static str,
    /// Counts from 1 in each connection.
    number: u32,
    /// Mail without a login has none to guess.
    has_credentials: bool,
    guess: Option<Guess>,
}

/// Why a login was refused, as its line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The login or its password is wrong.
    Credentials,
    /// The same again; `limits.authFailures` does not count it.
    Repeated,
    /// The credentials may be right, but the account or the mail is not accepted.
    Policy,
    /// The auth service accepted the login, and the backend did not.
    Backend,
    /// The client is banned by `limits.authFailures`.
    Banned,
}

impl Reason {
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
    /// Begins an attempt.
    pub(super) fn attempt(&mut self, request: &LoginRequest, pending: &PendingLogin) {
        self.attempted = Some(Attempted {
            login: record::shown(request.login()),
            method: request.method(),
            number: pending.attempt(),
            has_credentials: !matches!(request, LoginRequest::Anonymous),
            guess: self.served.counters.guess(request),
        });
    }

    /// Whether the attempt that was accepted had credentials.
    pub(super) fn is_logged_in(&self) -> bool {
        self.attempted.as_ref().is_some_and(|attempted| attempted.has_credentials)
    }

    /// Counts and logs a refusal as soon as it is known, so that a client which leaves before it hears of it is counted,
    /// too. True when the client is banned from now on.
    pub(super) fn count_refusal(&mut self, cause: RefusalCause) -> bool {
        let Some(attempted) = &self.attempted else { return false };
        let (reason, is_banned) = match cause {
            RefusalCause::Server => return false,
            RefusalCause::Credentials if attempted.has_credentials => {
                let limits = &self.served.listener.limits;
                let (counted_as, guess) = (self.ends.counted, attempted.guess);
                let counted =
                    self.served.counters.login_refused(limits, counted_as, guess, StdInstant::now());
                let is_again = counted == Some(Counted::Again);
                let reason = if is_again { Reason::Repeated } else { Reason::Credentials };
                (reason, counted == Some(Counted::Banned))
            }
            RefusalCause::Credentials | RefusalCause::Client => (Reason::Policy, false),
        };
        self.log_refusal(reason);
        is_banned
    }

    /// Logs a refusal that [`Self::count_refusal`] has not seen. `end` is how the session ends with it, if it does.
    pub(super) fn log_other_refusal(&mut self, end: Option<&End>) {
        self.log_refusal(match end {
            Some(End::Limited(Refusal::Banned)) => Reason::Banned,
            Some(End::BackendRefused { cause: RefusalCause::Credentials, .. }) => Reason::Backend,
            _ => Reason::Policy,
        });
    }

    /// Writes the line of the refused login, once.
    fn log_refusal(&mut self, reason: Reason) {
        let Some(Attempted { login, method, number, .. }) = self.attempted.take() else { return };
        let listener = self.served.listener.id.to_string();
        info!(
            target: "mailgress::login",
            client = %client(self.ends.client, self.ends.counted.failures()),
            listener,
            protocol = self.protocol().name(),
            login = &*login, method, reason = reason.name(), attempt = number,
            "login refused"
        );
    }
}

/// The address that may be blamed. A trusted peer's own is that of all its clients, and whoever reads the log must not ban it.
fn client(client: ClientAddress, blamed: Option<IpAddr>) -> String {
    match client {
        ClientAddress::Ip(_) => blamed.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()),
        ClientAddress::Unix => client.to_string(),
    }
}
