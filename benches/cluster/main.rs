//! `make scale`, third part: two processes of the real binary with a real kube-apiserver and etcd and thousands of
//! objects.
//!
//! It measures from the outside what an operator waits for: clients' handshakes, and the status in the API server.
//! Requests are those that both replicas count. If there is no control plane and none can be built, it prints this and
//! ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark panics where it cannot go on"
)]
#![allow(unreachable_pub, reason = "`pub` is what the fixtures of the tests offer")]

#[allow(dead_code, reason = "shared with tests/cluster, which needs all of it")]
#[path = "../../tests/cluster/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with tests/cluster, which needs all of it")]
#[path = "../../tests/cluster/control_plane.rs"]
mod control_plane;
#[allow(dead_code, reason = "shared with tests/cluster, which needs all of it")]
#[path = "../../tests/cluster/forwarder.rs"]
mod forwarder;
#[path = "../../tests/cluster/given.rs"]
mod given;
#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
#[path = "../../tests/cluster/support.rs"]
mod support;

mod changes;
mod replica;
mod seen;
mod start;
mod table;
mod world;

use cluster::Cluster;
use table::Table;
use world::World;

fn main() {
    // The client of the API uses the process's crypto provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sizes: &[usize] = match std::env::var("MAILGRESS_BENCH").as_deref() {
        Ok("quick") => &[50, 500],
        _ => &[500, 5000],
    };
    let Some(cluster) = Cluster::alone("scale") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut table = Table::new(sizes);
    for servers in sizes {
        runtime.block_on(measure(&cluster, *servers, &mut table));
    }
    table.print();
}

async fn measure(cluster: &Cluster, servers: usize, table: &mut Table) {
    cluster::tell(&format!("{servers} MailServers: creating them"));
    let world = World::create(cluster, servers).await;
    let seen = seen::Seen::follow(world.client());
    cluster::tell(&format!("{servers} MailServers: the first start"));
    let replicas = start::first(&world, &seen, table).await;
    cluster::tell(&format!("{servers} MailServers: changes"));
    changes::specs(&world, &seen, &replicas, table).await;
    changes::secrets(&world, &replicas, table).await;
    changes::endpoints(&world, &replicas, table).await;
    replicas.end();
    cluster::tell(&format!("{servers} MailServers: the second start"));
    start::second(&world, table).await.end();
    world.delete().await;
}
