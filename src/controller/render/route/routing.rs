//! Combines the routes of a `MailServer` into one table, and gives each listener its part.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::api::{MailServerSpec, Settings};
use crate::controller::index::Key;
use crate::controller::reason::Reason;
use crate::controller::render::Precedence;
use crate::controller::render::references::References;
use crate::controller::render::scope::Scope;
use crate::controller::render::{route, settings, upstream};
use crate::controller::violation::{Concern, Violation};
use crate::model::routes::Hashed;
use crate::model::{Destination, DomainPattern, RouteEntry, RouteTable, Routes, Upstream};
use crate::protocol::Protocol;
use crate::protocol::user::{UserRules, ascii_domain};

use super::draft::RouteDraft;

/// The routes of a `MailServer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerRoutes {
    pub(crate) table: Arc<RouteTable>,
    /// In the order of the table.
    drafts: Vec<Arc<RouteDraft>>,
    /// Entries that an older route already has, by route.
    pub(crate) conflicts: BTreeMap<Key, Vec<Violation>>,
}

impl ServerRoutes {
    /// Combines routes, the strongest first. Reuses the table of `last` if the users are the same.
    pub(crate) fn new(routes: BTreeMap<Precedence, Arc<RouteDraft>>, last: Option<&Self>) -> Self {
        let drafts: Vec<Arc<RouteDraft>> = routes.into_values().collect();
        let entries: Vec<_> = drafts.iter().map(|draft| Arc::clone(&draft.entry)).collect();
        if let Some(last) = last.filter(|last| is_same(last.table.entries(), &entries)) {
            return Self { table: Arc::clone(&last.table), drafts, conflicts: last.conflicts.clone() };
        }
        let conflicts = conflicts(&entries);
        Self { table: Arc::new(RouteTable::new(entries)), drafts, conflicts }
    }

    /// Tells whether there are no routes.
    pub(crate) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// Returns the routes of a listener with these settings and this `upstream`.
    pub(crate) fn of_listener(
        &self,
        (server_key, server): (&Key, &MailServerSpec),
        protocol: Protocol,
        (settings, upstream): (&Settings, &Arc<Upstream>),
        is_passthrough: bool,
        references: &mut References<'_>,
    ) -> Routes {
        let destinations = self.drafts.iter().map(|draft| {
            let backend = Arc::clone(draft.backends.get(&protocol)?);
            let key = Key::new(&draft.entry.id.namespace, &draft.entry.id.name);
            let inherited = route::inherited(settings, server, server_key, &key);
            let effective = settings::effective(&inherited, &draft.fields.settings);
            let upstream = if effective.upstream == settings.upstream {
                Arc::clone(upstream)
            } else {
                let source = route::source(&key, &draft.fields, server_key, route::allowed_backends(server));
                // Its violations are in the outcome of the route.
                let scope = Scope::new(&source);
                Arc::new(upstream::render(&scope, &effective, is_passthrough, references))
            };
            let affinity = draft.affinities.get(&protocol).cloned().unwrap_or_default();
            Some(Arc::new(Destination { backend, upstream, reach: draft.reach.clone(), affinity }))
        });
        Routes { rules: rules(server), table: Arc::clone(&self.table), destinations: destinations.collect() }
    }
}

fn is_same(old: &[Arc<RouteEntry>], new: &[Arc<RouteEntry>]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old == new)
}

/// Returns the violations of the `MailServer`'s own fields about routes. What is no domain allows nothing.
pub(crate) fn check_server(server: &MailServerSpec) -> Vec<Violation> {
    let allowed = server.allowed_routes.iter().flatten().enumerate().flat_map(|(rule, allowed)| {
        let domains = allowed.domains.iter().flatten().enumerate();
        domains.map(move |(index, text)| (format!("spec.allowedRoutes[{rule}].domains[{index}]"), text))
    });
    let is_bad = |(_, text): &(String, &String)| DomainPattern::parse(text).is_none();
    let mut bad: Vec<(String, &String)> = allowed.filter(is_bad).collect();
    let default = server.routing.as_ref().and_then(|routing| routing.default_domain.as_ref());
    let is_exact = |text: &String| matches!(DomainPattern::parse(text), Some(DomainPattern::Exact(_)));
    bad.extend(
        default.filter(|text| !is_exact(text)).map(|text| ("spec.routing.defaultDomain".to_owned(), text)),
    );
    let violation = |(path, text): (String, &String)| {
        Violation::invalid(&path, format!("{text:?} is not a domain"), "write a domain such as example.org")
    };
    bad.into_iter().map(violation).collect()
}

/// Renders `spec.routing`.
pub(crate) fn rules(server: &MailServerSpec) -> UserRules {
    let routing = server.routing.clone().unwrap_or_default();
    let default = UserRules::default();
    let character = |text: Option<String>, default| text.map_or(default, |text| text.chars().next());
    let domain = routing.default_domain.map(|domain| ascii_domain(domain.as_bytes()).into_owned());
    UserRules {
        default_domain: domain.and_then(|domain| String::from_utf8(domain).ok()),
        recipient_delimiter: character(routing.recipient_delimiter, default.recipient_delimiter),
        master_user_separator: character(routing.master_user_separator, default.master_user_separator),
    }
}

/// Returns the domains and users of each route that a stronger one already has.
fn conflicts(entries: &[Arc<RouteEntry>]) -> BTreeMap<Key, Vec<Violation>> {
    let mut domains: BTreeMap<&DomainPattern, usize> = BTreeMap::new();
    let (users, mut conflicts) = (shared_users(entries), BTreeMap::new());
    for (position, entry) in entries.iter().enumerate() {
        let mut found = Owners::new();
        for pattern in &entry.domains {
            match domains.get(pattern) {
                Some(owner) => found.entry(*owner).or_default().add(|| pattern.to_string()),
                None => drop(domains.insert(pattern, position)),
            }
        }
        let of_users = users.get(&position).into_iter().flatten().map(|shared| ("users", shared));
        let of_entry = found.iter().map(|shared| ("domains", shared)).chain(of_users);
        let of_entry = of_entry
            .filter_map(|(what, (owner, shared))| Some(violation(what, entries.get(*owner)?, shared)));
        let of_entry: Vec<Violation> = of_entry.collect();
        if !of_entry.is_empty() {
            conflicts.insert(Key::new(&entry.id.namespace, &entry.id.name), of_entry);
        }
    }
    conflicts
}

/// What a route shares with stronger ones, by their positions.
type Owners = BTreeMap<usize, Shared>;

/// The entries of a route that a stronger route has: the first ones, and their number.
#[derive(Default)]
struct Shared {
    first: Vec<String>,
    count: usize,
}

impl Shared {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count = self.count.saturating_add(1);
        if self.first.len() < MAX_SHOWN {
            self.first.push(name());
        }
    }
}

/// Returns, for each route by its position, the users that a stronger route has. Reads each name once.
fn shared_users(entries: &[Arc<RouteEntry>]) -> BTreeMap<usize, Owners> {
    let mut all = BTreeMap::new();
    if entries.iter().filter(|entry| entry.user_count() > 0).count() < 2 {
        return all;
    }
    // The hash of each name, with the first route that has it.
    let mut owners: HashTable<(u64, usize)> = HashTable::new();
    for (position, entry) in entries.iter().enumerate() {
        let mut found = Owners::new();
        for name in entry.users.iter().flat_map(|list| list.names()) {
            let hashed = Hashed::new(name);
            let hash = hashed.value();
            match owners.entry(hash, |known| known.0 == hash, |known| known.0) {
                Entry::Vacant(vacant) => drop(vacant.insert((hash, position))),
                Entry::Occupied(known) => {
                    let owner = known.get().1;
                    // Two names may have one hash.
                    let has_it = || entries.get(owner).is_some_and(|owner| owner.has(&hashed));
                    if owner != position && has_it() {
                        found.entry(owner).or_default().add(|| String::from_utf8_lossy(name).into_owned());
                    }
                }
            }
        }
        all.insert(position, found);
    }
    all
}

fn violation(what: &str, owner: &RouteEntry, names: &Shared) -> Violation {
    let mut shown = names.first.join(", ");
    let more = names.count.saturating_sub(names.first.len());
    if more > 0 {
        shown.push_str(&format!(" and {more} more"));
    }
    Violation::new(
        Concern::Conflicted,
        Reason::RouteConflict,
        "spec.match",
        format!(
            "MailRoute {} comes first (it is older, or first by name) and has these {what}: {shown}",
            owner.id
        ),
        "remove them from one of the two; all other users of this route are served",
    )
}

/// The maximum number of domains or users in a message.
const MAX_SHOWN: usize = 3;
