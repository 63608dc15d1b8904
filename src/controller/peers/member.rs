//! The state of one replica.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use crate::controller::names::is_reason;
use crate::controller::reason::Reason;
use crate::model::served::{ObjectName, ServedObject, Totals};

use super::{ReplicaLiveness, ServedByOthers, Wanted};

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// When it last answered, or when it was first seen.
    pub(super) last_answer: Instant,
    pub(super) state: MemberState,
    pub(super) node_address: Option<IpAddr>,
    /// Whether it reports that it is ready. A Service may publish addresses of replicas that are not.
    pub(super) is_ready: bool,
    pub(super) objects: BTreeMap<ObjectName, ServedObject>,
    pub(super) totals: Option<Totals>,
    /// Why the last request failed.
    pub(super) failure: String,
}

/// Whether it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It has not answered yet.
    None,
    /// It is this process, whose answers are not used.
    Own,
    /// It answers.
    Answers,
    /// It has not answered for too long.
    Silent,
}

impl Member {
    pub(super) fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            last_answer: now,
            state: MemberState::None,
            node_address: None,
            is_ready: true,
            objects: BTreeMap::new(),
            totals: None,
            failure: "it has not answered yet".to_owned(),
        }
    }

    pub(super) fn liveness(&self) -> ReplicaLiveness {
        match self.state {
            MemberState::Own => ReplicaLiveness::Own,
            MemberState::None => ReplicaLiveness::Awaited,
            MemberState::Answers => ReplicaLiveness::Answers,
            MemberState::Silent => ReplicaLiveness::Silent(self.failure.clone()),
        }
    }

    /// Tells whether it is not known to have processed this generation.
    pub(super) fn lacks(&self, object: &ObjectName, uid: &str, generation: i64) -> bool {
        let has = |served: &ServedObject| served.uid == uid && served.generation == generation;
        self.state != MemberState::Own && !self.objects.get(object).is_some_and(has)
    }

    /// Tells whether nothing is known of what it serves.
    pub(super) fn is_unknown(&self) -> bool {
        self.state != MemberState::Answers && self.objects.is_empty()
    }

    pub(super) fn silence_message(&self, address: SocketAddr) -> String {
        format!("replica {} does not answer status requests ({address}): {}", self.name, self.failure)
    }

    pub(super) fn serves(&self, address: SocketAddr, wanted: &Wanted<'_>, listener: &str) -> ServedByOthers {
        let name = &self.name;
        match self.state {
            MemberState::Own => return ServedByOthers::All,
            MemberState::None => {
                return ServedByOthers::Pending(format!("replica {name} has not answered yet"));
            }
            MemberState::Silent => {
                return ServedByOthers::Failed {
                    reason: Reason::ReplicaUnreachable.to_string(),
                    message: self.silence_message(address),
                };
            }
            MemberState::Answers => {}
        }
        let Some(served) = self.objects.get(wanted.object).filter(|served| served.uid == wanted.uid) else {
            return ServedByOthers::Pending(format!("replica {name} does not serve it yet"));
        };
        if served.generation != wanted.generation {
            let (theirs, ours) = (served.generation, wanted.generation);
            return ServedByOthers::Pending(format!(
                "replica {name} serves generation {theirs} instead of {ours}"
            ));
        }
        match served.problems.iter().find(|problem| problem.listener == listener) {
            None => ServedByOthers::All,
            Some(problem) if problem.pending => {
                ServedByOthers::Pending(format!("replica {name}: {}", problem.message))
            }
            Some(problem) => ServedByOthers::Failed {
                // The API server refuses a status with a reason in another form.
                reason: match is_reason(&problem.reason) {
                    true => problem.reason.clone(),
                    false => Reason::NotServed.to_string(),
                },
                message: format!("replica {name}: {}", problem.message),
            },
        }
    }

    /// Returns the sessions of a held route.
    pub(super) fn sessions(&self, wanted: &Wanted<'_>) -> Result<u64, String> {
        let name = &self.name;
        if self.state != MemberState::Answers {
            return Err(format!("replica {name} does not answer"));
        }
        let is_wanted =
            |served: &&ServedObject| served.uid == wanted.uid && served.generation == wanted.generation;
        let served = self.objects.get(wanted.object).filter(is_wanted);
        served
            .and_then(|served| served.sessions)
            .ok_or_else(|| format!("replica {name} is counting the sessions"))
    }

    pub(super) fn is_pending(&self, wanted: &Wanted<'_>) -> bool {
        match self.state {
            MemberState::Own | MemberState::Silent => false,
            MemberState::None => true,
            MemberState::Answers => !self.objects.get(wanted.object).is_some_and(|served| {
                served.uid == wanted.uid
                    && served.generation == wanted.generation
                    && !served.problems.iter().any(|problem| problem.pending)
            }),
        }
    }
}
