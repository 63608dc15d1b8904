//! Sends requests to auth services: reuses connections, balances endpoints, and handles deadlines and `WAIT`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::auth::{AuthAnswer, AuthError, AuthRequest};
use crate::dns::{Dns, Target};
use crate::model::{HttpAuth, Resolver};
use crate::protocol::LoginRequest;
use crate::secret::Secret;

use super::exchange::{After, Answered, Failure, exchange};
use super::quota::Quota;
use super::reply::{self, Reply, ReplyError};
use super::request;
use super::service::Service;

/// How often a service may answer `WAIT` to one login (quirk Q-19).
const MAX_WAITS: u32 = 60;

/// Maximum total waiting time for one login.
const MAX_WAITING: Duration = Duration::from_secs(300);

/// Minimum time for one `WAIT`.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// Longest password, in bytes, for which every web server reads the request: nginx reads header lines of 8 KiB, and
/// escaping may treble the length.
const LONG_PASSWORD: usize = 2048;

/// Sends requests to auth services and keeps their connections. Each worker has one, because a connection belongs to
/// the runtime that opened it.
pub struct AuthClient {
    dns: Arc<Dns>,
    quota: Quota,
    /// The services in use. One that no snapshot or session uses is removed when the next one is added.
    services: Mutex<Vec<CachedService>>,
}

impl fmt::Debug for AuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthClient").finish_non_exhaustive()
    }
}

struct CachedService {
    auth: Arc<HttpAuth>,
    service: Arc<Service>,
}

impl AuthClient {
    /// Creates a client without connections. The whole process shares the quota.
    #[must_use]
    pub fn new(dns: Arc<Dns>, quota: Quota) -> Self {
        Self { dns, quota, services: Mutex::default() }
    }

    /// Returns the service's decision about a login. Dropping the future cancels the request.
    ///
    /// # Errors
    /// The service does not decide.
    pub async fn check(
        &self,
        service: &Arc<HttpAuth>,
        resolver: &Resolver,
        request: &AuthRequest<'_>,
    ) -> Result<AuthAnswer, AuthError> {
        let ready = self.ready(service)?;
        let has_long_password = has_long_password(request.request);
        let request = request::bytes(&ready.template, request);
        let asked = Asked { auth: service, service: &ready, request, has_long_password };
        let mut patience = Patience::default();
        loop {
            // Boxed, so that the session's task does not reserve memory for it all the time.
            let reply = tokio::time::timeout(service.timeout, Box::pin(self.ask(&asked, resolver))).await;
            let late =
                |_| AuthError::Timeout { service: service.reference.clone(), timeout: service.timeout };
            match reply.map_err(late)?? {
                Reply::Answer(answer) => return Ok(answer),
                Reply::Wait(asked) => match patience.wait(asked) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => {
                        let service = service.reference.clone();
                        return Err(AuthError::Undecided { service, times: patience.times });
                    }
                },
            }
        }
    }

    /// Closes all kept connections to auth services in the process, because file descriptors have run out.
    pub fn close_kept(&self) {
        self.quota.close_kept();
    }

    /// Sends one request to the first endpoint that accepts a connection.
    async fn ask(&self, asked: &Asked<'_>, resolver: &Resolver) -> Result<Reply, AuthError> {
        let mut failure = AuthError::NoEndpoint { service: asked.auth.reference.clone() };
        for endpoint in asked.service.turn() {
            let targets = match self.dns.resolve(resolver, &asked.auth.reach, endpoint).await {
                Ok(targets) => targets,
                Err(error) if error.is_refusal() => {
                    failure = asked.configuration(error.to_string());
                    continue;
                }
                Err(error) => {
                    failure = asked.unreachable(error.to_string());
                    continue;
                }
            };
            for target in targets {
                match asked.exchange(target).await {
                    Err(error @ AuthError::Unreachable { .. }) => failure = error,
                    decided => return decided,
                }
            }
        }
        Err(failure)
    }

    /// Returns the service for `auth`. If only other settings changed, an equal service keeps its connections.
    fn ready(&self, auth: &Arc<HttpAuth>) -> Result<Arc<Service>, AuthError> {
        let mut services = self.services.lock();
        if let Some(known) = services.iter().find(|known| Arc::ptr_eq(&known.auth, auth)) {
            return Ok(Arc::clone(&known.service));
        }
        let service = match services.iter().find(|known| known.auth == *auth) {
            Some(equal) => Arc::clone(&equal.service),
            None => Arc::new(
                Service::new(auth, &self.quota)
                    .map_err(|cause| AuthError::Configuration { service: auth.reference.clone(), cause })?,
            ),
        };
        services.retain(|known| Arc::strong_count(&known.auth) > 1);
        services.push(CachedService { auth: Arc::clone(auth), service: Arc::clone(&service) });
        Ok(service)
    }
}

/// A request with its service.
struct Asked<'a> {
    auth: &'a HttpAuth,
    service: &'a Service,
    request: Secret,
    /// The password has more than [`LONG_PASSWORD`] bytes.
    has_long_password: bool,
}

impl Asked<'_> {
    /// Sends one request to one endpoint. It is repeated on a new connection if the kept one was closed, if there are
    /// several answers on it (they cannot be assigned to requests), or if the answer comes too early to be for this
    /// request.
    async fn exchange(&self, target: Target) -> Result<Reply, AuthError> {
        let (pool, request) = (&self.service.pool, self.request.expose());
        if let Some(kept) = pool.take(&target) {
            match exchange(kept, request, true).await {
                Ok(Answered { after: After::Broken, .. }) => pool.distrust(),
                // An unexpected answer arrived on another connection meanwhile, so this one may also be for an earlier
                // request.
                Ok(_) if !pool.keeps() => {}
                // While the connection rests, another answer would be noticed.
                Ok(Answered { after: After::Kept(kept), took, .. }) if pool.is_too_fast(took) => {
                    pool.keep(target.clone(), kept);
                }
                Ok(Answered { took, .. }) if pool.is_too_fast(took) => {}
                Ok(answered) => return self.reply(target, answered, false),
                Err(Failure::Unanswered(_)) => {}
                Err(failure) => return Err(self.broken(&failure)),
            }
        }
        let connecting = self.service.connector.connect(&target).await;
        let mut fresh = connecting.map_err(|error| self.unreachable(innermost(&error)))?;
        if fresh.is_early() {
            return Err(self.broken(&Failure::Early));
        }
        // Otherwise the end of the answer does not matter.
        let answered = exchange(fresh, request, pool.has_room()).await;
        self.reply(target, answered.map_err(|failure| self.broken(&failure))?, true)
    }

    fn reply(&self, target: Target, answered: Answered, is_fresh: bool) -> Result<Reply, AuthError> {
        self.service.pool.answered(answered.took, is_fresh);
        match answered.after {
            After::Kept(connection) => self.service.pool.keep(target, connection),
            After::Closed => {}
            After::Broken => self.service.pool.distrust(),
        }
        let head = answered.head;
        let reply = match reply::parse(head.status, &head.headers, self.auth.proof) {
            // The service does not read such requests. Only the client can change this.
            Err(ReplyError::NoStatus(status)) if self.has_long_password && reply::is_too_long(status) => {
                reply::refused_unread()
            }
            parsed => {
                parsed.map_err(|cause| AuthError::Answer { service: self.auth.reference.clone(), cause })?
            }
        };
        if let Reply::Answer(AuthAnswer::Refused { .. }) = reply {
            for header in reply::unusable(&head.headers) {
                tracing::warn!("auth service {}: ignoring invalid {header} header", self.auth.reference);
            }
        }
        Ok(reply)
    }

    fn unreachable(&self, cause: String) -> AuthError {
        AuthError::Unreachable { service: self.auth.reference.clone(), cause }
    }

    fn configuration(&self, cause: String) -> AuthError {
        AuthError::Configuration { service: self.auth.reference.clone(), cause }
    }

    fn broken(&self, failure: &Failure) -> AuthError {
        AuthError::Broken { service: self.auth.reference.clone(), cause: failure.to_string() }
    }
}

fn has_long_password(request: &LoginRequest) -> bool {
    matches!(request, LoginRequest::Password { password, .. } if password.expose().len() > LONG_PASSWORD)
}

/// Returns the innermost cause, which is the most specific one.
fn innermost(error: &std::io::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The `WAIT` answers to one login so far.
#[derive(Debug, Default)]
struct Patience {
    times: u32,
    waited: Duration,
}

impl Patience {
    /// Returns how long to wait now; `None` if a limit is exceeded.
    fn wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let wait = asked.unwrap_or_default().max(MIN_WAIT);
        self.times += 1;
        self.waited += wait;
        (self.times <= MAX_WAITS && self.waited <= MAX_WAITING).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_by_count_and_by_time() {
        let mut eager = Patience::default();
        let waits = std::iter::from_fn(|| eager.wait(None)).collect::<Vec<_>>();
        assert_eq!(waits.len(), MAX_WAITS as usize);
        assert!(waits.iter().all(|wait| *wait == MIN_WAIT), "never at once");
        let mut slow = Patience::default();
        let waits = std::iter::from_fn(|| slow.wait(Some(Duration::from_secs(100)))).count();
        assert_eq!(waits, 3);
    }
}
