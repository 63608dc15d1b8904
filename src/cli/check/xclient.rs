//! Warns if a manifest enables XCLIENT and a PROXY header would be enough.
//!
//! A backend that trusts XCLIENT from an address lets any client at this address claim to be any user. A PROXY header
//! names the client only once, before its first byte. XCLIENT is needed if it sends the login: with an auth service and
//! without `upstream.smtpAuth`. There is no warning for the default, with which XCLIENT is sent only to backends that
//! offer it.

use crate::api::Settings;
use crate::api::listener::{ListenerFields, Protocol as ApiProtocol};
use crate::api::settings::ProxyProtocolVersion;
use crate::controller::index::{Key, Kind, Objects};
use crate::controller::render::settings::{attached, effective};
use crate::protocol::Protocol;

/// A field that enables XCLIENT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct XclientField {
    /// The object that has the field.
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// `spec.upstream.xclient`.
    pub(super) field: String,
}

pub(super) const PROBLEM: &str = "if a backend trusts XCLIENT from Mailgress's addresses, anyone who connects from them can claim to \
                                  be any client or user";
pub(super) const REMEDY: &str = "if the backend takes PROXY headers, set upstream.proxyProtocol: V2 and xclient: false; \
                                 otherwise configure the backend to trust XCLIENT only from Mailgress's addresses";

/// Returns each field once.
pub(super) fn fields(objects: &Objects) -> Vec<XclientField> {
    let mut found = Vec::new();
    for (key, server) in &objects.servers {
        let Ok(spec) = &server.spec else { continue };
        for listener in &spec.listeners {
            let settings = effective(&spec.settings, &listener.fields.settings);
            if could_use_proxy(&listener.fields, &settings) {
                let own = enables_xclient(&listener.fields.settings);
                let place =
                    if own { format!("spec.listeners[{}]", listener.name) } else { "spec".to_owned() };
                found.push(xclient_field(Kind::Server, key, &place));
            }
        }
    }
    for (key, listener) in &objects.listeners {
        let Ok(spec) = &listener.spec else { continue };
        let namespace = spec.server_ref.namespace.as_deref().unwrap_or(&key.namespace);
        let server_key = Key::new(namespace, &spec.server_ref.name);
        let server = objects.servers.get(&server_key).and_then(|server| server.spec.as_ref().ok());
        let inherited = server.map(|server| server.settings.clone()).unwrap_or_default();
        if could_use_proxy(&spec.listener, &attached(&inherited, &spec.listener.settings)) {
            let own = enables_xclient(&spec.listener.settings);
            found.push(if own {
                xclient_field(Kind::Listener, key, "spec")
            } else {
                xclient_field(Kind::Server, &server_key, "spec")
            });
        }
    }
    found.sort();
    found.dedup();
    found
}

fn xclient_field(kind: Kind, key: &Key, place: &str) -> XclientField {
    XclientField { kind, key: key.clone(), field: format!("{place}.upstream.xclient") }
}

fn enables_xclient(settings: &Settings) -> bool {
    settings.upstream.as_ref().is_some_and(|upstream| upstream.xclient == Some(true))
}

fn could_use_proxy(fields: &ListenerFields, settings: &Settings) -> bool {
    let is_smtp = match fields.protocol {
        Some(protocol) => protocol == ApiProtocol::Smtp,
        None => fields.port.and_then(Protocol::of_port) == Some(Protocol::Smtp),
    };
    let upstream = settings.upstream.clone().unwrap_or_default();
    let sends_proxy = !matches!(upstream.proxy_protocol, None | Some(ProxyProtocolVersion::Disabled));
    let by_service = settings.auth.as_ref().is_some_and(|auth| auth.http.is_some());
    let carries_login = by_service && upstream.smtp_auth != Some(true);
    is_smtp && enables_xclient(settings) && !sends_proxy && !carries_login
}
