//! Finds the backend of a login: that of its `MailRoute`, or the listener's own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::model::exclusive::Affinity;
use crate::model::routes::Placement;
use crate::model::{Backend, Routes, Routing, SessionId};
use crate::net::BackendAddress;
use crate::protocol::backend::BackendLogin;
use crate::protocol::user::{Named, User, UserRules, name_of};
use crate::protocol::{BackendError, LoginRequest, Mechanism, PendingLogin, Protocol};
use crate::secret::Secret;

use super::client::Session;
use super::upstream::{Affine, Authorised, Decision, Place};
use crate::proxy::affinity::Asking;
use crate::proxy::balance::user_key;
use crate::proxy::end::End;
use crate::proxy::exclusive::{Hold, HoldReason};
use crate::proxy::record::SessionUser;
use crate::proxy::serving::ServedListener;
use crate::proxy::upstreams::{OwnBackend, ServedRoutes, ServedUpstream};

/// Where a login goes.
#[derive(Debug)]
pub(super) enum Routed {
    To(Place),
    /// The user has no route or a refused one, and the listener has no backend of its own.
    Nowhere(RefusedLike),
    /// The user may be in a list of this `MailRoute`, which could not be read yet.
    Undecided(String),
    /// The users of this `MailRoute` are held; how long a login waits.
    Held(String, Duration),
    /// The endpoint of an exclusive user cannot be used now.
    UserHeld(HoldReason),
}

/// Which wrong passwords a login without a backend is refused like.
#[derive(Debug)]
pub(super) enum RefusedLike {
    /// Those of all backends of the listener: the users of its domain go to one place, so neither words nor time tell
    /// them apart.
    Listener,
    /// Those of its domain, because a list has users of it. Their words do not depend on the backend, and they are
    /// refused after the time that this one needs, if there is one.
    Domain(Option<Arc<ServedUpstream>>),
}

impl RefusedLike {
    fn of(served: &ServedRoutes, user: &User) -> Self {
        let Some(routes) = &served.routes else { return Self::Listener };
        let Some(domain) = routes.listed_domain(user) else { return Self::Listener };
        let of_route = |position: usize| served.upstreams.get(position).cloned().flatten();
        let of_others = match domain.others {
            Placement::To { position, .. } => of_route(position),
            Placement::Own => served.own.as_ref().map(|own| Arc::clone(&own.upstream)),
            Placement::Undecided(_) | Placement::Refused | Placement::NoDomain | Placement::Held { .. } => {
                None
            }
        };
        Self::Domain(of_others.or_else(|| domain.listed.and_then(of_route)))
    }
}

impl Routed {
    /// Tells whether the login has to wait, or needs a membership: [`Session::released`].
    pub(super) fn may_wait(&self) -> bool {
        match self {
            Self::Held(..) => true,
            Self::To(place) => place.affine.as_ref().is_some_and(|affine| affine.exclusive.is_some()),
            Self::Nowhere(_) | Self::Undecided(_) | Self::UserHeld(_) => false,
        }
    }
}

/// The state of a login whose backend may depend on the first message of its SASL exchange.
pub(super) enum FirstMessage {
    Known(LoginRequest, PendingLogin),
    /// The client cancelled the exchange.
    Cancelled(PendingLogin),
}

impl Session {
    /// Returns where a login goes, and remembers its route for the metrics. `named` returns its user, unless the request
    /// does not tell.
    fn routed(&mut self, named: impl FnOnce(&UserRules) -> Option<Named>) -> Routed {
        let served = self.served.routes.load();
        let (routed, position) = place(&self.served, &served, named);
        self.route = position.and_then(|at| served.metrics(at, &self.context.routes, self.protocol()));
        routed
    }

    /// Waits until the route of a login is not held any more, and until an exclusive user may log in at its endpoint. A
    /// login that is still held after its time stays [`Routed::Held`] or [`Routed::UserHeld`].
    pub(super) async fn released(
        &mut self,
        request: &LoginRequest,
        pending: &PendingLogin,
        (server, login): (Option<BackendAddress>, Option<&[u8]>),
        id: SessionId,
    ) -> Result<Routed, End> {
        let (mut until, arrived) = (None, Instant::now());
        loop {
            let (served, exclusive) = (Arc::clone(&self.served), self.context.exclusive.clone());
            let (changed, moved) = (served.routes.changed(), exclusive.changed());
            match self.placed(request, pending, server.clone(), login) {
                Routed::Held(route, timeout) => {
                    let until = *until.get_or_insert(Instant::now() + timeout);
                    if self.while_deciding(timeout_at(until, changed)).await?.is_err() {
                        return Ok(Routed::Held(route, timeout));
                    }
                }
                Routed::To(mut place) => {
                    let Err(hold) = self.admit(&mut place, id, arrived) else { return Ok(Routed::To(place)) };
                    // A login that waits does not use the routes.
                    drop(place);
                    let change = async {
                        tokio::select! {
                            () = changed => {}
                            () = moved => {}
                        }
                    };
                    if self.while_present(timeout_at(hold.until, change)).await?.is_err() {
                        return Ok(Routed::UserHeld(hold.reason));
                    }
                }
                routed => return Ok(routed),
            }
            self.start_deadline();
        }
    }

    /// Admits an exclusive user, and leaves only the addresses of the user's endpoint in the place.
    fn admit(&mut self, place: &mut Place, session: SessionId, arrived: Instant) -> Result<(), Hold> {
        let Some(Affine { user, exclusive: Some(backend) }) = place.affine.as_deref() else { return Ok(()) };
        let (membership, endpoint) =
            self.context.exclusive.admit(&Asking { backend, user, session, arrived })?;
        let mut only = (*place.backend).clone();
        only.endpoints
            .retain(|address| only.names.get(address).is_some_and(|name| name == endpoint.as_str()));
        if only.endpoints.is_empty() {
            // The endpoint is ready, but these routes do not have its address yet.
            let until = arrived + backend.timing.move_timeout;
            return Err(Hold { reason: HoldReason::Away(endpoint), until });
        }
        place.backend = Arc::new(only);
        self.membership = Some(membership);
        Ok(())
    }

    /// Ends the membership of an exclusive user whose login was not accepted: the connection to the endpoint is closed.
    pub(super) fn leave_unless_accepted(&mut self, verdict: &Result<Decision, End>) {
        if !matches!(verdict, Ok(Decision::Accepted(_))) {
            self.membership = None;
        }
    }

    /// Returns where a login goes: to the server that the auth service names, or as the routes say.
    pub(super) fn placed(
        &mut self,
        request: &LoginRequest,
        pending: &PendingLogin,
        server: Option<BackendAddress>,
        login: Option<&[u8]>,
    ) -> Routed {
        if let Some(address) = server {
            // An address needs no reference: it is what errors name.
            let backend = Arc::new(Backend::new(String::new(), vec![address]));
            let reach = self.served.current.load().reach.clone();
            let (upstream, routes) = (Arc::clone(&self.served.upstream), self.served.routes.load());
            let (is_named_by_service, affine) = (true, None);
            return Routed::To(Place { backend, upstream, reach, is_named_by_service, routes, affine });
        }
        if self.has_routes() && hides_its_user(request, login) {
            return Routed::Nowhere(RefusedLike::Listener);
        }
        self.routed(|rules| match (request, login) {
            (LoginRequest::Anonymous, _) => Some(rules.of_recipient(pending.envelope().recipient())),
            (_, Some(login)) => Some(rules.of_name(login)),
            (request, None) => rules.of_login(request),
        })
    }

    /// Tells whether logins of users without a route are refused like wrong passwords.
    pub(super) fn has_routes(&self) -> bool {
        self.served.routes.exist()
    }

    /// Tells whether the user of a relayed exchange is only in a message that the client has not sent yet.
    pub(super) fn needs_first_message(&self, request: &LoginRequest) -> bool {
        // In CRAM-MD5 the server speaks first.
        let is_open = matches!(
            request,
            LoginRequest::Relayed { mechanism, initial_response: None } if *mechanism != Mechanism::CramMd5
        );
        is_open && self.has_routes()
    }

    /// Asks the client for the first message of a relayed exchange, because it names the user.
    pub(super) async fn first_message(
        &mut self,
        request: LoginRequest,
        pending: PendingLogin,
    ) -> Result<FirstMessage, End> {
        let LoginRequest::Relayed { mechanism, .. } = request else {
            return Ok(FirstMessage::Known(request, pending));
        };
        let (answer, pending) = self.challenge(b"", pending).await?;
        let message = match answer.expose() {
            b"*" => return Ok(FirstMessage::Cancelled(pending)),
            b"" => Secret::from(&b"="[..]),
            _ => answer,
        };
        let request = LoginRequest::Relayed { mechanism, initial_response: Some(message) };
        Ok(FirstMessage::Known(request, pending))
    }

    /// Builds the login for the backend after the auth service has accepted it.
    pub(super) fn authorise(
        &self,
        request: LoginRequest,
        pending: &PendingLogin,
        place: Place,
        login: Option<Vec<u8>>,
        password: Option<Secret>,
    ) -> Result<Authorised, End> {
        let user = login.unwrap_or_else(|| user(&request, pending));
        let has_clients_password = password.is_none();
        let needs_password = self.protocol() != Protocol::Smtp || place.upstream.settings.smtp_auth;
        let login = match request {
            LoginRequest::Anonymous => BackendLogin::Request(LoginRequest::Anonymous),
            _ if !needs_password => BackendLogin::Trusted { login: user.clone() },
            request => {
                let own = match request {
                    LoginRequest::Password { password, .. } => Some(password),
                    _ => None,
                };
                let password = password.or(own).ok_or(End::Backend(BackendError::NoPassword))?;
                BackendLogin::Request(LoginRequest::Password {
                    login: user.clone(),
                    password,
                    authzid: Vec::new(),
                })
            }
        };
        Ok(Authorised { place, login, has_clients_password, user })
    }
}

/// Returns where a user goes. `named` returns the user, unless it is not known.
pub(super) fn routed(listener: &ServedListener, named: impl FnOnce(&UserRules) -> Option<Named>) -> Routed {
    place(listener, &listener.routes.load(), named).0
}

/// Returns where a user goes, and the position of the route.
fn place(
    listener: &ServedListener,
    served: &Arc<ServedRoutes>,
    named: impl FnOnce(&UserRules) -> Option<Named>,
) -> (Routed, Option<usize>) {
    let mut position = None;
    let named = served.routes.as_ref().and_then(|routes| Some((routes, named(&routes.rules)?)));
    if let Some((routes, named)) = &named {
        let routing = routes.find(named);
        if let Routing::Route(at, _) = routing {
            position = Some(at);
        }
        if let Some(routed) = of_routes(served, routes, (named, routing)) {
            return (routed, position);
        }
    }
    let own = match &served.routes {
        // The backend as it is now: mail sessions place users for hours.
        Some(_) => served.own.clone(),
        None => listener.listener.backend.as_ref().map(|backend| OwnBackend {
            backend: Arc::clone(backend),
            upstream: Arc::clone(&listener.upstream),
        }),
    };
    let Some(OwnBackend { backend, upstream }) = own else {
        let like = named.map_or(RefusedLike::Listener, |(_, named)| RefusedLike::of(served, &named.user));
        return (Routed::Nowhere(like), position);
    };
    let (reach, routes) = (listener.current.load().reach.clone(), Arc::clone(served));
    let (is_named_by_service, affine) = (false, None);
    (Routed::To(Place { backend, upstream, reach, is_named_by_service, routes, affine }), position)
}

/// Returns where the routes send a user. `None`: to the listener's own backend.
fn of_routes(
    served: &Arc<ServedRoutes>,
    routes: &Routes,
    (named, routing): (&Named, Routing<'_>),
) -> Option<Routed> {
    let (position, destination) = match routes.placement(routing) {
        Placement::Own => return None,
        Placement::Undecided(entry) => return Some(Routed::Undecided(entry.id.to_string())),
        Placement::Refused | Placement::NoDomain => {
            return Some(Routed::Nowhere(RefusedLike::of(served, &named.user)));
        }
        Placement::Held { entry, timeout } => return Some(Routed::Held(entry.id.to_string(), timeout)),
        Placement::To { position, destination } => (position, destination),
    };
    let upstream = Arc::clone(served.upstreams.get(position)?.as_ref()?);
    let (backend, reach) = (Arc::clone(&destination.backend), destination.reach.clone());
    let exclusive = match &destination.affinity {
        Affinity::None => None,
        Affinity::User => Some(None),
        Affinity::Exclusive(backend) => Some(Some(Arc::clone(backend))),
    };
    let affine = exclusive.map(|exclusive| Box::new(Affine { user: user_key(named), exclusive }));
    let (routes, is_named_by_service) = (Arc::clone(served), false);
    Some(Routed::To(Place { backend, upstream, reach, is_named_by_service, routes, affine }))
}

/// Tells whether a message that is relayed to the backend cannot be read here, or names nobody (EXTERNAL). The backend
/// may find another user in it than the routes would. (CRAM-MD5 has no message before the backend's challenge.)
fn hides_its_user(request: &LoginRequest, login: Option<&[u8]>) -> bool {
    let LoginRequest::Relayed { mechanism, initial_response: Some(_) } = request else { return false };
    let names_nobody = || name_of(request).is_none_or(|name| name.is_empty());
    login.is_none() && *mechanism != Mechanism::CramMd5 && names_nobody()
}

/// Returns the user for the list of sessions. `login` is the name that the auth service has given.
pub(super) fn session_user(
    request: &LoginRequest,
    pending: &PendingLogin,
    login: Option<&[u8]>,
) -> Option<SessionUser> {
    Some(match (request, login) {
        (LoginRequest::Anonymous, _) => SessionUser::Recipient(pending.envelope().recipient().into()),
        (_, Some(login)) => SessionUser::Login(login.into()),
        (request, None) => SessionUser::Login(name_of(request)?.as_ref().into()),
    })
}

/// Returns the user name for load balancing. Mail without a login uses its first recipient, so that it reaches the
/// endpoint where that user logs in.
pub(super) fn user(request: &LoginRequest, pending: &PendingLogin) -> Vec<u8> {
    let LoginRequest::Anonymous = request else { return request.login().to_vec() };
    pending.envelope().recipient().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_message_without_a_readable_name_hides_its_user() {
        let relayed = |mechanism, message: &[u8]| LoginRequest::Relayed {
            mechanism,
            initial_response: Some(Secret::from(message)),
        };
        // "=" is an empty message; "Ym9i" is bob.
        for (mechanism, message, is_hidden) in [
            (Mechanism::External, &b"="[..], true),
            (Mechanism::External, b"Ym9i", false),
            (Mechanism::XOAuth2, b"Ym9i", true),
            (Mechanism::CramMd5, b"=", false),
        ] {
            let request = relayed(mechanism, message);
            assert_eq!(hides_its_user(&request, None), is_hidden, "{mechanism:?} {message:?}");
            assert!(!hides_its_user(&request, Some(b"bob")), "the auth service has named the user");
        }
        let later = LoginRequest::Relayed { mechanism: Mechanism::External, initial_response: None };
        assert!(!hides_its_user(&later, None), "the client is asked for it");
    }
}
