//! The answers of other replicas to `/served`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mailgress::controller::peers::{Peers, SILENT_AFTER, ServedByOthers, Wanted};
use mailgress::model::served::{ObjectName, Page};
use tokio::time::Instant;

use super::choices::{Choices, SEPARATOR};

/// Invariants:
/// * no answer makes the leader panic;
/// * an answer of a replica that is not in the list, or of this process itself, has no effect on the objects;
/// * objects that are kept are those that were sent;
/// * a condition gets a reason that the API server accepts.
pub(super) fn target(data: &[u8]) {
    let now = Instant::now();
    let mut peers = Peers::awaited(OWN);
    let ready = (1..=2).map(|last| (address(last), format!("replica-{last}"))).collect::<BTreeMap<_, _>>();
    let _ = peers.set(&ready, now);
    let (mut objects, mut is_first) = (0, true);
    for (index, part) in Choices::new(data).rest().split(|byte| *byte == SEPARATOR).enumerate() {
        let mut choices = Choices::new(part);
        let from = address(choices.byte() % 3 + 1);
        let Ok(page) = serde_json::from_slice::<Page>(choices.rest()) else { continue };
        let text = serde_json::to_string(&page).expect("a page that JSON can represent");
        assert_eq!(serde_json::from_str::<Page>(&text).ok().as_ref(), Some(&page));
        let before = format!("{:?}", peers.objects_of_others().collect::<Vec<_>>());
        let (is_ours, count) = (page.replica.instance == OWN, page.objects.len());
        let _ = peers.answered(from, page, now + Duration::from_secs(u64::try_from(index).unwrap_or(0)));
        if !ready.contains_key(&from) {
            assert_eq!(before, format!("{:?}", peers.objects_of_others().collect::<Vec<_>>()));
        }
        objects += if is_ours { 0 } else { count };
        ask(&peers);
        if std::mem::take(&mut is_first) {
            peers.failed(from, "it does not answer".to_owned());
        }
    }
    assert!(peers.objects_of_others().count() <= objects, "objects that nobody has sent");
    let _ = peers.apply_timeouts(now + SILENT_AFTER);
    ask(&peers);
    assert!(peers.node_addresses().count() <= 2 && peers.problems().count() <= 2);
}

/// Asks everything that the leader asks.
fn ask(peers: &Peers) {
    let known: Vec<(ObjectName, String, i64, Vec<String>)> = peers
        .objects_of_others()
        .map(|(_, object, served)| {
            let listeners = served.problems.iter().map(|problem| problem.listener.clone());
            (object.clone(), served.uid.clone(), served.generation, listeners.collect())
        })
        .collect();
    for (object, uid, generation, listeners) in &known {
        let wanted = Wanted { object, uid, generation: *generation };
        for listener in listeners.iter().map(String::as_str).chain(["", "imaps"]) {
            if let ServedByOthers::Failed { reason, .. } = peers.serve(&wanted, listener) {
                assert!(is_reason(&reason), "the API server refuses the reason {reason:?}");
            }
            let _ = peers.server_of(object, uid, listener);
        }
        let _ = (peers.is_pending(&wanted), peers.sessions(&wanted));
    }
    let ours: Vec<(ObjectName, &str, i64)> = known
        .iter()
        .map(|(object, uid, generation, _)| (object.clone(), uid.as_str(), *generation))
        .collect();
    assert_eq!(peers.replica_states(&ours).len(), 2);
    let _ = (peers.others(), peers.all_answer(), peers.may_serve_port(993), peers.first_unanswered());
}

/// The pattern and the length of a condition's reason in Kubernetes.
fn is_reason(reason: &str) -> bool {
    let bytes = reason.as_bytes();
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    bytes.len() <= 1024
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|last| last.is_ascii_alphanumeric() || *last == b'_')
        && bytes.iter().all(is_inner)
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 9090))
}

/// The instance of this process.
const OWN: &str = "own";
