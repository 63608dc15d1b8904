//! Rules about one field: durations within their bounds, addresses, networks and host names.
//!
//! They are regular expressions, because not every API server in use has the CEL libraries for addresses (`isIP`,
//! `isCIDR`). In an expression, the most common form comes first.

use serde_json::{Value, json};

use super::rule;

/// Rules of a timeout: from 1 ms to one year.
#[must_use]
pub fn deadline() -> Value {
    duration("1ms", "8760h", "write a duration such as 30s or 1h30m")
}

/// Rules of a duration that may be zero, up to one year.
#[must_use]
pub fn pause() -> Value {
    duration("0s", "8760h", "write a duration such as 30s or 0s")
}

/// Rules of the times of a held route.
#[must_use]
pub fn hold() -> Value {
    duration("0s", "1h", "write a duration such as 60s")
}

/// Rules of the times for which the users of an exclusive backend wait.
#[must_use]
pub fn moving() -> Value {
    duration("0s", "10m", "write a duration such as 30s")
}

/// Rules of the times of health checks.
#[must_use]
pub fn check_time() -> Value {
    duration("100ms", "24h", "write a duration such as 10s")
}

/// Rules of the times of TCP keepalive: from 1 to 32,767 seconds, the kernel's bound.
#[must_use]
pub fn keepalive() -> Value {
    duration("1s", "32767s", "write a duration such as 60s")
}

fn duration(least: &str, most: &str, remedy: &str) -> Value {
    json!([rule(
        &format!("duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"),
        &format!("this is not between {least} and {most}; {remedy}"),
    )])
}

/// Rules of a Service's name: a DNS label (RFC 1123). RFC 1035, which older API servers require, also forbids a digit at
/// the start.
#[must_use]
pub fn service_name() -> Value {
    json!([rule(
        "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
        "this is not the name of a Service; write lower-case letters, digits and hyphens, without a namespace or domain",
    )])
}

/// Rules of a listener's address.
#[must_use]
pub fn listen_address() -> Value {
    json!([rule(
        &format!(
            "self == '*' || {SOCKET} || self.matches('^{}$') || self.matches('^({v6}|\\\\[{v6}\\\\])$')",
            v4(),
            v6 = v6()
        ),
        "this is neither *, an IPv4 or IPv6 address, nor unix:/path; write \"*\", 192.0.2.1, \"2001:db8::1\", or \
         unix:/run/imap.sock (and then leave port out)",
    )])
}

/// Rules of a backend's address.
#[must_use]
pub fn backend_address() -> Value {
    json!([rule(
        &format!(
            "(self.matches('^({}|{HOST}):{PORT}$') && !self.matches('^{LONG_HOST}')) || {SOCKET} || \
             self.matches('^\\\\[{}\\\\]:{PORT}$')",
            v4(),
            v6()
        ),
        "this is not a backend's address; write host:port, [IPv6]:port or unix:/path, with a port from 1 to 65535",
    )])
}

/// Rules of a list of networks.
#[must_use]
pub fn networks() -> Value {
    json!([rule(
        &format!(
            "self.all(p, p.matches('^{}(/(3[0-2]|[12]?[0-9]))?$') || p.matches('^({})(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$'))",
            v4(),
            v6()
        ),
        "one of these is not a network; write networks such as 10.0.0.0/8 (up to /32) or fd00::/8 (up to /128), or addresses",
    )])
}

/// Rules of a list of name servers.
#[must_use]
pub fn nameservers() -> Value {
    json!([rule(
        &format!(
            "self.all(n, n.startsWith('[') || n.matches('^[^:]*:[^:]*:') ? \
             n.startsWith('[') == n.contains(']') && n.matches('^\\\\[?{}(\\\\](:{PORT})?)?$') : \
             n.matches('^({}|{HOST})(:{PORT})?$') && !n.matches('^{LONG_HOST}'))",
            v6(),
            v4()
        ),
        "one of these is not a name server; write an address or a host name, with a port if it is not 53: 10.96.0.10, \
         [::1]:5353",
    )])
}

/// Rules of the URL of an auth service. The URL must not contain a login, because messages about the service show the
/// URL.
#[must_use]
pub fn auth_url() -> Value {
    json!([rule(
        &format!(
            "self.startsWith('unix:') ? self.matches('^unix:/[^\\\\x00-\\\\x20:\\\\x7f-\\\\x9f]{{1,106}}(:/{IN_PATH}*)?$') : self.contains('://[') ? \
             self.matches('^https?://\\\\[{}\\\\](:{PORT})?([/?]{IN_PATH}*)?$') : \
             self.matches('^https?://({}|{HOST})(:{PORT})?([/?]{IN_PATH}*)?$') && !self.matches('^https?://{LONG_HOST}')",
            v6(),
            v4(),
        ),
        "this is not the URL of an auth service; write http://host:port/path, https://host/path or unix:/socket:/path, \
         without a login in it",
    )])
}

/// Rules of the path and query of an auth service.
#[must_use]
pub fn auth_path() -> Value {
    json!([rule(
        &format!("self.matches('^/{IN_PATH}*$')"),
        "this is not a path; begin it with /, and write spaces, quotes and control characters as %20 and so on",
    )])
}

/// Rules of a size in bytes: an integer, or a string with a suffix. The schema's pattern allows no leading zeros, so
/// numbers with the same count of digits are compared as strings. The API server's cost estimate assumes a string of
/// megabytes here, and only comparisons are cheap enough.
#[must_use]
pub fn size(least: u64, most: u64, shown: &str) -> Value {
    let within = |suffix: &str, factor: u64| {
        let (least, most) = (least.div_ceil(factor), most / factor);
        let (low, high) = (format!("{least}{suffix}"), format!("{most}{suffix}"));
        let at_least = format!("(size(self) > {0} || (size(self) == {0} && self >= '{low}'))", low.len());
        let at_most = format!("(size(self) < {0} || (size(self) == {0} && self <= '{high}'))", high.len());
        if least > most { "false".to_owned() } else { format!("({at_least} && {at_most})") }
    };
    let suffixes = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let text = suffixes.iter().rev().fold(within("", 1), |rest, (suffix, factor)| {
        format!("self.endsWith('{suffix}') ? {} : {rest}", within(suffix, *factor))
    });
    json!([rule(
        &format!("type(self) == int ? self >= {least} && self <= {most} : ({text})"),
        &format!("the size is not between {shown}; write a size such as 64Ki or 4096"),
    )])
}

/// Rules of the name in a server's certificate. An empty name counts as absent.
#[must_use]
pub fn verified_name() -> Value {
    json!([rule(
        &format!(
            "self == '' || (self.matches('^({}|{HOST})$') && !self.matches('^{LONG_HOST}')) || self.matches('^({})$')",
            v4(),
            v6()
        ),
        "this is neither a host name nor an address; write the name in the backend's certificate",
    )])
}

/// 1 to 65535.
const PORT: &str = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
/// RFC 1123 section 2.1: labels of at most 63 letters, digits and hyphens, with a letter or digit at both ends.
/// Underscores are allowed too, because names in use have them. The last label is not a number, so that a mistyped IPv4
/// address is not a host name.
const HOST: &str = "([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?[.])*\
                    [0-9]*([A-Za-z_]|[0-9]-+[A-Za-z0-9_])([A-Za-z0-9_-]*[A-Za-z0-9_])?[.]?";
/// Matches names that [`HOST`] accepts but that are too long: a label of more than 63 characters, or more than 253 in
/// total.
const LONG_HOST: &str = "([A-Za-z0-9._-]*[A-Za-z0-9_-]{64}|[A-Za-z0-9._-]{254})";
/// The characters that HTTP allows in path and query, without a fragment.
const IN_PATH: &str = "[^\\\\x00-\\\\x20\\\\x7f\"#<>\\\\x60]";
/// The path of a UNIX socket. The kernel's `sun_path` has room for 107 bytes.
const SOCKET: &str =
    "(self.matches('^unix:/[^\\\\x00-\\\\x20\\\\x7f-\\\\x9f]+$') && size(bytes(self)) <= 112)";

fn v4() -> String {
    let octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    format!("{octet}([.]{octet}){{3}}")
}

/// RFC 4291 section 2.2: eight groups, or fewer around `::`. The last two groups can also be an IPv4 address.
fn v6() -> String {
    let group = "[0-9a-f]{1,4}";
    let around = |after: usize| {
        let before = 7_usize.saturating_sub(after);
        format!("({group}:){{1,{before}}}(:{group}){{1,{after}}}")
    };
    let mut forms = vec![
        format!("({group}:){{7}}{group}"),
        format!("({group}:){{1,7}}:"),
        format!(":((:{group}){{1,7}}|:)"),
        format!("(({group}:){{6}}|::({group}:){{0,5}}|({group}:){{1,5}}:({group}:){{0,4}}){}", v4()),
    ];
    forms.extend((1..=6).map(around));
    format!("(?i:{})", forms.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates a rule with the same engine as `mailgress check`.
    fn holds(rules: &Value, value: &Value) -> bool {
        let program = cel::Program::compile(rules[0]["rule"].as_str().unwrap()).unwrap();
        let mut context = cel::Context::default();
        context.add_variable("self", value.clone()).unwrap();
        program.execute(&context) == Ok(cel::Value::Bool(true))
    }

    fn check(rules: &Value, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(holds(rules, &json!(text)), "{text}");
        }
        for text in bad {
            assert!(!holds(rules, &json!(text)), "{text}");
        }
    }

    const V6: [&str; 10] = [
        "::",
        "::1",
        "1::",
        "fd00::1",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1::8",
        "2001:db8::a:b",
        "1:2::7:8",
    ];
    const NO_V6: [&str; 7] = [":", ":::", "1::2::3", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7", "12345::", "g::"];

    #[test]
    fn the_expression_for_ipv6_agrees_with_the_standard_library() {
        let single = json!([rule(&format!("self.matches('^{}$')", v6()), "")]);
        check(&single, &V6, &NO_V6);
        check(
            &single,
            &["::1.2.3.4", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "1:2:3:4:5:6:1.2.3.4"],
            &["::1.2.3.256", "1.2.3.4"],
        );
        assert!(V6.iter().all(|text| text.parse::<std::net::Ipv6Addr>().is_ok()));
        assert!(NO_V6.iter().all(|text| text.parse::<std::net::Ipv6Addr>().is_err()));
    }

    #[test]
    fn accepts_addresses_and_refuses_similar_strings() {
        let good = ["*", "192.0.2.1", "::1", "[::1]", "unix:/run/a"];
        check(
            &listen_address(),
            &good,
            &["", "192.0.2", "192.0.2.256", "010.0.0.1", "localhost", "unix:run", "[::1"],
        );
        let good = [
            "a:1",
            "a.b.svc.:65535",
            "10.0.0.1:143",
            "[::1]:143",
            "unix:/run/a",
            "1a:143",
            "8.b-_:25",
            "1-2:25",
        ];
        let bad =
            ["a", "a:0", "a:65536", "10.0.0.256:143", "::1:143", "[::1]", "a b:1", "a..b:1", "unix:", ":1"];
        check(&backend_address(), &good, &bad);
        let long = |length: usize| format!("{}.test:25", "a".repeat(length));
        check(&backend_address(), &[&long(63), "a--b.test:25"], &[&long(64)]);
        check(&backend_address(), &[], &["-x.:1", "-x:1", "x-:1", "a.-b.test:1", "a-.test:1", "x-.:1"]);
        check(&verified_name(), &["", "a.test", "192.0.2.1", "::1"], &["a b", "a:1", "a..b", "192.0.2.256"]);
    }

    #[test]
    fn checks_every_network() {
        let networks = networks();
        for good in
            ["10.0.0.0/8", "10.0.0.1", "10.0.0.0/0", "10.0.0.0/32", "fd00::/8", "::/0", "::1/128", "::1"]
        {
            assert!(holds(&networks, &json!(["::1", good])), "{good}");
            assert!(
                good.parse::<ipnet::IpNet>().is_ok() || good.parse::<std::net::IpAddr>().is_ok(),
                "{good}"
            );
        }
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.256",
            "fd00::/129",
            "fd00:::/8",
            "a",
            "10.0.0.0/",
            "10.0.0.0/08",
        ] {
            assert!(!holds(&networks, &json!(["::1", bad])), "{bad}");
        }
    }

    #[test]
    fn name_servers_have_an_optional_port() {
        for good in ["10.96.0.10", "10.96.0.10:53", "::1", "[::1]", "[::1]:53", "dns.example", "dns:5353"] {
            assert!(holds(&nameservers(), &json!([good])), "{good}");
        }
        for bad in ["", "10.96.0.256", "[::1]:0", "dns:", "unix:/a", "a b"] {
            assert!(!holds(&nameservers(), &json!([bad])), "{bad}");
        }
    }
}
