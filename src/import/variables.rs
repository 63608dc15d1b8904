//! Warns about values with a `$variable`. nginx's mail proxy has no variables and uses the text as it is. An operator
//! who writes one expects something else, so the note names the equivalent field.

use super::problem::Note;
use super::tree::Directive;

/// Returns the note about a directive with such a value.
pub(super) fn remark(directive: &Directive) -> Option<Note> {
    let value = directive.arguments().iter().find(|argument| variable(argument).is_some())?;
    let variable = variable(value)?;
    let text = "nginx's mail proxy does not expand variables, so the text is kept unchanged";
    let name = directive.name();
    if name != "auth_http_header" {
        return Some(directive.note(format!("{name} has {variable:?}: {text}; write the value itself")));
    }
    let header = directive.argument(0);
    let remedy = match KNOWN.iter().find(|(known, _)| *known == variable.trim_matches(['$', '{', '}'])) {
        Some((_, KnownVariable::Session(value))) => {
            format!("write {{name: {header}, valueFrom: {{session: {value}}}}} in auth.http.headers")
        }
        Some((_, KnownVariable::Header(known))) => {
            format!("the auth service gets it as {known} in any case; remove the directive")
        }
        None => "write the value itself; for values of the session, use \
                 auth.http.headers[].valueFrom.session"
            .to_owned(),
    };
    Some(directive.note(format!("auth_http_header {header} has {variable:?}: {text}; {remedy}")))
}

/// The equivalent of a variable of nginx's other modules.
enum KnownVariable {
    /// A value of `valueFrom.session`.
    Session(&'static str),
    /// A header of every request to an auth service.
    Header(&'static str),
}

const KNOWN: &[(&str, KnownVariable)] = &[
    ("remote_port", KnownVariable::Session("ClientPort")),
    ("remote_addr", KnownVariable::Header("Client-IP")),
    ("server_port", KnownVariable::Session("ListenerPort")),
    ("server_name", KnownVariable::Session("ListenerName")),
    ("protocol", KnownVariable::Header("Auth-Protocol")),
    ("proxy_protocol_addr", KnownVariable::Header("Proxy-Protocol-Addr")),
    ("proxy_protocol_port", KnownVariable::Header("Proxy-Protocol-Port")),
    ("proxy_protocol_server_addr", KnownVariable::Header("Proxy-Protocol-Server-Addr")),
    ("proxy_protocol_server_port", KnownVariable::Header("Proxy-Protocol-Server-Port")),
    ("ssl_protocol", KnownVariable::Header("Auth-SSL-Protocol")),
    ("ssl_cipher", KnownVariable::Header("Auth-SSL-Cipher")),
    ("ssl_client_verify", KnownVariable::Header("Auth-SSL-Verify")),
    ("ssl_client_s_dn", KnownVariable::Header("Auth-SSL-Subject")),
    ("ssl_client_i_dn", KnownVariable::Header("Auth-SSL-Issuer")),
    ("ssl_client_serial", KnownVariable::Header("Auth-SSL-Serial")),
    ("ssl_client_fingerprint", KnownVariable::Header("Auth-SSL-Fingerprint")),
];

/// Returns the first `$name` or `${name}` of a text.
fn variable(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('$').find_map(|(start, _)| {
        let rest = text.get(start + 1..)?;
        let (braces, inner) = rest.strip_prefix('{').map_or((0, rest), |inner| (2, inner));
        let length = inner.find(|c| !is_part(c)).unwrap_or(inner.len());
        let is_name = inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_closed = braces == 0 || inner.get(length..).is_some_and(|rest| rest.starts_with('}'));
        text.get(start..start + 1 + braces + length).filter(|_| is_name && is_closed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_from_passwords() {
        assert_eq!(variable("$remote_port"), Some("$remote_port"));
        assert_eq!(variable("a-${remote_addr}-b"), Some("${remote_addr}"));
        assert_eq!(variable("US$5 $host"), Some("$host"));
        for text in ["", "$", "pa$$", "US$5", "${", "${a", "$-a"] {
            assert_eq!(variable(text), None, "{text}");
        }
    }
}
