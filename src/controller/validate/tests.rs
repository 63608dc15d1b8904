//! Tests of the offline validation.

use std::sync::LazyLock;

use super::*;
use crate::api::crd::{crds, schema_of};

/// Compiling the CRDs takes long in a debug build, so all tests share the result.
pub(crate) fn validator() -> &'static Validator {
    static SHARED: LazyLock<Validator> = LazyLock::new(|| Validator::new().unwrap());
    &SHARED
}

fn check(kind: Kind, yaml: &str) -> Vec<String> {
    let mut spec: Value = serde_yaml::from_str(yaml).unwrap();
    let found = validator().spec(kind, &mut spec);
    found.iter().map(|violation| format!("{} {violation}", violation.reason)).collect()
}

/// Returns a `MailServer`. If it does not set auth or TLS, an auth service and a certificate are added.
fn server(yaml: &str) -> String {
    let auth = if yaml.contains("auth:") { "{" } else { "{auth: {http: {url: 'http://a/'}}, " };
    let tls = if yaml.contains("tls:") { "" } else { "tls: {certificateRefs: [{name: t}]}, " };
    check(Kind::Server, &yaml.replacen('{', &format!("{auth}{tls}"), 1)).join("\n")
}

#[test]
fn accepts_the_documented_example() {
    let example = include_str!("example.yaml");
    let mut document: Value = serde_yaml::from_str(example).unwrap();
    let found = validator().spec(Kind::Server, &mut document["spec"]);
    assert_eq!(found, vec![]);
    assert_eq!(document["spec"]["listeners"][0]["address"], "*");
}

#[test]
fn the_schemas_are_those_of_the_definitions_and_their_rules_compile() {
    for (crd, compiled) in crds().iter().zip([&validator().server, &validator().listener, &validator().route])
    {
        assert_eq!(schema_of(crd)["properties"]["spec"], compiled.spec);
        assert_eq!(compiled.rules.broken(), Vec::<&str>::new());
    }
}

#[test]
fn names_an_unknown_field_and_the_most_similar_one() {
    let found = server("{listeners: [{name: a, port: 993, adress: '*'}]}");
    assert_eq!(found, "UnknownField spec.listeners[a].adress: there is no such field; did you mean address?");
}

#[test]
fn tells_to_quote_what_yaml_takes_for_a_boolean() {
    let found = server("{listeners: [{name: true, port: 143}]}");
    assert!(
        found.contains("].name: this is a boolean, and must be a string; put it in quotes: \"true\""),
        "{found}"
    );
}

#[test]
fn refuses_what_is_out_of_range_or_form() {
    assert!(server("{listeners: [{name: a, port: 70000, protocol: IMAP}]}").contains("OutOfRange"));
    assert!(server("{timeouts: {client: 5 weeks}}").contains("write a duration such as 30s"));
    assert!(server("{limits: {clientBuffer: 4KB}}").contains("write a size"));
    assert!(server("{upstream: {proxyProtocol: V3}}").contains("choose one of \"Disabled\", \"V1\", \"V2\""));
    assert!(server("{listeners: [{port: 993}]}").contains("Required spec.listeners[0].name"));
}

/// Checks that each spec has one violation that contains the text.
fn each_is_reported(cases: &[(&str, &str)]) {
    for (spec, expected) in cases {
        let found = server(spec);
        assert!(found.contains(expected) && !found.contains('\n'), "{spec}: {found}");
    }
}

#[test]
fn advice_on_durations_sizes_and_numbers_fits_the_value() {
    each_is_reported(&[
        (
            "{timeouts: {client: 60}}",
            "WrongType spec.timeouts.client: this is a number, and must be a string; write it with a unit (h, m, s or ms): 60s",
        ),
        (
            "{timeouts: {client: '60'}}",
            "WrongForm spec.timeouts.client: \"60\" is not valid; write it with a unit (h, m, s or ms): 60s",
        ),
        ("{timeouts: {client: 7d}}", "; write days in hours: 168h"),
        ("{timeouts: {client: 1.5h}}", "; write a duration such as 1h30m, without fractions"),
        (
            "{timeouts: {client: 100000s}}",
            "; write a duration such as 24h, with numbers of at most five digits",
        ),
        ("{timeouts: {client: true}}", "; write a duration such as 30s or 1h30m"),
        (
            "{limits: {clientBuffer: 1.5}}",
            "a number, and must be an integer or a string; write a size such as 64Ki",
        ),
        ("{limits: {clientBuffer: true}}", "; write a size such as 64Ki"),
        ("{listeners: [{name: a, port: '143'}]}", "a string, and must be an integer; remove the quotes"),
        ("{listeners: [{name: a, port: imap}]}", "; write a whole number from 1 to 65535"),
        ("{listeners: [{name: a, port: 1.5}]}", "; write a whole number from 1 to 65535"),
        (
            "{listeners: [{name: a, port: 0}]}",
            "OutOfRange spec.listeners[a].port: 0 is not from 1 to 65535; write a number",
        ),
        (
            "{listeners: [{name: a, port: 143, backendRef: {name: b, port: '143'}}]}",
            "; for a port number remove the quotes",
        ),
        (
            "{listeners: [{name: a, port: 143, backendRef: {name: b, port: Imap}}]}",
            "; write the number or the name of one of",
        ),
        (
            "{listeners: [{name: a, port: 143, backendRef: {name: b, port: 0}}]}",
            "; write a number from 1 to 65535",
        ),
    ]);
}

#[test]
fn advice_on_words_and_blocks_fits_the_value() {
    each_is_reported(&[
        ("{listeners: [{name: 1, port: 143}]}", "; put it in quotes: \"1\""),
        ("{listeners: [{name: A, port: 143}]}", "; use lower-case letters, digits and hyphens"),
        (
            "{listeners: {name: a, port: 143}}",
            "an object, and must be a list; write a list: begin each element",
        ),
        ("{listeners: 143}", "; write a list: [ ... ]"),
        ("{smtp: {strictSequence: 'true'}}", "; remove the quotes"),
        ("{smtp: {strictSequence: yes}}", "; write true or false"),
        ("{tls: {mode: starttls}}", "\"starttls\" is not supported; write \"StartTLS\""),
        ("{tls: {mode: Never}}", "; choose one of "),
        (
            "{tls: {mode: false}}",
            "WrongType spec.tls.mode: this is a boolean, and must be a string; write \"Disabled\"",
        ),
        ("{tls: {mode: off}}", "\"off\" is not supported; write \"Disabled\""),
        ("{tls: {minVersion: 1.2}}", "a number, and must be a string; write \"TLSv1.2\""),
        (
            "{tls: true}",
            "a boolean, and must be an object; write its fields below it; it has certificateRefs, ",
        ),
        ("{tls: {certificateRefs: [mail-tls]}}", "; write { name: mail-tls }"),
        ("{auth: {passthrough: true}}", "; write {}"),
        ("{auth: passthrough}", "; write its fields below it; it has http, passthrough"),
        ("{serverName: [a.test]}", "; write one value instead of a list"),
        ("{serverName: ''}", "spec.serverName: this is empty; "),
        ("{serverName: 'a b'}", "; write a host name such as mail.example.com"),
        (
            "{listeners: [{name: a, port: 143, hostnames: ['a b']}]}",
            "; write a host name such as imap.example.com, or *.example",
        ),
        (
            "{listeners: [{name: a, port: 143, hostnames: []}]}",
            "the list is empty; add an element, or remove the field",
        ),
    ]);
    let long = server(&format!("{{serverName: {}}}", "a".repeat(300)));
    assert!(
        long.ends_with("spec.serverName: this has 300 characters, and at most 253 are allowed; shorten it"),
        "{long}"
    );
}

#[test]
fn an_unknown_field_is_found_elsewhere_in_the_schema() {
    each_is_reported(&[
        (
            "{listeners: [{name: a, port: 143, mode: Implicit}]}",
            "there is no such field; did you mean tls.mode?",
        ),
        (
            "{listeners: [{name: a, port: 143, className: a}]}",
            "there is no such field; did you mean spec.className?",
        ),
        (
            "{listeners: [{name: a, port: 143, backendref: {name: b}}]}",
            "there is no such field; did you mean backendRef?",
        ),
        (
            "{listeners: [{name: a, port: 143, something: 1}]}",
            "there is no such field; remove it, or correct its name",
        ),
        ("{port: 143}", "there is no such field; did you mean listeners[].port?"),
    ]);
}

#[test]
fn a_port_of_a_service_is_a_number_or_a_name() {
    for port in ["143", "65535", "imap", "imap-1", "1-imap", "s3", "a"] {
        let spec = format!("{{listeners: [{{name: a, port: 143, backendRef: {{name: b, port: {port}}}}}]}}");
        assert_eq!(server(&spec), "", "{port}");
        let spec = format!("{{auth: {{http: {{serviceRef: {{name: b, port: {port}}}}}}}}}");
        assert_eq!(server(&spec), "", "{port}");
    }
    for port in ["0", "65536", "-1", "'143'", "'1-2'", "Imap", "-imap", "imap-", "im.ap", "''", "true", "1.5"]
    {
        let spec = format!("{{listeners: [{{name: a, port: 143, backendRef: {{name: b, port: {port}}}}}]}}");
        assert!(server(&spec).contains("spec.listeners[a].backendRef.port: "), "{port}");
    }
}

#[test]
fn every_pattern_has_a_sentence() {
    fn walk(node: &Value, reported: &mut usize) {
        if node["pattern"].is_string() {
            let advice = sentences::advice_of_form(&Value::from(" "), node);
            assert!(!advice.contains("it must match"), "{}", node["pattern"]);
            *reported += 1;
        }
        node["properties"].as_object().into_iter().flatten().for_each(|(_, child)| walk(child, reported));
        node.get("items").into_iter().for_each(|items| walk(items, reported));
    }
    let mut reported = 0;
    walk(&validator().server.spec, &mut reported);
    assert!(reported > 20, "{reported}");
}

#[test]
fn a_health_check_that_contradicts_itself_is_reported_once() {
    let block = "upstream: {healthCheck: {timeout: 20s, interval: 15s}}";
    let once = |spec: &str| {
        let found = server(spec);
        assert!(found.contains("healthCheck") && !found.contains('\n'), "{spec}: {found}");
    };
    once(&format!("{{{block}, listeners: [{{name: a, port: 143}}]}}"));
    once(&format!("{{listeners: [{{name: a, port: 143, {block}}}]}}"));
    once("{upstream: {healthCheck: {timeout: 20s}}, listeners: [{name: a, port: 143}]}");
    once(
        "{upstream: {healthCheck: {timeout: 5s}}, listeners: [{name: a, port: 143, upstream: {healthCheck: {interval: 1s}}}]}",
    );
}

#[test]
fn every_rule_has_a_remedy() {
    fn walk(node: &Value) {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].as_str().unwrap().contains("; "), "{rule}");
        }
        node["properties"].as_object().into_iter().flatten().for_each(|(_, child)| walk(child));
        node.get("items").into_iter().for_each(walk);
    }
    walk(&validator().server.spec);
    walk(&validator().listener.spec);
}

#[test]
fn refuses_two_listeners_of_one_name() {
    let found = server("{listeners: [{name: a, port: 993}, {name: a, port: 143}]}");
    assert_eq!(found, "Invalid spec.listeners[a]: duplicate entry; remove or rename one of them");
}

#[test]
fn refuses_two_listeners_with_the_same_socket() {
    let two = |a: &str, b: &str| server(&format!("{{listeners: [{{name: a, {a}}}, {{name: b, {b}}}]}}"));
    let refused = two("port: 993", "port: 993");
    assert_eq!(
        refused,
        "Invalid spec: two listeners have the same address and port and no hostnames; give one of them another port or \
         address, or set its hostnames"
    );
    assert_eq!(two("port: 993", "port: 993, hostnames: [a.example]"), "");
    assert_eq!(two("port: 993", "port: 993, address: 127.0.0.1"), "");
    let path = "address: 'unix:/run/mail', protocol: IMAP";
    assert_eq!(two(path, path), "");
}

#[test]
fn evaluates_the_rules() {
    let listener = |fields: &str| server(&format!("{{listeners: [{{name: a, {fields}}}]}}"));
    assert!(listener("port: 2143").contains("protocol is required"));
    assert!(listener("port: 143, address: 'unix:/run/a'").contains("needs a port, unless"));
    assert!(listener("protocol: IMAP").contains("needs a port, unless"));
    assert!(
        listener("port: 143, backendRef: {name: a, port: 1}, backendAddress: 'a:1'").contains("exclude each")
    );
    assert!(listener("port: 993, hostnames: [a.b], tls: {mode: Disabled}").contains("SNI"));
    assert!(listener("port: 143, imap: {authMethods: [NONE]}").contains("NONE exists in SMTP only"));
    assert!(server("{auth: {}}").contains("exactly one of http and passthrough"));
    assert!(server("{auth: {passthrough: {}, http: {url: 'http://a/'}}}").contains("exactly one"));
    assert!(
        server("{auth: {http: {url: 'http://a/', serviceRef: {name: a, port: 1}}}}").contains("exclude each")
    );
    assert!(
        server("{auth: {passthrough: {}}, pop3: {authMethods: [APOP]}}").contains("APOP needs auth.http")
    );
    assert!(
        server("{allowedListeners: {namespaces: {from: Selector}}}").contains("selector is required with")
    );
    assert!(server("{resolver: {ipv4: false, ipv6: false}}").contains("one of ipv4 and ipv6"));
    assert!(listener("port: 993, address: 'unix:/x'").contains("spec.listeners[a]: "));
    assert_eq!(listener("port: 993"), "");
    assert_eq!(listener("address: 'unix:/run/a', protocol: IMAP"), "");
}

#[test]
fn refuses_what_contradicts_itself_or_is_missing_with_a_sentence() {
    let listener = |fields: &str| format!("{{listeners: [{{name: a, {fields}}}]}}");
    let check = |times: &str| {
        format!("{{upstream: {{healthCheck: {{{times}}}}}, listeners: [{{name: a, port: 143}}]}}")
    };
    for (spec, expected) in [
        (listener("port: 143, proxyProtocol: {trustedPeers: [10.0.0.0/33]}"), "not a network; write networks such as"),
        (listener("port: 143, proxyProtocol: {trustedPeers: [10.0.0.0/8, 'fd00::/129']}"), "not a network"),
        (listener("port: 143, address: 192.0.2.256"), "spec.listeners[a].address: this is neither *, an IPv4"),
        (listener("port: 143, backendAddress: 'a:70000'"), "not a backend's address; write host:port"),
        ("{resolver: {nameservers: [10.0.0.256]}}".into(), "not a name server; write an address"),
        ("{upstream: {tls: {serverName: 'a b'}}}".into(), "neither a host name nor an address"),
        (listener("port: 143, smtp: {capabilities: []}"), "smtp is for SMTP, but this listener has another protocol"),
        (listener("port: 995, smtp: {capabilities: []}"), "spec.listeners[a]: smtp is for SMTP"),
        (listener("port: 25, imap: {capabilities: []}"), "imap is for IMAP"),
        (listener("port: 993, pop3: {capabilities: []}"), "pop3 is for POP3"),
        (check("timeout: 20s"), "above its interval (default 10s)"),
        ("{upstream: {healthCheck: {interval: 10ms}}}".into(), "not between 100ms and 24h"),
        ("{timeouts: {client: 0s}}".into(), "spec.timeouts.client: this is not between 1ms and 8760h"),
        ("{timeouts: {idle: 9000h}}".into(), "not between 1ms and 8760h"),
        ("{limits: {authFailures: {ban: 0s}}}".into(), "spec.limits.authFailures.ban: this is not between"),
        ("{limits: {maxConnections: 5, maxConnectionsPerClient: 6}}".into(), "must not be larger than maxConnections"),
        ("{limits: {exempt: [192.0.2.0/33]}}".into(), "one of these is not a network"),
        (listener("port: 143, socket: {keepalive: {idle: 10h}}"), "not between 1s and 32767s"),
        ("{auth: null, listeners: [{name: a, port: 143}]}".into(), "no authentication is configured"),
        ("{auth: {http: {timeout: 5s}}, listeners: [{name: a, port: 143}]}".into(), "auth.http names no auth service"),
        ("{auth: {passthrough: {}}, listeners: [{name: a, port: 143}]}".into(), "needs a backend to log in to"),
        (listener("port: 143, auth: {passthrough: {}}"), "needs a backend to log in to"),
        ("{auth: {passthrough: {}}, tls: {mode: Disabled}, listeners: [{name: a, port: 143, hostnames: [a.b], \
          backendAddress: 'a:1'}]}".into(), "MailServer's tls.mode is Disabled"),
        (
            "{allowedListeners: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: In}]}}}}"
                .into(),
            "In and NotIn need values",
        ),
    ] {
        let found = server(&spec);
        assert!(found.contains(expected) && !found.contains('\n'), "{spec}: {found}");
    }
}

#[test]
fn refuses_checks_that_overlap_without_a_listener_as_well() {
    let found = server("{upstream: {healthCheck: {timeout: 20s, interval: 15s}}}");
    assert!(found.contains("spec.upstream.healthCheck: timeout is above interval"), "{found}");
}

#[test]
fn accepts_a_spec_that_its_listeners_correct() {
    for spec in [
        "{auth: {passthrough: {}}, listeners: [{name: a, port: 143, auth: {http: {url: 'http://a/'}}}]}",
        "{auth: null, listeners: [{name: a, port: 143, auth: {passthrough: {}}, backendAddress: 'a:1'}]}",
        "{auth: {http: {timeout: 5s}}, listeners: [{name: a, port: 143, auth: {http: {url: 'http://a/'}}}]}",
        "{auth: {http: {url: 'http://a/'}}, listeners: [{name: a, port: 143, auth: {http: {timeout: 5s}}}]}",
        "{upstream: {healthCheck: {timeout: 20s}}, \
          listeners: [{name: a, port: 143, upstream: {healthCheck: {interval: 30s}}}]}",
        "{upstream: {healthCheck: {timeout: 20s}}}",
        "{smtp: {capabilities: []}, upstream: {xclient: false}, listeners: [{name: a, port: 143, upstream: {xclient: true}}]}",
        "{timeouts: {halfClosed: 0s}, smtp: {greetingDelay: 0s}}",
        "{listeners: [{name: a, port: 2525, protocol: SMTP, smtp: {capabilities: []}, upstream: {xclient: true}}]}",
    ] {
        assert_eq!(server(spec), "", "{spec}");
    }
}

#[test]
fn checks_mail_listeners_with_the_same_rules() {
    let found = check(Kind::Listener, "{serverRef: {name: a}, port: 143, auth: {passthrough: {}}, smtp: {}}")
        .join("\n");
    assert!(found.contains("needs a backend") && found.contains("smtp is for SMTP"), "{found}");
    let found = check(Kind::Listener, "{serverRef: {name: a}, port: 2143}").join("\n");
    assert!(found.contains("protocol is required"), "{found}");
    assert_eq!(check(Kind::Listener, "{serverRef: {name: a}, port: 143}"), Vec::<String>::new());
}

#[test]
fn a_null_is_an_absent_field() {
    assert_eq!(server("{tls: null, listeners: [{name: a, port: 143, hostnames: null}]}"), "");
}
