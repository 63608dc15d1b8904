//! Refuses logins: those without a backend, and those that fail because of the backend, the auth service or the
//! configuration.

use tokio::time::sleep;

use crate::protocol::backend::RefusalCause;
use crate::protocol::notices::{self, RefusalText};
use crate::protocol::{BackendError, PendingLogin};

use super::client::Session;
use super::routing::{RefusedLike, Routed};
use super::upstream::Decision;
use crate::proxy::end::End;
use crate::proxy::record::{Record, SessionUser};

impl Session {
    /// Refuses a login without a place.
    pub(super) async fn refuse_unplaced(
        &mut self,
        pending: PendingLogin,
        routed: Routed,
        record: &mut Record,
    ) -> Result<Decision, End> {
        let end = match routed {
            Routed::Undecided(route) => End::RouteUndecided(route),
            Routed::Held(route, _) => End::RouteHeld(route),
            Routed::UserHeld(reason) => End::UserHeld(reason),
            Routed::To(_) => End::Internal("a login with a backend was refused"),
            Routed::Nowhere(like) => return self.refuse_unrouted(pending, like, record).await,
        };
        self.refuse_failed(pending, end, record).await
    }

    /// Stores the words with which a backend has refused a wrong password.
    pub(super) fn hear_refusal(&self, record: &Record, reply: &[u8]) {
        let Some(SessionUser::Login(user)) = record.user.as_ref().filter(|_| self.has_routes()) else {
            return;
        };
        // The words must name neither the user nor who logs in as this user.
        let login = record.login.as_deref().unwrap_or_default();
        let names = format!("{}@{login}", String::from_utf8_lossy(user));
        self.served.counters.words.hear(self.protocol(), (&names, self.ends.client), reply);
    }

    /// Tells whether a list has users of the domain of a login that a backend has refused.
    pub(super) fn is_of_listed_domain(&self, record: &Record) -> bool {
        let Some(SessionUser::Login(user)) = &record.user else { return false };
        let served = self.served.routes.load();
        let routes = served.routes.as_ref();
        routes.is_some_and(|routes| routes.listed_domain(&routes.rules.of_name(user).user).is_some())
    }

    /// Answers a login that failed. With an auth service that alone decides, the client gets nginx's line, and the
    /// session ends as in nginx.
    pub(super) async fn fail(
        &mut self,
        pending: PendingLogin,
        end: End,
        record: &mut Record,
    ) -> Result<Decision, End> {
        if matches!(end, End::ClientGone | End::Drained) {
            return Err(end);
        }
        if self.served.listener.auth.is_passthrough() || self.has_routes() {
            return self.refuse_failed(pending, end, record).await;
        }
        let mut out = Vec::new();
        pending.internal_error(&mut out);
        Err(self.send_last_reply(&mut out, end).await)
    }

    /// Refuses a login that failed, with a temporary error unless the login is wrong. The client may try again, except
    /// where it would fail again.
    async fn refuse_failed(
        &mut self,
        pending: PendingLogin,
        end: End,
        record: &mut Record,
    ) -> Result<Decision, End> {
        let is_wrong = is_wrong_login(&end);
        let RefusalText { code, text } = match pending.is_mail() {
            true => notices::UNAVAILABLE_RECIPIENT,
            false if is_wrong => notices::wrong_password(self.protocol()),
            false => notices::unavailable(self.protocol()),
        };
        // The client is not at fault, so this does not count as a failed login.
        let mut out = Vec::new();
        let next = pending.uncounted().refuse(text.as_bytes(), Some(code), &mut out);
        if is_last(&end) {
            return Err(self.send_last_reply(&mut out, end).await);
        }
        record.refused = Some(end);
        self.refused(next, out, false).await
    }

    /// Answers a client that has cancelled its SASL exchange (RFC 4422 section 3.5).
    pub(super) async fn refuse_cancelled(&mut self, pending: PendingLogin) -> Result<Decision, End> {
        self.refuse_with(notices::CANCELLED, pending.uncounted(), false).await
    }

    /// Refuses a login without a backend like a wrong password: with the same words, after the same time.
    async fn refuse_unrouted(
        &mut self,
        pending: PendingLogin,
        like: RefusedLike,
        record: &mut Record,
    ) -> Result<Decision, End> {
        record.refused = Some(End::LoginRefused);
        if pending.is_mail() {
            let is_banned = self.count_refusal(RefusalCause::Client);
            return self.refuse_with(notices::UNKNOWN_RECIPIENT, pending, is_banned).await;
        }
        let is_banned = self.count_refusal(RefusalCause::Credentials);
        let counters = &self.served.counters;
        let (time, words) = match &like {
            RefusedLike::Listener => (&counters.refusals, counters.words.learnt()),
            RefusedLike::Domain(None) => (&counters.refusals, None),
            RefusedLike::Domain(Some(upstream)) => (&*upstream.refusals, None),
        };
        let time = time.average();
        self.while_deciding(sleep(time)).await?;
        self.end_if_banned().await?;
        let Some(words) = words else {
            return self.refuse_with(notices::wrong_password(self.protocol()), pending, is_banned).await;
        };
        let mut out = Vec::new();
        let next = pending.refuse(&words.text, Some(&words.code), &mut out);
        self.refused(next, out, is_banned).await
    }

    /// Refuses a login with this text. The client may try again unless it is banned.
    pub(super) async fn refuse_with(
        &mut self,
        RefusalText { code, text }: RefusalText,
        pending: PendingLogin,
        is_banned: bool,
    ) -> Result<Decision, End> {
        let mut out = Vec::new();
        let next = pending.refuse(text.as_bytes(), Some(code), &mut out);
        self.refused(next, out, is_banned).await
    }
}

/// Tells whether a login failed because of what the client has sent: it would fail again.
const fn is_wrong_login(end: &End) -> bool {
    matches!(
        end,
        End::LongLogin { .. }
            | End::Backend(BackendError::ControlCharacters { .. })
            | End::BackendRefused { cause: RefusalCause::Credentials, is_clients_password: true, .. }
    )
}

/// Tells whether a failed login ends the session: it would fail again, or the session's file descriptors are needed.
const fn is_last(end: &End) -> bool {
    is_wrong_login(end) || matches!(end, End::Descriptors | End::Internal(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::exclusive::HoldReason;

    #[test]
    fn a_client_whose_user_waits_for_an_endpoint_may_try_again() {
        for reason in [HoldReason::Moving, HoldReason::NotServed, HoldReason::Replica("pod".to_owned())] {
            assert!(!is_last(&End::UserHeld(reason)));
        }
        assert!(is_last(&End::Descriptors) && is_last(&End::LongLogin { bytes: 9000 }));
    }
}
