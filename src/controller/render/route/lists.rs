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
use crate::protocol::User;

/// The parsed lists, by the object and its key, and by the route.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserLists(BTreeMap<ListId, Parsed>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListId {
    reference: Reference,
    key: String,
    route: Key,
}

#[derive(Clone, Debug)]
struct Parsed {
    source: ListSource,
    allowed: AllowedDomains,
    list: Arc<UserList>,
    problems: Vec<String>,
    problem_count: usize,
}

/// The content of a list.
#[derive(Debug)]
pub struct Listed {
    /// The users of the lines that can be used.
    pub list: UserList,
    /// What is wrong with the first of the other lines: the ends of a sentence.
    pub problems: Vec<String>,
    /// The number of the other lines.
    pub problem_count: usize,
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
        allowed: &AllowedDomains,
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
        let id = ListId {
            reference: Reference::new(kind, &key),
            key: list.key.clone(),
            route: scope.own_key(scope.listener_name()),
        };
        let is_pending = matches!(found, Lookup::Pending(_));
        let source = found.required(scope, (kind, &key), path, "create it, or correct the name");
        if let Some(source) = source {
            if source.text(&list.key).is_some() {
                let parsed = self.parse(id, source, allowed);
                report(scope, path, parsed);
                return Read::List(Arc::clone(&parsed.list));
            }
            let problem = format!("{} has no key {}", id.reference, list.key);
            scope.report(Violation::missing(
                &format!("{path}.key"),
                problem,
                "add it, or correct the name of the key",
            ));
            return self.last(&id, allowed).map_or(Read::Never, Read::LastGood);
        }
        match self.last(&id, allowed) {
            Some(last) if is_pending => Read::List(last),
            Some(last) => Read::LastGood(last),
            None => Read::Never,
        }
    }

    /// Returns the last content of a list, unless the allowed domains have changed since.
    fn last(&self, id: &ListId, allowed: &AllowedDomains) -> Option<Arc<UserList>> {
        let parsed = self.0.get(id).filter(|parsed| parsed.allowed == *allowed)?;
        Some(Arc::clone(&parsed.list))
    }

    /// Forgets the lists of a route that was deleted, or that has other lists now.
    pub(crate) fn keep(&mut self, route: &Key, is_used: impl Fn(&Reference) -> bool) {
        self.0.retain(|id, _| id.route != *route || is_used(&id.reference));
    }

    fn parse(&mut self, id: ListId, source: ListSource, allowed: &AllowedDomains) -> &Parsed {
        let is_same = |known: &Parsed| known.source.is(&source) && known.allowed == *allowed;
        let known = self.0.get(&id).filter(|known| is_same(known)).cloned();
        let parsed = known.unwrap_or_else(|| {
            let mut parsed = parsed(source.text(&id.key).unwrap_or_default(), allowed, source.clone());
            // An unchanged list keeps its allocation, so that its route does not change.
            if let Some(before) = self.0.get(&id).filter(|before| before.list == parsed.list) {
                parsed.list = Arc::clone(&before.list);
            }
            parsed
        });
        let entry = self.0.entry(id).or_insert_with(|| parsed.clone());
        *entry = parsed;
        entry
    }
}

/// Reads the text of a list: one login in each line. Empty lines and those that start with `#` are comments.
#[must_use]
pub fn users(text: &[u8], allowed: &AllowedDomains) -> Listed {
    let (mut problems, mut problem_count) = (Vec::new(), 0_usize);
    // Editors on Windows write a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let users =
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#")).filter_map(|(index, line)| {
            let refused = match user(line) {
                Ok(user) if allowed.allow_user(&user) => return Some(user),
                Ok(_) => "has a domain that the MailServer does not allow to routes of this namespace",
                Err(problem) => problem,
            };
            problem_count = problem_count.saturating_add(1);
            if problems.len() < MAX_SHOWN {
                problems.push(format!("line {} {refused}", index.saturating_add(1)));
            }
            None
        });
    let list = UserList::new(users);
    Listed { list, problems, problem_count }
}

fn parsed(text: &[u8], allowed: &AllowedDomains, source: ListSource) -> Parsed {
    let Listed { list, problems, problem_count } = users(text, allowed);
    Parsed { source, allowed: allowed.clone(), list: Arc::new(list), problems, problem_count }
}

/// Warns of lines that are ignored.
fn report(scope: &Scope<'_>, path: &str, parsed: &Parsed) {
    let Some(more) = parsed.problem_count.checked_sub(parsed.problems.len()) else { return };
    if parsed.problems.is_empty() {
        return;
    }
    let mut shown = parsed.problems.join(", ");
    if more > 0 {
        shown.push_str(&format!(", and {more} more lines"));
    }
    let problem = format!("these lines are ignored: {shown}");
    scope.report(Violation::notice(Notice::UsersIgnored, path, problem, "correct or remove them"));
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
        let parsed = parsed(text.as_bytes(), &AllowedDomains::All, source);
        let names: Vec<_> =
            parsed.list.names().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        assert_eq!(names, ["bob@example.org", "al@b", "me@xn--mnchen-3ya.example"]);
        assert_eq!(parsed.problem_count, 0);
    }

    #[test]
    fn bad_lines_are_named_and_ignored() {
        let long = "a".repeat(321);
        let text = format!("ok@a.example\nböb@a.example\nx\x07@a.example\n{long}\n@a.example\nok@b.example");
        let allowed = AllowedDomains::Only(vec![crate::model::DomainPattern::parse("a.example").unwrap()]);
        let parsed = parsed(text.as_bytes(), &allowed, ListSource::ConfigMap(Arc::default()));
        assert_eq!(parsed.list.names().collect::<Vec<_>>(), [b"ok@a.example"]);
        assert_eq!(parsed.problem_count, 5);
        assert_eq!(
            parsed.problems,
            [
                "line 2 contains characters that are not ASCII, outside of a domain",
                "line 3 contains control characters",
                "line 4 is longer than 320 bytes",
            ]
        );
    }
}
