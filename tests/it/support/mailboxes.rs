//! Records which users have sessions at which endpoints, for backends that share one storage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The open sessions of all users. Clones share the same record.
#[derive(Clone, Default)]
pub struct Mailboxes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: HashMap<String, HashMap<String, usize>>,
    last: HashMap<String, String>,
    opened: usize,
    moved: usize,
    shared: Vec<String>,
}

/// Counts a session until it is dropped.
pub struct OpenMailbox {
    mailboxes: Mailboxes,
    user: String,
    endpoint: String,
}

impl Mailboxes {
    /// Records a session of a user at an endpoint.
    pub fn open(&self, user: &str, endpoint: &str) -> OpenMailbox {
        let mut state = self.0.lock().unwrap();
        state.opened += 1;
        let before = state.last.insert(user.to_owned(), endpoint.to_owned());
        state.moved += usize::from(before.is_some_and(|before| before != endpoint));
        let of_user = state.open.entry(user.to_owned()).or_default();
        *of_user.entry(endpoint.to_owned()).or_default() += 1;
        if of_user.len() > 1 {
            let shared = format!("{user} has sessions at {:?}", of_user.keys().collect::<Vec<_>>());
            state.shared.push(shared);
        }
        OpenMailbox { mailboxes: self.clone(), user: user.to_owned(), endpoint: endpoint.to_owned() }
    }

    /// Returns the users that have had sessions at two endpoints at one time.
    pub fn shared(&self) -> Vec<String> {
        self.0.lock().unwrap().shared.clone()
    }

    /// Returns the number of users whose last session was at an endpoint.
    pub fn users_at(&self, endpoint: &str) -> usize {
        self.0.lock().unwrap().last.values().filter(|last| *last == endpoint).count()
    }

    /// Returns the number of sessions so far, and how many of them were at another endpoint than the user's last one.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.0.lock().unwrap();
        (state.opened, state.moved)
    }
}

impl Drop for OpenMailbox {
    fn drop(&mut self) {
        let mut state = self.mailboxes.0.lock().unwrap();
        let of_user = state.open.get_mut(&self.user).unwrap();
        let count = of_user.get_mut(&self.endpoint).unwrap();
        *count -= 1;
        if *count == 0 {
            of_user.remove(&self.endpoint);
        }
    }
}
