//! A listener's own fields, and the kind `MailListener`: one more listener for a `MailServer`, owned by
//! somebody else.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BackendRef, Duration, Size};
use super::rules;
use super::settings::Settings;
use super::status::MailListenerStatus;

/// One more listener for a MailServer, owned by somebody else: another team, another repository, another
/// namespace. It uses only Secrets, ConfigMaps and Services of its own namespace.
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
    doc = "One more listener for a MailServer, owned by somebody else: another team, another repository, another namespace. It uses only Secrets, ConfigMaps and Services of its own namespace.",
    printcolumn = r#"{"name":"Server","type":"string","jsonPath":".spec.serverRef.name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Backends","type":"string","jsonPath":".status.backends"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::mail_listener()))]
pub struct MailListenerSpec {
    /// The MailServer that it belongs to, which must allow it (`allowedListeners`).
    pub server_ref: ServerRef,
    /// The listener itself.
    #[serde(flatten)]
    pub listener: ListenerFields,
}

/// A MailServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRef {
    /// The MailServer's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default: the MailListener's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Where a listener is bound, what it speaks and where its sessions go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFields {
    /// The TCP port; none for a `unix:` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// `*` (every address of both families), an IPv4 or IPv6 address, or `unix:/path`.
    #[serde(default = "any_address")]
    #[schemars(length(min = 1, max = 112), extend("x-kubernetes-validations" = rules::forms::listen_address()))]
    pub address: String,
    /// `IMAP`, `POP3` or `SMTP`. Follows from ports 25, 465, 587 (SMTP), 110, 995 (POP3), 143 and 993 (IMAP);
    /// required on all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Names that the listener answers to by SNI, also `*.example.com`. Several listeners may share an address
    /// and port where their names differ.
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
    /// Connections begin with a PROXY protocol header: all of them, or with `untrustedPeers: Accept` those of trusted
    /// peers. Default: none, but on all addresses (`*`) what the instance that serves the class was told by
    /// `--proxy-protocol-trusted-peers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// How the socket is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketSettings>,
    /// The Service that sessions go to. With an auth service, it is used where the answer names no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendRef>,
    /// Instead of a Service: `host:port`, `[IPv6]:port` or `unix:/path`. For a MailListener of another namespace than its
    /// MailServer's, the MailServer has to allow it (`allowedListeners.backends`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 261), extend("x-kubernetes-validations" = rules::forms::backend_address()))]
    pub backend_address: Option<String>,
    /// Settings of this listener; they win over the MailServer's, field by field.
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
}

/// A PROXY header on every connection of a trusted peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InboundProxyProtocol {
    /// Networks (or addresses) of the peers whose header is believed.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 49)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::networks())
    )]
    pub trusted_peers: Vec<String>,
    /// Whether the header's source becomes the client's address.
    #[serde(default = "yes")]
    pub use_as_client_address: bool,
    /// What becomes of every other peer: `Refuse` closes the connection without a word; `Accept` serves it as a client
    /// that connects directly, without a header, and closes the connection if it sends one; with `Report`, as in nginx,
    /// its header is read, told to the auth service in `Proxy-Protocol-*`, and never used as anybody's address.
    /// Default: `Refuse`, since whoever can reach the port can write such a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrusted_peers: Option<UntrustedPeers>,
}

/// What becomes of a peer that is not trusted with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UntrustedPeers {
    /// Its connection is closed.
    Refuse,
    /// Its header is reported and not believed.
    Report,
    /// It is served as a client that sends no header.
    Accept,
}

/// How a listening socket is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SocketSettings {
    /// Length of the accept queue, in connections.
    #[schemars(range(min = 1, max = 65535))]
    pub backlog: u32,
    /// Receive buffer (`SO_RCVBUF`), up to 64Mi. Default: the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::size(1, 64 << 20, "1 and 64Mi")))]
    pub receive_buffer: Option<Size>,
    /// Send buffer (`SO_SNDBUF`), up to 64Mi. Default: the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::size(1, 64 << 20, "1 and 64Mi")))]
    pub send_buffer: Option<Size>,
    /// Whether an IPv6 wildcard address leaves IPv4 alone.
    pub ipv6_only: bool,
    /// A socket for each worker (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Multipath TCP (`IPPROTO_MPTCP`), also for clients without it; plain TCP, with a warning, where the
    /// kernel has none.
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

/// TCP keepalive; what is absent is the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Keepalive {
    /// Silence before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::keepalive()))]
    pub idle: Option<Duration>,
    /// Time between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::keepalive()))]
    pub interval: Option<Duration>,
    /// Unanswered probes that end the connection.
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
