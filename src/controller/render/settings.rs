//! The inheritance of settings: the listener's fields win, field by field.

use crate::api::Settings;
use crate::api::auth::{AuthSettings, HttpAuth};
use crate::api::limits::{AuthFailures, LimitSettings};
use crate::api::settings::{
    HealthCheck, ProtocolSettings, ResolverSettings, SmtpSettings, TimeoutSettings, UpstreamSettings,
};
use crate::api::tls::{ClientAuth, SessionCache, TlsSettings, UpstreamTls};

/// What a listener of a `MailServer` has.
#[must_use]
pub fn effective(server: &Settings, listener: &Settings) -> Settings {
    listener.inherit(server)
}

/// What a `MailListener` has. Where it names an auth service of its own, the `MailServer`'s headers are not
/// sent there: they may hold the server's secrets, and the service is somebody else's.
#[must_use]
pub fn attached(server: &Settings, listener: &Settings) -> Settings {
    let own_service = http(listener).is_some_and(names_a_service);
    if !own_service {
        return listener.inherit(server);
    }
    let mut server = server.clone();
    if let Some(http) = server.auth.as_mut().and_then(|auth| auth.http.as_mut()) {
        http.headers = None;
    }
    listener.inherit(&server)
}

/// The `MailServer`'s settings without the certificate that proves to backends who we are: whoever wrote a listener of
/// another namespace must not prove it in our name.
#[must_use]
pub fn without_client_certificate(server: &Settings) -> Settings {
    let mut server = server.clone();
    if let Some(tls) = server.upstream.as_mut().and_then(|upstream| upstream.tls.as_mut()) {
        tls.client_certificate_ref = None;
    }
    server
}

fn http(settings: &Settings) -> Option<&HttpAuth> {
    settings.auth.as_ref().and_then(|auth| auth.http.as_ref())
}

fn names_a_service(http: &HttpAuth) -> bool {
    http.service_ref.is_some() || http.url.is_some()
}

/// A block of settings that may stand in two places.
trait Inherit: Clone {
    /// This block where it says something, the outer one's fields where it does not.
    fn inherit(&self, outer: &Self) -> Self;
}

/// An absent block inherits the outer one whole.
fn block<T: Inherit>(inner: Option<&T>, outer: Option<&T>) -> Option<T> {
    match (inner, outer) {
        (Some(inner), Some(outer)) => Some(inner.inherit(outer)),
        (inner, outer) => inner.or(outer).cloned(),
    }
}

/// A macro and not a function, because only a struct literal makes the compiler name a forgotten field.
macro_rules! inherit {
    ($($type:ident { $($field:ident),* ; $($block:ident),* })*) => {$(
        impl Inherit for $type {
            fn inherit(&self, outer: &Self) -> Self {
                Self {
                    $($field: self.$field.clone().or_else(|| outer.$field.clone()),)*
                    $($block: block(self.$block.as_ref(), outer.$block.as_ref()),)*
                }
            }
        }
    )*};
}

inherit! {
    Settings { server_name; tls, auth, upstream, imap, pop3, smtp, resolver, timeouts, limits }
    TlsSettings { mode, certificate_refs, min_version, cipher_suites, session_tickets; client_auth, session_cache }
    ClientAuth { mode, ca_certificate_refs, crl_refs, depth; }
    SessionCache { size, timeout; }
    UpstreamSettings {
        proxy_protocol, xclient, xclient_negotiation, ehlo_name, smtp_auth, imap_id, pass_error_message, load_balancing;
        tls, health_check
    }
    UpstreamTls { mode, ca_certificate_refs, server_name, client_certificate_ref; }
    HealthCheck { interval, timeout, unhealthy_threshold, healthy_threshold; }
    ProtocolSettings { capabilities, auth_methods, password_logins; }
    SmtpSettings {
        capabilities, auth_methods, password_logins, greeting_delay, anonymous_before_tls, strict_sequence;
    }
    ResolverSettings { nameservers, valid, ipv4, ipv6, timeout, statistics_zone; }
    TimeoutSettings { client, connect, idle, half_closed, announce; }
    LimitSettings {
        max_errors, counted_errors, max_commands, max_auth_failures, client_buffer, max_connections,
        max_connections_per_client, exempt; auth_failures
    }
    AuthFailures { count, window, ban; }
}

/// The kind of auth is one field: a listener with `passthrough` has nothing of the server's `http`.
impl Inherit for AuthSettings {
    fn inherit(&self, outer: &Self) -> Self {
        if self.passthrough.is_some() {
            return self.clone();
        }
        match (&self.http, &outer.http) {
            (Some(inner), Some(outer)) => Self { http: Some(inner.inherit(outer)), passthrough: None },
            (Some(_), None) => self.clone(),
            (None, _) => outer.clone(),
        }
    }
}

/// Where the service is, who may vouch for it, and what its answers are worth, is one field too.
impl Inherit for HttpAuth {
    fn inherit(&self, outer: &Self) -> Self {
        let place = if names_a_service(self) { self } else { outer };
        let authorities = if self.ca_certificate_refs.is_some() { self } else { place };
        Self {
            service_ref: place.service_ref.clone(),
            url: place.url.clone(),
            ca_certificate_refs: authorities.ca_certificate_refs.clone(),
            headers: self.headers.clone().or_else(|| outer.headers.clone()),
            timeout: self.timeout.clone().or_else(|| outer.timeout.clone()),
            keep_alive: self.keep_alive.or(place.keep_alive),
            pass_client_certificate: self.pass_client_certificate.or(outer.pass_client_certificate),
            accept_any_status: self.accept_any_status.or(place.accept_any_status),
        }
    }
}
