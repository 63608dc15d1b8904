//! Reads lists of users (`usersFrom`). A list is parsed again only if its ConfigMap or Secret, or the allowed domains,
//! have changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::common::BundleKind;
use crate::api::route::UserListRef;
use crate::controller::index::{Key, Lookup, Reference, ReferenceKind, SecretData};
use crate::controller::render::references::References;
use crate::controller::render::scope::Scope;
use crate::controller::violation::{Notice, Violation};
use crate::model::{AllowedDomains, UserList};
use crate::protocol::{User, UserRules};
use crate::words::counted;

/// The parsed lists, by the route, and by the object and its key.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserLists(BTreeMap<Key, BTreeMap<ListId, Parsed>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListId {
    reference: Reference,
    key: String,
}

/// What decides which lines of a list are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRules {
    /// The domains that the route may name.
    pub allowed: AllowedDomains,
    /// How the `MailServer` reads users.
    pub users: UserRules,
}

#[derive(Clone, Debug)]
struct Parsed {
    source: ListSource,
    rules: LineRules,
    list: Arc<UserList>,
    /// Lines that are ignored.
    ignored: Lines,
    /// Lines that no login matches.
    unmatched: Lines,
}

/// Lines with a problem: the first ones, and their number.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// The numbers of the first ones, with what is wrong: the ends of a sentence.
    pub first: Vec<String>,
    /// The number of all of them.
    pub count: usize,
}

/// The content of a list.
#[derive(Debug)]
pub struct Listed {
    /// The users of the lines that can be used.
    pub list: UserList,
    /// Lines that are ignored.
    pub ignored: Lines,
    /// Lines that no login matches.
    pub unmatched: Lines,
}

/// The object with the text of a list.
#[derive(Clone, Debug)]
enum ListSource {
    ConfigMap(Arc<BTreeMap<String, Vec<u8>>>),
    Secret(Arc<SecretData>),
}

impl ListSource {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ConfigMap(one), Self::ConfigMap(other)) => Arc::ptr_eq(one, other),
            (Self::Secret(one), Self::Secret(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn text(&self, key: &str) -> Option<&[u8]> {
        match self {
            Self::ConfigMap(map) => map.get(key).map(Vec::as_slice),
            Self::Secret(secret) => secret.data.get(key).map(|value| value.expose()),
        }
    }
}

/// The result of reading a list.
pub(crate) enum Read {
    /// Its current content.
    List(Arc<UserList>),
    /// Its last content, because it cannot be read now.
    LastGood(Arc<UserList>),
    /// It has never been read, so it is not known who is in it.
    Never,
}

impl UserLists {
    /// Reads a list, and reports why it cannot be read, or which lines cannot be used.
    pub(crate) fn read(
        &mut self,
        scope: &Scope<'_>,
        path: &str,
        list: &UserListRef,
        rules: &LineRules,
        references: &References<'_>,
    ) -> Read {
        let key = scope.own_key(&list.name);
        let (kind, found) = match list.kind {
            BundleKind::ConfigMap => {
                let found = references.config_map(&key);
                (ReferenceKind::ConfigMap, found.map(|map| ListSource::ConfigMap(Arc::clone(map))))
            }
            BundleKind::Secret => {
                let found = references.secret(&key);
                (ReferenceKind::Secret, found.map(|secret| ListSource::Secret(Arc::clone(secret))))
            }
        };
        let route = scope.own_key(scope.listener_name());
        let id = ListId { reference: Reference::new(kind, &key), key: list.key.clone() };
        let is_pending = matches!(found, Lookup::Pending(_));
        let source = found.required(scope, (kind, &key), path, "create it, or correct the name");
        if let Some(source) = source {
            if source.text(&list.key).is_some() {
                let parsed = self.parse(route, id, source, rules);
                report(scope, path, parsed);
                return Read::List(Arc::clone(&parsed.list));
            }
            let problem = format!("{} has no key {}", id.reference, list.key);
            scope.report(Violation::missing(
                &format!("{path}.key"),
                problem,
                "add it, or correct the name of the key",
            ));
            return self.last(&route, &id, rules).map_or(Read::Never, Read::LastGood);
        }
        match self.last(&route, &id, rules) {
            Some(last) if is_pending => Read::List(last),
            Some(last) => Read::LastGood(last),
            None => Read::Never,
        }
    }

    /// Returns the last content of a list, unless the rules have changed since.
    fn last(&self, route: &Key, id: &ListId, rules: &LineRules) -> Option<Arc<UserList>> {
        let parsed = self.0.get(route)?.get(id).filter(|parsed| parsed.rules == *rules)?;
        Some(Arc::clone(&parsed.list))
    }

    /// Forgets the lists of a route that was deleted, or that has other lists now.
    pub(crate) fn keep(&mut self, route: &Key, is_used: impl Fn(&Reference) -> bool) {
        let Some(lists) = self.0.get_mut(route) else { return };
        lists.retain(|id, _| is_used(&id.reference));
        if lists.is_empty() {
            self.0.remove(route);
        }
    }

    fn parse(&mut self, route: Key, id: ListId, source: ListSource, rules: &LineRules) -> &Parsed {
        let lists = self.0.entry(route).or_default();
        let is_same = |known: &Parsed| known.source.is(&source) && known.rules == *rules;
        let known = lists.get(&id).filter(|known| is_same(known)).cloned();
        let parsed = known.unwrap_or_else(|| {
            let mut parsed = parsed(source.text(&id.key).unwrap_or_default(), rules, source.clone());
            // An unchanged list keeps its allocation, so that its route does not change.
            if let Some(before) = lists.get(&id).filter(|before| before.list == parsed.list) {
                parsed.list = Arc::clone(&before.list);
            }
            parsed
        });
        let entry = lists.entry(id).or_insert_with(|| parsed.clone());
        *entry = parsed;
        entry
    }
}

/// Reads the text of a list: one login in each line. Empty lines and those that start with `#` are comments.
#[must_use]
pub fn users(text: &[u8], rules: &LineRules) -> Listed {
    let (mut ignored, mut unmatched) = (Lines::default(), Lines::default());
    // Editors on Windows write a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let users =
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#")).filter_map(|(index, line)| {
            match user(line) {
                Ok(user) if rules.allow(&user) => {
                    if rules.users.has_master_user(line) {
                        unmatched.add(index, "");
                    }
                    return Some(rules.users.with_domain(user));
                }
                Ok(_) => ignored.add(
                    index,
                    " has a domain that the MailServer does not allow to routes of this namespace",
                ),
                Err(problem) => ignored.add(index, &format!(" {problem}")),
            }
            None
        });
    let list = UserList::new(users);
    Listed { list, ignored, unmatched }
}

fn parsed(text: &[u8], rules: &LineRules, source: ListSource) -> Parsed {
    let Listed { list, ignored, unmatched } = users(text, rules);
    Parsed { source, rules: rules.clone(), list: Arc::new(list), ignored, unmatched }
}

impl LineRules {
    /// Tells whether the route may name a user. A user without a domain is in the default domain.
    pub(crate) fn allow(&self, user: &User) -> bool {
        self.allowed.allow_user(&self.users.with_domain(user.clone()))
    }
}

impl Lines {
    fn add(&mut self, index: usize, problem: &str) {
        self.count = self.count.saturating_add(1);
        if self.first.len() < MAX_SHOWN {
            self.first.push(format!("line {}{problem}", index.saturating_add(1)));
        }
    }

    /// Lists them. `None` if there are none.
    fn shown(&self) -> Option<String> {
        let more = match self.count.checked_sub(self.first.len())? {
            _ if self.first.is_empty() => return None,
            0 => String::new(),
            more => format!(", and {}", counted(more, "more line")),
        };
        Some(self.first.join(", ") + &more)
    }
}

/// Warns of lines that have no effect.
fn report(scope: &Scope<'_>, path: &str, parsed: &Parsed) {
    if let Some(shown) = parsed.ignored.shown() {
        let problem = format!("these lines are ignored: {shown}");
        scope.report(Violation::notice(Notice::UsersIgnored, path, problem, "correct or remove them"));
    }
    if let Some(shown) = parsed.unmatched.shown() {
        scope.report(unmatched(path, &format!("these lines: {shown}"), &parsed.rules.users));
    }
}

/// Warns of users whom no login names, because they contain the separator before a master user.
pub(crate) fn unmatched(path: &str, which: &str, rules: &UserRules) -> Violation {
    let separator = rules.master_user_separator.unwrap_or_default();
    Violation::notice(
        Notice::UsersIgnored,
        path,
        format!("no login matches {which}, because a login ends before {separator:?}"),
        "write the login without the master user, or change spec.routing.masterUserSeparator of the MailServer",
    )
}

/// Reads one login of a list.
///
/// # Errors
/// The end of a sentence that begins with the login's place.
pub(crate) fn user(text: &[u8]) -> Result<User, &'static str> {
    if text.len() > MAX_LOGIN {
        return Err("is longer than 320 bytes");
    }
    if text.iter().any(|byte| byte.is_ascii_control()) {
        return Err("contains control characters");
    }
    let user = User::new(text);
    if !user.as_bytes().is_ascii() {
        return Err("contains characters that are not ASCII, outside of a domain");
    }
    if user.local().is_empty() {
        return Err("has no name before the @");
    }
    if user.has_impossible_domain() {
        return Err("has something behind the @ that is not a domain");
    }
    Ok(user)
}

/// Longest login in bytes: RFC 5321 allows 64 for the local part and 255 for the domain.
const MAX_LOGIN: usize = 320;
/// The maximum number of lines in a message.
const MAX_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_login_in_each_line() {
        let text =
            "# moved on Monday\r\nbob@Example.org\n\n  al@b \n# x\nbob@example.org\r\nme@münchen.example";
        let source = ListSource::ConfigMap(Arc::default());
        let parsed = parsed(text.as_bytes(), &rules(AllowedDomains::All), source);
        let names: Vec<_> =
            parsed.list.names().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        assert_eq!(names, ["bob@example.org", "al@b", "me@xn--mnchen-3ya.example"]);
        assert_eq!((parsed.ignored.count, parsed.unmatched.count), (0, 0));
    }

    #[test]
    fn bad_lines_are_named_and_ignored() {
        let long = "a".repeat(321);
        let text = format!("ok@a.example\nböb@a.example\nx\x07@a.example\n{long}\n@a.example\nok@b.example");
        let allowed = AllowedDomains::Only(vec![crate::model::DomainPattern::parse("a.example").unwrap()]);
        let parsed = parsed(text.as_bytes(), &rules(allowed), ListSource::ConfigMap(Arc::default()));
        assert_eq!(parsed.list.names().collect::<Vec<_>>(), [b"ok@a.example"]);
        assert_eq!(parsed.ignored.count, 5);
        assert_eq!(
            parsed.ignored.shown().unwrap(),
            "line 2 contains characters that are not ASCII, outside of a domain, line 3 contains control characters, \
             line 4 is longer than 320 bytes, and 2 more lines"
        );
    }

    #[test]
    fn lines_that_no_login_can_match_are_told() {
        let text = "bob@a.example # moved\nbob@a..example\nbob@a.example,al@a.example\nbob@a.example@\n\
                    bob@a.example*admin\nbob*admin@a.example\n*admin@a.example\nBob@A.Example.\nbob@[192.0.2.1]";
        let parsed =
            parsed(text.as_bytes(), &rules(AllowedDomains::All), ListSource::ConfigMap(Arc::default()));
        let problem = "has something behind the @ that is not a domain";
        let shown = parsed.ignored.shown().unwrap();
        assert_eq!(
            shown,
            format!("line 1 {problem}, line 2 {problem}, line 4 {problem}, and 1 more line"),
            "a comma may be in a local part"
        );
        assert_eq!(parsed.unmatched.shown().unwrap(), "line 6");
        let names: Vec<_> = parsed.list.names().map(String::from_utf8_lossy).collect();
        assert_eq!(
            names,
            [
                "bob@a.example,al@a.example",
                "bob*admin@a.example",
                "*admin@a.example",
                "Bob@a.example",
                "bob@[192.0.2.1]"
            ]
        );
    }

    #[test]
    fn a_line_without_a_domain_is_in_the_default_domain() {
        let allowed = AllowedDomains::Only(vec![crate::model::DomainPattern::parse("a.example").unwrap()]);
        for (default, ignored) in [("a.example", 0), ("b.example", 1)] {
            let users = UserRules { default_domain: Some(default.to_owned()), ..UserRules::default() };
            let rules = LineRules { allowed: allowed.clone(), users };
            let text = b"bob\nbob@a.example";
            let parsed = parsed(text, &rules, ListSource::ConfigMap(Arc::default()));
            // Both lines are the same user, or the first one is not allowed.
            assert_eq!(parsed.list.names().collect::<Vec<_>>(), [b"bob@a.example"], "{default}");
            assert_eq!(parsed.ignored.count, ignored, "{default}");
        }
    }

    fn rules(allowed: AllowedDomains) -> LineRules {
        LineRules { allowed, users: UserRules::default() }
    }
}
