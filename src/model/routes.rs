//! The routes of a `MailServer`: which users have a backend of their own. Pure.
//!
//! The precedence is: an exact user, an exact domain, the longest wildcard. Of two routes with the same entry, the
//! first one in the table has it.

mod domains;
mod users;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::protocol::user::{Named, User, UserRules};

pub use domains::{AllowedDomains, DomainPattern};
pub use users::{Hashed, UserList};

use super::exclusive::Affinity;
use super::reach::Reach;
use super::settings::{Backend, Upstream};

/// The routes of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Routes {
    /// How users are recognised.
    pub rules: UserRules,
    /// The routes of the `MailServer`.
    pub table: Arc<RouteTable>,
    /// For each route of the table, where its users go. `None`: to the listener's own backend, because the route has
    /// none for this protocol.
    pub destinations: Vec<Option<Arc<Destination>>>,
}

/// A backend, and how to connect to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// The backend.
    pub backend: Arc<Backend>,
    /// How to talk to it.
    pub upstream: Arc<Upstream>,
    /// What the route may connect to.
    pub reach: Reach,
    /// Which endpoint a user gets.
    pub affinity: Affinity,
}

/// The routes of a `MailServer`, the strongest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    entries: Vec<Arc<RouteEntry>>,
    domains: HashMap<String, usize>,
    /// By the domain behind `*.`.
    wildcards: HashMap<String, usize>,
}

/// One `MailRoute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Its identity.
    pub id: RouteId,
    /// Its domains.
    pub domains: Vec<DomainPattern>,
    /// Its users, in several lists.
    pub users: Vec<Arc<UserList>>,
    /// Set if one of its lists has never been read: the domains that the list may contain.
    pub unread: Option<AllowedDomains>,
    /// What happens to its users.
    pub state: RouteState,
}

/// What happens to the users of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteState {
    /// They are sent to the backend.
    Active,
    /// Their sessions are ended, and their logins wait.
    #[serde(rename_all = "camelCase")]
    Held {
        /// How long a login waits.
        #[serde(serialize_with = "duration::required::serialize")]
        timeout: Duration,
        /// The time over which open sessions are ended.
        #[serde(serialize_with = "duration::required::serialize")]
        spread: Duration,
    },
    /// Their logins are refused.
    Refused,
}

/// Namespace and name of a `MailRoute`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Writes `namespace/name`.
impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The route of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing<'a> {
    /// The position of the route in the table.
    Route(usize, Matched<'a>),
    /// The user may be in a list of this route, which has never been read.
    Undecided(&'a RouteEntry),
    /// The name has no possible domain; see [`User::has_impossible_domain`].
    NoDomain,
    /// There is no route.
    Unmatched,
}

/// What matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched<'a> {
    /// The exact user.
    User,
    /// The domain.
    Domain,
    /// A wildcard: the domain behind `*.`.
    Wildcard(&'a str),
}

/// What the routes of a listener do with a user.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// Nothing: there is no route, or it has no backend for this protocol. The listener's own backend is used.
    Own,
    /// The user may be in a list of this route, which has never been read.
    Undecided(&'a RouteEntry),
    /// The route refuses the user.
    Refused,
    /// The user is refused because nobody has such a name: the listener's own backend might find another user.
    NoDomain,
    /// The route is held.
    Held {
        /// The route.
        entry: &'a RouteEntry,
        /// How long a login waits.
        timeout: Duration,
    },
    /// The user goes to the backend of the route.
    To {
        /// The position of the route in the table.
        position: usize,
        /// Its backend.
        destination: &'a Destination,
    },
}

/// A domain with users in a list, who may go elsewhere than the other users of the domain.
#[derive(Clone, Copy, Debug)]
pub struct ListedDomain<'a> {
    /// What happens to the users of the domain who are in no list.
    pub others: Placement<'a>,
    /// The first route with a backend here whose list has users of the domain.
    pub listed: Option<usize>,
}

impl Routes {
    /// Returns the route of a user.
    #[must_use]
    pub fn find(&self, named: &Named) -> Routing<'_> {
        self.table.find(named)
    }

    /// Returns what happens to a user for whom [`Self::find`] has returned `routing`.
    #[must_use]
    pub fn placement<'a>(&'a self, routing: Routing<'a>) -> Placement<'a> {
        let position = match routing {
            Routing::Unmatched => return Placement::Own,
            Routing::NoDomain => return Placement::NoDomain,
            Routing::Undecided(entry) => return Placement::Undecided(entry),
            Routing::Route(position, _) => position,
        };
        let Some(entry) = self.table.entries().get(position) else { return Placement::Own };
        match (entry.state, self.destinations.get(position)) {
            (RouteState::Refused, _) => Placement::Refused,
            (RouteState::Held { timeout, .. }, _) => Placement::Held { entry, timeout },
            (RouteState::Active, Some(Some(destination))) => Placement::To { position, destination },
            (RouteState::Active, Some(None) | None) => Placement::Own,
        }
    }

    /// Returns where users of the same domain go. `None` if no list has users of this domain: all of them go to one
    /// place.
    #[must_use]
    pub fn listed_domain(&self, user: &User) -> Option<ListedDomain<'_>> {
        let mut lists = self.table.with_users_of_domain(user).peekable();
        lists.peek()?;
        let of_domain = user.domain().and_then(|domain| self.table.of_domain(domain));
        let others =
            of_domain.map_or(Routing::Unmatched, |(position, matched)| Routing::Route(position, matched));
        let has_backend = |position: &usize| matches!(self.destinations.get(*position), Some(Some(_)));
        Some(ListedDomain { others: self.placement(others), listed: lists.find(has_backend) })
    }
}

impl RouteEntry {
    /// Tells whether one of its lists has the user.
    #[must_use]
    pub fn has(&self, user: &Hashed<'_>) -> bool {
        self.users.iter().any(|list| list.has(user))
    }

    /// Returns the number of its users.
    #[must_use]
    pub fn user_count(&self) -> usize {
        self.users.iter().map(|list| list.len()).sum()
    }
}

impl RouteTable {
    /// Creates a table of routes, the strongest first. A domain belongs to the first route that names it.
    #[must_use]
    pub fn new(entries: Vec<Arc<RouteEntry>>) -> Self {
        let (mut domains, mut wildcards) = (HashMap::new(), HashMap::new());
        for (position, entry) in entries.iter().enumerate() {
            for pattern in &entry.domains {
                match pattern {
                    DomainPattern::Exact(domain) => domains.entry(domain.clone()),
                    DomainPattern::Below(domain) => wildcards.entry(domain.clone()),
                }
                .or_insert(position);
            }
        }
        Self { entries, domains, wildcards }
    }

    /// Returns the routes, the strongest first.
    #[must_use]
    pub fn entries(&self) -> &[Arc<RouteEntry>] {
        &self.entries
    }

    /// Returns the route of a user.
    #[must_use]
    pub fn find(&self, named: &Named) -> Routing<'_> {
        if named.user.has_impossible_domain() {
            return Routing::NoDomain;
        }
        let may_have = |entry: &&Arc<RouteEntry>| {
            entry.unread.as_ref().is_some_and(|allowed| allowed.allow_user(&named.user))
        };
        let listed = |user: &User| {
            let hashed = Hashed::new(user.as_bytes());
            self.entries.iter().position(|entry| entry.has(&hashed))
        };
        if let Some(position) = listed(&named.user) {
            // A stronger route would have the user if its list has it too.
            let stronger = self.entries.iter().take(position).find(may_have);
            return stronger
                .map_or(Routing::Route(position, Matched::User), |entry| Routing::Undecided(entry));
        }
        let unread = self.entries.iter().find(may_have);
        if let Some(position) = named.without_extension.as_ref().and_then(listed) {
            // A list may have the user with the extension, which comes first.
            return match unread.filter(|unread| !self.is_at(position, unread)) {
                Some(unread) => Routing::Undecided(unread),
                None => Routing::Route(position, Matched::User),
            };
        }
        let of_domain = named.user.domain().and_then(|domain| self.of_domain(domain));
        match (of_domain, unread) {
            (Some((position, matched)), Some(unread)) if self.is_at(position, unread) => {
                Routing::Route(position, matched)
            }
            (_, Some(unread)) => Routing::Undecided(unread),
            (Some((position, matched)), None) => Routing::Route(position, matched),
            (None, None) => Routing::Unmatched,
        }
    }

    /// Returns the positions of the routes whose lists have users of the same domain.
    fn with_users_of_domain(&self, user: &User) -> impl Iterator<Item = usize> {
        let has_domain = |entry: &RouteEntry| entry.users.iter().any(|list| list.has_domain_of(user));
        self.entries
            .iter()
            .enumerate()
            .filter(move |(_, entry)| has_domain(entry))
            .map(|(position, _)| position)
    }

    fn of_domain<'a>(&'a self, domain: &str) -> Option<(usize, Matched<'a>)> {
        if let Some(position) = self.domains.get(domain) {
            return Some((*position, Matched::Domain));
        }
        // The first dot gives the longest parent.
        let mut parents =
            domain.match_indices('.').filter_map(|(dot, _)| domain.get(dot.saturating_add(1)..));
        parents.find_map(|parent| {
            let (wildcard, position) = self.wildcards.get_key_value(parent)?;
            Some((*position, Matched::Wildcard(wildcard)))
        })
    }

    fn is_at(&self, position: usize, entry: &Arc<RouteEntry>) -> bool {
        self.entries.get(position).is_some_and(|other| Arc::ptr_eq(other, entry))
    }
}

/// Shows the routes with the number of their users.
impl Serialize for RouteTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.entries)
    }
}

impl Serialize for RouteEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let domains: Vec<String> = self.domains.iter().map(ToString::to_string).collect();
        let mut fields = serializer.serialize_struct("RouteEntry", 5)?;
        fields.serialize_field("id", &self.id.to_string())?;
        fields.serialize_field("domains", &domains)?;
        fields.serialize_field("users", &self.user_count())?;
        fields.serialize_field("isComplete", &self.unread.is_none())?;
        fields.serialize_field("state", &self.state)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LoadBalancing, UpstreamTls};

    fn entry(name: &str, domains: &[&str], users: &[&str]) -> RouteEntry {
        RouteEntry {
            id: RouteId { namespace: "mail".to_owned(), name: name.to_owned() },
            domains: domains.iter().map(|domain| DomainPattern::parse(domain).unwrap()).collect(),
            users: vec![Arc::new(UserList::new(users.iter().map(|user| User::new(user.as_bytes()))))],
            unread: None,
            state: RouteState::Active,
        }
    }

    fn table(entries: impl IntoIterator<Item = RouteEntry>) -> RouteTable {
        RouteTable::new(entries.into_iter().map(Arc::new).collect())
    }

    fn find<'a>(table: &'a RouteTable, login: &str) -> Routing<'a> {
        let rules = UserRules::default();
        table.find(&rules.of_name(login.as_bytes()))
    }

    #[test]
    fn a_user_comes_before_a_domain_and_a_domain_before_the_longest_wildcard() {
        let table = table([
            entry("org", &["*.org"], &[]),
            entry("below", &["*.example.org"], &[]),
            entry("exact", &["example.org"], &[]),
            entry("moved", &[], &["bob@example.org", "al@x.example.org"]),
        ]);
        for (login, route, matched) in [
            ("bob@Example.org", 3, Matched::User),
            ("Bob@example.org", 2, Matched::Domain),
            ("al@x.example.org", 3, Matched::User),
            ("me@x.example.org", 1, Matched::Wildcard("example.org")),
            ("me@y.x.example.org", 1, Matched::Wildcard("example.org")),
            ("me@other.org", 0, Matched::Wildcard("org")),
        ] {
            assert_eq!(find(&table, login), Routing::Route(route, matched), "{login}");
        }
        for login in ["me@org", "me@example.com", "bob", "me@[192.0.2.1]"] {
            assert_eq!(find(&table, login), Routing::Unmatched, "{login}");
        }
    }

    #[test]
    fn a_login_whose_domain_cannot_be_one_does_not_go_to_the_own_backend() {
        let tenant = AllowedDomains::All;
        let unread = RouteEntry { unread: Some(tenant), ..entry("unread", &[], &[]) };
        for table in [table([entry("org", &["example.org"], &["bob@example.com"])]), table([unread])] {
            for login in ["me@example.org ", "me@example..org", "me@.example.org", "bob@example.com@"] {
                assert_eq!(find(&table, login), Routing::NoDomain, "{login}");
            }
        }
        let table = table([entry("org", &["example.org"], &[])]);
        assert_eq!(find(&table, "me@example.org."), Routing::Route(0, Matched::Domain));
    }

    #[test]
    fn of_two_routes_with_one_entry_the_first_has_it() {
        let table = table([
            entry("old", &["a.example"], &["u@x"]),
            entry("new", &["a.example", "b.example"], &["u@x", "v@x"]),
        ]);
        for (login, route) in [("me@a.example", 0), ("me@b.example", 1), ("u@x", 0), ("v@x", 1)] {
            assert!(matches!(find(&table, login), Routing::Route(found, _) if found == route), "{login}");
        }
    }

    #[test]
    fn a_user_who_may_be_in_an_unread_list_is_undecided() {
        let tenant = AllowedDomains::Only(vec![DomainPattern::Below("example".to_owned())]);
        let table = table([
            entry("known", &["a.example", "b.test"], &["bob@c.example"]),
            RouteEntry { unread: Some(tenant), ..entry("unread", &["d.example"], &[]) },
        ]);
        assert!(
            matches!(find(&table, "me@a.example"), Routing::Undecided(entry) if entry.id.name == "unread")
        );
        assert_eq!(find(&table, "bob@c.example"), Routing::Route(0, Matched::User));
        assert_eq!(
            find(&table, "me@b.test"),
            Routing::Route(0, Matched::Domain),
            "a tenant's list has no such domain"
        );
        assert_eq!(find(&table, "me@d.example"), Routing::Route(1, Matched::Domain), "whatever the list has");
        assert_eq!(find(&table, "me"), Routing::Unmatched);
    }

    #[test]
    fn a_listed_user_is_undecided_if_a_stronger_list_may_have_the_user_too() {
        let unread = || RouteEntry { unread: Some(AllowedDomains::All), ..entry("unread", &[], &[]) };
        let known = || entry("known", &[], &["bob@a.example"]);
        assert_eq!(find(&table([known(), unread()]), "bob@a.example"), Routing::Route(0, Matched::User));
        let table = table([unread(), known()]);
        assert!(
            matches!(find(&table, "bob@a.example"), Routing::Undecided(entry) if entry.id.name == "unread")
        );
    }

    #[test]
    fn a_recipient_is_listed_with_or_without_its_extension() {
        let known = || entry("known", &[], &["al@a.example", "x+y@a.example"]);
        let recipient = |table: &RouteTable, path: &str| {
            table.find(&UserRules::default().of_recipient(path.as_bytes()))
                == Routing::Route(0, Matched::User)
        };
        for (path, is_found) in [("al+1@a.example", true), ("x+y@a.example", true), ("x@a.example", false)] {
            assert_eq!(recipient(&table([known()]), path), is_found, "{path}");
        }
        let unread = RouteEntry { unread: Some(AllowedDomains::All), ..entry("unread", &[], &[]) };
        let table = table([known(), unread]);
        assert!(recipient(&table, "al@a.example") && !recipient(&table, "al+1@a.example"));
    }

    #[test]
    fn a_domain_with_users_in_a_list_has_two_ways() {
        let destination = Arc::new(Destination {
            backend: Arc::new(Backend::new(String::new(), Vec::new())),
            upstream: Arc::new(Upstream {
                tls: UpstreamTls::Disabled,
                proxy_protocol: None,
                xclient: None,
                client_hello: false,
                smtp_auth: false,
                imap_id: false,
                pass_error_message: false,
                load_balancing: LoadBalancing::UserHash,
                health_check: None,
            }),
            reach: Reach::Anywhere,
            affinity: Affinity::None,
        });
        let refused = RouteEntry { state: RouteState::Refused, ..entry("refused", &["*.d.example"], &[]) };
        let table = table([
            entry("elsewhere", &[], &["al@a.example", "al@x.d.example"]),
            entry("listed", &[], &["bob@a.example", "bob@b.example", "bob@x.d.example", "bob"]),
            entry("domain", &["b.example", "c.example"], &[]),
            refused,
        ]);
        let destinations = [None, Some(()), Some(()), None];
        let destinations = destinations.map(|some| some.map(|()| Arc::clone(&destination))).into();
        let routes = Routes { rules: UserRules::default(), table: Arc::new(table), destinations };
        let of = |login: &str| {
            let domain = routes.listed_domain(&User::new(login.as_bytes()))?;
            let others = match domain.others {
                Placement::To { position, .. } => format!("to {position}"),
                Placement::Own => "own".to_owned(),
                other => format!("{other:?}"),
            };
            Some((others, domain.listed))
        };
        assert_eq!(of("joe@a.example"), Some(("own".to_owned(), Some(1))));
        assert_eq!(of("joe@b.example"), Some(("to 2".to_owned(), Some(1))));
        assert_eq!(of("joe@x.d.example"), Some(("Refused".to_owned(), Some(1))));
        assert_eq!(of("joe"), Some(("own".to_owned(), Some(1))));
        assert_eq!((of("joe@c.example"), of("joe@y.d.example"), of("joe@e.example")), (None, None, None));
    }
}
