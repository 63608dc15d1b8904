//! A listener's own fields, and the kind `MailListener`: an additional listener for a `MailServer` that another team
//! may own.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BackendRef, Duration, Size};
use super::rules;
use super::settings::Settings;
use super::status::MailListenerStatus;

/// One more listener for a MailServer. It can belong to another team, repository or namespace. It uses only Secrets,
/// ConfigMaps and Services of its own namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mailgress.dev",
    version = "v1alpha1",
    kind = "MailListener",
    namespaced,
    shortname = "ml",
    category = "mail",
    status = "MailListenerStatus",
    derive = "PartialEq",
    doc = "One more listener for a MailServer. It can belong to another team, repository or namespace. It uses only Secrets, ConfigMaps and Services of its own namespace.",
    printcolumn = r#"{"name":"Server","type":"string","jsonPath":".spec.serverRef.name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Backends","type":"string","jsonPath":".status.backends"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::mail_listener()))]
pub struct MailListenerSpec {
    /// The MailServer to attach to. Its `allowedListeners` must allow this namespace.
    pub server_ref: ServerRef,
    /// The listener's fields.
    #[serde(flatten)]
    pub listener: ListenerFields,
}

/// A reference to a MailServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRef {
    /// The MailServer's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The MailServer's namespace. Default: the object's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// The socket of a listener, its protocol and its backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFields {
    /// The TCP port. Not used with a `unix:` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The address to listen on: `*` (all IPv4 and IPv6 addresses), an IPv4 or IPv6 address, or `unix:/path`.
    #[serde(default = "any_address")]
    #[schemars(length(min = 1, max = 112), extend("x-kubernetes-validations" = rules::forms::listen_address()))]
    pub address: String,
    /// `IMAP`, `POP3`, `SMTP` or `Sieve` (ManageSieve). Default for the standard ports: SMTP on 25, 465 and 587, POP3 on 110
    /// and 995, IMAP on 143 and 993, Sieve on 4190. Required on all other ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Host names (SNI) of the listener, also with a wildcard (`*.example.com`). Several listeners may share an address
    /// and port if their host names differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$")
        ),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Option<Vec<String>>,
    /// Expect a PROXY protocol header at the start of each connection (with `untrustedPeers: Accept`: of each
    /// connection from a trusted peer). Default: no header; for a listener on all addresses (`*`), headers from the
    /// peers in `--proxy-protocol-trusted-peers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// Socket options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketSettings>,
    /// The Service to connect sessions to. With an auth service, it is used when the answer names no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendRef>,
    /// The backend's address instead of a Service: `host:port`, `[IPv6]:port` or `unix:/path`. If a MailListener is in
    /// another namespace than its MailServer, the MailServer must allow the address (`allowedListeners.backends`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 261), extend("x-kubernetes-validations" = rules::forms::backend_address()))]
    pub backend_address: Option<String>,
    /// Settings of this listener. They override the MailServer's, field by field.
    #[serde(flatten)]
    pub settings: Settings,
}

/// The protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// IMAP.
    #[serde(rename = "IMAP")]
    Imap,
    /// POP3.
    #[serde(rename = "POP3")]
    Pop3,
    /// SMTP, for submission and for port 25.
    #[serde(rename = "SMTP")]
    Smtp,
    /// ManageSieve (RFC 5804), with which users edit their mail filters.
    Sieve,
}

/// PROXY protocol headers from load balancers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InboundProxyProtocol {
    /// Networks or addresses of the load balancers. Only their headers are trusted.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 49)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::networks())
    )]
    pub trusted_peers: Vec<String>,
    /// Use the source address in the header as the client's address.
    #[serde(default = "yes")]
    pub use_as_client_address: bool,
    /// What to do with connections from other peers. `Refuse`: close the connection. `Accept`: treat the peer as a
    /// client that connects directly; close the connection if it sends a header. `Report`, as in nginx: read the header
    /// and pass it to the auth service in `Proxy-Protocol-*`, but do not use it as an address. Default: `Refuse`,
    /// because anyone who can reach the port can send a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrusted_peers: Option<UntrustedPeers>,
}

/// What to do with connections from peers that are not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UntrustedPeers {
    /// Close the connection.
    Refuse,
    /// Report the header to the auth service without trusting it.
    Report,
    /// Treat the peer as a client that sends no header.
    Accept,
}

/// Options of the listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SocketSettings {
    /// Length of the accept queue, in connections.
    #[schemars(range(min = 1, max = 65535))]
    pub backlog: u32,
    /// Size of the receive buffer (`SO_RCVBUF`), up to 64Mi. Default: the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::size(1, 64 << 20, "1 and 64Mi")))]
    pub receive_buffer: Option<Size>,
    /// Size of the send buffer (`SO_SNDBUF`), up to 64Mi. Default: the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::size(1, 64 << 20, "1 and 64Mi")))]
    pub send_buffer: Option<Size>,
    /// A socket on an IPv6 wildcard address does not accept IPv4 connections (`IPV6_V6ONLY`).
    pub ipv6_only: bool,
    /// Open one socket for each worker thread (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Use multipath TCP (`IPPROTO_MPTCP`). Clients without it can connect as well. If the kernel does not support it,
    /// plain TCP is used and a warning is logged.
    pub multipath: bool,
    /// TCP keepalive. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Keepalive>,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            backlog: 511,
            receive_buffer: None,
            send_buffer: None,
            ipv6_only: true,
            reuse_port: false,
            multipath: false,
            keepalive: None,
        }
    }
}

/// TCP keepalive. Fields that are not set have the kernel's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Keepalive {
    /// Idle time before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::keepalive()))]
    pub idle: Option<Duration>,
    /// Time between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::keepalive()))]
    pub interval: Option<Duration>,
    /// Close the connection after this many unanswered probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 127))]
    pub probes: Option<u32>,
}

fn any_address() -> String {
    "*".to_owned()
}

fn yes() -> bool {
    true
}
