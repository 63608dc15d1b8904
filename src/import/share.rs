//! Moves common settings of listeners to their `MailServer`, and removes default values.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::Settings;
use crate::api::server::Listener;
use crate::net::ListenAddress;

use super::protocol::Protocol;

/// A listener with all its settings, before they are divided.
pub(super) struct Draft {
    /// The listener without settings.
    pub(super) listener: Listener,
    protocol: Protocol,
    pub(super) address: ListenAddress,
    settings: Fields,
}

/// Settings by their paths, such as `tls.clientAuth.mode`.
type Fields = BTreeMap<String, Value>;

impl Draft {
    pub(super) fn new(
        listener: Listener,
        protocol: Protocol,
        address: ListenAddress,
        settings: &Settings,
    ) -> Self {
        let mut fields = Fields::new();
        flatten("", &serde_json::to_value(settings).unwrap_or_default(), &mut fields);
        let off = fields.get(MODE).is_some_and(|mode| mode == "Disabled");
        fields.retain(|path, _| concerns(path, protocol, off));
        Self { listener, protocol, address, settings: fields }
    }

    fn is_off(&self) -> bool {
        self.settings.get(MODE).is_some_and(|mode| mode == "Disabled")
    }

    /// Returns the TLS mode that the port implies for a listener with a certificate. This is never `Disabled`, so that
    /// `Disabled` is always written and causes no warning.
    fn usual_mode(&self) -> &'static str {
        match self.address.port() {
            Some(465 | 993 | 995) => "Implicit",
            Some(25) => "StartTLS",
            _ => "RequireStartTLS",
        }
    }
}

/// Returns the settings of the `MailServer`, and the listeners with only their own settings.
pub(super) fn share(drafts: &[Draft]) -> (Settings, Vec<Listener>) {
    let mut own: Vec<Fields> = drafts.iter().map(|draft| draft.settings.clone()).collect();
    let paths: std::collections::BTreeSet<String> =
        own.iter().flat_map(|fields| fields.keys().cloned()).collect();
    let mut common = Fields::new();
    for path in paths {
        if path == MODE {
            share_mode(drafts, &mut own, &mut common);
        } else {
            share_field(&path, drafts, &mut own, &mut common);
        }
    }
    let listeners = drafts.iter().zip(own).map(|(draft, fields)| {
        let mut listener = draft.listener.clone();
        listener.fields.settings = settings(fields);
        listener
    });
    let listeners = listeners.collect();
    (settings(common), listeners)
}

/// Moves a field to the `MailServer` if most of the affected listeners have the same value.
fn share_field(path: &str, drafts: &[Draft], own: &mut [Fields], common: &mut Fields) {
    let default = default(path);
    let concerned: Vec<usize> = (0..drafts.len())
        .filter(|index| {
            drafts.get(*index).is_some_and(|draft| concerns(path, draft.protocol, draft.is_off()))
        })
        .collect();
    let value = |index: &usize| {
        let fields = &drafts.get(*index)?.settings;
        fields.get(path).or_else(|| default.as_ref().filter(|_| has_block(path, fields)))
    };
    let values: Vec<Option<Value>> = concerned.iter().map(|index| value(index).cloned()).collect();
    let most = values.iter().flatten().find(|value| {
        let count = values.iter().filter(|other| other.as_ref() == Some(*value)).count();
        count * 2 > values.len()
    });
    // A listener without a value would inherit the MailServer's, so all of them need one.
    let shared = most.filter(|_| values.iter().all(Option::is_some)).cloned().or_else(|| default.clone());
    for (index, value) in concerned.iter().zip(values) {
        let Some(fields) = own.get_mut(*index) else { continue };
        match value {
            Some(value) if Some(&value) != shared.as_ref() => fields.insert(path.to_owned(), value),
            _ => fields.remove(path),
        };
    }
    if let Some(shared) = shared.filter(|shared| Some(shared) != default.as_ref()) {
        common.insert(path.to_owned(), shared);
    }
}

/// Moves the TLS mode to the `MailServer` if all listeners need the same one; removes it if the port implies it.
fn share_mode(drafts: &[Draft], own: &mut [Fields], common: &mut Fields) {
    let modes: Vec<Option<Value>> = drafts
        .iter()
        .map(|draft| draft.settings.get(MODE).filter(|mode| *mode != draft.usual_mode()).cloned())
        .collect();
    let first = modes.first().cloned().flatten();
    let shared = first.filter(|first| modes.iter().all(|mode| mode.as_ref() == Some(first)));
    for (fields, mode) in own.iter_mut().zip(modes) {
        if shared.is_some() || mode.is_none() {
            fields.remove(MODE);
        }
    }
    common.extend(shared.map(|mode| (MODE.to_owned(), mode)));
}

/// Tells whether a setting has an effect on a listener.
fn concerns(path: &str, protocol: Protocol, off: bool) -> bool {
    match path.split('.').next() {
        Some("imap") => protocol == Protocol::Imap,
        Some("pop3") => protocol == Protocol::Pop3,
        Some("smtp" | "resolver") => protocol == Protocol::Smtp,
        Some("tls") => !off || path == MODE,
        _ => match path {
            "upstream.xclient" | "upstream.smtpAuth" | "upstream.ehloName" => protocol == Protocol::Smtp,
            "limits.clientBuffer" => protocol != Protocol::Pop3,
            _ => true,
        },
    }
}

/// Tells whether a listener has the block of the setting. Without the block, there is no default.
fn has_block(path: &str, fields: &Fields) -> bool {
    match path.strip_suffix(".depth").or(path.starts_with("resolver.").then_some("resolver")) {
        Some(block) => fields.keys().any(|known| known.starts_with(block)),
        None => true,
    }
}

/// Returns the default of a setting; `None` if it cannot be written.
fn default(path: &str) -> Option<Value> {
    Some(match path {
        "timeouts.client" | "timeouts.connect" | "auth.http.timeout" => json!("60s"),
        "timeouts.idle" => json!("24h"),
        "limits.maxErrors" => json!(5),
        "limits.countedErrors" => json!("All"),
        "limits.maxCommands" => json!(1000),
        "limits.clientBuffer" => json!("4Ki"),
        "imap.capabilities" => json!(["IMAP4", "IMAP4rev1", "UIDPLUS"]),
        "pop3.capabilities" => json!(["TOP", "USER", "UIDL"]),
        "smtp.capabilities" => json!([]),
        "imap.authMethods" | "pop3.authMethods" => json!(["PLAIN"]),
        "smtp.authMethods" => json!(["PLAIN", "LOGIN"]),
        "imap.passwordLogins" | "pop3.passwordLogins" | "smtp.passwordLogins" => json!("Listed"),
        "smtp.greetingDelay" => json!("0s"),
        "upstream.proxyProtocol" | "tls.clientAuth.mode" => json!("Disabled"),
        "upstream.ehloName" => json!("Client"),
        "upstream.smtpAuth" | "upstream.passErrorMessage" | "auth.http.passClientCertificate" => json!(false),
        "upstream.xclient" | "tls.sessionTickets" | "resolver.ipv4" | "resolver.ipv6" => json!(true),
        "resolver.timeout" => json!("30s"),
        "tls.minVersion" => json!("TLSv1.2"),
        "tls.clientAuth.depth" => json!(1),
        "tls.sessionCache.size" => json!(20_480),
        "tls.sessionCache.timeout" => json!("5m"),
        _ => return None,
    })
}

fn flatten(path: &str, value: &Value, fields: &mut Fields) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        value => {
            fields.insert(path.to_owned(), value.clone());
        }
    }
}

fn settings(fields: Fields) -> Settings {
    let mut root = Map::new();
    for (path, value) in fields {
        insert(&mut root, &path, value);
    }
    // Cannot fail, because the fields come from `Settings`.
    serde_json::from_value(Value::Object(root)).unwrap_or_default()
}

fn insert(place: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            place.insert(path.to_owned(), value);
        }
        Some((name, rest)) => {
            if let Value::Object(inner) = place.entry(name).or_insert_with(|| json!({})) {
                insert(inner, rest, value);
            }
        }
    }
}

const MODE: &str = "tls.mode";
