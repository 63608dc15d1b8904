//! The inheritance of settings: the listener's fields override the `MailServer`'s, field by field.

use crate::api::Settings;
use crate::api::auth::{AuthSettings, HttpAuth};
use crate::api::limits::{AuthFailures, LimitSettings};
use crate::api::settings::{
    HealthCheck, ProtocolSettings, ResolverSettings, SieveSettings, SmtpSettings, TimeoutSettings,
    UpstreamSettings,
};
use crate::api::tls::{ClientAuth, SessionCache, TlsSettings, UpstreamTls};

/// Returns the settings of a listener of a `MailServer`.
#[must_use]
pub fn effective(server: &Settings, listener: &Settings) -> Settings {
    listener.inherit(server)
}

/// Returns the settings of a `MailListener`. If it names its own auth service, it does not inherit the `MailServer`'s
/// headers: they may contain secrets, and the service may belong to somebody else.
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

/// Returns the `MailServer`'s settings without the client certificate for backends. The author of a listener in another
/// namespace must not use it to authenticate to backends.
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

/// A block of settings that can be in both places.
trait Inherit: Clone {
    /// Returns this block, with the outer block's value for each absent field.
    fn inherit(&self, outer: &Self) -> Self;
}

/// An absent block inherits the whole outer block.
fn block<T: Inherit>(inner: Option<&T>, outer: Option<&T>) -> Option<T> {
    match (inner, outer) {
        (Some(inner), Some(outer)) => Some(inner.inherit(outer)),
        (inner, outer) => inner.or(outer).cloned(),
    }
}

/// A macro instead of a function, because the compiler reports a forgotten field only in a struct literal.
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
    Settings { server_name; tls, auth, upstream, imap, pop3, smtp, sieve, resolver, timeouts, limits }
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
    SieveSettings { capabilities, auth_methods, password_logins; }
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

/// The kind of auth is inherited as one field: a listener with `passthrough` inherits nothing of the server's `http`.
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

/// The address of the service, the CAs for it, and the rules for its answers are inherited as one field.
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
