//! Renders the settings of the socket: address, protocol, options, and trusted peers.

use std::time::Duration;

use ipnet::IpNet;

use crate::api::common::Size;
use crate::api::listener::{self as api, ListenerFields, SocketSettings};
use crate::controller::violation::Violation;
use crate::model::{InboundProxyProtocol, UntrustedPeers};
use crate::net::{Keepalive, ListenAddress, SocketOptions};
use crate::protocol::Protocol;

use super::bounds::{self, Bounded};
use super::scope::Scope;
use super::units;

/// Renders the address from `address` and `port`.
pub(crate) fn address(scope: &Scope<'_>, fields: &ListenerFields) -> Option<ListenAddress> {
    let address = units::listen_address(&fields.address, fields.port);
    if address.is_none() {
        let (field, problem) = match (fields.address.starts_with("unix:"), fields.port) {
            (true, Some(_)) => ("port", "a unix: address has no port"),
            (false, None) => ("port", "a listener needs a port"),
            _ => ("address", "this is neither *, an IPv4 or IPv6 address, nor unix:/path"),
        };
        let remedy = "write address: \"*\", 192.0.2.1, \"2001:db8::1\" with a port, or unix:/run/imap.sock (and then leave port out)";
        scope.report(Violation::invalid(&scope.field(field), problem, remedy));
    }
    address
}

/// Returns the configured protocol, or the default for the port.
pub(crate) fn protocol(scope: &Scope<'_>, fields: &ListenerFields) -> Option<Protocol> {
    let well_known = fields.port.and_then(Protocol::of_port);
    let protocol = fields.protocol.map(units::protocol).or(well_known);
    if protocol.is_none() {
        let problem = "protocol is required for this port";
        scope.report(Violation::invalid(
            &scope.field("protocol"),
            problem,
            "set it to IMAP, POP3, SMTP or Sieve",
        ));
    }
    protocol
}

/// Renders the socket options.
pub(crate) fn options(scope: &Scope<'_>, socket: Option<&SocketSettings>) -> SocketOptions {
    let Some(socket) = socket else { return SocketOptions::default() };
    SocketOptions {
        backlog: socket.backlog,
        receive_buffer: buffer(scope, "socket.receiveBuffer", socket.receive_buffer.as_ref()),
        send_buffer: buffer(scope, "socket.sendBuffer", socket.send_buffer.as_ref()),
        ipv6_only: socket.ipv6_only,
        reuse_port: socket.reuse_port,
        multipath: socket.multipath,
        keepalive: socket.keepalive.as_ref().map(|keepalive| keepalive_of(scope, keepalive)),
    }
}

/// Renders the PROXY protocol settings. Without them, the peers in `trusted_peers` are trusted.
pub(crate) fn proxy_protocol(
    scope: &Scope<'_>,
    settings: Option<&api::InboundProxyProtocol>,
    trusted_peers: &[IpNet],
) -> Option<InboundProxyProtocol> {
    let Some(settings) = settings else {
        return (!trusted_peers.is_empty()).then(|| InboundProxyProtocol {
            trusted_peers: trusted_peers.to_vec(),
            use_as_client_address: true,
            untrusted_peers: UntrustedPeers::Refuse,
        });
    };
    let trusted_peers =
        bounds::networks(scope, &scope.field("proxyProtocol.trustedPeers"), &settings.trusted_peers);
    let use_as_client_address = settings.use_as_client_address;
    let untrusted_peers = match settings.untrusted_peers {
        None | Some(api::UntrustedPeers::Refuse) => UntrustedPeers::Refuse,
        Some(api::UntrustedPeers::Report) => UntrustedPeers::Report,
        Some(api::UntrustedPeers::Accept) => UntrustedPeers::Accept,
    };
    Some(InboundProxyProtocol { trusted_peers, use_as_client_address, untrusted_peers })
}

fn buffer(scope: &Scope<'_>, field: &str, size: Option<&Size>) -> Option<u32> {
    let size = size?;
    let bytes = units::size(size).filter(|bytes| (1..=MAX_SOCKET_BUFFER).contains(bytes));
    if bytes.is_none() {
        let problem = "the size is not between 1 and 64Mi";
        scope.report(Violation::invalid(&scope.field(field), problem, "write a size such as 64Ki"));
    }
    bytes.and_then(|bytes| u32::try_from(bytes).ok())
}

fn keepalive_of(scope: &Scope<'_>, keepalive: &api::Keepalive) -> Keepalive {
    let within = |default| Bounded { default, least: Duration::from_secs(1), most: KEEPALIVE_MAX };
    let read = |name: &str, value: Option<&crate::api::common::Duration>| {
        value?;
        let path = scope.field(&format!("socket.keepalive.{name}"));
        Some(bounds::duration(scope, &path, value, within(KEEPALIVE_MAX)))
    };
    Keepalive {
        idle: read("idle", keepalive.idle.as_ref()),
        interval: read("interval", keepalive.interval.as_ref()),
        probes: keepalive.probes,
    }
}

/// The maximum socket buffer in bytes.
const MAX_SOCKET_BUFFER: u64 = 64 << 20;
/// The kernel's limit for TCP_KEEPIDLE and TCP_KEEPINTVL: 32,767 seconds.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);
