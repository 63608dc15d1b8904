//! The kind `MailServer`: listeners, and the settings that they share.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::listener::ListenerFields;
use super::rules;
use super::settings::Settings;
use super::status::MailServerStatus;

/// Listeners for mail, and the settings that they share.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mailgress.dev",
    version = "v1alpha1",
    kind = "MailServer",
    namespaced,
    shortname = "ms",
    category = "mail",
    status = "MailServerStatus",
    derive = "PartialEq",
    doc = "Listeners for mail (IMAP, POP3, SMTP, ManageSieve), the backends that their sessions go to, and the settings that they share.",
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.className"}"#,
    printcolumn = r#"{"name":"Listeners","type":"integer","jsonPath":".status.listenerCount"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Backends","type":"string","jsonPath":".status.backends"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::server()))]
pub struct MailServerSpec {
    /// The class of Mailgress instances that serve this object.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([a-z0-9./-]*[a-z0-9])?$"))]
    pub class_name: String,
    /// Which MailListeners may attach. Default: those in the MailServer's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
    /// Which MailRoutes may attach, and for which domains: a MailRoute is allowed if one of these rules allows its
    /// namespace and all its domains and users. A namespace that may name a domain receives the passwords of its users.
    /// Default: those in the MailServer's own namespace, for all domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_routes: Option<Vec<AllowedRoutes>>,
    /// How the users of MailRoutes are recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// The listeners. Names must be unique. Two listeners may share an address and port only with TLS and different
    /// host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<Listener>,
    /// Settings for all listeners.
    #[serde(flatten)]
    pub settings: Settings,
}

/// A listener of a MailServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::listener()))]
pub struct Listener {
    /// The listener's name, unique in the object: lower-case letters, digits and hyphens.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The listener's own fields.
    #[serde(flatten)]
    pub fields: ListenerFields,
}

/// Which MailListeners may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedListeners {
    /// The namespaces from which MailListeners may attach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<AllowedNamespaces>,
    /// Additional destinations for MailListeners and MailRoutes of other namespaces, as backends and as auth services. The Pods of
    /// Services in their own namespace are always allowed. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<AllowedBackends>,
}

/// Additional destinations for MailListeners of other namespaces. Every connection is checked, whether the listener,
/// its auth service or DNS gave the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedBackends {
    /// Networks or addresses: `10.1.2.0/24`, `fd00::7`. Loopback, link-local and multicast addresses and Mailgress's
    /// own addresses are allowed only by a separate entry; `0.0.0.0/0` does not include them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        inner(length(min = 2, max = 49)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::networks())
    )]
    pub networks: Option<Vec<String>>,
    /// Host names, also with a wildcard (`*.example.com`). They allow public addresses only. Private addresses, such as
    /// those of Pods and Services, must also be allowed by `networks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$")
        ),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hosts: Option<Vec<String>>,
    /// To which backends these listeners may send the client's address and login with a PROXY header, XCLIENT or IMAP
    /// ID. `Never`. `OwnServices`: only to Pods of their own Services. `Always`: to every allowed destination; such a
    /// backend then trusts what the author of the listener says. Default: `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introductions: Option<Introductions>,
}

/// To which backends listeners of other namespaces may send client information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Introductions {
    #[default]
    #[doc = "Nowhere."]
    Never,
    #[doc = "To the Pods of their own Services."]
    OwnServices,
    #[doc = "To everything that they may connect to."]
    Always,
}

/// Allows MailRoutes of some namespaces for some domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    /// The namespaces from which MailRoutes may attach. Default: the MailServer's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<AllowedNamespaces>,
    /// The domains that these MailRoutes may name, also with a wildcard: `*.example.org` allows all domains below
    /// `example.org` and wildcards for them. Default: all domains, and logins without a domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub domains: Option<Vec<String>>,
}

/// How the user of a login or recipient is recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Routing {
    /// The domain of logins and recipients without a domain. Default: none; then only MailRoutes with such a login in
    /// `users` or `usersFrom` match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub default_domain: Option<String>,
    /// In recipients, what follows this character is ignored (`bob+lists@example.org`), unless the whole address is
    /// listed. Empty: nothing is ignored. Default: `+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1))]
    pub recipient_delimiter: Option<String>,
    /// In logins, what follows this character is ignored: the master user who logs in for somebody else
    /// (`bob@example.org*admin`). Empty: nothing is ignored. Default: `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1))]
    pub master_user_separator: Option<String>,
}

/// The namespaces from which objects may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::namespaces()))]
pub struct AllowedNamespaces {
    /// `Same` (the MailServer's own namespace), `All`, or `Selector`.
    #[serde(default)]
    pub from: FromNamespaces,
    /// With `from: Selector`: the labels that a namespace must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// Which namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FromNamespaces {
    #[default]
    #[doc = "The MailServer's own namespace."]
    Same,
    #[doc = "Every namespace."]
    All,
    #[doc = "Namespaces with certain labels."]
    Selector,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that a namespace must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further conditions on labels. All must be met.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<Requirement>>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::requirement()))]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Operator,
    /// The values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub values: Option<Vec<String>>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

fn default_class() -> String {
    super::DEFAULT_CLASS.to_owned()
}
