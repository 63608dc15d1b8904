//! One listener: its fields and its effective settings, with everything that they refer to.

use std::sync::Arc;

use crate::api::listener::ListenerFields;
use crate::api::server::AllowedBackends;
use crate::api::{Settings, listener as api};
use crate::model::{Auth, Hostname, HttpAuth, Listener, ListenerId, ServerTls, TlsMode};
use crate::protocol::{Mechanism, Protocol};

use super::super::index::Key;
use super::super::violation::{Notice, Violation};
use super::references::References;
use super::scope::Scope;
use super::socket::{self, Candidate};
use super::{Environment, auth, backend, bounds, frontend, reach, tls, upstream};

/// A listener as its object says it.
pub(crate) struct Source<'a> {
    /// Its identity.
    pub(crate) id: ListenerId,
    /// Where its fields stand in the manifest.
    pub(crate) path: String,
    /// Its fields.
    pub(crate) fields: &'a ListenerFields,
    /// The `MailServer`, where that is another object.
    pub(crate) server: Option<&'a Key>,
    /// What that `MailServer` allows listeners of other namespaces.
    pub(crate) allowed: Option<&'a AllowedBackends>,
}

/// The listener, unless something excludes it, and everything that is to be said about it.
pub(crate) fn render(
    source: &Source<'_>,
    settings: &Settings,
    references: &mut References<'_>,
    environment: &Environment,
) -> (Option<Candidate>, Vec<Violation>) {
    let scope = &Scope::new(source);
    let mut found = Vec::new();
    let candidate = candidate(scope, source, settings, references, environment, &mut found);
    let excluded = found.iter().any(|violation| violation.concern.excludes());
    (candidate.filter(|_| !excluded), found)
}

/// A last good rendering with what moves on by itself as it is now: endpoints and certificates, as far as they
/// are of the same name.
pub(crate) fn refresh(
    mut kept: Candidate,
    source: &Source<'_>,
    settings: &Settings,
    references: &mut References<'_>,
) -> Candidate {
    let scope = &Scope::new(source);
    // Whatever is wrong has been said already.
    let found = &mut Vec::new();
    let mut listener = (*kept.listener).clone();
    let reach = reach::render(scope, source, settings, references);
    let backend = backend::render(scope, source.fields, &reach, references, found);
    if let (Some(old), Some(new)) = (&mut listener.backend, backend)
        && old.reference == new.reference
    {
        *old = Arc::new(new);
    }
    if let (Auth::Http(old), Some(Auth::Http(new))) =
        (&mut listener.auth, auth::render(scope, settings, &reach, references, found))
        && old.reference == new.reference
    {
        let (endpoints, reach) = (new.endpoints.clone(), new.reach.clone());
        *old = Arc::new(HttpAuth { endpoints, reach, ..(**old).clone() });
    }
    let secrets = |tls: &ServerTls| tls.certificates.iter().map(|c| c.reference.clone()).collect::<Vec<_>>();
    if let (Some(old), Some(new)) =
        (&mut listener.tls, tls::server(scope, settings, kept.tls_mode, references, 0, found))
        && secrets(old) == secrets(&new)
    {
        *old = Arc::new(ServerTls { certificates: new.certificates, ..(**old).clone() });
    }
    reach::renew(&mut listener, reach);
    kept.listener = Arc::new(listener);
    kept
}

/// Whatever can be made, so that one look finds as much as possible; `None` only where the rest would have
/// no meaning.
fn candidate(
    scope: &Scope<'_>,
    source: &Source<'_>,
    settings: &Settings,
    references: &mut References<'_>,
    environment: &Environment,
    found: &mut Vec<Violation>,
) -> Option<Candidate> {
    let fields = source.fields;
    let address = socket::address(scope, fields, found);
    let protocol = socket::protocol(scope, fields, found)?;
    let options = socket::options(scope, fields.socket.as_ref(), found);
    // A load balancer reaches those of all addresses.
    let is_public = address.as_ref().is_some_and(|address| address.public_port().is_some());
    let trusted_peers = if is_public { environment.trusted_peers.as_slice() } else { &[] };
    let proxy_protocol = socket::proxy_protocol(scope, fields.proxy_protocol.as_ref(), trusted_peers, found);
    let tls_mode = tls::mode(settings, fields.port);
    let hostnames = hostnames(scope, fields, tls_mode, found);
    let server_tls = tls::server(scope, settings, tls_mode, references, environment.now, found);
    if let Some(tls) = &server_tls {
        tls::check_names(scope, &hostnames, settings.server_name.as_deref(), tls, found);
    }
    let reach = reach::render(scope, source, settings, references);
    let auth = auth::render(scope, settings, &reach, references, found);
    let backend = backend::render(scope, fields, &reach, references, found);
    let passthrough = auth.as_ref().is_some_and(Auth::is_passthrough);
    if passthrough && fields.backend_ref.is_none() && fields.backend_address.is_none() {
        found.push(Violation::invalid(
            &scope.field("backendRef"),
            "auth.passthrough needs a backend to log in to",
            "name one in backendRef or backendAddress",
        ));
    }
    let frontend = frontend::render(scope, settings, (protocol, tls_mode, passthrough), environment, found);
    warn_of_clear_text(scope, settings, tls_mode, &frontend.mechanisms, found);
    reach::check_settings(scope, fields, settings, protocol, &reach, found);
    let listener = Listener {
        id: source.id.clone(),
        hostnames,
        greeting_delay: bounds::greeting_delay(scope, settings, protocol, found),
        reach,
        upstream: Arc::new(upstream::render(scope, settings, passthrough, references, found)),
        resolver: Arc::new(bounds::resolver(scope, settings, found)),
        timeouts: bounds::timeouts(scope, settings, found),
        limits: bounds::limits(scope, settings, found),
        frontend: Arc::new(frontend),
        tls: server_tls.map(Arc::<ServerTls>::new),
        auth: auth?,
        backend: backend.map(Arc::new),
    };
    let listener = Arc::new(listener);
    Some(Candidate { address: address?, options, protocol, tls_mode, proxy_protocol, listener })
}

fn hostnames(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    mode: TlsMode,
    found: &mut Vec<Violation>,
) -> Vec<Hostname> {
    let names: Vec<Hostname> = fields.hostnames.iter().flatten().map(|name| Hostname::new(name)).collect();
    if !names.is_empty() && mode == TlsMode::Disabled {
        found.push(Violation::invalid(
            &scope.field("hostnames"),
            "host names are told apart by TLS's SNI, and this listener has no TLS",
            "configure tls.certificateRefs, or remove the host names",
        ));
    }
    names
}

/// A listener without a certificate takes logins in clear text: a warning, unless somebody wrote `Disabled`.
fn warn_of_clear_text(
    scope: &Scope<'_>,
    settings: &Settings,
    mode: TlsMode,
    mechanisms: &[Mechanism],
    found: &mut Vec<Violation>,
) {
    let stated = settings.tls.as_ref().is_some_and(|tls| tls.mode.is_some());
    let logins = mechanisms.iter().any(|mechanism| *mechanism != Mechanism::None);
    if mode == TlsMode::Disabled && !stated && logins {
        found.push(Violation::notice(
            Notice::ClearText,
            &scope.absent("tls.certificateRefs"),
            "there is no certificate, so logins travel in clear",
            "configure a certificate, or write tls.mode: Disabled where that is meant",
        ));
    }
}

/// The protocol's name in the API.
pub(crate) fn protocol(protocol: api::Protocol) -> Protocol {
    match protocol {
        api::Protocol::Imap => Protocol::Imap,
        api::Protocol::Pop3 => Protocol::Pop3,
        api::Protocol::Smtp => Protocol::Smtp,
    }
}
