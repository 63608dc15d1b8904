//! The users with sessions in a group, and the endpoint of each.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::model::exclusive::{EndpointName, EndpointSet};

use super::home;

/// The users of one group. A user is here while one of its sessions is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    sessions: HashMap<Box<[u8]>, UserSessions>,
    /// The number of users that must move.
    moving: usize,
    /// When the last session ended.
    last_end: Option<Instant>,
    /// When the last session ended whose user moves, or which had ended before the target changed.
    last_move: Option<Instant>,
}

#[derive(Clone, Debug)]
struct UserSessions {
    endpoint: EndpointName,
    /// The target set has another endpoint for this user.
    is_moving: bool,
    open: Vec<OpenSession>,
}

#[derive(Clone, Copy, Debug)]
struct OpenSession {
    number: u64,
    is_told: bool,
}

impl Users {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Tells whether a user must move.
    pub(super) fn any_moves(&self) -> bool {
        self.moving > 0
    }

    /// Returns when the last session ended at an endpoint that is not its user's any more.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.last_move
    }

    /// Adds a session at the user's endpoint. Returns false if the user has sessions at another one, and adds nothing.
    pub(super) fn add(&mut self, user: &[u8], endpoint: &EndpointName, number: u64) -> bool {
        let session = OpenSession { number, is_told: false };
        if let Some(sessions) = self.sessions.get_mut(user) {
            let is_same = sessions.endpoint == *endpoint;
            if is_same {
                sessions.open.push(session);
            }
            return is_same;
        }
        let sessions = UserSessions { endpoint: endpoint.clone(), is_moving: false, open: vec![session] };
        self.sessions.insert(user.into(), sessions);
        true
    }

    /// Removes a session that has ended. Returns whether it was the last one of a user that moves, or of all.
    pub(super) fn remove(&mut self, user: &[u8], number: u64, now: Instant) -> bool {
        let Some(sessions) = self.sessions.get_mut(user) else { return false };
        sessions.open.retain(|session| session.number != number);
        let is_moving = sessions.is_moving;
        self.last_end = Some(now);
        if is_moving {
            self.last_move = Some(now);
        }
        if !sessions.open.is_empty() {
            return false;
        }
        self.sessions.remove(user);
        self.moving = self.moving.saturating_sub(usize::from(is_moving));
        // The memory of a flood of users does not stay.
        if self.sessions.capacity() > SMALL && self.sessions.len() < self.sessions.capacity() / 8 {
            self.sessions.shrink_to(self.sessions.len().saturating_mul(2));
        }
        is_moving || self.sessions.is_empty()
    }

    /// Finds the users that must move, and returns the sessions to end.
    pub(super) fn aim(&mut self, target: &EndpointSet) -> Vec<u64> {
        let mut told = Vec::new();
        self.moving = 0;
        self.last_move = self.last_end;
        for (user, sessions) in &mut self.sessions {
            sessions.is_moving = home(target, user) != Some(&sessions.endpoint);
            if sessions.is_moving {
                self.moving = self.moving.saturating_add(1);
                sessions.end(&mut told);
            }
        }
        told
    }

    /// Returns the sessions to end at an endpoint, or at all of them.
    pub(super) fn end(&mut self, at: Option<&EndpointName>) -> Vec<u64> {
        let mut told = Vec::new();
        for sessions in self.sessions.values_mut() {
            if at.is_none_or(|endpoint| sessions.endpoint == *endpoint) {
                sessions.end(&mut told);
            }
        }
        told
    }
}

impl UserSessions {
    fn end(&mut self, told: &mut Vec<u64>) {
        for session in self.open.iter_mut().filter(|session| !session.is_told) {
            session.is_told = true;
            told.push(session.number);
        }
    }
}

/// A map with room for this many users is never shrunk.
const SMALL: usize = 1024;
