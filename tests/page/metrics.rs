//! Every metric is in the table with its labels and help, and every metric of the table exists.

use std::collections::{BTreeMap, BTreeSet};

use mailgress::model::metric::{ALL, Family, Kind};

use crate::edge::Edge;
use crate::support::wait;

/// Metrics that need a cluster or name servers.
const ELSEWHERE: [&str; 12] = [
    "mailgress_api_answered_timestamp_seconds",
    "mailgress_api_requests_total",
    "mailgress_leader",
    "mailgress_replica_objects_behind",
    "mailgress_replica_up",
    "mailgress_recipients_refused_total",
    "mailgress_resolver_queries_total",
    "mailgress_resolver_requests_total",
    "mailgress_resolver_responses_total",
    "mailgress_resolver_silent",
    "mailgress_watch_failures_total",
    "mailgress_watches",
];

#[test]
fn all_metrics_are_those_of_the_table() {
    let edge = Edge::start();
    let text = wait::eventually("sessions, checks and failures are counted", || {
        let text = edge.mailgress.metrics();
        let needed = [
            "fault=\"auth_service\"",
            "outcome=\"failed\",protocol=\"imap\"",
            "backend_connect_duration",
            "checks_total{",
        ];
        needed.iter().all(|part| text.contains(part)).then_some(text)
    });
    let told = Told::read(&text);
    for (name, labels) in &told.labels {
        let family = ALL.iter().find(|family| family.name == name);
        let Family { labels: expected, .. } = family.unwrap_or_else(|| panic!("{name} is not in the table"));
        let expected: BTreeSet<&str> = expected.iter().map(|label| label.name).collect();
        assert_eq!(labels.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{name}");
    }
    for Family { name, kind, help, .. } in ALL {
        let Some((kind_told, help_told)) = told.heads.get(*name) else {
            assert!(ELSEWHERE.contains(name), "{name} is not told:\n{text}");
            continue;
        };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!((kind_told.as_str(), help_told.as_str()), (word, *help), "{name}");
    }
}

#[test]
fn gauges_say_what_alerts_ask_for() {
    let edge = Edge::start();
    for line in [
        "mailgress_listener_ready{listener=\"mail/edge/imap\",reason=\"Bound\"} 1",
        "mailgress_listener_bound{listener=\"mail/edge/imap\"} 1",
        "mailgress_listener_ready{listener=\"mail/office/taken\",reason=\"BindFailed\"} 0",
        "mailgress_listener_bound{listener=\"mail/office/taken\"} 0",
        "mailgress_object_ready{kind=\"MailServer\",object=\"mail/edge\",reason=\"Ready\"} 1",
        "mailgress_object_alarm{condition=\"CertificateExpired\",kind=\"MailServer\",object=\"mail/office\",reason=",
        "mailgress_objects{kind=\"MailServer\",ready=\"True\"} 2",
        "mailgress_objects{kind=\"MailServer\",ready=\"False\"} 1",
        "mailgress_certificate_not_after_timestamp_seconds{kind=\"MailServer\",object=\"mail/office\",secret=\"mail/old-tls\"} ",
        "mailgress_listener_session_limit{listener=\"mail/edge/imap\"} 500",
        "mailgress_sessions_open{listener=\"mail/edge/imap\",protocol=\"imap\",tls=\"off\"} 3",
        "mailgress_logins_total{listener=\"mail/edge/imap\",outcome=\"accepted\",protocol=\"imap\"} 3",
        "mailgress_logins_total{listener=\"mail/edge/imap\",outcome=\"refused\",protocol=\"imap\"} 1",
        "mailgress_auth_service_requests_total{listener=\"mail/office/asked\",outcome=\"failed\",protocol=\"imap\"} 1",
        "mailgress_build_info{commit=",
        "mailgress_ready 1",
        "mailgress_draining 0",
        "process_start_time_seconds ",
    ] {
        wait::eventually(line, || {
            edge.mailgress.metrics().lines().any(|told| told.starts_with(line)).then_some(())
        });
    }
}

/// The content of a scrape for each metric.
#[derive(Default)]
struct Told {
    /// Type and help.
    heads: BTreeMap<String, (String, String)>,
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Told {
    fn read(text: &str) -> Self {
        let mut told = Self::default();
        let mut name = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", of, help] => {
                    name = (*of).to_owned();
                    told.heads.entry(name.clone()).or_default().1 = (*help).to_owned();
                }
                ["#", "TYPE", of, kind] => {
                    told.heads.entry((*of).to_owned()).or_default().0 = (*kind).to_owned()
                }
                _ => {
                    let labels = told.labels.entry(name.clone()).or_default();
                    labels.extend(labels_of(line).into_iter().filter(|label| label != "le"));
                }
            }
        }
        told
    }
}

/// Returns the names of a sample's labels. No value contains a quote or a comma.
fn labels_of(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    let Some((inside, _)) = rest.rsplit_once('}') else { return Vec::new() };
    inside.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect()
}
