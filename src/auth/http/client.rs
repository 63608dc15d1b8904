//! Asking: pooled connections, endpoints in turn, deadlines, and `WAIT`.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Extensions, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper_util::client::legacy;

use crate::auth::{AuthAnswer, AuthError, AuthRequest};
use crate::dns::{Dns, DnsError};
use crate::model::{HttpAuth, Resolver};

use super::connect::Past;
use super::reply::{self, Reply};
use super::request;
use super::service::{Endpoint, Service};

/// How often a service may answer `WAIT` to one attempt (quirk Q-19).
const MAX_WAITS: u32 = 60;

/// How long all of them may take together.
const MAX_WAITING: Duration = Duration::from_secs(300);

/// The shortest wait.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// As much of a body is read, so that its connection can be used again.
const MAX_BODY: u64 = 64 * 1024;

/// And as long.
const MAX_BODY_TIME: Duration = Duration::from_secs(5);

/// Asks auth services; keeps their connections. One for each worker of the data plane, since a connection
/// belongs to the runtime that opened it.
pub struct AuthClient {
    dns: Arc<Dns>,
    /// As many as are in use: a service that no snapshot and no session holds goes with the next new one.
    services: Mutex<Vec<Known>>,
}

impl fmt::Debug for AuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthClient").finish_non_exhaustive()
    }
}

struct Known {
    auth: Arc<HttpAuth>,
    service: Arc<Service>,
}

impl AuthClient {
    /// Without any connection yet.
    #[must_use]
    pub fn new(dns: Arc<Dns>) -> Self {
        Self { dns, services: Mutex::default() }
    }

    /// The service's decision about one attempt. Dropping the future ends the request.
    ///
    /// # Errors
    /// When the service does not decide.
    pub async fn check(
        &self,
        service: &Arc<HttpAuth>,
        resolver: &Resolver,
        request: &AuthRequest<'_>,
    ) -> Result<AuthAnswer, AuthError> {
        let ready = self.ready(service)?;
        let asked = Asked { auth: service, service: &ready, request };
        let mut patience = Patience::default();
        loop {
            // Boxed, so that a session's task does not keep the room for it all its life.
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

    /// One request, at the first endpoint that takes a connection.
    async fn ask(&self, asked: &Asked<'_>, resolver: &Resolver) -> Result<Reply, AuthError> {
        let mut failure = AuthError::NoEndpoint { service: asked.auth.reference.clone() };
        for endpoint in asked.service.turn() {
            match endpoint {
                Endpoint::Fixed(uri) => match asked.exchange(uri).await {
                    Err(error @ AuthError::Unreachable { .. }) => failure = error,
                    decided => return decided,
                },
                Endpoint::Named(address) => {
                    let targets = match self.dns.resolve(resolver, &asked.auth.reach, address).await {
                        Ok(targets) => targets,
                        Err(error @ DnsError::NotAllowed(_)) => {
                            failure = asked.configuration(error.to_string());
                            continue;
                        }
                        Err(error) => {
                            failure = asked.unreachable(error.to_string());
                            continue;
                        }
                    };
                    for target in &targets {
                        let uri = asked.service.uri(target).map_err(|cause| asked.configuration(cause))?;
                        match asked.exchange(&uri).await {
                            Err(error @ AuthError::Unreachable { .. }) => failure = error,
                            decided => return decided,
                        }
                    }
                }
            }
        }
        Err(failure)
    }

    /// The service behind `auth`; an equal one, from before a change elsewhere, keeps its connections.
    fn ready(&self, auth: &Arc<HttpAuth>) -> Result<Arc<Service>, AuthError> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = services.iter().find(|known| Arc::ptr_eq(&known.auth, auth)) {
            return Ok(Arc::clone(&known.service));
        }
        let service = match services.iter().find(|known| known.auth == *auth) {
            Some(equal) => Arc::clone(&equal.service),
            None => Arc::new(
                Service::new(auth)
                    .map_err(|cause| AuthError::Configuration { service: auth.reference.clone(), cause })?,
            ),
        };
        services.retain(|known| Arc::strong_count(&known.auth) > 1);
        services.push(Known { auth: Arc::clone(auth), service: Arc::clone(&service) });
        Ok(service)
    }
}

/// What is asked, and of whom.
struct Asked<'a> {
    auth: &'a HttpAuth,
    service: &'a Service,
    request: &'a AuthRequest<'a>,
}

impl Asked<'_> {
    /// One request to one endpoint; once more when a pooled connection turns out to be closed.
    async fn exchange(&self, uri: &Uri) -> Result<Reply, AuthError> {
        let sent = match self.service.client.request(self.message(uri)).await {
            Err(error) if was_stale(&error) => self.service.client.request(self.message(uri)).await,
            other => other,
        };
        match sent {
            Ok(response) => self.reply(response),
            Err(error) if error.is_connect() => Err(self.unreachable(chain(&error))),
            Err(error) => {
                Err(AuthError::Broken { service: self.auth.reference.clone(), cause: chain(&error) })
            }
        }
    }

    fn message(&self, uri: &Uri) -> Request<Empty<Bytes>> {
        let mut message = Request::new(Empty::new());
        *message.uri_mut() = uri.clone();
        *message.headers_mut() = request::headers(&self.service.template, self.request);
        message
    }

    fn reply(&self, response: Response<Incoming>) -> Result<Reply, AuthError> {
        let (head, body) = response.into_parts();
        if !body.is_end_stream() {
            tokio::spawn(tokio::time::timeout(MAX_BODY_TIME, discard(body)));
        }
        let reply = reply::parse(head.status, &head.headers, self.auth.proof)
            .map_err(|cause| AuthError::Answer { service: self.auth.reference.clone(), cause })?;
        if let Reply::Answer(AuthAnswer::Refused { .. }) = reply {
            for header in reply::unusable(&head.headers) {
                tracing::warn!("auth service {}: its {header} is none, and is not used", self.auth.reference);
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
}

/// Reads a body to its end; a long one is given up, and its connection closed.
async fn discard(mut body: Incoming) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        if seen > MAX_BODY {
            return;
        }
    }
}

fn was_stale(error: &legacy::Error) -> bool {
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    extras.get::<Arc<Past>>().is_some_and(|past| past.was_stale())
}

/// The innermost cause says most; the library's own words only say where.
fn chain(error: &legacy::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// How much `WAIT` an attempt has had.
#[derive(Debug, Default)]
struct Patience {
    times: u32,
    waited: Duration,
}

impl Patience {
    /// How long to wait now; `None`: no longer.
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
