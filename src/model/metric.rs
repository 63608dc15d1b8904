//! Everything that is counted: the one table of metrics, with types, labels and help.
//!
//! Whoever counts makes its handles from an entry of this table, so that nothing is counted that is not in it. The
//! reference in the docs is made of it, and tests hold `/metrics` to it.
//!
//! No label is called as one that Prometheus' operator puts on targets (`namespace`, `pod`, `service`, `container`,
//! `endpoint`, `node`): it would be renamed.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// A metric with all its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// `mailgress_sessions_open`.
    pub name: &'static str,
    /// What may be done with it.
    pub kind: Kind,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [Label],
    /// One sentence.
    pub help: &'static str,
}

/// What is done with a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, counted by their size; these are the bounds.
    Histogram(&'static [f64]),
}

/// A label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// `listener`.
    pub name: &'static str,
    /// What its values are; each has a bound, or is a name that somebody wrote into an object.
    pub values: &'static str,
}

impl Family {
    /// Its counters.
    ///
    /// # Errors
    /// When the registry has it already.
    pub fn counters(&self, registry: &Registry) -> prometheus::Result<IntCounterVec> {
        let counters = self.unregistered_counters()?;
        registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    /// Its counters, for whoever counts before there is a registry.
    ///
    /// # Errors
    /// When name or labels cannot be used.
    pub fn unregistered_counters(&self) -> prometheus::Result<IntCounterVec> {
        IntCounterVec::new(self.opts(), &self.label_names())
    }

    /// Its gauges.
    ///
    /// # Errors
    /// When the registry has it already.
    pub fn gauges(&self, registry: &Registry) -> prometheus::Result<IntGaugeVec> {
        let gauges = self.unregistered_gauges()?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    /// Its gauges, for a collector that sets them when it is asked.
    ///
    /// # Errors
    /// When name or labels cannot be used.
    pub fn unregistered_gauges(&self) -> prometheus::Result<IntGaugeVec> {
        IntGaugeVec::new(self.opts(), &self.label_names())
    }

    /// Its histograms.
    ///
    /// # Errors
    /// When the registry has it already.
    pub fn histograms(&self, registry: &Registry) -> prometheus::Result<HistogramVec> {
        let buckets = match self.kind {
            Kind::Histogram(bounds) => bounds.to_vec(),
            Kind::Counter | Kind::Gauge => Vec::new(),
        };
        let opts = HistogramOpts { common_opts: self.opts(), buckets };
        let histograms = HistogramVec::new(opts, &self.label_names())?;
        registry.register(Box::new(histograms.clone()))?;
        Ok(histograms)
    }

    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }
}

/// The value of a metric without labels.
pub const PLAIN: [&str; 0] = [];

macro_rules! families {
    ($($id:ident: $kind:expr, $name:literal, [$($label:expr),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Family = Family { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    ACCEPT_PAUSES: Kind::Counter, "mailgress_accept_pauses_total", [],
        "Times that accepting paused because file descriptors or memory ran out";
    API_ANSWERED: Kind::Gauge, "mailgress_api_answered_timestamp_seconds", [VERB, RESOURCE],
        "Unix time at which the API server last answered such a request; watches are asked for again every five minutes";
    API_REQUESTS: Kind::Counter, "mailgress_api_requests_total", [VERB, RESOURCE],
        "Requests to the API server";
    AUTH_SERVICE_DURATION: Kind::Histogram(DURATIONS), "mailgress_auth_service_duration_seconds", [LISTENER, PROTOCOL],
        "One question to the auth service";
    AUTH_SERVICE_REQUESTS: Kind::Counter, "mailgress_auth_service_requests_total", [LISTENER, PROTOCOL, ANSWER],
        "Questions to the auth service by what came of them";
    BACKEND_CHECKS: Kind::Counter, "mailgress_backend_checks_total", [BACKEND, PROTOCOL, CHECK],
        "Health checks of backends' endpoints by what came of them";
    BACKEND_CONNECT_DURATION: Kind::Histogram(DURATIONS), "mailgress_backend_connect_duration_seconds",
        [LISTENER, PROTOCOL],
        "From the first connect to the connection that is used";
    BACKEND_UP: Kind::Gauge, "mailgress_backend_up", [BACKEND, PROTOCOL],
        "Whether a backend's endpoint answers its health checks";
    BUILD_INFO: Kind::Gauge, "mailgress_build_info", [VERSION, COMMIT],
        "What runs; always 1";
    CERTIFICATE_NOT_AFTER: Kind::Gauge, "mailgress_certificate_not_after_timestamp_seconds",
        [KIND, OBJECT, SECRET],
        "Unix time at which the first certificate of a served chain expires";
    CERTIFICATE_WARNING: Kind::Gauge, "mailgress_certificate_warning_timestamp_seconds",
        [KIND, OBJECT, SECRET],
        "Unix time from which a served certificate has the condition CertificateExpiring: 30 days before its end, or when a quarter of its life is left if that is later";
    DRAINING: Kind::Gauge, "mailgress_draining", [],
        "Whether the process is about to end, and waits for its sessions";
    LEADER: Kind::Gauge, "mailgress_leader", [],
        "Whether this replica leads; absent without a cluster";
    LISTENER_BOUND: Kind::Gauge, "mailgress_listener_bound", [LISTENER],
        "Whether the socket of a listener is bound in this replica";
    LISTENER_CHANGES: Kind::Counter, "mailgress_listener_changes_total", [ACTION],
        "What was done to sockets";
    LISTENER_READY: Kind::Gauge, "mailgress_listener_ready", [LISTENER, REASON],
        "Whether a listener serves its object's generation: in this replica, and, where this one leads, in all";
    LISTENER_SESSION_LIMIT: Kind::Gauge, "mailgress_listener_session_limit", [LISTENER],
        "The limits.maxConnections of a listener that has one";
    LOG_LINES_DROPPED: Kind::Counter, "mailgress_log_lines_dropped_total", [],
        "Log lines that were dropped because standard output was not read or could not be written";
    LOGIN_DURATION: Kind::Histogram(DURATIONS), "mailgress_login_duration_seconds", [LISTENER, PROTOCOL],
        "From the credentials to the verdict";
    LOGINS: Kind::Counter, "mailgress_logins_total", [LISTENER, PROTOCOL, LOGIN],
        "Logins, and mail without one, by what came of them";
    OBJECT_ALARM: Kind::Gauge, "mailgress_object_alarm", [KIND, OBJECT, CONDITION, REASON],
        "A condition of an object, apart from Ready and Programmed, that somebody should look at; always 1";
    OBJECT_READY: Kind::Gauge, "mailgress_object_ready", [KIND, OBJECT, REASON],
        "Whether an object is Ready: in this replica, and, where this one leads, in all";
    OBJECTS: Kind::Gauge, "mailgress_objects", [KIND, READY],
        "Objects of our class, by their condition Ready";
    PROBLEMS: Kind::Gauge, "mailgress_problems", [],
        "What keeps this replica from reading objects or writing status, by number; /status has the sentences";
    PROCESS_CPU: Kind::Counter, "process_cpu_seconds_total", [],
        "Total user and system CPU time spent in seconds.";
    PROCESS_MAX_FDS: Kind::Gauge, "process_max_fds", [],
        "Maximum number of open file descriptors.";
    PROCESS_OPEN_FDS: Kind::Gauge, "process_open_fds", [],
        "Number of open file descriptors.";
    PROCESS_RESIDENT_MEMORY: Kind::Gauge, "process_resident_memory_bytes", [],
        "Resident memory size in bytes.";
    PROCESS_START_TIME: Kind::Gauge, "process_start_time_seconds", [],
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS: Kind::Gauge, "process_threads", [],
        "Number of OS threads in the process.";
    PROCESS_VIRTUAL_MEMORY: Kind::Gauge, "process_virtual_memory_bytes", [],
        "Virtual memory size in bytes.";
    READINESS: Kind::Gauge, "mailgress_ready", [],
        "Whether the process may be sent clients, as /readyz says";
    RELAYED_BYTES: Kind::Counter, "mailgress_relayed_bytes_total", [LISTENER, DIRECTION],
        "Bytes relayed after the login";
    RENDER_DURATION: Kind::Histogram(RENDERS_TAKE), "mailgress_render_seconds", [],
        "One render of what had changed";
    RENDERS: Kind::Counter, "mailgress_renders_total", [],
        "Renders of what had changed";
    REPLICA_OBJECTS_BEHIND: Kind::Gauge, "mailgress_replica_objects_behind", [REPLICA],
        "Objects of which a replica does not serve the generation that the leader serves; told by the leader";
    REPLICA_UP: Kind::Gauge, "mailgress_replica_up", [REPLICA],
        "Whether a replica says what it serves; told by the leader";
    RESOLVER_QUERIES: Kind::Counter, "mailgress_resolver_queries_total", [ZONE, QUERY],
        "Lookups, with those that a cache answers";
    RESOLVER_REQUESTS: Kind::Counter, "mailgress_resolver_requests_total", [ZONE, RECORD],
        "Requests sent to name servers";
    RESOLVER_RESPONSES: Kind::Counter, "mailgress_resolver_responses_total", [ZONE, RESPONSE],
        "Responses of name servers, and lookups that had none in time";
    RESOLVER_SILENT: Kind::Gauge, "mailgress_resolver_silent", [NAMESERVERS],
        "Resolvers whose name servers do not answer; none while all is well";
    SESSION_CAPACITY: Kind::Gauge, "mailgress_session_capacity", [],
        "Open sessions that the process has file descriptors for";
    SESSIONS: Kind::Counter, "mailgress_sessions_total", [LISTENER, PROTOCOL, TLS, OUTCOME, FAULT],
        "Ended client sessions by outcome and by whose fault it was";
    SESSIONS_OPEN: Kind::Gauge, "mailgress_sessions_open", [LISTENER, PROTOCOL, TLS],
        "Open client sessions";
    WATCH_FAILURES: Kind::Counter, "mailgress_watch_failures_total", [WATCHED, FAILURE],
        "Failures of watches; each is tried again";
    WATCHES: Kind::Gauge, "mailgress_watches", [WATCHED],
        "Watches that run";
}

const fn label(name: &'static str, values: &'static str) -> Label {
    Label { name, values }
}

const ACTION: Label =
    label("action", "`bind`, `swap`, `rebind`, `drain`; `failed` for a socket that could not be bound");
const ANSWER: Label = label(
    "outcome",
    "`accepted`; `refused`; `unavailable` for a refusal by which the service says that it cannot decide now; `failed` for no \
     answer that could be used; `abandoned` by a client that left meanwhile",
);
const BACKEND: Label =
    label("backend", "the endpoint that is asked: `10.0.0.7:143`, `host:port`, `unix:/path`");
const CHECK: Label = label("outcome", "`passed`, `failed`");
const COMMIT: Label = label("commit", "the commit that it was built from, or `unknown`");
const CONDITION: Label =
    label("condition", "the condition's type: `Accepted`, `CertificateExpiring`, `Degraded`, …");
const DIRECTION: Label = label("direction", "`to_backend`, `to_client`");
const FAILURE: Label =
    label("reason", "`forbidden`, `refused`, `unreachable`; `expired` for one that only lists again");
const FAULT: Label = label(
    "fault",
    "who has to change something: `none`, `client`, `backend`, `auth_service`, `configuration`, `us`",
);
const KIND: Label = label("kind", "`MailServer`, `MailListener`");
const LISTENER: Label = label("listener", "`mail/example/imaps`, or `mail/example` for a MailListener");
const LOGIN: Label = label(
    "outcome",
    "`accepted`; `refused` to the client; `unavailable` where the backend or the auth service is at fault: a temporary \
     failure, or a backend that wants TLS; `failed` for no verdict, whose session says whose fault it was; `abandoned` by a client that left meanwhile",
);
const OBJECT: Label = label("object", "`mail/example`: the namespace and the name");
const OUTCOME: Label = label(
    "outcome",
    "`done`, `quit`, `client_gone`, `limited`, `login_refused`, `protocol_error`, `client_timeout`, `idle_timeout`, \
     `proxy_header`, `tls_handshake`, `client_certificate`, `early_talker`, `auth_service_error`, \
     `auth_service_unavailable`, `no_backend`, `backend_not_allowed`, `backend_connect`, `no_descriptors`, `backend_error`, \
     `backend_unavailable`, `backend_timeout`, `backend_refused`, `relay_error`, `internal_error`, `drained`",
);
const PROTOCOL: Label = label("protocol", "`smtp`, `imap`, `pop3`");
const QUERY: Label = label("kind", "`name`, `srv`, `addr`");
const READY: Label = label("ready", "`True`, `False`, `Unknown`");
const REASON: Label = label("reason", "the condition's reason, in CamelCase");
const RECORD: Label = label("type", "`a`, `aaaa`, `srv`, `ptr`");
const REPLICA: Label = label("replica", "the name of the replica's pod");
const RESOURCE: Label = label("resource", "`mailservers`, `secrets`, `leases`, …, or `other`");
const RESPONSE: Label = label(
    "outcome",
    "`success`, `timedout`, `format_error`, `server_failure`, `not_found`, `unimplemented`, `refused`, `other`",
);
const SECRET: Label = label("secret", "`mail/mail-tls`: the namespace and the name of the Secret");
const TLS: Label = label("tls", "`off`, `starttls`, `implicit`");
const VERB: Label = label("verb", "`get`, `list`, `watch`, `create`, `patch`, `replace`, …, or `other`");
const VERSION: Label = label("version", "the version of Mailgress");
const WATCHED: Label = label("kind", "`MailServer`, `Secret`, `EndpointSlice`, …");
const NAMESERVERS: Label = label("nameservers", "the `resolver.nameservers`, or `resolv.conf`");
const ZONE: Label = label("zone", "the `resolver.statisticsZone`");

/// Seconds: from a millisecond to a minute.
const DURATIONS: &[f64] = &[0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096, 16.384, 65.536];
/// Seconds: a change of one object, and thousands at the start.
const RENDERS_TAKE: &[f64] = &[0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels that a ServiceMonitor or a PodMonitor gives to whatever is scraped.
    const TAKEN: [&str; 9] =
        ["namespace", "pod", "service", "container", "endpoint", "node", "instance", "job", "prometheus"];

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for Family { name, kind, labels, help } in ALL {
            let is_counter = *kind == Kind::Counter;
            assert_eq!(is_counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("mailgress_") || name.starts_with("process_"), "{name}");
            assert!(!help.is_empty() && help.chars().next().unwrap().is_uppercase(), "{name}: {help}");
            for Label { name: label, values } in *labels {
                assert!(!TAKEN.contains(label) && !values.is_empty(), "{name}: {label}");
            }
            if let Kind::Histogram(bounds) = kind {
                assert!(name.ends_with("_seconds") && bounds.is_sorted(), "{name}");
            }
        }
    }

    #[test]
    fn every_metric_can_be_registered_and_none_is_there_twice() {
        let registry = Registry::new();
        for family in ALL {
            match family.kind {
                Kind::Counter => drop(family.counters(&registry).unwrap()),
                Kind::Gauge => drop(family.gauges(&registry).unwrap()),
                Kind::Histogram(_) => drop(family.histograms(&registry).unwrap()),
            }
        }
    }
}
