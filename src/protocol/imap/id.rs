//! The parameters that an IMAP client sends with ID (RFC 2971), kept for the backend.

/// The parameters of a client's last ID that may be sent to a backend.
///
/// Other parameters are dropped without an error, so that a long list does not prevent a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientId(Vec<Parameter>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    field: String,
    /// `None` is NIL.
    value: Option<String>,
}

impl ClientId {
    /// Creates the list from fields and their values; `None` is NIL.
    ///
    /// Keeps fields and values that fit into a quoted string and the limits of RFC 2971 section 3.3, each field once.
    /// Drops fields that start with `x-`: in these, backends accept the client's identity from us, and a client must
    /// not set them.
    #[must_use]
    pub fn new<'a>(parameters: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Self {
        let mut kept: Vec<Parameter> = Vec::new();
        for (field, value) in parameters {
            let (Some(field), Some(value)) = (text(field, MAX_FIELD), optional_text(value)) else { continue };
            let is_ours = field.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
            let is_known = kept.iter().any(|parameter| parameter.field.eq_ignore_ascii_case(&field));
            if !field.is_empty() && !is_ours && !is_known && kept.len() < MAX_PARAMETERS {
                kept.push(Parameter { field, value });
            }
        }
        Self(kept)
    }

    /// Returns each parameter as in a command: `"name" "value"`.
    pub fn quoted(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|Parameter { field, value }| {
            let value = value.as_deref().map_or_else(|| "NIL".to_owned(), quote);
            format!("{} {value}", quote(field))
        })
    }
}

fn optional_text(value: Option<&[u8]>) -> Option<Option<String>> {
    value.map_or(Some(None), |value| text(value, MAX_VALUE).map(Some))
}

/// Returns text that a quoted string can hold for sure: printable ASCII.
fn text(bytes: &[u8], most: usize) -> Option<String> {
    let is_printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_printable && bytes.len() <= most)?;
    Some(text.to_owned())
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

/// Field-value pairs of one ID (RFC 2971 section 3.3).
pub(crate) const MAX_PARAMETERS: usize = 30;
/// Bytes of a field (same section).
const MAX_FIELD: usize = 30;
/// Bytes of a value (same section).
const MAX_VALUE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(parameters: &[(&[u8], Option<&[u8]>)]) -> Vec<String> {
        ClientId::new(parameters.iter().copied()).quoted().collect()
    }

    #[test]
    fn quotes_what_it_keeps() {
        let parameters: [(&[u8], Option<&[u8]>); 3] =
            [(b"name", Some(b"a \"b\" \\c")), (b"os", None), (b"version", Some(b""))];
        assert_eq!(kept(&parameters), [r#""name" "a \"b\" \\c""#, r#""os" NIL"#, r#""version" """#]);
    }

    #[test]
    fn the_fields_that_are_ours_are_left_out_in_any_case() {
        let ours: [&[u8]; 5] =
            [b"x-originating-ip", b"X-Connected-Port", b"x-forward-user", b"X-PROXY-TTL", b"x-"];
        for field in ours {
            assert_eq!(
                kept(&[(field, Some(b"192.0.2.1"))]),
                Vec::<String>::new(),
                "{}",
                field.escape_ascii()
            );
        }
        assert_eq!(kept(&[(b"xname", Some(b"a"))]), [r#""xname" "a""#]);
    }

    #[test]
    fn keeps_within_the_bounds_of_the_rfc() {
        let (long_field, long_value) = ([b'f'; 31], [b'v'; 1025]);
        assert_eq!(kept(&[(&long_field, None), (b"a", Some(&long_value))]), Vec::<String>::new());
        assert_eq!(kept(&[(&long_field[1..], Some(&long_value[1..]))]).len(), 1);
        let fields: Vec<String> = (0..40).map(|number| format!("field{number}")).collect();
        let many = fields.iter().map(|field| (field.as_bytes(), None));
        assert_eq!(ClientId::new(many).quoted().count(), 30);
    }

    #[test]
    fn leaves_out_what_no_quoted_string_holds_and_what_was_said_already() {
        for bytes in [&b"a\r\nb NOOP"[..], b"a\0", b"\xc3\xa9", b"\x7f"] {
            assert_eq!(kept(&[(bytes, None), (b"a", Some(bytes)), (b"", None)]), Vec::<String>::new());
        }
        assert_eq!(kept(&[(b"name", Some(b"a")), (b"NAME", Some(b"b"))]), [r#""name" "a""#]);
    }
}
