//! Renders one listener from its fields, its effective settings, and everything that they refer to.

use std::sync::Arc;

use crate::api::listener::ListenerFields;
use crate::api::{MailServerSpec, Settings};
use crate::controller::index::Key;
use crate::controller::violation::{Notice, Violation};
use crate::model::{
    Auth, Backend, Hostname, HttpAuth, InboundProxyProtocol, Listener, Reach, Routes, ServerTls, TlsMode,
    Upstream,
};
use crate::net::ListenAddress;
use crate::protocol::{FrontendConfig, Protocol};

use super::claim::{BeforeSni, Candidate, Claim};
use super::references::References;
use super::route::routing::ServerRoutes;
use super::scope::{Scope, Source};
use super::{Completeness, Environment, auth, backend, bounds, frontend, reach, socket, tls, upstream};

/// A `MailServer` and its routes. A listener of another namespace has none: its author's auth service must not decide
/// who logs in to the backends of others.
#[derive(Clone, Copy)]
pub(crate) struct RoutesOf<'a> {
    pub(crate) key: &'a Key,
    pub(crate) server: &'a MailServerSpec,
    pub(crate) routes: &'a ServerRoutes,
}

/// Returns the listener, unless a violation excludes it, and all its violations. If only pending references exclude it,
/// the candidate has the claim alone.
pub(crate) fn render(
    source: &Source<'_>,
    of: Option<RoutesOf<'_>>,
    settings: &Settings,
    references: &mut References<'_>,
    environment: &Environment,
) -> (Option<Candidate>, Vec<Violation>) {
    let scope = Scope::new(source);
    let candidate = candidate(&scope, (source, of), settings, references, environment);
    let violations = scope.into_violations();
    let may_be_elsewhere =
        |violation: &Violation| environment.completeness == Completeness::Part && violation.absent.is_some();
    let excluding =
        violations.iter().filter(|violation| violation.concern.excludes() && !may_be_elsewhere(violation));
    let excluding: Vec<&Violation> = excluding.collect();
    let candidate = candidate.and_then(|candidate| match excluding.as_slice() {
        [] => candidate.listener.is_some().then_some(candidate),
        all if all.iter().all(|violation| violation.is_pending()) => {
            Some(Candidate { listener: None, ..candidate })
        }
        _ => None,
    });
    (candidate, violations)
}

/// Why the last valid rendering is served instead of the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The current spec or a referenced object cannot be used.
    Invalid,
    /// A referenced object is not known yet.
    Pending,
}

/// Updates the last valid rendering with the current endpoints and certificates, if their references have not changed.
pub(crate) fn refresh(
    mut kept: Candidate,
    source: &Source<'_>,
    of: Option<RoutesOf<'_>>,
    settings: &Settings,
    obstacle: Obstacle,
    references: &mut References<'_>,
) -> Candidate {
    let Some(listener) = &kept.listener else { return kept };
    // Its violations are already in the outcome.
    let scope = &Scope::new(source);
    let mut listener = (**listener).clone();
    let mut reach = reach::render(scope, source, settings, references);
    if obstacle == Obstacle::Pending {
        reach.keep_own(&listener.reach);
    }
    let backend = backend::render(scope, source.fields, &reach, references);
    if let (Some(old), Some(new)) = (&mut listener.backend, backend)
        && old.reference == new.reference
    {
        *old = Arc::new(new);
    }
    if let (Auth::Http(old), Some(Auth::Http(new))) =
        (&mut listener.auth, auth::render(scope, settings, &reach, references))
        && old.reference == new.reference
    {
        let (endpoints, reach) = (new.endpoints.clone(), new.reach.clone());
        *old = Arc::new(HttpAuth { endpoints, reach, ..(**old).clone() });
    }
    let secrets = |tls: &ServerTls| tls.certificates.iter().map(|c| c.reference.clone()).collect::<Vec<_>>();
    if let (Some(old), Some(new)) =
        (&mut listener.tls, tls::server(scope, settings, kept.claim.tls_mode, references, 0))
        && secrets(old) == secrets(&new)
    {
        *old = Arc::new(ServerTls { certificates: new.certificates, ..(**old).clone() });
    }
    reach::renew(&mut listener, reach);
    let (protocol, upstream) = (kept.claim.protocol, Arc::clone(&listener.upstream));
    listener.routes = routes(of, protocol, (settings, &upstream), &listener.auth, references);
    kept.listener = Some(Arc::new(listener));
    kept
}

/// Renders as much as possible, to find all violations at once. Returns `None` only if the other results would have no
/// meaning.
fn candidate(
    scope: &Scope<'_>,
    (source, of): (&Source<'_>, Option<RoutesOf<'_>>),
    settings: &Settings,
    references: &mut References<'_>,
    environment: &Environment,
) -> Option<Candidate> {
    let fields = source.fields;
    let address = socket::address(scope, fields);
    let protocol = socket::protocol(scope, fields)?;
    let options = socket::options(scope, fields.socket.as_ref());
    let proxy_protocol = proxy_protocol(scope, fields, address.as_ref(), environment);
    let tls_mode = tls::mode(settings, fields.port);
    let hostnames = hostnames(scope, fields, tls_mode);
    let server_tls = tls::server(scope, settings, tls_mode, references, environment.now);
    check_names(scope, settings, &hostnames, server_tls.as_ref());
    let reach = reach::render(scope, source, settings, references);
    let decider = auth::render(scope, settings, &reach, references);
    let passthrough = decider.as_ref().is_some_and(Auth::is_passthrough);
    if passthrough {
        check_has_destination(scope, fields, of);
    }
    let backend = backend(scope, fields, settings, &reach, references);
    let frontend = frontend::render(scope, settings, (protocol, tls_mode, passthrough), environment);
    warn_of_clear_text(scope, settings, tls_mode, &frontend);
    reach::check_settings(scope, fields, settings, protocol, &reach);
    let frontend = Arc::new(frontend);
    let resolver = Arc::new(bounds::resolver(scope, settings));
    let limits = bounds::limits(scope, settings);
    let timeouts = bounds::timeouts(scope, settings);
    let greeting_delay = bounds::greeting_delay(scope, settings, protocol);
    let upstream = Arc::new(upstream::render(scope, settings, passthrough, references));
    let before_sni = BeforeSni::new(&frontend, &limits, &timeouts, greeting_delay, &resolver);
    let id = source.id.clone();
    let listener = decider.map(|auth| Listener {
        routes: routes(of, protocol, (settings, &upstream), &auth, references),
        backend: backend.map(Arc::new),
        id: id.clone(),
        hostnames: hostnames.clone(),
        greeting_delay,
        reach,
        upstream,
        resolver,
        timeouts,
        limits,
        frontend,
        tls: server_tls.map(Arc::<ServerTls>::new),
        auth,
    });
    let address = address?;
    let claim = Claim { id, address, options, protocol, tls_mode, proxy_protocol, hostnames, before_sni };
    Some(Candidate { claim, listener: listener.map(Arc::new) })
}

/// Renders the expected PROXY header. A load balancer can reach listeners on all addresses, so the peers of
/// `--proxy-protocol-trusted-peers` apply only to them.
fn proxy_protocol(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    address: Option<&ListenAddress>,
    environment: &Environment,
) -> Option<InboundProxyProtocol> {
    let is_public = address.is_some_and(|address| address.public_port().is_some());
    let trusted_peers = if is_public { environment.trusted_peers.as_slice() } else { &[] };
    socket::proxy_protocol(scope, fields.proxy_protocol.as_ref(), trusted_peers)
}

/// Warns of names that no certificate contains, if all certificates are known: a missing one may contain them.
fn check_names(scope: &Scope<'_>, settings: &Settings, hostnames: &[Hostname], tls: Option<&ServerTls>) {
    let named = settings.tls.as_ref().and_then(|tls| tls.certificate_refs.as_ref()).map_or(0, Vec::len);
    if let Some(tls) = tls.filter(|tls| tls.certificates.len() == named) {
        tls::check_names(scope, hostnames, settings.server_name.as_deref(), tls);
    }
}

/// Checks that the users of a listener with `passthrough` have a backend: its own, or that of a route.
fn check_has_destination(scope: &Scope<'_>, fields: &ListenerFields, of: Option<RoutesOf<'_>>) {
    let takes_routes = of.is_some_and(|of| of.server.allowed_routes.is_some() || !of.routes.is_empty());
    if fields.backend_ref.is_none() && fields.backend_address.is_none() && !takes_routes {
        scope.report(Violation::invalid(
            &scope.field("backendRef"),
            "auth.passthrough needs a backend to log in to",
            "name one in backendRef or backendAddress",
        ));
    }
}

/// Renders the listener's own backend, and warns if its port expects TLS.
fn backend(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    settings: &Settings,
    reach: &Reach,
    references: &References<'_>,
) -> Option<Backend> {
    let backend = backend::render(scope, fields, reach, references)?;
    let service_port = backend::service_port(scope, fields, references);
    upstream::warn_of_implicit_tls(scope, settings, &backend, fields, service_port);
    Some(backend)
}

/// Renders the routes of a listener. `None` if its `MailServer` has none.
fn routes(
    of: Option<RoutesOf<'_>>,
    protocol: Protocol,
    (settings, upstream): (&Settings, &Arc<Upstream>),
    auth: &Auth,
    references: &mut References<'_>,
) -> Option<Arc<Routes>> {
    let RoutesOf { key, server, routes } = of.filter(|of| !of.routes.is_empty())?;
    let passthrough = auth.is_passthrough();
    let routes = routes.of_listener((key, server), protocol, (settings, upstream), passthrough, references);
    Some(Arc::new(routes))
}

fn hostnames(scope: &Scope<'_>, fields: &ListenerFields, mode: TlsMode) -> Vec<Hostname> {
    let names: Vec<Hostname> = fields.hostnames.iter().flatten().map(|name| Hostname::new(name)).collect();
    if !names.is_empty() && mode == TlsMode::Disabled {
        scope.report(Violation::invalid(
            &scope.field("hostnames"),
            "host names need TLS, which sends them as SNI, and this listener has no TLS",
            "configure tls.certificateRefs, or remove the host names",
        ));
    }
    names
}

/// Warns if a listener accepts logins in clear text because it has no certificate, unless `tls.mode: Disabled` is set.
fn warn_of_clear_text(scope: &Scope<'_>, settings: &Settings, mode: TlsMode, frontend: &FrontendConfig) {
    let stated = settings.tls.as_ref().is_some_and(|tls| tls.mode.is_some());
    if mode == TlsMode::Disabled && !stated && frontend.takes_logins() {
        scope.report(Violation::notice(
            Notice::ClearText,
            &scope.absent("tls.certificateRefs"),
            "there is no certificate, so passwords are sent in clear text",
            "configure a certificate, or set tls.mode: Disabled to allow clear text",
        ));
    }
}
