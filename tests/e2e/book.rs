//! Follows the pages of the documentation about a cluster with nodes, in an order in which a reader may read them: each
//! starts with the result of the previous one. `tests/docs/commands.rs` describes the words of blocks.

use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use crate::cluster::Cluster;
use crate::images;
use crate::pages::{self, Block, Page};
use crate::play::play;
use crate::shell::{Shell, furnish};
use crate::steps::{say, step};

#[test]
fn what_the_pages_say_of_a_cluster_with_nodes_is_so() {
    let pages = pages::all();
    let pages: Vec<&Page> = ORDER.iter().map(|name| page_of(&pages, name)).collect();
    // The pages use fixed names, so this must not run in a cluster that others may use.
    let cluster = match step("there is a node of our own", Cluster::of_our_own) {
        Ok(cluster) => cluster,
        Err(reason) => {
            let _ = say(&format!("SKIPPED: the pages' commands that need a node: {reason}"));
            return;
        }
    };
    step("the images that the pages name are loaded", || load_images(&cluster));
    let done = catch_unwind(AssertUnwindSafe(|| cluster.balancing(&SERVICES, || read(&cluster, &pages))));
    if done.is_err() {
        cluster.tell(&["mailgress", "mail"]);
    }
    done.unwrap_or_else(|panic| resume_unwind(panic));
}

#[test]
fn every_page_with_commands_for_nodes_is_read() {
    for page in pages::all() {
        let has = page.steps().iter().any(|block| block.has("nodes"));
        assert_eq!(has, ORDER.contains(&page.name.as_str()), "{}", page.name);
    }
}

fn page_of<'a>(pages: &'a [Page], name: &str) -> &'a Page {
    pages.iter().find(|page| page.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// Loads the images that pages name.
pub fn load_images(cluster: &Cluster) {
    cluster.load(&images::greenmail(), images::GREENMAIL);
    for tag in ["dev", env!("CARGO_PKG_VERSION")] {
        let name = format!("docker.io/mailgress/mailgress:{tag}");
        cluster.load(&images::mailgress(&name, cluster.files.path()), &name);
    }
}

fn read(cluster: &Cluster, pages: &[&Page]) {
    let (folder, programs) = desk(cluster);
    let mut shell = Shell::start(&cluster.enter(), &folder, &programs, Some(&cluster.kubeconfig()));
    for page in pages {
        step(&page.name, || {
            let is_ours = |block: &&Block| block.has("nodes") || block.word("file").is_some();
            page.steps().iter().filter(is_ours).for_each(|block| play(&mut shell, block));
        });
    }
}

/// Creates a folder with the content of a clone, and one with the programs that pages name.
pub fn desk(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let (folder, programs) = (cluster.folder("clone"), cluster.folder("programs"));
    furnish(&folder, &programs, Some(cluster.kubectl_command()));
    symlink(cluster.helm_program(), programs.join("helm")).unwrap();
    (folder, programs)
}

const ORDER: [&str; 10] = [
    "docs/howto/install.md",
    "docs/tutorial/kind.md",
    "docs/status-page.md",
    "docs/howto/client-addresses.md",
    "docs/kubernetes.md",
    "docs/howto/sessions.md",
    "docs/howto/upgrade.md",
    "README.md",
    "docs/howto/troubleshooting.md",
    "docs/howto/mutual-tls.md",
];
/// The Services of the releases that pages install, all in one namespace.
pub const SERVICES: [(&str, &str); 2] = [("mailgress", "mailgress"), ("mailgress", "other-mailgress")];
