//! Tests of when a status is published.

use prometheus::Registry;

use super::leading::TAKE_OVER_TIMEOUT;
use super::*;
use crate::controller::folder::scan::{Scan, Seen};
use crate::controller::folder::store::Store;
use crate::controller::peers::Peers;
use crate::controller::render::tests::server;
use crate::controller::validate::tests::validator;
use crate::model::served::Replica;

fn index(yaml: &str) -> Index {
    let mut store = Store::default();
    let files = [("a.yaml".into(), Seen::Read(Ok(yaml.to_owned()).into()))];
    store.apply(Scan { files: files.into(), ..Scan::default() }, validator());
    let mut index = Index::default();
    index.replace(&store.load().objects);
    index
}

fn publisher(status_store: &StatusStore) -> Publisher {
    let (snapshots, _to_plane) = watch::channel(Arc::default());
    let (_from_plane, reports) = watch::channel(Arc::default());
    let ledger = Ledger::new(Replica { name: "a".into(), instance: "1".into(), node_address: None });
    let channels = Channels { snapshots, reports, ledger, status_store: status_store.clone() };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let publisher = Publisher::new("mailgress", "host.example", channels, metrics);
    let mut publisher = publisher.with_pending_timeout(Duration::from_secs(1));
    let listener = "{name: a, port: 143, backendAddress: 'b:1', tls: {mode: Disabled}}";
    publisher.render(&mut index(&server(listener, "")));
    publisher
}

#[tokio::test(start_paused = true)]
async fn ports_from_before_a_restart_are_kept_while_listeners_are_being_bound() {
    let mut publisher = publisher(&StatusStore::default());
    assert!(publisher.update_status(&[]).is_empty(), "it is under way");
    let shown = BTreeSet::from([143, 25]);
    assert_eq!(publisher.take_ports(&shown), Some(BTreeSet::from([143])));
    assert_eq!(publisher.take_ports(&shown), None, "nothing has changed");
    publisher.mark_ports_stale();
    assert_eq!(publisher.take_ports(&BTreeSet::new()), Some(BTreeSet::new()), "it is not served yet");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_keeps_the_times_of_the_last_one_and_shows_only_what_it_has_computed() {
    let store = StatusStore::default();
    let mut publisher = publisher(&store);
    tokio::time::advance(Duration::from_secs(2)).await;
    let updated = publisher.update_status(&[]);
    let id = updated.first().unwrap();
    let mut previous = publisher.status_of(id).unwrap();
    for condition in previous["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = EARLIER.into();
    }
    let shown = store.document();
    publisher.lead(Peers::alone("1"), |_| Some(previous.clone()));
    assert!(publisher.leads());
    assert_eq!(store.document(), shown, "the last leader's status");
    tokio::time::advance(TAKE_OVER_TIMEOUT).await;
    publisher.update_status(&[]);
    let accepted = &publisher.status_of(id).unwrap()["conditions"][0];
    assert_eq!(accepted["lastTransitionTime"], EARLIER);
    assert_eq!(store.document()["objects"][0]["status"], publisher.status_of(id).unwrap());
    publisher.follow();
    assert!(!publisher.leads() && publisher.peers().is_some(), "until its start is complete");
}

const EARLIER: &str = "2020-01-01T00:00:00Z";
