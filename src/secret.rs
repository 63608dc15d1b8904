//! The one type for everything that must not be seen: passwords, tokens, private keys, header values.
//!
//! It stands below all layers because both ends of the program hold secrets: the protocol machines read
//! them from clients, the renderer from Kubernetes Secrets. `Debug` and `Display` mask the content in
//! every build, and the bytes are wiped when the value is dropped.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that are never printed and are wiped on drop.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the one place that needs them: the wire, a key parser, a hash.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What is printed in a secret's place; of constant length, so that not even the length is told.
pub const MASK: &str = "********";

/// A URL as it may be shown: without a login and a query, which may hold keys. `text` need not be a valid URL.
#[must_use]
pub fn shown_url(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    if !rest.contains('@') && lacks_its_host(rest) {
        let end = rest.rfind(['/', '?', '#']).unwrap_or(rest.len());
        let path = rest.get(end..).filter(|path| path.starts_with('/')).unwrap_or_default();
        return format!("{scheme}{separator}{MASK}{path}");
    }
    // A password may hold anything, so that it ends at the last @ only.
    let (login, rest) =
        rest.rsplit_once('@').map_or((String::new(), rest), |(_, rest)| (format!("{MASK}@"), rest));
    let (rest, query) =
        rest.split_once('?').map_or((rest, String::new()), |(rest, _)| (rest, format!("?{MASK}")));
    format!("{scheme}{separator}{login}{rest}{query}")
}

/// Whether a login may stand in what is written as a URL, be it right or wrong.
#[must_use]
pub fn may_hold_login(text: &str) -> bool {
    let mut authorities = text.split("://").skip(1);
    text.contains('@') || authorities.any(lacks_its_host)
}

/// Whether the text behind `://` has something other than a port behind a colon: a login whose `@` and host are
/// missing. A password may hold any character.
fn lacks_its_host(rest: &str) -> bool {
    let rest = rest.trim_start();
    let is_address = rest.starts_with('[');
    let behind = if is_address { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
    let Some((host, port)) = behind.split_once(':') else { return false };
    let port = port.split(['/', '?', '#', '\'', '"', ' ', ',', '}', ']']).next().unwrap_or_default();
    !host.contains(['/', '?', '#', ' ', '\'', '"', ',']) && !port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_login_and_query() {
        for (url, shown) in [
            ("http://auth.test:9000/a", "http://auth.test:9000/a"),
            ("http://auth.test/a?key=hunter2", "http://auth.test/a?********"),
            ("http://u:hunter2@auth.test/a?b", "http://********@auth.test/a?********"),
            ("https://u:hun@ter?2/@auth.test", "https://********@auth.test"),
            ("u:hunter2@auth.test", "********@auth.test"),
            ("http://u:hunter2/", "http://********/"),
            ("http://u:hun/ter2/", "http://********/"),
            ("http://u:hunter2", "http://********"),
            ("http://[::1]:9000/a", "http://[::1]:9000/a"),
            ("http://a.test/b:c", "http://a.test/b:c"),
            ("://u:hunter2@", "********@"),
            ("", ""),
        ] {
            assert_eq!(shown_url(url), shown, "{url}");
        }
    }

    #[test]
    fn prints_a_mask_in_every_format() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "******** ******** ********");
    }
}
