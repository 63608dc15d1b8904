//! Measures a table of users: one `MailRoute` with a million logins in ConfigMaps of at most 1 MiB.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailgress::api::{MailRouteSpec, MailServerSpec};
use mailgress::controller::index::{Index, Key, Owner, Resource};
use mailgress::controller::render::Renderer;
use mailgress::model::{Routes, Routing};
use serde_json::json;

use super::{environment, resident_kibibytes};

/// Prints the memory of the table and that of the process, with the ConfigMaps, and the times of the first rendering, of
/// a changed list and of a lookup. Call it first: memory that was freed before would not be counted again.
pub(crate) fn run() {
    println!(
        "{:>9} {:>6} {:>13} {:>13} {:>10} {:>10} {:>10} {:>10}",
        "logins", "lists", "first render", "one changed", "found", "not found", "table", "memory"
    );
    for users in [100_000, 1_000_000] {
        let before = resident_kibibytes();
        let mut world = World::new(users);
        let first = world.render();
        let memory = resident_kibibytes().saturating_sub(before) / 1024;
        world.change_one_line();
        let changed = world.render();
        let found = world.look_up(|number| login(number % users));
        let absent = world.look_up(|number| login(number + users));
        let (lists, table) = (world.lists, world.table_bytes() / 1024 / 1024);
        println!(
            "{users:>9} {lists:>6} {first:>13.1?} {changed:>13.1?} {found:>10.1?} {absent:>10.1?} {table:>6} MiB \
             {memory:>6} MiB"
        );
    }
}

struct World {
    lists: usize,
    users: usize,
    index: Index,
    renderer: Renderer,
}

impl World {
    fn new(users: usize) -> Self {
        let lists = users.div_ceil(IN_LIST);
        let mut index = Index::default();
        let server: MailServerSpec = serde_json::from_value(json!({
            "className": "mailgress",
            "auth": { "passthrough": {} },
            "listeners": [{
                "name": "imap", "port": 143, "address": "*", "backendAddress": "b:143", "tls": { "mode": "Disabled" },
            }],
        }))
        .unwrap();
        index.set_server(&Key::new("mail", "s"), resource(Owner::Class("mailgress".to_owned()), server));
        let from: Vec<_> =
            (0..lists).map(|list| json!({ "name": format!("l{list}"), "key": "users" })).collect();
        let route: MailRouteSpec = serde_json::from_value(json!({
            "serverRef": { "name": "s" },
            "match": { "usersFrom": from },
            "backend": { "services": [{ "protocol": "IMAP", "address": "c:143" }] },
        }))
        .unwrap();
        index.set_route(&Key::new("mail", "r"), resource(Owner::Server(Key::new("mail", "s")), route));
        let mut world = Self { lists, users, index, renderer: Renderer::default() };
        for list in 0..lists {
            world.set_list(list, "");
        }
        world
    }

    fn set_list(&mut self, list: usize, more: &str) {
        let numbers = list * IN_LIST..((list + 1) * IN_LIST).min(self.users);
        let text: String = numbers.map(|number| login(number) + "\n").collect::<String>() + more;
        assert!(text.len() <= 1024 * 1024, "a ConfigMap ends at 1 MiB");
        let map = BTreeMap::from([("users".to_owned(), text.into_bytes())]);
        self.index.set_config_map(&Key::new("mail", &format!("l{list}")), Some(Arc::new(map)));
    }

    fn change_one_line(&mut self) {
        self.set_list(self.lists / 2, "one@more.example\n");
    }

    fn render(&mut self) -> Duration {
        let started = Instant::now();
        black_box(self.renderer.render(&mut self.index, &environment()));
        started.elapsed()
    }

    fn routes(&self) -> Arc<Routes> {
        self.renderer.snapshot().sockets.values().next().unwrap().listeners[0].routes.clone().unwrap()
    }

    fn table_bytes(&self) -> usize {
        let routes = self.routes();
        let lists = routes.table.entries().iter().flat_map(|entry| &entry.users);
        lists.map(|list| list.memory()).sum()
    }

    /// Returns the mean time of a lookup.
    fn look_up(&self, login: impl Fn(usize) -> String) -> Duration {
        let routes = self.routes();
        // Spread over the whole table, so that the processor's cache does not hold what is looked up.
        let logins: Vec<_> =
            (0..LOOKUPS).map(|number| routes.rules.of_name(login(number * 7919).as_bytes())).collect();
        let started = Instant::now();
        let found = logins.iter().filter(|named| routes.find(named) != Routing::Unmatched);
        black_box(found.count());
        started.elapsed() / u32::try_from(LOOKUPS).unwrap()
    }
}

fn login(number: usize) -> String {
    format!("user{number}@example.org")
}

fn resource<Spec>(owner: Owner, spec: Spec) -> Option<Arc<Resource<Spec>>> {
    let spec = Ok(Arc::new(spec));
    Some(Arc::new(Resource { uid: String::new(), owner, generation: 1, created: Some(1), spec }))
}

/// Logins in one ConfigMap.
const IN_LIST: usize = 40_000;
const LOOKUPS: usize = 100_000;
