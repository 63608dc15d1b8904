//! Collects the data of the status page: objects from the controller's status store, listeners from the snapshot, and numbers
//! from the data plane.
//!
//! Each request iterates over all listeners, but copies only those that are shown. With thousands of objects, this
//! takes milliseconds.

mod backends;
mod certificates;
mod routes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::api::status::ConditionStatus;
use crate::controller::Leadership;
use crate::controller::index::Kind;
use crate::controller::peers::{ReplicaLiveness, ReplicaState};
use crate::controller::status::{Row, public};
use crate::controller::status_store::{Overview, StatusStore};
use crate::model::clock::unix_now;
use crate::model::served::{self, Ledger};
use crate::model::tls::expiry_alarms;
use crate::model::view::{
    Certificate, Excerpt, Listener, Numbers, Peer, Question, Replica, Serving, State, Totals, View,
};
use crate::model::{self, BindReport, ListenerId, Snapshot, Socket, SocketState};
use crate::proxy::Observer;

/// The sources of the page's data.
#[derive(Clone)]
pub(super) struct Sources {
    /// Objects and their status.
    pub(super) status_store: StatusStore,
    /// The wanted configuration.
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The state of the sockets.
    pub(super) reports: watch::Receiver<Arc<BindReport>>,
    /// The counters.
    pub(super) observer: Observer,
    /// The name, version and class of this replica.
    pub(super) replica: Replica,
    /// Who leads; `None` without a cluster.
    pub(super) leadership: Option<watch::Receiver<Leadership>>,
    /// What other replicas read.
    pub(super) ledger: Ledger,
    /// The start of the process.
    pub(super) started: Instant,
}

impl Sources {
    /// Returns the data for a request.
    pub(super) fn view(&self, question: &Question) -> View {
        let moment = Instant::now();
        let (snapshot, report) = (Arc::clone(&self.snapshots.borrow()), Arc::clone(&self.reports.borrow()));
        let now = unix_now();
        let places = Places::new(&snapshot, &report, now);
        let (totals, mut listeners, routes) = self.status_store.read(|rows| {
            let (of_routes, mut others) = rows.partition::<Vec<_>, _>(|row| row.object.kind == Kind::Route);
            let (totals, listeners) = select(&mut others.drain(..), question, &places);
            (totals, listeners, routes::select(&of_routes, &snapshot, question))
        });
        for found in &mut listeners.shown {
            if let Some((id, serving)) = &mut found.serving {
                serving.numbers = self.observer.numbers(id, moment).unwrap_or_default();
            }
        }
        let Overview { problems, replicas, changes } = self.status_store.overview();
        let mut changes = [changes, self.observer.changes()].concat();
        changes.sort_by_key(|change| std::cmp::Reverse(change.at));
        changes.truncate(MAX_CHANGES);
        View {
            replica: Replica {
                uptime: moment.saturating_duration_since(self.started),
                now,
                role: self.leadership.as_ref().map(|leadership| leadership.borrow().role.clone()),
                ..self.replica.clone()
            },
            totals: Totals { numbers: self.observer.totals(moment), ..totals },
            problems: problems.into_iter().take(MAX_PROBLEMS).collect(),
            listeners: listeners.map(Found::into_view),
            certificates: certificates::select(&snapshot, question, now),
            backends: backends::select(&snapshot, &report, question),
            routes,
            faults: self.observer.faults(),
            changes,
            replicas: replicas.iter().map(peer).collect(),
        }
    }
}

impl Sources {
    /// Returns our numbers for other replicas.
    pub(super) fn totals(&self) -> served::Totals {
        let Numbers { open, accepted, refused, unavailable, failed, .. } =
            self.observer.totals(Instant::now());
        let is_ready = |row: &Row<'_>| matches!(state(row), State::Good | State::Alarming);
        let (listeners, ready) = self.status_store.read(|rows| {
            rows.filter(|row| row.object.kind != Kind::Route)
                .fold((0, 0), |(all, ready), row| (all + 1, ready + u64::from(is_ready(&row))))
        });
        served::Totals { sessions: open, accepted, refused, unavailable, failed, listeners, ready }
    }
}

/// Where and how listeners are served.
struct Places<'a> {
    by_listener: HashMap<&'a ListenerId, (&'a Socket, &'a model::Listener)>,
    report: &'a BindReport,
    /// In Unix seconds.
    now: i64,
}

/// A listener that matches the request.
struct Found {
    listener: Listener,
    serving: Option<(ListenerId, Serving)>,
}

impl<'a> Places<'a> {
    fn new(snapshot: &'a Snapshot, report: &'a BindReport, now: i64) -> Self {
        let listeners = |socket: &'a Arc<Socket>| {
            socket.listeners.iter().map(move |listener| (&listener.id, (&**socket, &**listener)))
        };
        Self { by_listener: snapshot.sockets.values().flat_map(listeners).collect(), report, now }
    }

    fn of(&self, id: &ListenerId) -> Option<(&'a Socket, &'a model::Listener)> {
        self.by_listener.get(id).copied()
    }
}

/// Returns the matching rows, worst state first, and the totals of all rows.
fn select(
    rows: &mut dyn Iterator<Item = Row<'_>>,
    question: &Question,
    places: &Places<'_>,
) -> (Totals, Excerpt<Found>) {
    let mut totals = Totals::default();
    let mut asked_for = Vec::new();
    let text = question.text.to_lowercase();
    for row in rows {
        let state = state(&row);
        totals.listeners += 1;
        match state {
            State::Bad => totals.not_ready += 1,
            State::Alarming => totals.alarming += 1,
            State::Pending => totals.pending += 1,
            State::Good => {}
        }
        let is_asked_for = (!question.only_troubled || state != State::Good)
            && (text.is_empty() || contains(&row, places, &text));
        if is_asked_for {
            asked_for.push((state, row));
        }
    }
    // The sort is stable, so rows with the same state stay sorted by name.
    asked_for.sort_by_key(|(state, _)| *state);
    let excerpt = excerpt(asked_for, totals.listeners, question.page, LISTENERS_SHOWN);
    (totals, excerpt.map(|(state, row)| Found::new(state, &row, places)))
}

fn excerpt<T>(asked_for: Vec<T>, all: usize, page: usize, size: usize) -> Excerpt<T> {
    let matching = asked_for.len();
    let pages = matching.div_ceil(size).max(1);
    let page = page.clamp(1, pages);
    let shown = asked_for.into_iter().skip((page - 1) * size).take(size).collect();
    Excerpt { shown, matching, all, page, pages }
}

fn state(row: &Row<'_>) -> State {
    match row.ready().map(|ready| ready.status) {
        Some(ConditionStatus::False) => State::Bad,
        Some(ConditionStatus::True) if row.alarms().next().is_some() => State::Alarming,
        Some(ConditionStatus::True) => State::Good,
        Some(ConditionStatus::Unknown) | None => State::Pending,
    }
}

/// Tells whether a row contains the text, which is in lower case, in the names and reasons that it shows.
fn contains(row: &Row<'_>, places: &Places<'_>, text: &str) -> bool {
    let has = |value: &str| value.to_lowercase().contains(text);
    let id = id(row);
    if has(&format!("{} {id}", row.object)) {
        return true;
    }
    if row.ready().into_iter().chain(row.alarms()).any(|condition| has(&condition.reason)) {
        return true;
    }
    let Some((socket, listener)) = places.of(&id) else { return false };
    has(&socket.address.to_string())
        || has(socket.protocol.name())
        || listener.hostnames.iter().any(|name| name.as_str().contains(text))
        || listener.backend.as_ref().is_some_and(|backend| has(&backend.reference))
        || listener.tls.iter().flat_map(|tls| &tls.certificates).any(|certificate| {
            has(&certificate.reference) || certificate.names.iter().any(|name| name.contains(text))
        })
}

fn id(row: &Row<'_>) -> ListenerId {
    let key = &row.object.key;
    ListenerId {
        namespace: key.namespace.clone(),
        object: key.name.clone(),
        listener: row.listener.to_owned(),
    }
}

impl Found {
    fn new(state: State, row: &Row<'_>, places: &Places<'_>) -> Self {
        let id = id(row);
        let ready = row.ready().filter(|ready| ready.status != ConditionStatus::True);
        let notes = ready.into_iter().chain(row.alarms());
        let listener = Listener {
            kind: row.object.kind.name().to_owned(),
            object: row.object.key.to_string(),
            name: row.listener.to_owned(),
            state,
            notes: notes.map(|note| (note.reason.clone(), public(note))).take(MAX_NOTES).collect(),
            serving: None,
        };
        // A MailServer without listeners must not be confused with a MailListener of the same name.
        let is_one = row.object.kind == Kind::Listener || !row.listener.is_empty();
        let serving = places.of(&id).filter(|_| is_one);
        let serving = serving.map(|(socket, listener)| serving_of(socket, listener, places));
        Self { listener, serving: serving.map(|serving| (id, serving)) }
    }

    fn into_view(self) -> Listener {
        Listener { serving: self.serving.map(|(_, serving)| serving), ..self.listener }
    }
}

fn serving_of(socket: &Socket, listener: &model::Listener, places: &Places<'_>) -> Serving {
    let bound = match places.report.sockets.get(&socket.address) {
        Some(SocketState::Bound(bound)) => bound.iter().map(ToString::to_string).take(MAX_BOUND).collect(),
        Some(SocketState::Failed(_)) | None => Vec::new(),
    };
    let certificates = listener.tls.as_ref().map(|tls| tls.certificates.as_slice()).unwrap_or_default();
    let certificate = |certificate: &Arc<model::Certificate>| certificate_view(certificate, places.now);
    // Show the first certificates to expire.
    let mut by_expiry: Vec<_> = certificates.iter().collect();
    by_expiry.sort_by_key(|certificate| certificate.not_after);
    Serving {
        address: socket.address.to_string(),
        bound,
        protocol: socket.protocol.label().to_owned(),
        tls: socket.tls_mode.name().to_owned(),
        hostnames: listener.hostnames.iter().map(|name| name.as_str().to_owned()).take(MAX_NAMES).collect(),
        certificates: by_expiry.into_iter().take(MAX_CERTIFICATES).map(certificate).collect(),
        certificates_in_all: certificates.len(),
        numbers: Numbers::default(),
        limit: listener.limits.max_connections,
        backend: match (&listener.backend, &listener.routes) {
            (Some(backend), _) => Some(backend.reference.clone()),
            (None, Some(_)) if listener.auth.is_passthrough() => {
                Some("chosen by the user's MailRoute".to_owned())
            }
            (None, _) => None,
        },
    }
}

fn certificate_view(certificate: &model::Certificate, now: i64) -> Certificate {
    Certificate {
        secret: certificate.reference.clone(),
        names: certificate.names.iter().take(MAX_NAMES).cloned().collect(),
        names_in_all: certificate.names.len(),
        state: certificate_state(certificate, now),
        not_after: certificate.not_after,
    }
}

fn certificate_state(certificate: &model::Certificate, now: i64) -> State {
    match expiry_alarms(certificate.not_before, certificate.not_after) {
        [.., end] if now >= end => State::Bad,
        [first, ..] if now >= first => State::Alarming,
        _ => State::Good,
    }
}

fn peer(replica: &ReplicaState) -> Peer {
    let problem = match &replica.state {
        ReplicaLiveness::Silent(why) => Some(why.clone()),
        ReplicaLiveness::Own | ReplicaLiveness::Awaited | ReplicaLiveness::Answers => None,
    };
    let state = match &replica.state {
        ReplicaLiveness::Silent(_) => State::Bad,
        ReplicaLiveness::Awaited => State::Pending,
        ReplicaLiveness::Answers if replica.behind > 0 => State::Pending,
        ReplicaLiveness::Own | ReplicaLiveness::Answers => State::Good,
    };
    Peer {
        name: replica.name.clone(),
        address: replica.address.to_string(),
        state,
        is_own: replica.state == ReplicaLiveness::Own,
        problem,
        behind: replica.behind,
        totals: replica.totals,
    }
}

/// Listeners per page.
const LISTENERS_SHOWN: usize = 25;
/// Problems and warnings shown per listener.
const MAX_NOTES: usize = 4;
/// Addresses shown per socket.
const MAX_BOUND: usize = 4;
/// Names shown per certificate, and host names per listener.
const MAX_NAMES: usize = 3;
/// Certificates shown per listener.
const MAX_CERTIFICATES: usize = 2;
/// Changes shown, of the controller and the data plane together.
const MAX_CHANGES: usize = 20;
/// Problems shown. There is at most one for each kind and namespace, but this may be many.
const MAX_PROBLEMS: usize = 20;
