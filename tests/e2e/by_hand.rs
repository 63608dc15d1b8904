//! A node for manual experiments, with what the pages name: `cargo test --test e2e by_hand -- --ignored --nocapture`.

use std::io::Read;

use crate::book::{SERVICES, desk, load_images};
use crate::cluster::Cluster;
use crate::steps::say;

#[test]
#[ignore = "waits for a person"]
fn a_node_by_hand() {
    let cluster = Cluster::of_our_own().unwrap_or_else(|reason| panic!("{reason}"));
    load_images(&cluster);
    let (_, programs) = desk(&cluster);
    let _ = say(&format!(
        "export KUBECONFIG={} PATH={}:$PATH\nA shell on the node: {} bash\nThe end of the input (Ctrl-D) ends it.",
        cluster.kubeconfig().display(),
        programs.display(),
        cluster.enter().join(" "),
    ));
    cluster.balancing(&SERVICES, || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
}
