//! Decides about a login, by the auth service or the backend, and tells the client.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::time::sleep;

use crate::auth::{AuthAnswer, AuthError, AuthRequest};
use crate::model::{Auth, HttpAuth, SessionId};
use crate::protocol::backend::{self, BackendLogin, RefusalCause};
use crate::protocol::notices;
use crate::protocol::{Attempt, BackendError, LoginRequest, PendingLogin, Protocol, Refused};

use super::client::{Secured, Session};
use super::routing::{FirstMessage, Routed, session_user, user};
use super::upstream::{Accepting, Authorised, Decision, LoginReply};
use crate::proxy::end::{End, Fault};
use crate::proxy::limits;
use crate::proxy::login_results::LoginResult;
use crate::proxy::metrics::Timing;
use crate::proxy::record::Record;
use crate::proxy::source_addresses::Origin;

impl Session {
    /// Decides about one login.
    pub(super) async fn decide(&mut self, attempt: Attempt, record: &mut Record) -> Result<Decision, End> {
        let started = StdInstant::now();
        let Attempt { request, pending } = attempt;
        record.refused = None;
        self.record_source(started);
        self.attempt(&request, &pending);
        if !request.login().is_empty() {
            record.set_login(request.login());
        }
        let verdict = self.decide_unless_banned(request, pending, record).await;
        self.leave_unless_accepted(&verdict);
        self.served.metrics.took(Timing::Login, started.elapsed());
        let (counted, fault) = match &record.refused {
            Some(end) => (end.login_result(), end.fault()),
            None => counted(&verdict),
        };
        record.count_login(counted);
        self.conclude((counted, fault), record.refused.as_ref(), verdict.as_ref().err());
        verdict
    }

    /// Refuses clients that other sessions got banned before the auth service or backend is asked.
    async fn decide_unless_banned(
        &mut self,
        request: LoginRequest,
        pending: PendingLogin,
        record: &mut Record,
    ) -> Result<Decision, End> {
        self.end_if_banned().await?;
        match self.served.listener.auth.clone() {
            Auth::Http(service) => self.ask_service(&service, request, pending, record).await,
            Auth::Passthrough => self.ask_backend(request, pending, record).await,
        }
    }

    /// Sends a banned client the same message as when it connects. Called after every answer of the auth service and
    /// the backend, before the client gets any of it: otherwise the replies to parallel logins would tell a right
    /// password from wrong ones after the ban began.
    pub(super) async fn end_if_banned(&mut self) -> Result<(), End> {
        if !self.is_banned() {
            return Ok(());
        }
        let mut out = notices::too_many_connections(self.protocol()).to_vec();
        Err(self.send_last_reply(&mut out, limits::LimitReached::Banned.into()).await)
    }

    /// Adds the client's address to the listener's summary, once per session.
    fn record_source(&mut self, now: StdInstant) {
        if std::mem::replace(&mut self.is_source_recorded, true) {
            return;
        }
        let origin = match self.ends.client.ip() {
            _ if self.ends.is_proxied => Origin::Header,
            Some(ip) => Origin::Peer(ip),
            None => return,
        };
        if let Some(sources) = self.served.counters.sources.add(origin, now) {
            self.context.sources.report(&self.served.listener.id, sources);
        }
    }

    async fn ask_service(
        &mut self,
        service: &Arc<HttpAuth>,
        request: LoginRequest,
        pending: PendingLogin,
        record: &mut Record,
    ) -> Result<Decision, End> {
        let answer = self.check(service, (record.id, &request), &pending).await;
        if !matches!(answer, Err(End::ClientGone | End::Drained)) {
            self.end_if_banned().await?;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(end) => return self.fail(pending, end, record).await,
        };
        match answer {
            AuthAnswer::Refused { text, code, wait, sasl, cause } => {
                let (code, challenge) = (code.as_deref(), sasl.as_deref());
                let refusal = ServiceRefusal { text: &text, code, wait, challenge, cause };
                self.refuse_for_service(pending, refusal, record).await
            }
            AuthAnswer::Accepted { server, login, password } => {
                if let Some(login) = &login {
                    record.set_login(login);
                }
                let mut routed = self.placed(&request, &pending, server.clone(), login.as_deref());
                if routed.may_wait() {
                    let named = (server, login.as_deref());
                    drop(routed);
                    routed = Box::pin(self.released(&request, &pending, named, record.id)).await?;
                }
                let place = match routed {
                    Routed::To(place) => place,
                    Routed::Nowhere(_) if !self.has_routes() => {
                        return self.fail(pending, End::NoBackend, record).await;
                    }
                    other => return Box::pin(self.refuse_unplaced(pending, other, record)).await,
                };
                record.user = session_user(&request, &pending, login.as_deref());
                match self.authorise(request, &pending, place, login, password) {
                    Ok(authorised) => self.try_backend(authorised, pending, record).await,
                    Err(end) => self.fail(pending, end, record).await,
                }
            }
        }
    }

    async fn ask_backend(
        &mut self,
        request: LoginRequest,
        pending: PendingLogin,
        record: &mut Record,
    ) -> Result<Decision, End> {
        let (mut request, mut pending) = (request, pending);
        if self.needs_first_message(&request) {
            match Box::pin(self.first_message(request, pending)).await? {
                FirstMessage::Known(known, waiting) => {
                    (request, pending) = (known, waiting);
                    self.attempt_named(&request, &pending);
                }
                FirstMessage::Cancelled(pending) => return self.refuse_cancelled(pending).await,
            }
        }
        let mut routed = self.placed(&request, &pending, None, None);
        if routed.may_wait() {
            drop(routed);
            routed = Box::pin(self.released(&request, &pending, (None, None), record.id)).await?;
        }
        let place = match routed {
            Routed::To(place) => place,
            other => {
                return Box::pin(self.refuse_unplaced(pending, other, record)).await;
            }
        };
        let started = StdInstant::now();
        record.user = session_user(&request, &pending, None);
        let user = user(&request, &pending);
        let upstream = Arc::clone(&place.upstream);
        let login = BackendLogin::Request(request);
        let authorised = Authorised { place, login, has_clients_password: true, user };
        let decision = self.try_backend(authorised, pending, record).await;
        if decision.is_ok() && matches!(record.refused, Some(End::LoginRefused)) {
            let took = started.elapsed();
            self.served.counters.refusals.add(took);
            upstream.refusals.add(took);
        }
        decision
    }

    async fn check(
        &mut self,
        service: &Arc<HttpAuth>,
        (session, request): (SessionId, &LoginRequest),
        pending: &PendingLogin,
    ) -> Result<AuthAnswer, End> {
        let context = Arc::clone(&self.context);
        let listener = Arc::clone(&self.served.listener);
        let (secured, host) = (self.secured.clone(), Arc::clone(&self.host));
        let question = AuthRequest {
            session,
            protocol: self.protocol(),
            request,
            attempt: pending.attempt(),
            client: self.ends.client,
            client_host: (self.protocol() == Protocol::Smtp).then_some(&*host),
            proxied: self.ends.proxied,
            envelope: matches!(request, LoginRequest::Anonymous).then(|| pending.envelope()),
            tls: secured.as_deref().map(|secured| &secured.facts),
            certificate: secured.as_deref().and_then(Secured::certificate),
        };
        let started = StdInstant::now();
        let answer = self.while_deciding(context.auth.check(service, &listener.resolver, &question)).await;
        self.served.metrics.took(Timing::Auth, started.elapsed());
        self.served.metrics.auth_request(match &answer {
            Ok(Ok(AuthAnswer::Accepted { .. })) => LoginResult::Accepted,
            Ok(Ok(AuthAnswer::Refused { cause: RefusalCause::Server, .. })) => LoginResult::Unavailable,
            Ok(Ok(AuthAnswer::Refused { .. })) => LoginResult::Refused,
            Ok(Err(_)) => LoginResult::Failed,
            Err(_) => LoginResult::Abandoned,
        });
        match answer {
            Err(End::ClientGone) => {
                let given_up = AuthError::given_up(&service.reference, started.elapsed());
                Err(given_up.map_or(End::ClientGone, End::from))
            }
            answer => Ok(answer??),
        }
    }

    /// Tries the login on the backend and translates the result for the client.
    async fn try_backend(
        &mut self,
        authorised: Authorised,
        pending: PendingLogin,
        record: &mut Record,
    ) -> Result<Decision, End> {
        let relayed = self.served.listener.auth.is_passthrough();
        let is_clients_password = authorised.has_clients_password;
        let passes_errors = authorised.place.upstream.settings.pass_error_message;
        let reply = self.log_in_to(authorised, pending, record).await?;
        if !matches!(reply, LoginReply::Accepted(_)) {
            // The connection is closed. A client that does not read its refusal must not keep the user at the endpoint.
            self.membership = None;
        }
        self.end_if_banned().await?;
        match reply {
            LoginReply::Accepted(accepted) => {
                let is_last = backend::is_closing(self.protocol(), &accepted.reply);
                if let Some(cause) = accepted.refused.filter(|_| is_last) {
                    record.refused = Some(backend_refused(cause, false, &accepted.reply));
                }
                Ok(Decision::Accepted(accepted))
            }
            LoginReply::Failed(pending, end) => {
                if let Some(shown) = self.shown(&end, passes_errors) {
                    let mut out = shown.to_vec();
                    return Err(self.send_last_reply(&mut out, end).await);
                }
                self.fail(pending, end, record).await
            }
            LoginReply::Refused(pending, backend::Refusal { reply, cause }) => {
                if relayed && !backend::is_closing(self.protocol(), &reply) {
                    return self.refuse_verbatim(pending, &reply, cause, record).await;
                }
                if is_clients_password {
                    // The session ends in any case, so the ban needs no further action.
                    let _ = self.count_refusal(cause);
                }
                let end = backend_refused(cause, is_clients_password, &reply);
                if relayed || passes_errors {
                    let mut out = reply;
                    return Err(self.send_last_reply(&mut out, end).await);
                }
                self.fail(pending, end, record).await
            }
        }
    }

    /// `passthrough`: relays the backend's refusal, and the client may try again. Where a list has users of the domain,
    /// all wrong passwords of the domain get the same words.
    async fn refuse_verbatim(
        &mut self,
        pending: PendingLogin,
        reply: &[u8],
        cause: RefusalCause,
        record: &mut Record,
    ) -> Result<Decision, End> {
        record.refused = Some(match cause {
            RefusalCause::Credentials | RefusalCause::Client => End::LoginRefused,
            RefusalCause::Server => backend_refused(cause, true, reply),
        });
        let is_banned = self.count_refusal(cause);
        let pending = countable(pending, cause);
        if cause == RefusalCause::Credentials {
            if self.is_of_listed_domain(record) {
                return self.refuse_with(notices::wrong_password(self.protocol()), pending, is_banned).await;
            }
            self.hear_refusal(record, reply);
        }
        let mut out = Vec::new();
        let next = pending.refuse_verbatim(reply, &mut out);
        self.refused(next, out, is_banned).await
    }

    /// Returns the backend's own text for a failure, if the client may see it.
    fn shown<'a>(&self, end: &'a End, passes_errors: bool) -> Option<&'a [u8]> {
        let End::Backend(error) = end else { return None };
        match error {
            BackendError::Unexpected { verbatim, .. }
            | BackendError::Unavailable { verbatim, .. }
            | BackendError::NoEhlo { verbatim, .. }
            | BackendError::XclientRefused { verbatim, .. }
                if passes_errors && !verbatim.is_empty() =>
            {
                Some(verbatim)
            }
            _ if self.served.listener.auth.is_passthrough() => error.goodbye(self.protocol()),
            _ => None,
        }
    }

    /// nginx's rule: without `Auth-Wait` a refusal ends the session; with it, the client may try again.
    async fn refuse_for_service(
        &mut self,
        pending: PendingLogin,
        refusal: ServiceRefusal<'_>,
        record: &mut Record,
    ) -> Result<Decision, End> {
        let end = || match refusal.cause {
            RefusalCause::Credentials | RefusalCause::Client => End::LoginRefused,
            RefusalCause::Server => End::AuthServiceUnavailable(backend::first_line(refusal.text)),
        };
        record.refused = Some(end());
        let is_banned = self.count_refusal(refusal.cause);
        let pending = countable(pending, refusal.cause);
        if let Some(wait) = refusal.wait {
            self.while_present(sleep(wait)).await?;
            self.start_deadline();
        }
        let mut out = Vec::new();
        let next = match refusal.challenge.filter(|_| pending.takes_error_challenge()) {
            None => pending.refuse(refusal.text, refusal.code, &mut out),
            Some(challenge) => {
                let (answer, pending) = Box::pin(self.challenge(challenge.as_bytes(), pending)).await?;
                pending.refuse_answered(&answer, refusal.text, refusal.code, &mut out)
            }
        };
        let verdict = self.refused(next, out, is_banned).await?;
        if refusal.wait.is_some() { Ok(verdict) } else { Err(end()) }
    }

    /// Sends the refusal. Ends the session if the client is banned or has no attempts left.
    pub(super) async fn refused(
        &mut self,
        next: Refused,
        mut out: Vec<u8>,
        is_banned: bool,
    ) -> Result<Decision, End> {
        self.start_deadline();
        self.send(&mut out).await?;
        if is_banned {
            return Err(End::LoginRefused);
        }
        next.map(Decision::Refused).map_err(End::Rule)
    }

    /// Sends a last reply. The reason for the end stays the same if the client does not read it.
    pub(super) async fn send_last_reply(&mut self, out: &mut Vec<u8>, end: End) -> End {
        if !matches!(end, End::ClientGone | End::Drained) {
            self.start_deadline();
            let _ = self.send(out).await;
        }
        end
    }
}

/// Returns how a login is counted, and who is at fault.
fn counted(verdict: &Result<Decision, End>) -> (LoginResult, Fault) {
    match verdict {
        Ok(Decision::Accepted(Accepting { refused: Some(RefusalCause::Server), .. })) => {
            (LoginResult::Unavailable, Fault::Backend)
        }
        Ok(Decision::Accepted(Accepting { refused: Some(_), .. }) | Decision::Refused(_)) => {
            (LoginResult::Refused, Fault::Client)
        }
        Ok(Decision::Accepted(_)) => (LoginResult::Accepted, Fault::None),
        Err(end) => match end.login_result() {
            LoginResult::Abandoned => (LoginResult::Abandoned, Fault::None),
            verdict => (verdict, end.fault()),
        },
    }
}

fn backend_refused(cause: RefusalCause, is_clients_password: bool, reply: &[u8]) -> End {
    End::BackendRefused { cause, is_clients_password, text: backend::first_line(reply) }
}

/// Exempts failures of the server from `maxAuthFailures`, which limits what clients do.
fn countable(pending: PendingLogin, cause: RefusalCause) -> PendingLogin {
    if cause == RefusalCause::Server { pending.uncounted() } else { pending }
}

/// The auth service's answer for a refused login.
struct ServiceRefusal<'a> {
    text: &'a [u8],
    code: Option<&'a str>,
    wait: Option<Duration>,
    /// `Auth-Error-SASL`: the challenge that XOAUTH2 and OAUTHBEARER clients get before the refusal.
    challenge: Option<&'a str>,
    cause: RefusalCause,
}
