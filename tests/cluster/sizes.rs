//! Objects of maximum size, and an object that is deleted while it is used.

use crate::cluster::{Cluster, at, backend, ready};
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wait;

#[test]
fn sixty_four_listeners_are_served_and_go_with_their_object_while_sessions_stay() {
    let Some(cluster) = Cluster::new("many") else { return };
    let backend = backend("backend");
    cluster.backends(&[(&backend, ready())]);
    let names: Vec<String> = (0..64).map(|number| format!("imap-{number}")).collect();
    let listeners: Vec<_> = names.iter().map(|name| (name.as_str(), at())).collect();
    let ports: Vec<(&str, u16)> = listeners.iter().map(|(name, at)| (*name, at.port())).collect();
    let _mailgress = {
        cluster.apply(&cluster.edge(&ports));
        cluster.mailgress()
    };
    cluster.wait_for("Ready", "mailserver/edge");
    assert_eq!(cluster.get("mailserver/edge")["status"]["listeners"].as_array().unwrap().len(), 64);
    let mut sessions: Vec<_> = listeners
        .iter()
        .map(|(_, at)| {
            let mut session = greeted(*at).unwrap();
            log_in(&mut session, "IMAP", "user", "secret").unwrap();
            session
        })
        .collect();
    cluster.kubectl(&["delete", "mailserver", "edge"]);
    for (name, at) in &listeners {
        wait::eventually(&format!("{name} is gone"), || greeted(*at).is_err().then_some(()));
    }
    for session in &mut sessions {
        assert!(backend_answers(session, "IMAP").unwrap());
    }
    // The object is created again.
    cluster.apply(&cluster.edge(&ports[..1]));
    cluster.wait_for("Ready", "mailserver/edge");
    assert!(greeted(listeners[0].1).is_ok());
    assert_eq!(cluster.get("mailserver/edge")["status"]["listeners"].as_array().unwrap().len(), 1);
}
