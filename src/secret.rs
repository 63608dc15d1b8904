//! The only type for secret values: passwords, tokens, private keys, header values.
//!
//! It is below all layers, because both halves handle secrets: the protocol machines read them from clients, and the
//! renderer reads them from Kubernetes Secrets. `Debug`, `Display` and `Serialize` mask the content in every build, and
//! the bytes are wiped on drop.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Serialize, Serializer};
use zeroize::optimization_barrier;

/// Bytes that are never printed and are wiped on drop.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Wiped);

impl Secret {
    /// Takes ownership of the bytes. The caller must not keep a copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Wiped::from(bytes))
    }

    /// Returns the bytes, for the code that needs them: the wire, a key parser, a hash.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A buffer whose whole capacity is wiped on drop. Growing it leaves unwiped copies, so the caller reserves the capacity or
/// calls `grow`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Creates an empty buffer with this capacity.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }
}

/// The caller must not keep a copy.
impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

/// Prints how many bytes there are, not which.
impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiped").field("len", &self.0.len()).finish()
    }
}

/// Overwrites the whole capacity of a buffer with zeros, and empties it. `zeroize` would write one byte after another; every
/// login wipes some kilobytes.
pub(crate) fn wipe(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.capacity(), 0);
    wipe_slice(bytes);
    bytes.clear();
}

/// Overwrites bytes with zeros.
pub(crate) fn wipe_slice(bytes: &mut [u8]) {
    bytes.fill(0);
    // Without it, the compiler may leave out a write to memory that nobody reads.
    optimization_barrier(bytes);
}

/// Gives a buffer this capacity. `Vec` would leave an unwiped copy of the bytes.
pub(crate) fn grow(bytes: &mut Wiped, capacity: usize) {
    let mut roomier = Wiped::with_capacity(capacity.max(bytes.len()));
    roomier.extend_from_slice(bytes);
    *bytes = roomier;
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

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// The text that replaces a secret. Its length is constant, so it does not reveal the secret's length.
pub const MASK: &str = "********";

/// Returns a URL for messages, without login and query, which may contain keys. `text` need not be a valid URL.
#[must_use]
pub fn shown_url(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    if !rest.contains('@') && lacks_its_host(rest) {
        let end = rest.rfind(['/', '?', '#']).unwrap_or(rest.len());
        let path = rest.get(end..).filter(|path| path.starts_with('/')).unwrap_or_default();
        return format!("{scheme}{separator}{MASK}{path}");
    }
    // A password may contain any character, so the login ends at the last `@`.
    let (login, rest) =
        rest.rsplit_once('@').map_or((String::new(), rest), |(_, rest)| (format!("{MASK}@"), rest));
    let (rest, query) =
        rest.split_once('?').map_or((rest, String::new()), |(rest, _)| (rest, format!("?{MASK}")));
    format!("{scheme}{separator}{login}{rest}{query}")
}

/// Tells whether a text may contain a login, even if it is not a valid URL.
#[must_use]
pub fn may_hold_login(text: &str) -> bool {
    let mut authorities = text.split("://").skip(1);
    text.contains('@') || authorities.any(lacks_its_host)
}

/// Tells whether the text after `://` has a colon that is not followed by a port: a login without `@` and host. A
/// password may contain any character.
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
    fn wiping_overwrites_the_bytes_and_keeps_the_capacity() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"hunter2");
        wipe_slice(&mut bytes);
        assert_eq!(bytes, [0; 7]);
        wipe(&mut bytes);
        assert!(bytes.is_empty() && bytes.capacity() >= 100);
        let mut grown = Wiped::from(b"hunter2".to_vec());
        grow(&mut grown, 1000);
        assert!(*grown == b"hunter2" && grown.capacity() >= 1000);
        assert_eq!(format!("{grown:?}"), "Wiped { len: 7 }");
    }

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
        assert_eq!(serde_json::to_value(&secret).unwrap(), MASK);
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "******** ******** ********");
    }
}
