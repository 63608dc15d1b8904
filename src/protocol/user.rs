//! The user that a login or a recipient names, in one form for all its spellings. `MailRoute`s are matched by it.
//!
//! Only the domain is folded: it becomes its A-label (RFC 5890) in lower case, without a final dot. The local part is
//! compared as it is written (RFC 5321 section 2.4), without the quotes of a quoted string.

use std::borrow::Cow;

use idna::AsciiDenyList;
use serde::Serialize;

use super::login::LoginRequest;
use super::sasl::{self, Mechanism};

/// A user: `local@domain`, or a local part alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// Both parts, with `@` between them; or the local part alone, see [`User::of_local`].
    address: Vec<u8>,
    /// The length of the local part if a domain follows.
    local: Option<usize>,
}

impl User {
    /// Reads a user. The last `@` separates the domain, so that `"x@y"@example.com` is in `example.com`.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        match text.iter().rposition(|byte| *byte == b'@').map(|at| text.split_at(at)) {
            Some((local, domain)) if domain.len() > 1 => {
                Self::of(&unquoted(local), domain.get(1..).unwrap_or_default())
            }
            Some((local, _)) => Self::of_local(&unquoted(local)),
            None => Self::of_local(&unquoted(text)),
        }
    }

    /// Creates a user without a domain. If the local part contains `@`, another one follows it, because the text would
    /// otherwise be that of a user with a domain.
    #[must_use]
    pub fn of_local(local: &[u8]) -> Self {
        let end: &[u8] = if local.contains(&b'@') { b"@" } else { b"" };
        Self { address: [local, end].concat(), local: None }
    }

    fn of(local: &[u8], domain: &[u8]) -> Self {
        let address = [local, b"@", &ascii_domain(domain)].concat();
        Self { address, local: Some(local.len()) }
    }

    /// Returns the user with the first bytes of the local part, and the same domain.
    fn with_shorter_local(&self, length: usize) -> Option<Self> {
        let local = self.local().get(..length)?;
        let Some(end) = self.local else { return Some(Self::of_local(local)) };
        let address = [local, self.address.get(end..)?].concat();
        Some(Self { address, local: Some(length) })
    }

    /// Returns the whole name: `local@domain`, or the local part alone.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.address
    }

    /// Returns the local part.
    #[must_use]
    pub fn local(&self) -> &[u8] {
        match self.local {
            Some(local) => self.address.get(..local).unwrap_or_default(),
            None => self.address.strip_suffix(b"@").unwrap_or(&self.address),
        }
    }

    /// Returns the domain in the form of [`ascii_domain`].
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        std::str::from_utf8(self.raw_domain()?).ok()
    }

    /// Tells whether what follows the last `@` cannot be a domain: it has an empty label or a space, for example.
    /// Servers read such a name in different ways: some remove the spaces, and find another user than the routes would.
    /// An address literal (`[192.0.2.1]`) can be one.
    #[must_use]
    pub fn has_impossible_domain(&self) -> bool {
        let is_literal = |domain: &[u8]| domain.starts_with(b"[") && domain.ends_with(b"]");
        match self.raw_domain() {
            Some(domain) => !is_literal(domain) && !std::str::from_utf8(domain).is_ok_and(is_domain),
            // Nothing follows the last of several `@`.
            None => self.address.ends_with(b"@"),
        }
    }

    fn raw_domain(&self) -> Option<&[u8]> {
        self.address.get(self.local?.checked_add(1)?..)
    }
}

/// How a server reads users: `spec.routing` of a `MailServer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserRules {
    /// The domain of a login without one, in the form of [`ascii_domain`].
    pub default_domain: Option<String>,
    /// In a recipient, what follows this character in the local part is ignored (`bob+lists@example.org`).
    pub recipient_delimiter: Option<char>,
    /// In a login, what follows this character is the master user who logs in for somebody else (`bob*admin`).
    pub master_user_separator: Option<char>,
}

/// The defaults of the API.
impl Default for UserRules {
    fn default() -> Self {
        Self { default_domain: None, recipient_delimiter: Some('+'), master_user_separator: Some('*') }
    }
}

/// The user of a session, and the other spelling under which it may be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The user, with the default domain if the client gave none.
    pub user: User,
    /// A recipient without its extension: `bob@example.org` for `bob+lists@example.org`.
    pub without_extension: Option<User>,
}

impl UserRules {
    /// Returns the user whose mailbox a login opens: SASL's authorization identity if there is one, otherwise the
    /// authentication identity. `None` if the request does not tell: mail without a login, and an exchange that is
    /// relayed without its first message.
    #[must_use]
    pub fn of_login(&self, request: &LoginRequest) -> Option<Named> {
        Some(self.of_name(&name_of(request)?))
    }

    /// Returns the user that an auth service names.
    #[must_use]
    pub fn of_name(&self, login: &[u8]) -> Named {
        Named { user: self.login(login), without_extension: None }
    }

    /// Returns the user of a recipient: the path of RCPT without its angle brackets. A source route
    /// (`@r1,@r2:u@example.com`, RFC 5321 appendix C) is ignored.
    #[must_use]
    pub fn of_recipient(&self, path: &[u8]) -> Named {
        let mailbox = match path {
            [b'@', ..] => path.splitn(2, |byte| *byte == b':').nth(1).unwrap_or(path),
            _ => path,
        };
        let user = self.with_domain(User::new(mailbox));
        let without_extension = self.recipient_delimiter.and_then(|delimiter| {
            let length = position(user.local(), delimiter).filter(|length| *length > 0)?;
            user.with_shorter_local(length)
        });
        Named { user, without_extension }
    }

    /// Tells whether a login also names a master user. No login names a user with such a name.
    #[must_use]
    pub fn has_master_user(&self, login: &[u8]) -> bool {
        self.own_length(login).is_some()
    }

    fn login(&self, login: &[u8]) -> User {
        let own = self.own_length(login).and_then(|length| login.get(..length));
        self.with_domain(User::new(own.unwrap_or(login)))
    }

    /// Returns the length of the user's own name if a master user follows.
    fn own_length(&self, login: &[u8]) -> Option<usize> {
        position(login, self.master_user_separator?).filter(|length| *length > 0)
    }

    /// Returns the user with the default domain if it has none.
    #[must_use]
    pub fn with_domain(&self, user: User) -> User {
        match &self.default_domain {
            Some(domain) if user.local.is_none() && !user.has_impossible_domain() => {
                User::of(user.local(), domain.as_bytes())
            }
            _ => user,
        }
    }
}

/// Returns the name of the user whose mailbox a login opens, as the client has sent it; see [`UserRules::of_login`].
#[must_use]
pub fn name_of(request: &LoginRequest) -> Option<Cow<'_, [u8]>> {
    Some(match request {
        LoginRequest::Password { authzid, .. } if !authzid.is_empty() => Cow::Borrowed(authzid),
        LoginRequest::Password { login, .. }
        | LoginRequest::Digest { login, .. }
        | LoginRequest::External { login }
        | LoginRequest::Token { login, .. } => Cow::Borrowed(login),
        LoginRequest::Relayed { mechanism, initial_response } => {
            Cow::Owned(relayed_login(*mechanism, initial_response.as_ref()?.expose())?)
        }
        LoginRequest::Anonymous => return None,
    })
}

/// Returns the position of the first `character`.
fn position(text: &[u8], character: char) -> Option<usize> {
    let mut encoded = [0; 4];
    let wanted = character.encode_utf8(&mut encoded).as_bytes();
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Returns the user of a relayed exchange's first message, in base64 as received.
fn relayed_login(mechanism: Mechanism, message: &[u8]) -> Option<Vec<u8>> {
    let request = match mechanism {
        Mechanism::XOAuth2 => sasl::decode_xoauth2(message),
        Mechanism::OAuthBearer => sasl::decode_oauthbearer(message),
        Mechanism::External => sasl::decode_external(message),
        // In CRAM-MD5 the server speaks first. The other mechanisms are not relayed.
        Mechanism::CramMd5 | Mechanism::Plain | Mechanism::Login | Mechanism::Apop | Mechanism::None => None,
    }?;
    Some(request.login().to_vec())
}

/// Returns a domain in one form for all its spellings: the A-label in lower case, without a final dot. A name that has
/// no A-label is only folded to lower case.
#[must_use]
pub fn ascii_domain(domain: &[u8]) -> Cow<'_, [u8]> {
    let is_foreign = !domain.is_ascii();
    let converted = || idna::domain_to_ascii_cow(domain, AsciiDenyList::EMPTY).ok().map(Cow::into_owned);
    if let Some(converted) = is_foreign.then(converted).flatten() {
        return Cow::Owned(without_dot(converted.as_bytes()).to_ascii_lowercase());
    }
    let domain = without_dot(domain);
    if domain.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(domain.to_ascii_lowercase())
    } else {
        Cow::Borrowed(domain)
    }
}

/// Tells whether text in the form of [`ascii_domain`] can be a domain: labels of letters, digits, `-` and `_`.
#[must_use]
pub fn is_domain(domain: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain) && !label.starts_with('-')
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}

fn without_dot(domain: &[u8]) -> &[u8] {
    domain.strip_suffix(b".").unwrap_or(domain)
}

/// Removes the quotes of a quoted string (RFC 5321 section 4.1.2).
fn unquoted(local: &[u8]) -> Cow<'_, [u8]> {
    let Some(quoted) = local.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(local);
    };
    let mut plain = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        plain.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn password(authzid: &str, login: &str) -> LoginRequest {
        LoginRequest::Password {
            login: login.as_bytes().to_vec(),
            password: Secret::from(&b"p"[..]),
            authzid: authzid.as_bytes().to_vec(),
        }
    }

    fn of_login(request: &LoginRequest) -> String {
        let named = UserRules::default().of_login(request).unwrap();
        String::from_utf8(named.user.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_login_names_the_user_whose_mailbox_it_opens() {
        for (authzid, login, user) in [
            ("", "bob@A", "bob@a"),
            ("bob@a", "admin", "bob@a"),
            ("", "bob@a*admin", "bob@a"),
            ("", "bob*admin@a", "bob"),
            ("", "Bob@Example.ORG.", "Bob@example.org"),
            ("", "bob@münchen.example", "bob@xn--mnchen-3ya.example"),
            ("", "bob@XN--MNCHEN-3YA.example", "bob@xn--mnchen-3ya.example"),
            ("", "\"x@y\"@example.com", "x@y@example.com"),
            ("", "\"b\\ob\"@a", "bob@a"),
            ("", "bob@", "bob"),
            ("", "*admin", "*admin"),
            ("", "bob@a@", "bob@a@"),
        ] {
            assert_eq!(of_login(&password(authzid, login)), user, "{authzid} {login}");
        }
        assert_eq!(User::new(b"\"x@y\"@example.com").domain(), Some("example.com"));
        assert_eq!(User::new(b"\"x@y\"@example.com").local(), b"x@y");
    }

    #[test]
    fn the_user_of_a_relayed_exchange_is_in_its_first_message() {
        let relayed = |mechanism, message: Option<&[u8]>| LoginRequest::Relayed {
            mechanism,
            initial_response: message.map(|message| Secret::from(sasl::encode_base64(message).as_bytes())),
        };
        let bearer = relayed(Mechanism::OAuthBearer, Some(b"n,a=bob@A,\x01auth=Bearer t\x01\x01"));
        assert_eq!(of_login(&bearer), "bob@a");
        let xoauth2 = relayed(Mechanism::XOAuth2, Some(b"user=bob@A\x01auth=Bearer t\x01\x01"));
        assert_eq!(of_login(&xoauth2), "bob@a");
        assert_eq!(of_login(&relayed(Mechanism::External, Some(b"bob@A"))), "bob@a");
        let rules = UserRules::default();
        assert_eq!(rules.of_login(&relayed(Mechanism::External, None)), None);
        assert_eq!(rules.of_login(&relayed(Mechanism::CramMd5, None)), None);
        assert_eq!(rules.of_login(&LoginRequest::Anonymous), None);
    }

    #[test]
    fn a_recipient_names_the_user_without_route_and_extension() {
        let rules = UserRules::default();
        for (path, user, bare) in [
            ("@r1,@r2:u@example.com", "u@example.com", None),
            ("bob+lists@Example.org", "bob+lists@example.org", Some("bob@example.org")),
            ("+bob@example.org", "+bob@example.org", None),
            ("Postmaster", "Postmaster", None),
            ("a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]", None),
        ] {
            let named = rules.of_recipient(path.as_bytes());
            assert_eq!(named.user.as_bytes(), user.as_bytes(), "{path}");
            assert_eq!(
                named.without_extension.as_ref().map(User::as_bytes),
                bare.map(str::as_bytes),
                "{path}"
            );
        }
    }

    /// Also a domain that is none: it would name another user, or the user of another server, if it changed.
    #[test]
    fn a_recipient_without_its_extension_has_the_same_domain() {
        let bare = |path: &[u8]| UserRules::default().of_recipient(path).without_extension;
        for (path, expected) in [
            (&b"bob+lists@example.org.."[..], &b"bob@example.org."[..]),
            (b"bob+lists@B\xff", b"bob@b\xff"),
            (b"bob+lists", b"bob"),
        ] {
            let found = bare(path).unwrap();
            assert_eq!(found.as_bytes(), expected, "{}", path.escape_ascii());
            assert_eq!(found.local(), b"bob");
        }
    }

    #[test]
    fn a_default_domain_is_added_to_names_without_one() {
        let rules = UserRules { default_domain: Some("example.org".to_owned()), ..UserRules::default() };
        assert_eq!(rules.of_name(b"bob").user.as_bytes(), b"bob@example.org");
        assert_eq!(rules.of_name(b"bob*admin").user.as_bytes(), b"bob@example.org");
        assert_eq!(rules.of_name(b"bob@b").user.as_bytes(), b"bob@b");
        assert_eq!(rules.of_recipient(b"postmaster").user.as_bytes(), b"postmaster@example.org");
    }

    #[test]
    fn a_name_whose_domain_cannot_be_one_is_known() {
        let rules = UserRules { default_domain: Some("example.org".to_owned()), ..UserRules::default() };
        for login in [
            &b"bob@example.com "[..],
            b"bob@example.com\t",
            b"bob@ example.com",
            b"bob@example..com",
            b"bob@.example.com",
            b"bob@example.com..",
            b"bob@.",
            b"bob@ ",
            b"bob@exam ple.com",
            b"bob@-example.com",
            b"bob@example.com@",
            b"bob@example.com,al",
            b"bob@a\xff",
        ] {
            let shown = login.escape_ascii();
            assert!(rules.of_name(login).user.has_impossible_domain(), "{shown}");
            assert!(rules.of_recipient(login).user.has_impossible_domain(), "{shown}");
        }
        for login in [
            "bob@example.com",
            "bob@example.com.",
            "bob@a",
            "bob",
            "bob@",
            "bob @a",
            "a@[192.0.2.1]",
            "a@_b.c",
        ] {
            assert!(!rules.of_name(login.as_bytes()).user.has_impossible_domain(), "{login}");
        }
    }

    #[test]
    fn what_no_domain_can_be_is_only_folded() {
        assert_eq!(User::new(b"a@B\xff").as_bytes(), b"a@b\xff");
        assert_eq!(User::new(b"a@B\xff").domain(), None);
    }
}
