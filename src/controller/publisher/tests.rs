//! Tests of when a status is published.

use prometheus::Registry;

use super::*;
use crate::controller::folder::scan::{Scan, Seen};
use crate::controller::folder::store::Store;
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

#[tokio::test(start_paused = true)]
async fn ports_from_before_a_restart_are_kept_while_listeners_are_being_bound() {
    let (snapshots, _to_plane) = watch::channel(Arc::default());
    let (_from_plane, reports) = watch::channel(Arc::default());
    let ledger = Ledger::new(Replica { name: "a".into(), instance: "1".into(), node_address: None });
    let channels = Channels { snapshots, reports, ledger, status_store: StatusStore::default() };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let mut publisher = Publisher::new("mailgress", "host.example", channels, metrics)
        .with_pending_timeout(Duration::from_secs(1));
    let listener = "{name: a, port: 143, backendAddress: 'b:1', tls: {mode: Disabled}}";
    publisher.render(&mut index(&server(listener, "")));
    assert!(publisher.update_status(&[]).is_empty(), "it is under way");
    let shown = BTreeSet::from([143, 25]);
    assert_eq!(publisher.take_ports(&shown), Some(BTreeSet::from([143])));
    assert_eq!(publisher.take_ports(&shown), None, "nothing has changed");
    publisher.mark_ports_stale();
    assert_eq!(publisher.take_ports(&BTreeSet::new()), Some(BTreeSet::new()), "it is not served yet");
}
