//! The table of all metrics, with types, labels and help texts.
//!
//! All counters are created from entries of this table, so that no metric is missing in it. The reference page is
//! generated from it, and tests compare `/metrics` with it.
//!
//! No label has a name that the Prometheus operator adds to targets (`namespace`, `pod`, `service`, `container`,
//! `endpoint`, `node`), because Prometheus would rename it.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// A metric with its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// The full name, such as `mailgress_sessions_open`.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The labels, in the order in which values are passed.
    pub labels: &'static [Label],
    /// One sentence.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only increases.
    Counter,
    /// It increases and decreases.
    Gauge,
    /// Durations in seconds. Has the upper bounds of the buckets.
    Histogram(&'static [f64]),
}

/// A label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The name, such as `listener`.
    pub name: &'static str,
    /// Describes the values. Their number is bounded, or they are names from objects.
    pub values: &'static str,
}

impl Family {
    /// Creates and registers the metric as counters.
    ///
    /// # Errors
    /// The registry already has a metric with this name.
    pub fn counters(&self, registry: &Registry) -> prometheus::Result<IntCounterVec> {
        let counters = self.unregistered_counters()?;
        registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    /// Creates the metric as counters without registering it, for code that runs before there is a registry.
    ///
    /// # Errors
    /// The name or labels are invalid.
    pub fn unregistered_counters(&self) -> prometheus::Result<IntCounterVec> {
        IntCounterVec::new(self.opts(), &self.label_names())
    }

    /// Creates and registers the metric as gauges.
    ///
    /// # Errors
    /// The registry already has a metric with this name.
    pub fn gauges(&self, registry: &Registry) -> prometheus::Result<IntGaugeVec> {
        let gauges = self.unregistered_gauges()?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    /// Creates the metric as gauges without registering it, for a collector that sets the values on request.
    ///
    /// # Errors
    /// The name or labels are invalid.
    pub fn unregistered_gauges(&self) -> prometheus::Result<IntGaugeVec> {
        IntGaugeVec::new(self.opts(), &self.label_names())
    }

    /// Creates and registers the metric as histograms.
    ///
    /// # Errors
    /// The registry already has a metric with this name.
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

/// The label values of a metric without labels.
pub const PLAIN: [&str; 0] = [];

macro_rules! families {
    ($($id:ident: $kind:expr, $name:literal, [$($label:expr),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Family = Family { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )*
        /// All metrics, in the order of the table.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    ACCEPT_PAUSES: Kind::Counter, "mailgress_accept_pauses_total", [],
        "Times that accepting paused because file descriptors or memory ran out";
    API_ANSWERED: Kind::Gauge, "mailgress_api_answered_timestamp_seconds", [VERB, RESOURCE],
        "Unix time of the last answer of the API server to a request with this verb and resource; watches are renewed every five minutes";
    API_REQUESTS: Kind::Counter, "mailgress_api_requests_total", [VERB, RESOURCE],
        "Requests to the API server";
    AUTH_SERVICE_DURATION: Kind::Histogram(DURATIONS), "mailgress_auth_service_duration_seconds", [LISTENER, PROTOCOL],
        "Duration of a request to the auth service";
    AUTH_SERVICE_REQUESTS: Kind::Counter, "mailgress_auth_service_requests_total", [LISTENER, PROTOCOL, ANSWER],
        "Requests to the auth service, by outcome";
    BACKEND_CHECKS: Kind::Counter, "mailgress_backend_checks_total", [BACKEND, PROTOCOL, CHECK],
        "Health checks of backend endpoints, by outcome";
    BACKEND_CONNECT_DURATION: Kind::Histogram(DURATIONS), "mailgress_backend_connect_duration_seconds",
        [LISTENER, PROTOCOL],
        "Time from the first connection attempt to an established backend connection";
    BACKEND_CONNECTIONS: Kind::Counter, "mailgress_backend_connections_total", [CONNECTED, PROTOCOL, CONNECTION],
        "Connections of sessions to backend endpoints and failed attempts, by outcome";
    BACKEND_UP: Kind::Gauge, "mailgress_backend_up", [BACKEND, PROTOCOL],
        "Whether a backend's endpoint answers its health checks";
    BUILD_INFO: Kind::Gauge, "mailgress_build_info", [VERSION, COMMIT],
        "Version and commit; always 1";
    CERTIFICATE_NOT_AFTER: Kind::Gauge, "mailgress_certificate_not_after_timestamp_seconds",
        [KIND, OBJECT, SECRET],
        "Unix time at which the first certificate of a served chain expires";
    CERTIFICATE_WARNING: Kind::Gauge, "mailgress_certificate_warning_timestamp_seconds",
        [KIND, OBJECT, SECRET],
        "Unix time from which a served certificate has the condition CertificateExpiring: 30 days before its end, or when a quarter of its life is left if that is later";
    DRAINING: Kind::Gauge, "mailgress_draining", [],
        "Whether the process is shutting down and waits for its sessions";
    LEADER: Kind::Gauge, "mailgress_leader", [],
        "Whether this replica is the leader; absent without a cluster";
    LISTENER_BOUND: Kind::Gauge, "mailgress_listener_bound", [LISTENER],
        "Whether the socket of a listener is bound in this replica";
    LISTENER_CHANGES: Kind::Counter, "mailgress_listener_changes_total", [ACTION],
        "Changes of listening sockets";
    LISTENER_READY: Kind::Gauge, "mailgress_listener_ready", [LISTENER, REASON],
        "Whether a listener serves its object's generation in this replica; at the leader, in all replicas";
    LISTENER_SESSION_LIMIT: Kind::Gauge, "mailgress_listener_session_limit", [LISTENER],
        "The limits.maxConnections of a listener that has one";
    LOG_LINES_DROPPED: Kind::Counter, "mailgress_log_lines_dropped_total", [],
        "Log lines that were dropped because standard output was not read or could not be written";
    LOGIN_DURATION: Kind::Histogram(DURATIONS), "mailgress_login_duration_seconds", [LISTENER, PROTOCOL],
        "Time from the credentials to the decision on the login";
    LOGINS: Kind::Counter, "mailgress_logins_total", [LISTENER, PROTOCOL, LOGIN],
        "Logins and mail sessions without a login, by outcome";
    OBJECT_ALARM: Kind::Gauge, "mailgress_object_alarm", [KIND, OBJECT, CONDITION, REASON],
        "A condition of an object, except Ready and Programmed, that needs attention; always 1";
    OBJECT_READY: Kind::Gauge, "mailgress_object_ready", [KIND, OBJECT, REASON],
        "Whether an object is Ready in this replica; at the leader, in all replicas";
    OBJECTS: Kind::Gauge, "mailgress_objects", [KIND, READY],
        "Objects of our class, by their condition Ready";
    PROBLEMS: Kind::Gauge, "mailgress_problems", [],
        "Number of problems with reading objects or writing status; /status lists them";
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
        "Whether the process is ready (/readyz)";
    RECIPIENTS_REFUSED: Kind::Counter, "mailgress_recipients_refused_total", [LISTENER, RECIPIENT],
        "Recipients of mail without a login that were refused because of a route, after the first one of a transaction";
    RELAYED_BYTES: Kind::Counter, "mailgress_relayed_bytes_total", [LISTENER, DIRECTION],
        "Bytes relayed after the login";
    RENDER_DURATION: Kind::Histogram(RENDERS_TAKE), "mailgress_render_seconds", [],
        "Duration of a rendering";
    RENDERS: Kind::Counter, "mailgress_renders_total", [],
        "Renderings of changed objects";
    REPLICA_OBJECTS_BEHIND: Kind::Gauge, "mailgress_replica_objects_behind", [REPLICA],
        "Objects of which a replica does not serve the generation that the leader serves (leader only)";
    REPLICA_UP: Kind::Gauge, "mailgress_replica_up", [REPLICA],
        "Whether a replica answers the leader (leader only)";
    RESOLVER_QUERIES: Kind::Counter, "mailgress_resolver_queries_total", [ZONE, QUERY],
        "Lookups, including those that a cache answers";
    RESOLVER_REQUESTS: Kind::Counter, "mailgress_resolver_requests_total", [ZONE, RECORD],
        "Requests sent to name servers";
    RESOLVER_RESPONSES: Kind::Counter, "mailgress_resolver_responses_total", [ZONE, RESPONSE],
        "Responses of name servers, and lookups without a response in time";
    RESOLVER_SILENT: Kind::Gauge, "mailgress_resolver_silent", [NAMESERVERS],
        "Resolvers whose name servers do not answer; no series if all answer";
    ROUTE_LOGINS: Kind::Counter, "mailgress_route_logins_total", [ROUTE, PROTOCOL, LOGIN],
        "Logins of a MailRoute's users and mail to them, by outcome; without logins whose backend an auth service has named";
    ROUTE_SESSIONS_OPEN: Kind::Gauge, "mailgress_route_sessions_open", [ROUTE, PROTOCOL],
        "Open sessions after the login, by the MailRoute that selected their backend";
    SESSION_CAPACITY: Kind::Gauge, "mailgress_session_capacity", [],
        "Open sessions that the process has file descriptors for";
    SESSIONS: Kind::Counter, "mailgress_sessions_total", [LISTENER, PROTOCOL, TLS, OUTCOME, FAULT],
        "Ended client sessions, by outcome and fault";
    SESSIONS_OPEN: Kind::Gauge, "mailgress_sessions_open", [LISTENER, PROTOCOL, TLS],
        "Open client sessions";
    WATCH_FAILURES: Kind::Counter, "mailgress_watch_failures_total", [WATCHED, FAILURE],
        "Failures of watches; Mailgress starts each watch again";
    WATCHES: Kind::Gauge, "mailgress_watches", [WATCHED],
        "Running watches";
}

const fn label(name: &'static str, values: &'static str) -> Label {
    Label { name, values }
}

const ACTION: Label =
    label("action", "`bind`, `swap`, `rebind`, `drain`; `failed` for a socket that could not be bound");
const ANSWER: Label = label(
    "outcome",
    "`accepted`; `refused`; `unavailable` if the service refuses because it cannot decide now; `failed` without a usable \
     answer; `abandoned`: the client disconnected first",
);
const BACKEND: Label = label("backend", "the endpoint: `10.0.0.7:143`, `host:port`, `unix:/path`");
const CHECK: Label = label("outcome", "`passed`, `failed`");
const COMMIT: Label = label("commit", "the commit of the build, or `unknown`");
const CONDITION: Label =
    label("condition", "the condition's type: `Accepted`, `CertificateExpiring`, `Degraded`, …");
const CONNECTED: Label = label(
    "backend",
    "the endpoint: `10.0.0.7:143`, `host:port`, `unix:/path`; `other` for all that an auth service has named, and for those beyond the \
     first 4,096",
);
const CONNECTION: Label = label(
    "outcome",
    "`answered`: the backend decided about the login; `unreachable`: no connection, or no TLS; `failed`: a connection without a usable \
     answer to the login",
);
const DIRECTION: Label = label("direction", "`to_backend`, `to_client`");
const FAILURE: Label =
    label("reason", "`forbidden`, `refused`, `unreachable`; `expired` if the watch only has to list again");
const FAULT: Label =
    label("fault", "who has to act: `none`, `client`, `backend`, `auth_service`, `configuration`, `us`");
const KIND: Label = label("kind", "`MailServer`, `MailListener`, `MailRoute`");
const LISTENER: Label = label("listener", "`mail/example/imaps`, or `mail/example` for a MailListener");
const LOGIN: Label = label(
    "outcome",
    "`accepted`; `refused` to the client; `unavailable` if the backend or the auth service is at fault: a temporary \
     failure, or a backend that requires TLS; `failed` without a decision, and the session's `fault` has the cause; `abandoned`: the client disconnected first",
);
const OBJECT: Label = label("object", "`mail/example`: the namespace and the name");
const OUTCOME: Label = label(
    "outcome",
    "`done`, `quit`, `client_gone`, `limited`, `login_refused`, `protocol_error`, `client_timeout`, `idle_timeout`, \
     `proxy_header`, `tls_handshake`, `client_certificate`, `early_talker`, `auth_service_error`, \
     `auth_service_unavailable`, `no_backend`, `route_undecided`, `route_held`, `user_held`, `backend_not_allowed`, `backend_connect`, \
     `no_descriptors`, `backend_error`, `backend_unavailable`, `backend_timeout`, `backend_refused`, `relay_error`, \
     `internal_error`, `drained`, `kicked`, `held`, `moved`",
);
const PROTOCOL: Label = label("protocol", "`smtp`, `imap`, `pop3`, `sieve`");
const QUERY: Label = label("kind", "`name`, `srv`, `addr`");
const READY: Label = label("ready", "`True`, `False`, `Unknown`");
const RECIPIENT: Label = label(
    "reason",
    "`other_destination` for the backend of another route; `undecided` for a list of users that was never read; `held` for a held \
     route; `unknown` for no backend; `too_many` for more than 100 recipients",
);
const REASON: Label = label("reason", "the condition's reason, in CamelCase");
const RECORD: Label = label("type", "`a`, `aaaa`, `srv`, `ptr`");
const REPLICA: Label = label("replica", "the name of the replica's pod");
const RESOURCE: Label = label("resource", "`mailservers`, `secrets`, `leases`, …, or `other`");
const RESPONSE: Label = label(
    "outcome",
    "`success`, `timedout`, `format_error`, `server_failure`, `not_found`, `unimplemented`, `refused`, `other`",
);
const ROUTE: Label = label(
    "route",
    "`tenant-a/example`: the namespace and the name; `other` for those beyond the first 4,096",
);
const SECRET: Label = label("secret", "`mail/mail-tls`: the namespace and the name of the Secret");
const TLS: Label = label("tls", "`off`, `starttls`, `implicit`");
const VERB: Label = label("verb", "`get`, `list`, `watch`, `create`, `patch`, `replace`, …, or `other`");
const VERSION: Label = label("version", "the version of Mailgress");
const WATCHED: Label = label("kind", "`MailServer`, `Secret`, `EndpointSlice`, …");
const NAMESERVERS: Label = label("nameservers", "the `resolver.nameservers`, or `resolv.conf`");
const ZONE: Label = label("zone", "the `resolver.statisticsZone`");

/// Bucket bounds in seconds, from a millisecond to a minute.
const DURATIONS: &[f64] = &[0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096, 16.384, 65.536];
/// Bucket bounds in seconds, for a change of one object up to the start with thousands.
const RENDERS_TAKE: &[f64] = &[0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels that a ServiceMonitor or a PodMonitor adds to targets.
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
