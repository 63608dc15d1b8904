//! Tests of the number of connections, which all services and workers of a process share.

use std::sync::Arc;

use crate::auth::AuthClient;
use crate::model::{HttpAuth, RequestPath};

use super::kept::Counting;
use super::{accepted, check, client_with, rest, service};
use crate::auth::http::quota::Quota;

const ACCEPTANCE: &str = "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n";

/// Uses one service after the other, with `logins` logins at once each.
async fn log_in(quota: &Quota, services: &[Arc<HttpAuth>], logins: usize) -> Vec<Arc<AuthClient>> {
    let mut clients = Vec::new();
    for service in services {
        // Each worker has its own client.
        let client = Arc::new(client_with(quota));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..logins {
            let (client, service) = (Arc::clone(&client), Arc::clone(service));
            all.spawn(async move { assert_eq!(check(&client, &service).await.unwrap(), accepted()) });
        }
        all.join_all().await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn kept_connections_of_all_services_and_workers_are_bounded_together() {
    let counting = Counting::answering(&[ACCEPTANCE]);
    let services: Vec<_> = (0..6)
        .map(|number| HttpAuth {
            path: RequestPath::new(format!("/{number}")),
            ..service(&[&counting.address])
        })
        .map(Arc::new)
        .collect();
    let quota = Quota::new(20);
    let _all = log_in(&quota, &services, 20).await;
    counting.has_open(20).await;
    quota.set(5);
    let _one = log_in(&quota, &services[..1], 5).await;
    counting.has_open(5).await;
    quota.close_kept();
    counting.has_open(0).await;
}

#[tokio::test]
async fn a_kept_connection_makes_room_for_a_new_one_of_another_service() {
    let (one, other) = (Counting::answering(&[ACCEPTANCE]), Counting::answering(&[ACCEPTANCE]));
    let quota = Quota::new(1);
    let client = client_with(&quota);
    for counting in [&one, &other] {
        assert_eq!(check(&client, &Arc::new(service(&[&counting.address]))).await.unwrap(), accepted());
        counting.has_open(1).await;
        rest().await;
    }
    one.has_open(0).await;
}
