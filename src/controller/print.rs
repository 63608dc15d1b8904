//! Formats the rendered model for `/model` and `mailgress render`. Secrets are masked, and certificates are shown by
//! name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::model::settings::ClientTls;
use crate::model::{
    Auth, AuthProof, Backend, Certificate, Hostname, Listener, Reach, ServerTls, Snapshot, Socket,
    TrustAnchors, Upstream, UpstreamTls,
};
use crate::net::BackendAddress;
use crate::secret::MASK;

/// Returns a snapshot as a JSON document.
#[must_use]
pub fn snapshot(snapshot: &Snapshot) -> Value {
    let sockets: Vec<Value> = snapshot.sockets.values().map(|s| socket(s)).collect();
    json!({ "revision": snapshot.revision, "sockets": sockets })
}

fn socket(socket: &Socket) -> Value {
    let keepalive = socket.options.keepalive.as_ref().map(|keepalive| {
        json!({
            "idle": keepalive.idle.map(time),
            "interval": keepalive.interval.map(time),
            "probes": keepalive.probes,
        })
    });
    let proxy_protocol = socket.proxy_protocol.as_ref().map(|proxy| {
        json!({
            "trustedPeers": texts(&proxy.trusted_peers),
            "useAsClientAddress": proxy.use_as_client_address,
            "untrustedPeers": format!("{:?}", proxy.untrusted_peers),
        })
    });
    let listeners: Vec<Value> = socket.listeners.iter().map(|l| listener(l)).collect();
    json!({
        "address": socket.address.to_string(),
        "protocol": socket.protocol.name(),
        "tlsMode": format!("{:?}", socket.tls_mode),
        "proxyProtocol": proxy_protocol,
        "options": {
            "backlog": socket.options.backlog,
            "receiveBuffer": socket.options.receive_buffer,
            "sendBuffer": socket.options.send_buffer,
            "ipv6Only": socket.options.ipv6_only,
            "reusePort": socket.options.reuse_port,
            "multipath": socket.options.multipath,
            "keepalive": keepalive,
        },
        "listeners": listeners,
    })
}

fn listener(listener: &Listener) -> Value {
    let frontend = &listener.frontend;
    let hostnames: Vec<&str> = listener.hostnames.iter().map(Hostname::as_str).collect();
    json!({
        "id": listener.id.to_string(),
        "hostnames": hostnames,
        "frontend": {
            "serverName": frontend.server_name,
            "capabilities": frontend.capabilities,
            "mechanisms": frontend.mechanisms.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>(),
            "passwordLogins": format!("{:?}", frontend.password_logins),
            "startTls": format!("{:?}", frontend.start_tls),
            "relaySasl": frontend.relay_sasl,
            "maxErrors": frontend.max_errors,
            "countedErrors": format!("{:?}", frontend.counted_errors),
            "maxCommands": frontend.max_commands,
            "maxAuthFailures": frontend.max_auth_failures,
            "anonymousBeforeTLS": frontend.smtp.anonymous_before_tls,
            "strictSequence": frontend.smtp.strict_sequence,
        },
        "tls": listener.tls.as_ref().map(|tls| server_tls(tls)),
        "auth": auth(&listener.auth),
        "backend": listener.auth.backend().map(|backend| self::backend(backend)),
        "reach": reach(&listener.reach),
        "upstream": upstream(&listener.upstream),
        "resolver": resolver(listener),
        "timeouts": {
            "client": time(listener.timeouts.client),
            "connect": time(listener.timeouts.connect),
            "idle": time(listener.timeouts.idle),
            "halfClosed": time(listener.timeouts.half_closed),
            "announce": listener.timeouts.announce,
        },
        "limits": limits(listener),
        "greetingDelay": time(listener.greeting_delay),
    })
}

fn resolver(listener: &Listener) -> Value {
    let resolver = &listener.resolver;
    json!({
        "nameservers": texts(&resolver.nameservers),
        "valid": resolver.valid.map(time),
        "ipv4": resolver.ipv4,
        "ipv6": resolver.ipv6,
        "timeout": time(resolver.timeout),
        "statisticsZone": resolver.statistics_zone,
        "looksUpClients": resolver.looks_up_clients,
    })
}

fn limits(listener: &Listener) -> Value {
    let limits = &listener.limits;
    let failures = limits.auth_failures.map(|failures| {
        json!({ "count": failures.count, "window": time(failures.window), "ban": time(failures.ban) })
    });
    json!({
        "clientBuffer": limits.client_buffer,
        "maxConnections": limits.max_connections,
        "maxConnectionsPerClient": limits.max_connections_per_client,
        "authFailures": failures,
        "exempt": texts(&limits.exempt),
    })
}

fn server_tls(tls: &ServerTls) -> Value {
    json!({
        "certificates": tls.certificates.iter().map(|c| certificate(c)).collect::<Vec<_>>(),
        "minVersion": tls.min_version.name(),
        "cipherSuites": tls.cipher_suites,
        "clientAuth": {
            "mode": format!("{:?}", tls.client_auth.mode),
            "authorities": tls.client_auth.authorities.len(),
            "crls": tls.client_auth.crls.len(),
            "depth": tls.client_auth.depth,
        },
        "sessionTickets": tls.session_tickets,
        "sessionCacheSize": tls.session_cache_size,
        "sessionTimeout": time(tls.session_timeout),
    })
}

fn certificate(certificate: &Certificate) -> Value {
    let not_after = jiff::Timestamp::from_second(certificate.not_after).unwrap_or_default();
    json!({
        "secret": certificate.reference,
        "names": certificate.names,
        "chain": certificate.chain.len(),
        "notAfter": not_after.to_string(),
        "key": MASK,
    })
}

fn auth(auth: &Auth) -> Value {
    let http = match auth {
        Auth::Passthrough(_) => return json!({ "passthrough": {} }),
        Auth::Http { service, .. } => service,
    };
    let headers: Vec<Value> = http
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value.to_string() }))
        .collect();
    json!({ "http": {
        "reference": http.reference,
        "endpoints": texts(&http.endpoints),
        "host": http.host,
        // The query often contains keys.
        "path": http.path.split_once('?').map_or(http.path.clone(), |(path, _)| format!("{path}?{MASK}")),
        "tls": http.tls.as_ref().map(trust),
        "headers": headers,
        "timeout": time(http.timeout),
        "keepAlive": http.keep_alive,
        "passClientCertificate": http.pass_client_certificate,
        "acceptAnyStatus": http.proof == AuthProof::Headers,
    } })
}

/// Formats the destinations that a listener of another namespace may use. Null for all others, which have no limits.
fn reach(reach: &Reach) -> Value {
    let Reach::Within(bounds) = reach else { return Value::Null };
    let hosts: Vec<&str> = bounds.hosts.iter().map(Hostname::as_str).collect();
    json!({
        "own": bounds.own.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "networks": texts(&bounds.networks),
        "hosts": hosts,
        "introductions": format!("{:?}", bounds.introductions),
    })
}

fn backend(backend: &Backend) -> Value {
    let names: BTreeMap<String, &str> =
        backend.names.iter().map(|(address, name)| (address.to_string(), name.as_str())).collect();
    json!({ "reference": backend.reference, "endpoints": texts::<BackendAddress>(&backend.endpoints), "names": names })
}

fn upstream(upstream: &Upstream) -> Value {
    let tls = match &upstream.tls {
        UpstreamTls::Disabled => json!({ "mode": "Disabled" }),
        UpstreamTls::StartTls(tls) => client_tls("StartTLS", tls),
        UpstreamTls::Implicit(tls) => client_tls("Implicit", tls),
    };
    json!({
        "tls": tls,
        "proxyProtocol": upstream.proxy_protocol.map(|version| format!("{version:?}")),
        "xclient": upstream.xclient.map(|negotiation| format!("{negotiation:?}")),
        "ehloName": if upstream.client_hello { "Client" } else { "Own" },
        "smtpAuth": upstream.smtp_auth,
        "imapId": upstream.imap_id,
        "passErrorMessage": upstream.pass_error_message,
        "loadBalancing": format!("{:?}", upstream.load_balancing),
        "healthCheck": upstream.health_check.map(|check| json!({
            "interval": format!("{:?}", check.interval),
            "timeout": format!("{:?}", check.timeout),
            "unhealthyThreshold": check.unhealthy_threshold,
            "healthyThreshold": check.healthy_threshold,
        })),
    })
}

fn client_tls(mode: &str, tls: &ClientTls) -> Value {
    json!({
        "mode": mode,
        "trust": trust(&tls.trust),
        "serverName": tls.server_name,
        "certificate": tls.certificate.as_ref().map(|own| certificate(own)),
    })
}

fn trust(trust: &TrustAnchors) -> Value {
    match trust {
        TrustAnchors::System => json!("system"),
        TrustAnchors::Certificates(certificates) => json!({ "certificates": certificates.len() }),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn time(duration: Duration) -> String {
    if duration.is_zero() { "0s".to_owned() } else { format!("{duration:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::render::tests::{once, server, tls_secret};

    #[test]
    fn prints_everything_but_secrets() {
        let listener = "{name: a, port: 993, backendAddress: 'b:1', auth: {http: {url: 'http://a/auth?key=swordfish', \
                        headers: [{name: X-Key, value: hunter2}]}}}";
        let yaml =
            server(listener, "tls: {certificateRefs: [{name: t}]}") + &tls_secret("t", &["mail.example"]);
        let printed = snapshot(&once(&yaml).snapshot);
        let listener = &printed["sockets"][0]["listeners"][0];
        assert_eq!(listener["tls"]["certificates"][0]["names"][0], "mail.example");
        assert_eq!(listener["tls"]["certificates"][0]["notAfter"], "2200-01-01T00:00:00Z");
        assert_eq!(listener["auth"]["http"]["headers"][0]["value"], MASK);
        assert_eq!(listener["auth"]["http"]["path"], format!("/auth?{MASK}"));
        assert!(!printed.to_string().contains("hunter2") && !printed.to_string().contains("swordfish"));
        assert_eq!(
            (&listener["timeouts"]["client"], &listener["greetingDelay"]),
            (&json!("60s"), &json!("0s"))
        );
        for (path, value) in [
            ("/frontend/countedErrors", json!("All")),
            ("/frontend/maxAuthFailures", json!(10)),
            ("/frontend/anonymousBeforeTLS", json!(false)),
            ("/frontend/strictSequence", json!(false)),
            ("/auth/http/acceptAnyStatus", json!(false)),
            ("/auth/http/keepAlive", json!(true)),
            ("/upstream/xclient", json!("Auto")),
            ("/timeouts/halfClosed", json!("60s")),
            ("/timeouts/announce", json!(true)),
        ] {
            assert_eq!(listener.pointer(path), Some(&value), "{path}");
        }
    }
}
